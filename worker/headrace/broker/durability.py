"""When an answer counts: the command that follows a script call on its connection, and what its reply must say.

WAIT and WAITAOF confirm nothing after a call that only read (seen on 8.2: a frozen replica, and `WAIT 1` answered 1 at
once), so a call whose answer is to be confirmed is sent with `touch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.errors import ConfigError
from headrace.settings import Durability, Fsync, Local, Replicated

from .connection import Connection, RedisError

WAITAOF_SINCE: Final = (7, 2, 0)
UNKNOWN: Final = (0, 0, 0)


def touches(durability: Durability) -> bool:
    """Whether calls must write even if they add nothing."""
    return not isinstance(durability, Local)


def confirmation(
    durability: Durability, version: tuple[int, int, int], timeout_s: float
) -> tuple[bytes | int, ...] | None:
    """The command to send after the call; None if its answer needs no confirmation of its own.

    A server that hides its version is asked too: to hear that it knows no WAITAOF is better than to take its word.
    """
    wait_ms = max(1, int(timeout_s * 1000))
    match durability:
        case Replicated(replicas):
            return (b"WAIT", replicas, wait_ms)
        case Fsync() if version >= WAITAOF_SINCE or version == UNKNOWN:
            return (b"WAITAOF", 1, 0, wait_ms)
        case _:
            return None


def is_confirmed(durability: Durability, reply: Any) -> bool:
    """Whether the reply to `confirmation` says that what was asked is so."""
    match durability:
        case Replicated(replicas):
            return isinstance(reply, int) and reply >= replicas
        case Fsync():
            return isinstance(reply, list) and reply[0] >= 1
        case _:
            return True


async def check(durability: Durability, connection: Connection) -> None:
    """Raises ConfigError if this server cannot keep what `durability` promises.

    Redis 7.0 has no WAITAOF: there only `appendfsync always` answers after the write is on disk.
    """
    if not isinstance(durability, Fsync):
        return
    try:
        reply = await connection.command("CONFIG", "GET", "append*")
    except RedisError:
        return  # a managed server without CONFIG: WAITAOF itself will tell, and 7.0 is the user's word
    texts = [part.decode() for part in reply]
    judge(dict(zip(texts[::2], texts[1::2], strict=True)), connection.version)


def judge(values: Mapping[str, str], version: tuple[int, int, int]) -> None:
    """Raises ConfigError if a server with these settings keeps no answer on disk before it gives it."""
    if values.get("appendonly") != "yes":
        raise ConfigError(
            "Durability 'fsync' needs Redis' append-only file, and this server runs with appendonly no",
            "Set `appendonly yes` in its configuration, or HEADRACE_DURABILITY=local",
        )
    if version < WAITAOF_SINCE and version != UNKNOWN and values.get("appendfsync") != "always":
        raise ConfigError(
            "Durability 'fsync' needs `appendfsync always` on Redis before 7.2, which has no WAITAOF",
            "Set `appendfsync always`, use Redis 7.2 or later, or set HEADRACE_DURABILITY=local",
        )
