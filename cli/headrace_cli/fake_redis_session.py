"""What one connection may ask of the stand-in for Redis: fakeredis' commands, and those it lacks or does otherwise."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fakeredis import FakeRedis, FakeServer
from redis.exceptions import RedisError

from headrace.broker.scripts import without_shebang

from .fake_redis_wire import RESP3, Refused

Words = Sequence[bytes]

VERSION: Final = (7, 0, 0)
"""The oldest Redis that Headrace takes: it has no WAITAOF, and neither has this."""
_CONFIG: Final = {
    "appendonly": "no",
    "appendfsync": "no",
    "save": "",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}
_REFUSED: Final = (
    *("BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN"),
    *("MONITOR", "PSUBSCRIBE", "PSYNC", "SSUBSCRIBE", "SUBSCRIBE", "SYNC"),
)
"""In fakeredis these would hold up everyone, or they have more than one reply."""


@dataclass(frozen=True)
class Wait:
    """A command that waits. `attempt` returns its reply, or None while there is none, and raises Refused."""

    attempt: Callable[[], Any]
    timeout_s: float
    """0 is for ever."""


@dataclass
class Memory:
    """What all connections share."""

    port: int
    server: FakeServer = field(default_factory=lambda: FakeServer(version=VERSION[:2]))
    scripts: dict[bytes, bytes] = field(default_factory=dict)
    """Sources as fakeredis takes them, by the SHA-1 of what the client sent."""
    run_id: str = field(default_factory=lambda: secrets.token_hex(20))
    started: float = field(default_factory=time.monotonic)

    def learn(self, source: bytes) -> tuple[bytes, bytes]:
        """Returns the script's name and its source as fakeredis takes it."""
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        if sha not in self.scripts:
            # Any bytes may be in a script, and they must come out as they went in.
            text = source.decode("latin-1")
            self.scripts[sha] = (without_shebang(text) if text.startswith("#!") else text).encode("latin-1")
        return sha, self.scripts[sha]

    def info(self, section: str) -> str:
        """One section of INFO; empty for one that is not served."""
        facts = self._sections().get(section, {})
        return "\r\n".join([f"# {section.title()}", *(f"{name}:{value}" for name, value in facts.items()), ""])

    def _sections(self) -> Mapping[str, Mapping[str, object]]:
        server = {
            "redis_version": ".".join(map(str, VERSION)),
            "redis_mode": "standalone",
            "process_id": os.getpid(),
            "run_id": self.run_id,
            "tcp_port": self.port,
            "uptime_in_seconds": int(time.monotonic() - self.started),
        }
        memory = {"maxmemory": 0, "maxmemory_policy": "noeviction"}
        # Who starts it says that it keeps nothing; nobody needs to hear it from each process again.
        return {"server": server, "memory": memory, "persistence": {"aof_enabled": 0, "stand_in": 1}}


