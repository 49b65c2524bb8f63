"""Commands as Redis reads them (https://redis.io/docs/latest/develop/reference/protocol-spec: arrays of bulk strings).

hiredis writes them. A word costs it as much as 30 steps of Python, so what many calls or many words have in common is
written here, in pieces that begin with a line's end and go without one at their own.
"""

from __future__ import annotations

from typing import Any, cast

import hiredis

from .broker import Call
from .words import Column, Command


def packed(command: Command) -> bytes:
    """A command. Raises TypeError for a word of another kind."""
    found: bytes = hiredis.pack_command(cast("tuple[bytes]", command))  # its stub says a tuple of one
    return found


def packed_call(call: Call[Any]) -> bytes:
    """As `packed(call.words)`."""
    count = len(call.head.words) + len(call.args)
    if list not in map(type, call.args):
        return b"*%d%b%b\r\n" % (count, call.head.packed, _words(tuple(call.args)))  # type: ignore[arg-type] # no lists
    parts, words = [call.head.packed], list[Any]()
    for arg in call.args:
        if not isinstance(arg, list):
            words.append(arg)
            continue
        parts.append(_words(tuple(words)))
        words.clear()
        count += len(arg) - 1
        parts.append(_column(arg))
    return b"*%d%b%b\r\n" % (count, b"".join(parts), _words(tuple(words)))


def _words(words: Command) -> bytes:
    if not words:
        return b""
    text = packed(words)
    return text[text.index(b"\r") : -2]


def _column(column: Column) -> bytes:
    if column and isinstance(column[0], str):
        return _texts(column)
    parts, last, head = list[bytes](), -1, b""
    for word in cast("list[bytes]", column):
        # Most are as long as the one before: places and records of one type, envelopes of one producer.
        if len(word) != last:
            last = len(word)
            head = b"\r\n$%d\r\n" % last
        parts.append(head)
        parts.append(word)
    return b"".join(parts)


def _texts(texts: list[str]) -> bytes:
    """Those of one length, as ids are, differ in nothing but themselves."""
    length = len(texts[0])
    head = f"\r\n${length}\r\n"
    joined = head + head.join(texts)
    if not joined.isascii() or len(set(map(len, texts))) != 1:
        return _words(tuple(texts))
    return joined.encode()
