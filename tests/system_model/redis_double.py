"""Redis as simulated processes see it: a real one behind, carried out at once; its clock, waits and crashes are ours.

What blocks is not sent as such, for the real server would hold up the whole world: who waits is served here, first
come, first served, after whatever any command brought.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import hiredis

from model_redis import Wire

from .net import Link
from .timed_scripts import EXPIRY, TimedScripts
from .world import EPOCH, World

ADDRESS: Final = ("redis", 6379)
OK: Final = b"+OK\r\n"
NIL: Final = b"*-1\r\n"
NO_SCRIPT: Final = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"

Words = list[bytes]
EXPIRE_EVERY_S: Final = 0.1


class Seen(Protocol):
    """Who watches."""

    def saw(self, script: str, prefix: bytes, words: Words, reply: Any) -> None:
        """A script was carried out: on keys with this beginning, with these arguments and this reply."""

    def expires(self, key: bytes) -> None:
        """This key is about to be gone, for its time has come."""


class Tap(Wire):
    """A connection to the real server that gives replies as they came, too."""

    def raw(self, words: Words) -> tuple[bytes, Any]:
        """The bytes of the reply, and what they mean."""
        self._socket.sendall(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type] # its stub says one word
        got = b""
        while True:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("Redis closed the connection")
            got += data
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is not False:
                return got, reply


@dataclass(frozen=True)
class Photo:
    """An older state: key → time to live in ms (0 = for ever), value as DUMP gives it."""

    at: float
    writes: int
    """How many scripts had changed something by then."""
    values: dict[bytes, tuple[int, bytes]]


class RedisDouble:
    """Serves ADDRESS."""

    def __init__(self, world: World, tap: Tap, seen: Seen, *, has_replica: bool) -> None:
        self.world = world
        self.tap = tap
        self.seen = seen
        self.skew_s = 0.0
        """Its clock is ahead by so much."""
        self.has_replica = has_replica
        self.replica: Photo | None = None
        """What a replica has; WAIT brings it up to date."""
        self.replica_is_behind = False
        self._scripts = TimedScripts()
        self._known: set[str] = set()
        self._sessions: list[Session] = []
        self._waiting: list[Session] = []
        self._newest_ms = 0
        self._expired_at = world.now
        self._writes = 0
        tap.command("FLUSHALL")
        self.set_memory(full=False)
        for source in self._scripts.sources.values():
            tap.command("SCRIPT", "LOAD", source)
        self._run_id = _run_id_of(tap)
        self._boots = 0
        self.start()

    # its life

    @property
    def is_up(self) -> bool:
        return ADDRESS in self.world.servers

    def start(self) -> None:
        self._boots += 1
        self.world.servers[ADDRESS] = self

    def crash(self) -> None:
        """All connections break, and what was on its way arrives nowhere."""
        self.world.servers.pop(ADDRESS, None)
        self.world.note("redis crashes")
        for session in list(self._sessions):
            session.link.reset("for redis crashed")
        self._sessions.clear()
        self._waiting.clear()
        self._known.clear()

    def set_memory(self, *, full: bool) -> None:
        """Whether nothing fits in any more."""
        self.tap.command("CONFIG", "SET", "maxmemory", "1" if full else "0")

    def expire(self) -> None:
        """What was to expire by now is gone."""
        self._expired_at = self.world.now
        due = self.tap.command("ZRANGEBYSCORE", EXPIRY, "-inf", self.now_ms())
        for key in due:
            if self.tap.command("PTTL", key) > 0:  # else it was written anew, to stay
                self.seen.expires(key)
                self.tap.command("DEL", key)
            self.tap.command("ZREM", EXPIRY, key)

    def photograph(self) -> Photo:
        keys = self.tap.command("KEYS", "*")
        said = self.tap.pipeline(*((word, key) for key in keys for word in ("PTTL", "DUMP")))
        values = {key: (max(0, left), value) for key, left, value in zip(keys, said[::2], said[1::2], strict=True)}
        return Photo(self.world.now, self._writes, values)

    def restore(self, photo: Photo) -> None:
        """What came since is lost."""
        rows = (("RESTORE", key, left, value) for key, (left, value) in photo.values.items())
        refused = [reply for reply in self.tap.pipeline(("FLUSHDB",), *rows) if isinstance(reply, Exception)]
        assert not refused, refused

    # connections

    def accept(self, link: Link) -> Session:
        session = Session(self, link)
        self._sessions.append(session)
        return session

    def left(self, session: Session) -> None:
        for of in (self._sessions, self._waiting):
            if session in of:
                of.remove(session)

    # commands

    def now_ms(self) -> int:
        return int((EPOCH + self.world.now + self.skew_s) * 1000)

    def carry_out(self, session: Session, words: Words) -> bytes | None:
        """The reply; None if there is none yet."""
        if self.world.now - self._expired_at >= EXPIRE_EVERY_S:
            self.expire()
        match words[0].upper():
            case b"EVALSHA" | b"EVAL" | b"SCRIPT":
                return self._script(session, words)
            case b"BLPOP":
                return self._or_wait(session, [b"LPOP", words[1]], float(words[-1]), of_list=True)
            case b"XREAD" if words[1].upper() == b"BLOCK":
                return self._or_wait(session, [words[0], *words[3:]], float(words[2]) / 1000, of_list=False)
            case b"WAIT":
                return self._wait(session)
            case b"CLIENT":
                return OK
        reply, _ = self.tap.raw(words)
        return reply.replace(self._run_id, b"%040d" % self._boots)

    def _script(self, session: Session, words: Words) -> bytes:
        if words[0].upper() == b"SCRIPT":
            sha = _sha_of(words[2])
            self._known.add(sha)
            return b"$40\r\n%b\r\n" % sha.encode()
        sha = words[1].decode() if words[0].upper() == b"EVALSHA" else _sha_of(words[1])
        if words[0].upper() == b"EVAL":
            self._known.add(sha)
        if sha not in self._known:
            return NO_SCRIPT
        assert words[2] == b"1", "scripts are told one key"
        now_ms = self.now_ms()
        # As Redis makes ids: they grow, also when the clock is set back.
        self._newest_ms = max(self._newest_ms, now_ms)
        times = [b"%d" % now_ms, b"%d" % self._newest_ms]
        changes = self._changes()
        reply, meant = self.tap.raw([b"EVALSHA", self._scripts.shas[sha].encode(), b"3", words[3], *times, *words[4:]])
        if self._changes() != changes:
            self._writes += 1
            session.wrote = self._writes
        self.seen.saw(self._scripts.names[sha], words[3], words[4:], meant)
        return reply

    def _changes(self) -> int:
        """A number that grows with each change of data."""
        if not self.has_replica:
            return 0
        text: bytes = self.tap.command("INFO", "persistence")
        return int(text.partition(b"rdb_changes_since_last_save:")[2].split(b"\r")[0])

    def _wait(self, session: Session) -> bytes:
        """As Redis does it: whose connection has written nothing since has nothing to wait for."""
        if session.wrote > (self.replica.writes if self.replica else 0):
            if self.replica_is_behind:
                return b":0\r\n"
            self.replica = self.photograph()
        return b":1\r\n"

    # who waits

    def _or_wait(self, session: Session, words: Words, timeout_s: float, *, of_list: bool) -> bytes | None:
        session.wanted = Wanted(words, of_list)
        reply = self._try(session.wanted)
        if reply is not None:
            session.wanted = None
            return reply
        self._waiting.append(session)
        self.world.after(timeout_s, partial(self._give_up, session, session.wanted))
        return None

    def _try(self, wanted: Wanted) -> bytes | None:
        reply, meant = self.tap.raw(wanted.words)
        if meant is None:
            return None
        if not wanted.of_list:
            return reply
        key = wanted.words[1]
        return b"*2\r\n$%d\r\n%b\r\n%b" % (len(key), key, reply)

    def _give_up(self, session: Session, wanted: Wanted) -> None:
        if session.wanted is wanted and session in self._waiting:
            self._waiting.remove(session)
            session.answer(NIL)

    def serve_who_waits(self) -> None:
        """After any command, as Redis does."""
        for session in list(self._waiting):
            if session.wanted is not None and (reply := self._try(session.wanted)) is not None:
                self._waiting.remove(session)
                session.answer(reply)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a blocked connection waits for: a command that gives nil as long as there is nothing."""

    words: Words
    of_list: bool


class Session:
    """The server's end of a connection: commands in order, one at a time."""

    def __init__(self, double: RedisDouble, link: Link) -> None:
        self.link = link
        self.wanted: Wanted | None = None
        self.wrote = 0
        """Its last script that changed something, as `RedisDouble` counts them."""
        self._double = double
        self._reader = hiredis.Reader()
        self._commands: deque[Words] = deque()

    def receive(self, data: bytes) -> None:
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self._commands.append(command)
        self._work()

    def answer(self, reply: bytes) -> None:
        """What it waited for."""
        self.wanted = None
        self.link.send(self, reply)
        self._work()

    def _work(self) -> None:
        while self._commands and self.wanted is None:
            reply = self._double.carry_out(self, self._commands.popleft())
            if reply is not None:
                self.link.send(self, reply)
            self._double.serve_who_waits()

    def hang_up(self, error: Exception | None) -> None:
        self._double.left(self)


def _sha_of(source: bytes) -> str:
    return hashlib.sha1(source, usedforsecurity=False).hexdigest()


def _run_id_of(tap: Tap) -> bytes:
    text: bytes = tap.command("INFO", "server")
    lines = dict(line.partition(b":")[::2] for line in text.splitlines())
    return lines[b"run_id"].strip()
