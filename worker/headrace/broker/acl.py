"""Users of Redis with the least rights, one for each role: made from the scripts that the role calls.

    python -m headrace.broker.acl [--namespace NAME] [--redis 7.0]

prints the lines of an ACL file. A command inside a script needs the right of whoever calls the script, so the lists
below are of scripts, and their commands are read from the scripts themselves; a script that gets another command gives
it to every role that calls it. No role may administer Redis, see keys of others, publish, or empty anything at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .scripts import script

_CALL: Final = re.compile(r"\bp?call\('([A-Z]+)'(?:,\s*'([A-Z]+)')?")
_CONTAINERS: Final = {"XGROUP", "XINFO"}
_WAITAOF_SINCE: Final = (7, 2)
EVERYONE: Final = [
    "ping",
    "select",
    "info",
    "wait",
    "waitaof",
    "evalsha",
    "eval",
    "script|load",
    "client|setname",
]
"""What every connection does. Who may load and call scripts may also send their text (EVAL): a server that lost its
scripts is told them again so. Neither gives a right beyond those of the commands inside."""


@dataclass(frozen=True)
class Role:
    """A kind of process."""

    name: str
    who: str
    scripts: frozenset[str]
    commands: frozenset[str]
    """What it sends without a script, beside EVERYONE."""


_CLIENT: Final = frozenset(
    {
        *("enlist", "init", "submit", "secret", "get", "find", "cancel", "replay", "promote"),
        *("scan", "queues", "types", "workers", "depth"),
    }
)
_API: Final = frozenset(
    ["audit", "bulk_abort", "bulk_save", "bulk_start", "bulk_take", "forget", "pause", "purge", "spend"]
)
_WORKER: Final = frozenset(
    ["beat", "cycle", "hand_back", "progress", "publish", "purge", "reclaim", "reconcile", "release"]
)
_READS: Final = frozenset(["xread", "xrevrange", "xrange", "xinfo|stream", "exists", "smembers"])

ROLES: Final = {
    role.name: role
    for role in (
        Role("client", "applications that submit, wait, look, cancel and retry", _CLIENT, _READS),
        Role(
            "api",
            "`headrace api`, commands such as `headrace queue`, and applications that use `app.queues` or `app.bulk`",
            _CLIENT | _API,
            _READS | frozenset(["hget", "hset", "hdel", "hgetall", "sismember", "zrevrange"]),
        ),
        Role(
            "worker",
            "`headrace worker`; its handlers may submit too",
            _CLIENT | _WORKER,
            _READS | {"blpop"},
        ),
        Role(
            "operator",
            "`headrace operator`",
            frozenset(["init", "demand", "drain", "workers", "reclaim", "hand_back"]),
            frozenset({"xread"}),
        ),
    )
}


def commands_in(name: str) -> set[str]:
    """The commands of one script, as ACL rules write them: `hset`, `xgroup|create`."""
    found = _CALL.findall(script(name).source)
    return {f"{one}|{two}".lower() if one in _CONTAINERS and two else one.lower() for one, two in found}


def commands_of(role: Role, redis: tuple[int, int] = _WAITAOF_SINCE) -> list[str]:
    """All that a role may send or have its scripts send to a server of this version, in the order of the alphabet."""
    inside = (commands_in(name) for name in role.scripts)
    every = {*EVERYONE, *role.commands}.union(*inside)
    return sorted(every - (set() if redis >= _WAITAOF_SINCE else {"waitaof"}))


def patterns(namespace: str | None) -> str:
    """Which keys: of one namespace, or of all."""
    return "~hr:*" if namespace is None else f"~hr:{{{namespace}}}:* ~hr:{{{namespace}/*"


def line(role: Role, password: str, *, namespace: str | None = None, redis: tuple[int, int] = _WAITAOF_SINCE) -> str:
    """The role's line of an ACL file. `password` is `>clear text` or `#` and its SHA-256."""
    may = " ".join(f"+{each}" for each in commands_of(role, redis))
    return f"user headrace-{role.name} on {password} resetchannels {patterns(namespace)} -@all {may}"


def lines(
    passwords: Iterable[str] | None = None, *, namespace: str | None = None, redis: tuple[int, int] = _WAITAOF_SINCE
) -> Iterator[str]:
    """One line a role."""
    words = passwords if passwords is not None else (f">PASSWORD-OF-{name.upper()}" for name in ROLES)
    for role, password in zip(ROLES.values(), words, strict=True):
        yield line(role, password, namespace=namespace, redis=redis)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print lines of an ACL file for Redis, one a role.")
    parser.add_argument("--namespace", help="keys of this namespace only; without it, of all")
    parser.add_argument("--redis", default="7.2", help="the server's version; before 7.2 there is no WAITAOF")
    given = parser.parse_args()
    major, _, minor = given.redis.partition(".")
    for each in lines(namespace=given.namespace, redis=(int(major), int(minor.partition(".")[0] or 0))):
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
