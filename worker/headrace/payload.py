"""Arguments to payload and payload to arguments, and what is wrong with either, field by field.

Decoding is msgspec's and quick; only when it fails is the payload looked at again, to name every wrong field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from headrace.errors import FieldError, InvalidPayload, nearest
from headrace.schema import Parameters

Payload = bytes | bytearray | memoryview | msgspec.Raw

MAX_ERRORS: Final = 20
"""Errors named for one payload."""
MAX_NAME: Final = 80
"""Characters of a client's own field name that are repeated in an error."""

_FAILURES = (msgspec.MsgspecError, UnicodeError, RecursionError)
_PATH = re.compile(r"(?P<detail>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

encode_json = msgspec.json.Encoder().encode


def make_decode(type_name: str, found: Parameters) -> Callable[[Payload], Any]:
    """`decode(payload)`: the checked payload as a struct, or InvalidPayload. Made once: it runs for every task."""
    decode_struct = msgspec.json.Decoder(found.struct).decode

    def decode(payload: Payload) -> Any:
        try:
            return decode_struct(payload)
        except _FAILURES as error:
            raise InvalidPayload(type_name, find_errors(bytes(payload), found, error)) from None

    return decode


def encode_arguments(type_name: str, found: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The payload of a call. Raises InvalidPayload for arguments that the function would not take.

    A parameter that is left to its default stays out, so that the worker's default holds.
    """
    given = dict(zip(found.positional, args, strict=False))
    if len(args) > len(given) or not kwargs.keys() <= found.hints.keys() - given.keys():
        raise InvalidPayload(type_name, list(_misplaced(found, args, kwargs)))
    given.update(kwargs)
    try:
        return encode_json(given)
    except (*_FAILURES, TypeError, ValueError):
        raise InvalidPayload(type_name, list(_unencodable(given))) from None


def _misplaced(found: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[FieldError]:
    if len(args) > len(found.positional):
        yield FieldError("", f"takes {len(found.positional)} positional arguments, got {len(args)}")
    for name in kwargs:
        if name not in found.names:
            yield _unknown_field("", name, found.names)
        elif name in found.positional[: len(args)]:
            yield FieldError(_pointer("", name), "given by position and by name")


def _unencodable(given: Mapping[str, Any]) -> Iterator[FieldError]:
    for name, value in given.items():
        try:
            encode_json(value)
        except (*_FAILURES, TypeError, ValueError) as error:
            yield FieldError(_pointer("", name), f"cannot be written as JSON ({error})")


def find_errors(payload: bytes, found: Parameters, error: BaseException) -> list[FieldError]:
    """Everything that is wrong with a payload that could not be decoded; `error` says the first thing."""
    try:
        parts = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except _FAILURES as broken:
        return [FieldError("", _plain(broken))]
    errors = list(islice(_wrong_fields(parts, found), MAX_ERRORS))
    return errors or [FieldError("", _plain(error))]


def _wrong_fields(parts: Mapping[str, msgspec.Raw], found: Parameters) -> Iterator[FieldError]:
    missing = [name for name in found.required if name not in parts]
    for name, raw in parts.items():
        if name not in found.hints:
            yield _unknown_field("", name, missing or found.names)
            continue
        try:
            msgspec.json.decode(raw, type=found.hints[name])
        except _FAILURES as error:
            yield _field_error(_pointer("", name), error, found.hints[name])
    for name in missing:
        yield FieldError(_pointer("", name), "is required but missing")


def _field_error(base: str, error: BaseException, hint: Any) -> FieldError:
    """A message of msgspec, with its path turned into a JSON pointer below `base`."""
    match = _PATH.fullmatch(_plain(error))
    assert match is not None  # the pattern matches any text
    detail, path = match["detail"], match["path"] or "$"
    steps: list[str] = []
    for field, index in _STEP.findall(path):
        if index == "...":  # msgspec does not say which key of a mapping
            detail += " (in one of its values)"
            break
        steps.append(field or index)
    pointer = "".join((base, *(_pointer("", step) for step in steps)))
    if unknown := _UNKNOWN.fullmatch(match["detail"]):
        return _unknown_field(pointer, unknown[1], _field_names(hint, steps))
    return FieldError(pointer, detail)


def _unknown_field(base: str, name: str, known: Sequence[str]) -> FieldError:
    shown = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…"
    meant = nearest(name[:MAX_NAME], known)
    hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(known)}" if known else None
    return FieldError(_pointer(base, shown), "is not a field of this type", hint)


def _pointer(base: str, name: str) -> str:
    return f"{base}/{name.replace('~', '~0').replace('/', '~1')}"


def _plain(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, UnicodeError):
        return "is not valid UTF-8"
    return str(error)


def _field_names(hint: Any, steps: Sequence[str]) -> list[str]:
    """The field names of the object that these steps lead to, as far as the type says."""
    info: Any = types.type_info(hint)
    for step in steps:
        info = next((child for each in _alternatives(info) for child in _into(each, step)), None)
    return [field.encode_name for each in _alternatives(info) for field in getattr(each, "fields", ())]


def _alternatives(info: Any) -> Iterator[Any]:
    while isinstance(info, types.Metadata):
        info = info.type
    if isinstance(info, types.UnionType):
        yield from info.types
    elif info is not None:
        yield info


def _into(info: Any, step: str) -> Iterator[Any]:
    for field in getattr(info, "fields", ()):
        if field.encode_name == step:
            yield field.type
    if step.isdigit() and hasattr(info, "item_type"):
        yield info.item_type
