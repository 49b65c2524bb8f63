"""What a crash of the machine does to Redis' append-only file: an older copy of it, a cut tail, a spoilt byte."""

from __future__ import annotations

import shutil
from pathlib import Path

from redis_server import RedisServer


def tail(server: RedisServer) -> Path:
    """The part of the file that is being written."""
    folder = server.folder / "appendonlydir"
    parts = sorted(folder.glob("*.incr.aof"), key=lambda part: int(part.name.split(".")[-3]))
    assert parts, f"{server.binary} keeps no append-only file"
    return parts[-1]


def copy(server: RedisServer, to: Path) -> None:
    """As a backup; `to` must not exist."""
    shutil.copytree(server.folder / "appendonlydir", to)


def restore(server: RedisServer, copied: Path) -> None:
    """Put a copy in the place of what a stopped server has."""
    shutil.rmtree(server.folder / "appendonlydir")
    shutil.copytree(copied, server.folder / "appendonlydir")


def cut(server: RedisServer, keep: int) -> None:
    """Keep the first `keep` bytes of the tail; the server must be stopped."""
    with tail(server).open("r+b") as file:
        file.truncate(keep)


def spoil(server: RedisServer, data: bytes = b"\0" * 20) -> None:
    """Write over the beginning of a command in the middle of the tail; the server must be stopped.

    Inside of an argument nobody would notice: the format has no checksums.
    """
    file = tail(server)
    text = file.read_bytes()
    at = text.index(b"\r\n*", len(text) // 2) + 2
    file.write_bytes(text[:at] + data + text[at + len(data) :])
