"""A bare synchronous connection for tests that make thousands of calls: hiredis' reader over a Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import hiredis

from headrace.broker.broker import Call
from headrace.broker.scripts import all_scripts

R = TypeVar("R")
Word = bytes | str | int


class RefusedError(Exception):
    """Redis answered with an error; the text is its own."""


class Wire:
    """One connection. It raises on the first error of a pipeline, after all replies were read."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader()
        for script in all_scripts().values():
            assert self.command("SCRIPT", "LOAD", script.source) == script.sha.encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def pipeline(self, *commands: Sequence[Word]) -> list[Any]:
        """Replies in order; an error is a `RefusedError` in its place."""
        self._socket.sendall(b"".join(hiredis.pack_command(cast(Any, tuple(command))) for command in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise ConnectionError("Redis closed the connection")
                self._reader.feed(data)
            else:
                replies.append(RefusedError(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
        return replies

    def command(self, *words: Word) -> Any:
        """The reply to one plain command. Raises RefusedError."""
        reply = self.pipeline(words)[0]
        if isinstance(reply, RefusedError):
            raise reply
        return reply

    def run(self, call: Call[R]) -> R:
        """Carry out one transition. Raises RefusedError."""
        return call.parse(self.command(*call.words))
