"""The real scripts by the world's clock: where they ask Redis for the time, they are told it, as one more key.

Entries get their ids from it, too, which Redis would else make of its own clock. When a record shall expire is noted
under EXPIRY, for the double to carry out; by the server's clock it stays for a day longer.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from headrace.broker.scripts import Script, all_scripts

_TIME: Final = "call('TIME')"
EXPIRY: Final = "expiry"
"""Sorted set: key → ms at which it expires by the world's clock."""
_EXPIRING: Final = re.compile(r"call\('SET', ([^,]+), ([^,]+), 'EX', (\w+)(, 'GET')?\)")
_NOTED: Final = rf"call('SET', \1, \2, 'EX', \3 + 86400\4) call('ZADD', '{EXPIRY}', KEYS[2] + \3 * 1000, \1)"
_TOLD: Final = "{math.floor(KEYS[2] / 1000), (KEYS[2] % 1000) * 1000}"
_NEW_ID: Final = re.compile(r"('XADD'(?:(?!'XADD'|'\*').)*)'\*'")


def timed(source: str) -> str:
    """A script that reads the time from KEYS[2], and makes ids of KEYS[3], both in ms."""
    made = _NEW_ID.sub(r"\1KEYS[3] .. '-*'", source.replace(_TIME, _TOLD))
    made = _EXPIRING.sub(_NOTED, made)
    left = re.findall(r"'XADD'.*'\*'", made)
    assert not left and _TIME not in made, f"the time is still asked for: {left}"
    assert made.count("'EX'") == made.count(f"'{EXPIRY}'"), "something expires by the server's clock"
    return made


class TimedScripts:
    """By the hashes of the real ones."""

    def __init__(self) -> None:
        self.names = {script.sha: script.name for script in all_scripts().values()}
        self.sources = {script.sha: timed(self.source_of(script)) for script in all_scripts().values()}
        self.shas = {
            sha: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for sha, source in self.sources.items()
        }

    def source_of(self, script: Script) -> str:
        """As it is; a fault is put in here."""
        return script.source
