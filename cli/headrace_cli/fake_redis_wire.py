"""Replies of the stand-in for Redis as bytes, in both versions of Redis' protocol."""

from __future__ import annotations

from typing import Any, Final

END: Final = b"\r\n"
RESP3: Final = 3


class Refused(Exception):  # noqa: N818 - a reply, and no failure of the server
    """An error reply; its text begins with the word that tells its kind, such as ERR or NOSCRIPT."""


def encode(value: Any, version: int) -> bytes:
    """One reply; `version` is the protocol's: 2, or 3 where the client asked for it."""
    out = bytearray()
    _append(out, value, version)
    return bytes(out)


def _append(out: bytearray, value: Any, version: int) -> None:
    match value:
        case None:
            out += b"_\r\n" if version == RESP3 else b"$-1\r\n"
        case bytes():
            out += b"$%d\r\n" % len(value) + value + END
        case int():
            out += b":%d\r\n" % value
        case str():
            _append(out, value.encode(), version)
        case float():
            _append_float(out, value, version)
        case list() | tuple() | set():
            _append_all(out, b"*", len(value), value, version)
        case dict():
            flat = [part for pair in value.items() for part in pair]
            _append_all(out, *((b"%", len(value)) if version == RESP3 else (b"*", len(flat))), flat, version)
        case Exception():
            out += b"-" + error_text(value).encode() + END
        case _:
            raise TypeError(f"a reply cannot be of type {type(value).__name__}")


def _append_all(out: bytearray, mark: bytes, count: int, parts: Any, version: int) -> None:
    out += mark + b"%d\r\n" % count
    for part in parts:
        _append(out, part, version)


def _append_float(out: bytearray, value: float, version: int) -> None:
    text = f"{value:.17g}".encode()
    out += b",%s\r\n" % text if version == RESP3 else b"$%d\r\n%s\r\n" % (len(text), text)


def error_text(error: Exception) -> str:
    """The line of an error reply. redis-py cuts off the words that it knows, and keeps them beside the text."""
    text = " ".join(str(error).split())
    cut_off: str | None = getattr(error, "status_code", None)
    if cut_off:
        return f"{cut_off} {text}"
    return text if text.partition(" ")[0].isupper() else f"ERR {text}"
