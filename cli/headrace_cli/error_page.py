"""The page of one error code: what it means, when it is met, what to do, and how it looks. `make docs` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from headrace.errors import HeadraceError
from headrace_api.app import ROUTES
from headrace_api.openapi_parts import usual
from headrace_api.problems import problem_of

from .error_codes import COMMANDS, HTTP, PYTHON, Raised, Told
from .error_examples import OF_COMMANDS, OF_PYTHON, answers
from .main import exit_code
from .output import more_about

__all__ = ["page"]

FEW: Final = 6
"""So many requests are listed; more are counted."""
INSTANCE: Final = "/api/v1/tasks"
REQUEST_ID: Final = "3f1c-1"


def page(code: str) -> str:
    """The whole page of a code."""
    parts = [
        f"# `{code}`\n",
        "Made from the code by `make docs`. All errors: [errors.md](../errors.md).\n",
        *(part for each in HTTP if each.code == code for part in _over_http(each)),
        *(part for each in PYTHON if each.code == code for part in _in_python(each)),
        *(part for each in COMMANDS if each.code == code for part in _of_commands(each)),
    ]
    return "\n".join(parts)


def _over_http(told: Told) -> Iterator[str]:
    assert told.status is not None
    yield f"## Over HTTP: {told.status} {HTTPStatus(told.status).phrase}\n"
    yield f"{_sentence(told.happened)} {_met(told.code)}\n"
    yield _remedy(told.remedy)
    yield _answer(told.code)


def _in_python(raised: Raised) -> Iterator[str]:
    error = _example(raised.code, OF_PYTHON)
    yield f"## In Python: `headrace.errors.{raised.name}`\n"
    yield f"{_sentence(raised.happened)}\n"
    yield _remedy(raised.remedy)
    yield _text(f"{type(error).__module__}.{raised.name}: {error}")
    if raised.code not in {"permanent", "retry_after", "wrong_caller", "bad_definition"}:
        yield f"A command that meets it ends with exit code {exit_code(error)}:\n"
        yield _text(f"Error: {error}\n{more_about(raised.code)}")


def _of_commands(told: Told) -> Iterator[str]:
    error = _example(told.code, OF_COMMANDS)
    yield f"## Of commands: exit code {exit_code(error)}\n"
    yield f"{_sentence(told.happened)}\n"
    yield _remedy(told.remedy)
    yield _text(f"Error: {error}\n{more_about(told.code)}")


def _example(code: str, of: tuple[HeadraceError, ...]) -> HeadraceError:
    [found] = [each for each in of if each.code == code]
    return found


def _met(code: str) -> str:
    """Which requests may be answered so."""
    routes = [f"{each.method} {each.path}" for each in ROUTES if code in usual(each)]
    if not routes:
        return "It is answered before a request reaches any route."
    few = ", ".join(f"[`{title}`](../http.md#{_anchor(title)})" for title in routes[:FEW])
    rest = len(routes) - FEW
    return (
        f"{few} may answer it." if rest <= 0 else f"{few} and {rest} more of [the requests](../http.md) may answer it."
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _answer(code: str) -> str:
    recorded = answers().get(code)
    if recorded is not None:
        return f"`{recorded['asked']}`\n\n{_json(recorded['answer'])}"
    error = _example(code, OF_PYTHON)
    return _json(json.loads(problem_of(error).body(INSTANCE, REQUEST_ID)))


def _json(value: object) -> str:
    return f"```json\n{json.dumps(value, ensure_ascii=False, indent=2)}\n```\n"


def _text(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _remedy(text: str) -> str:
    return f"**What to do**: {_below(text)}.\n"


def _sentence(text: str) -> str:
    text = (
        _below(text).removesuffix(" Its subclasses:").removesuffix("; its subclasses:").removesuffix("; its subclass:")
    )
    capital = text if text.startswith("`") else text[:1].upper() + text[1:]
    return capital if capital.endswith(".") else f"{capital}."


def _below(text: str) -> str:
    """With the links of a page in docs/ as one in docs/errors/ has them."""
    return re.sub(r"\]\((?!https?:)", "](../", text)
