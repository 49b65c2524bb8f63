"""What msgspec says of a document that does not have the shape of a type, in the words of the API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from headrace.errors import FieldError, nearest

from .strict_json import escape

_PLACED: Final = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_TYPE_WORDS: Final = {
    "str": "text", "int": "a whole number", "float": "a number", "object": "an object", "array": "an array",
    "bool": "true or false",
}  # fmt: skip
_SHAPE: Final = 'send an object, as in {"type": "send_email", "payload": {}}'
_EXAMPLES: Final = {"type": 'as in {"type": "send_email"}', "tasks": 'as in {"tasks": [{"type": "send_email"}]}'}
_BOUND: Final = re.compile(r"Expected `(?P<kind>\w+)` (?P<length>of length )?(?P<sign><=|>=) (?P<limit>\d+)(?:\.0)?")


def explain_shape(message: str, fields: Sequence[str]) -> FieldError:
    """msgspec's message about a body that may have these fields, as ours."""
    found = _PLACED.fullmatch(message)
    assert found is not None  # the pattern matches any text
    what, pointer = found["what"], (found["path"] or "").replace(".", "/").replace("[", "/").replace("]", "")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        meant = nearest(unknown[1][:80], fields)
        hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(fields)}"
        return FieldError(f"{pointer}/{escape(unknown[1])}", "is not a field of a submission", hint)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return FieldError(f"{pointer}/{missing[1]}", "is required but missing", _EXAMPLES.get(missing[1]))
    if wrong := re.fullmatch(r"Expected `(.*)`, got `(.*)`", what):
        wanted = " or ".join(_TYPE_WORDS.get(each, each) for each in wrong[1].split(" | "))
        return FieldError(
            pointer, f"is {_TYPE_WORDS.get(wrong[2], wrong[2])}, not {wanted}", _SHAPE if not pointer else None
        )
    return FieldError(pointer, _explain_bound(what))


def _explain_bound(what: str) -> str:
    """What is beyond a limit; the message itself if it is about something else."""
    bound = _BOUND.fullmatch(what)
    if bound is None:
        return what
    limit = ("at least " if bound["sign"] == ">=" else "at most ") + bound["limit"]
    if bound["length"] is None:
        return f"has to be {limit}"
    return f"has to have {limit} {'characters' if bound['kind'] == 'str' else 'items'}"
