"""JSON without its traps: what two parsers could read differently is refused, with the place and the remedy.

msgspec refuses most of it by itself (NaN, 1e999, lone surrogates, bad UTF-8, trailing text). What it lets pass is
caught by counting, so that a good document costs about 2 µs: `load` decodes, encodes again and compares the number of
quotes. A key that occurs twice was dropped by the decoder, so its quotes are missing. Only a document that fails such
a count is looked at closely, and one that comes out as it went in need not be counted. Its bytes are never rewritten:
numbers, order and white space reach the worker as sent.

Integers may have 64 bits (-2⁶³ to 2⁶⁴-1): a worker that speaks another language must be able to hold them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import msgspec

from headrace.errors import FieldError, HeadraceError

MAX_DEPTH: Final = 32
"""Objects and arrays inside each other."""
MAX_NODES: Final = 10_000
"""Values of one document: every object, array, text, number, true, false and null."""

SHALLOW: Final = 8
"""Levels that are seen in reading; deeper documents, which are few, are measured. Each doubles what is kept for it."""

FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it refuses."""


def _no_deeper_than(levels: int) -> Any:
    """The type of such a document, which costs a decoder nothing to check."""
    plain = None | bool | int | float | str
    kinds: Any = plain
    for _ in range(levels):
        kinds = plain | list[kinds] | dict[str, kinds]
    return kinds


_decode: Final = msgspec.json.Decoder().decode
_decode_shallow: Final = msgspec.json.Decoder(_no_deeper_than(SHALLOW)).decode
_encode: Final = msgspec.json.Encoder().encode
_pack: Final = msgspec.msgpack.Encoder().encode

_BACKSLASH: Final = ord("\\")
"""As a number: Python looks for a number in bytes at a tenth of what looking for a byte costs."""
_WHITE: Final = b" \t\n\r"
_ELSEWHERE: Final = "put the data where the worker can fetch it and pass its address"
_LONE_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)
_LITERAL: Final = re.compile(rb"-?(NaN|Infinity)")
_AT_BYTE: Final = re.compile(r"JSON is malformed: (?P<problem>.*) \(byte (?P<at>\d+)\)")


class MalformedJson(HeadraceError):  # noqa: N818 - named for the outcome, as in headrace.errors
    """A body that is no JSON, or JSON that cannot be passed on as one and the same thing to everyone."""

    code = "malformed_json"

    def __init__(self, error: FieldError) -> None:
        super().__init__(error)
        self.errors = [error]

    def __str__(self) -> str:
        return f"The body cannot be read as JSON: {self.errors[0]}."


def load(body: bytes | msgspec.Raw) -> Any:
    """The document in `body`. Raises MalformedJson."""
    text = body if type(body) is bytes else bytes(body)
    document, is_shallow = decode(text)
    if not is_shallow or len(text) > MAX_NODES:  # no value has less than a byte
        measure(document)
    return document


def decode(text: bytes) -> tuple[Any, bool]:
    """The document, however deep and large, and whether it surely is not deep. Raises MalformedJson."""
    try:
        document, is_shallow = _decode_either(text)
        _pack(document)  # raises for an integer of more than 64 bits
        again = _encode(document)
    except OverflowError:
        raise MalformedJson(_first(_large_integers(document))) from None
    except FAILURES as error:
        raise MalformedJson(explain(text, error)) from None
    if again != text and (text.count(b'"') != again.count(b'"') or (_BACKSLASH in text and b"\\u0022" in text)):
        _check_keys(text)
    return document, is_shallow


def _decode_either(text: bytes) -> tuple[Any, bool]:
    try:
        return _decode_shallow(text), True
    except msgspec.ValidationError:
        return _decode(text), False


def measure(document: Any) -> None:
    """Bound depth and values. Raises MalformedJson."""
    nodes, level = 1, [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        nodes += sum(map(len, level))
        inside = chain.from_iterable([each.values() if type(each) is dict else each for each in level])
        level = [each for each in inside if type(each) is dict or type(each) is list]
        if nodes > MAX_NODES:
            raise MalformedJson(FieldError("", f"it has more than {MAX_NODES} values", _ELSEWHERE))
        if not level:
            return
    detail = f"it is nested more than {MAX_DEPTH} deep"
    raise MalformedJson(FieldError("", detail, "flatten it, or pass the inner part as text"))


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written, before a dict drops what is double."""


def _check_keys(text: bytes) -> None:
    double = next(_double_keys(json.loads(text, object_pairs_hook=_Pairs)), None)
    if double is not None:
        raise MalformedJson(double)


def _double_keys(value: Any, pointer: str = "") -> Iterator[FieldError]:
    if isinstance(value, _Pairs):
        seen = set()
        for key, inner in value:
            place = f"{pointer}/{escape(key)}"
            if key in seen:
                yield FieldError(place, "the key occurs twice in one object", "send each key once")
            seen.add(key)
            yield from _double_keys(inner, place)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _double_keys(inner, f"{pointer}/{index}")


def _large_integers(value: Any, pointer: str = "") -> Iterator[FieldError]:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield FieldError(pointer, "the integer has more than 64 bits", "send it as text")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _large_integers(inner, f"{pointer}/{escape(key)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _large_integers(inner, f"{pointer}/{index}")


def _first(errors: Iterator[FieldError]) -> FieldError:
    return next(errors, FieldError("", "a number is too large", "send it as text"))


def escape(key: str) -> str:
    """A key as a part of a JSON pointer; a long one is cut, since it comes back in an answer."""
    shown = key if len(key) <= 80 else key[:80] + "…"
    return shown.replace("~", "~0").replace("/", "~1")


def explain(text: bytes, error: BaseException) -> FieldError:
    """What is wrong with a text that msgspec refused with this error."""
    if not text.strip(_WHITE):
        return FieldError("", "it is empty", "send a JSON object")
    if text.startswith(b"\xef\xbb\xbf"):
        return FieldError("", "it begins with a byte order mark", "send UTF-8 without one")
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        return FieldError("", f"it is not UTF-8 (byte {bad.start})", "encode it as UTF-8")
    if isinstance(error, RecursionError):
        return FieldError("", f"it is nested more than {MAX_DEPTH} deep", "flatten it")
    if isinstance(error, msgspec.ValidationError):
        return FieldError("", "a number is too large for 64 bits", "send it as text")
    return _explain_syntax(text, str(error))


def _explain_syntax(text: bytes, message: str) -> FieldError:
    found = _AT_BYTE.fullmatch(message)
    if (found is None or "surrogate" in message) and _LONE_SURROGATE.search(text):
        return FieldError("", "a \\u escape is half of a character (a lone surrogate)", "send the whole character")
    if found is None:
        return FieldError("", "it ends too early", "send the whole document")
    at = int(found["at"])
    if literal := _LITERAL.match(text, at):
        detail = f"{literal[0].decode()} at byte {at} is not a number in JSON"
        return FieldError("", detail, "send null or text instead")
    return FieldError("", f"{found['problem']} at byte {at}", "check the syntax there")
