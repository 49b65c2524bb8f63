"""Reading parameters and bodies into the types that a route names, with what is wrong said in the words of the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from headrace.errors import FieldError, InvalidRequest, nearest

from . import strict_json
from .body import read_body
from .problems import HttpProblem
from .submissions import explain_shape

T = TypeVar("T", bound=msgspec.Struct)


def read_query(given: Mapping[str, str], kind: type[T], many: Collection[str] = ()) -> T:
    """The parameters after `?` as a Struct of this type; each once, but for `many`. Raises HttpProblem (400)."""
    known = [each.encode_name for each in msgspec.structs.fields(kind)]
    for name in given:
        if name not in known:
            meant = nearest(name[:40], known)
            hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(known) or 'none'}"
            raise HttpProblem(400, "bad_query", f"{name[:40]!r} is not a parameter here.", hint)
    for name, times in Counter(name for name, _ in given.items()).items():
        if times > 1 and name not in many:
            raise HttpProblem(400, "bad_query", f"{name} stands there {times} times.", "give it once")
    try:
        found = msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        wrong = explain_shape(str(error), known)
        raise HttpProblem(400, "bad_query", f"{wrong.pointer.strip('/')}: {wrong.detail}.", wrong.hint) from None
    for each in msgspec.structs.fields(kind):
        if each.encode_name in given and getattr(found, each.name) is None:  # of the text `null`
            raise HttpProblem(400, "bad_query", f"{each.encode_name} is no text.", "leave it out instead")
    return found


async def read_struct(request: web.Request, kind: type[T], limit: int) -> T:
    """The body as a Struct of this type. Raises HttpProblem, TooLarge, MalformedJson, InvalidRequest."""
    return convert(strict_json.load(await read_body(request, limit)), kind)


def convert(document: Any, kind: type[T]) -> T:
    """A document as a Struct of this type. Raises InvalidRequest."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        known = [each.encode_name for each in msgspec.structs.fields(kind)]
        raise InvalidRequest([_explain(str(error), known)]) from None


def _explain(message: str, known: list[str]) -> FieldError:
    wrong = explain_shape(message, known)
    if wrong.detail == "is not a field of a submission":
        return replace(wrong, detail="is not a field here")
    return wrong if wrong.pointer else replace(wrong, hint=f"send an object with {', '.join(known)}")
