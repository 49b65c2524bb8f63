"""Reading parameters and bodies into the types that a route names, with what is wrong said in the words of the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
import msgspec.inspect
from aiohttp import web

from headrace.errors import FieldError, InvalidRequest, nearest

from . import strict_json
from .body import read_body
from .problems import HttpProblem
from .shapes import explain_shape

T = TypeVar("T", bound=msgspec.Struct)


def read_query(given: Mapping[str, str], kind: type[T], many: Collection[str] = ()) -> T:
    """The parameters after `?` as a Struct of this type; each once, but for `many`. Raises HttpProblem (400)."""
    fields = _fields(kind)
    for name in given:
        if name not in fields:
            known = list(fields)
            meant = nearest(name[:40], known)
            hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(known) or 'none'}"
            raise HttpProblem(400, "bad_query", f"{name[:40]!r} is not a parameter here.", hint)
    for name, times in Counter(name for name, _ in given.items()).items():
        if times > 1 and name not in many:
            raise HttpProblem(400, "bad_query", f"{name} stands there {times} times.", "give it once")
    try:
        found = msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        wrong = _explain(str(error), kind)
        raise HttpProblem(400, "bad_query", f"{wrong.pointer.strip('/')}: {wrong.detail}.", wrong.hint) from None
    for name in given:
        if getattr(found, fields[name]) is None:  # of the text `null`
            raise HttpProblem(400, "bad_query", f"{name} is no text.", "leave it out instead")
    return found


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What each field is called outside → in Python. Cached: msgspec works it out anew from the annotations."""
    return {each.encode_name: each.name for each in msgspec.structs.fields(kind)}


async def read_struct(request: web.Request, kind: type[T], limit: int) -> T:
    """The body as a Struct of this type. Raises HttpProblem, TooLarge, MalformedJson, InvalidRequest."""
    return convert(strict_json.load(await read_body(request, limit)), kind)


def convert(document: Any, kind: type[T]) -> T:
    """A document as a Struct of this type. Raises InvalidRequest."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest([_explain(str(error), kind)]) from None


_NO_CHOICE: Final = "Invalid enum value "


def _explain(message: str, kind: type[msgspec.Struct]) -> FieldError:
    known = [each.encode_name for each in msgspec.structs.fields(kind)]
    wrong = explain_shape(message, known)
    if wrong.detail == "is not a field of a submission":
        return replace(wrong, detail="is not a field here")
    choices = _choices(kind, wrong.pointer)
    if wrong.detail.startswith(_NO_CHOICE) and choices:
        given = wrong.detail.removeprefix(_NO_CHOICE)
        meant = nearest(given.strip("'")[:40], choices)
        hint = f"did you mean {meant!r}?" if meant else None
        return replace(wrong, detail=f"{given} is none of {', '.join(choices)}", hint=hint)
    if wrong.detail == "is required but missing":
        return replace(wrong, hint=f"give one of {', '.join(choices)}" if choices else None)
    return wrong if wrong.pointer else replace(wrong, hint=f"send an object with {', '.join(known)}")


def _choices(kind: type[msgspec.Struct], pointer: str) -> list[str]:
    """The words that a field may be, if it is one of a few."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for each in info.fields:
        if f"/{each.encode_name}" == pointer:
            bare = each.type.type if isinstance(each.type, msgspec.inspect.Metadata) else each.type
            types = bare.types if isinstance(bare, msgspec.inspect.UnionType) else (bare,)
            return [str(v) for t in types if isinstance(t, msgspec.inspect.LiteralType) for v in t.values]
    return []
