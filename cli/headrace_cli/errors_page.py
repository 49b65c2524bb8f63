"""The page of all errors, made from error_codes.py. `make docs` writes it."""

from __future__ import annotations

from typing import Final

from .error_codes import COMMANDS, HTTP, PYTHON
from .markdown import table

__all__ = ["page"]

HEAD: Final = """\
# Errors

Made from the code by `make docs`; change it in `cli/headrace_cli/error_codes.py` and `error_codes_http.py`.

Every error says in one or two sentences what happened and what to do. Its `code` is stable, and the same over HTTP, in
Python (`error.code`) and in the log. `headrace explain CODE` shows what stands here; each code is an anchor of this
page, as in `errors.md#queue_full`.

## Over HTTP

`application/problem+json` as in RFC 9457:

| field | meaning |
|---|---|
| `type` | `urn:headrace:error:` and the code |
| `title` `status` `detail` | what it is, the HTTP status, what is wrong with this request |
| `code` | as below |
| `hint` | what to do, where that can be said |
| `errors` | what is wrong where: `pointer` (RFC 6901), `detail`, `hint` |
| `task_ids` | of `durability_unconfirmed` and `unique_held`: the tasks it is about |
| `instance` `request_id` | the path, and the id under which the log has more |
"""
AFTER_HTTP: Final = """
Any other status that the HTTP server gives by itself has the code `http`.

## In Python

All are subclasses of `headrace.HeadraceError`.
"""


def page() -> str:
    """The whole page."""
    seen: set[str] = set()
    http = ((str(each.status), _anchored(each.code, seen), each.happened, each.remedy) for each in HTTP)
    python = ((f"`{each.name}`", _anchored(each.code, seen), each.happened, each.remedy) for each in PYTHON)
    commands = ((_anchored(each.code, seen), each.happened, each.remedy) for each in COMMANDS)
    parts = [
        HEAD,
        table(("status", "code", "what happened", "what to do"), http),
        AFTER_HTTP,
        table(("class", "code", "raised when", "what to do"), python),
        "\n## Of commands\n",
        table(("code", "what happened", "what to do"), commands),
    ]
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def _anchored(code: str, seen: set[str]) -> str:
    """The code, as an anchor where it stands for the first time."""
    first = code not in seen
    seen.add(code)
    return f'<a id="{code}"></a>`{code}`' if first else f"`{code}`"