class Session:
    """One connection: its database, its name, its transaction, and the version of the protocol it speaks."""

    def __init__(self, memory: Memory) -> None:
        self.protocol = 2
        self._memory = memory
        # The connection alone, for a client would repeat what failed, and sleep in between.
        self._fake: Any = FakeRedis(server=memory.server, protocol=2).connection_pool.get_connection()
        self._own: dict[str, Callable[[Words], Any]] = {
            "AUTH": self._auth,
            "BLPOP": lambda words: self._pop("LPOP", words),
            "BRPOP": lambda words: self._pop("RPOP", words),
            "CLIENT": self._client,
            "CONFIG": self._config,
            "EVAL": self._eval,
            "EVALSHA": self._evalsha,
            "HELLO": self._hello,
            "INFO": self._info,
            "SCRIPT": self._script,
            "WAIT": lambda words: 0,
            "XREAD": self._xread,
            "XREADGROUP": self._xread,
        }

    def run(self, words: Words) -> Any:
        """A command's reply, or a Wait for it. Raises Refused."""
        name = words[0].decode(errors="replace").upper()
        if name in _REFUSED:
            raise Refused(f"ERR {name} is not served by the stand-in for Redis; start a real one for it")
        own = self._own.get(name)
        return own(words) if own is not None else self._ask(*words)

    def close(self) -> None:
        """Forget what belongs to this connection."""
        self._fake.disconnect()

    def _ask(self, *words: bytes | str) -> Any:
        try:
            self._fake.send_command(*words)
            if not self._fake.can_read(0):
                raise Refused("ERR the stand-in for Redis has no reply to this command")
            return self._fake.read_response(disable_decoding=True)
        except RedisError as error:
            return error

    # scripts: fakeredis knows no shebang, and clients name a script by its source with it

    def _eval(self, words: Words) -> Any:
        _need(words, 3)
        _, source = self._memory.learn(words[1])
        return self._ask("EVAL", source, *words[2:])

    def _evalsha(self, words: Words) -> Any:
        _need(words, 3)
        source = self._memory.scripts.get(words[1].lower())
        if source is None:
            raise Refused("NOSCRIPT No matching script. Please use EVAL.")
        return self._ask("EVAL", source, *words[2:])

    def _script(self, words: Words) -> Any:
        match [words[1].upper() if len(words) > 1 else b"", *words[2:]]:
            case [b"LOAD", source]:
                return self._memory.learn(source)[0]
            case [b"EXISTS", *shas]:
                return [int(sha.lower() in self._memory.scripts) for sha in shas]
            case [b"FLUSH", *_]:
                self._memory.scripts.clear()
        return self._ask(*words)

    # who this server is

    def _auth(self, words: Words) -> Any:
        raise Refused("ERR AUTH was sent, and the stand-in for Redis has no password; take it out of the address")

    def _hello(self, words: Words) -> Any:
        if len(words) > 1 and words[1] not in (b"2", b"3"):
            raise Refused("NOPROTO unsupported protocol version")
        if any(word.upper() == b"AUTH" for word in words):
            self._auth(words)
        reply = self._ask(*words)
        if len(words) > 1 and not isinstance(reply, Exception):
            self.protocol = RESP3 if words[1] == b"3" else 2
        return reply

    def _info(self, words: Words) -> Any:
        wanted = {word.lower() for word in words[1:]}
        every = not wanted or bool(wanted & {b"all", b"default", b"everything"})
        named = ("server", "memory", "persistence")
        return "\r\n".join(self._memory.info(name) for name in named if every or name.encode() in wanted)

    def _client(self, words: Words) -> Any:
        if [word.upper() for word in words[1:2]] == [b"REPLY"]:
            raise Refused("ERR the stand-in for Redis replies to every command")
        return self._ask(*words)

    def _config(self, words: Words) -> Any:
        if len(words) < 3 or words[1].upper() != b"GET":
            raise Refused("ERR the stand-in for Redis has no settings to change")
        patterns = [word.decode(errors="replace").lower() for word in words[2:]]
        return {
            name: value for name, value in _CONFIG.items() if any(fnmatch.fnmatchcase(name, each) for each in patterns)
        }

    # what waits

    def _pop(self, name: str, words: Words) -> Wait:
        _need(words, 3)
        keys = words[1:-1]

        def attempt() -> Any:
            for key in keys:
                item = self._ask(name, key)
                if item is not None:
                    return item if isinstance(item, Exception) else [key, item]
            return None

        return Wait(attempt, _seconds(words[-1]))

    def _xread(self, words: Words) -> Any:
        options = [word.upper() for word in words]
        streams = options.index(b"STREAMS") if b"STREAMS" in options else len(options)
        # The first words of XREADGROUP are names, which may be like options.
        first = 4 if options[0] == b"XREADGROUP" else 1
        if b"BLOCK" not in options[first : max(streams - 1, first)]:
            return self._ask(*words)
        at = options.index(b"BLOCK", first)
        request = [*words[:at], *words[at + 2 : streams + 1], *self._positions(words[streams + 1 :])]
        return Wait(lambda: self._ask(*request) or None, _seconds(words[at + 1]) / 1000)

    def _positions(self, words: Words) -> list[bytes]:
        """Keys and positions, with `$` as the position that it stands for now: later it would stand for another."""
        half = len(words) // 2
        keys, positions = words[:half], words[half:]
        return [*keys, *(self._newest(key) if at == b"$" else at for key, at in zip(keys, positions, strict=False))]

    def _newest(self, key: bytes) -> bytes:
        entries = self._ask("XREVRANGE", key, "+", "-", "COUNT", "1")
        return bytes(entries[0][0]) if isinstance(entries, list) and entries else b"0-0"


def _need(words: Words, count: int) -> None:
    if len(words) < count:
        raise Refused(f"ERR wrong number of arguments for '{words[0].decode(errors='replace').lower()}' command")


def _seconds(word: bytes) -> float:
    try:
        value = float(word)
    except ValueError:
        raise Refused("ERR timeout is not a float or out of range") from None
    if not 0 <= value < float("inf"):
        raise Refused("ERR timeout is negative" if value < 0 else "ERR timeout is not a float or out of range")
    return value
