"""The list of all errors, made from error_codes.py; error_page.py makes a page of each. `make docs` writes them."""

from __future__ import annotations

from typing import Final

from .error_codes import COMMANDS, HTTP, PYTHON
from .markdown import table

__all__ = ["page"]

HEAD: Final = """\
# Errors

Made from the code by `make docs`; change it in `cli/headrace_cli/error_codes.py` and `error_codes_http.py`.

Every error says in one or two sentences what happened and what to do. Its `code` is stable, and the same over HTTP, in
Python (`error.code`) and in the log. Each code has a page, with an answer or a sentence as it really looks; problem
documents link to it, and `headrace explain CODE` shows what stands there.

## Over HTTP

`application/problem+json` as in RFC 9457:

| field | meaning |
|---|---|
| `type` | the address of the code's page |
| `title` `status` `detail` | what it is, the HTTP status, what is wrong with this request |
| `code` | as below |
| `hint` | what to do, where that can be said |
| `errors` | what is wrong where: `pointer` (RFC 6901), `detail`, `hint` |
| `task_ids` | of `durability_unconfirmed` and `unique_held`: the tasks it is about |
| `instance` `request_id` | the path, and the id under which the log has more |
"""
AFTER_HTTP: Final = """
Any other status that the HTTP server gives by itself has the code `http`, and the type `about:blank`.

## In Python

All are subclasses of `headrace.HeadraceError`.
"""


def page() -> str:
    """The whole page."""
    http = ((str(each.status), _linked(each.code), each.happened, each.remedy) for each in HTTP)
    python = ((f"`{each.name}`", _linked(each.code), each.happened, each.remedy) for each in PYTHON)
    commands = ((_linked(each.code), each.happened, each.remedy) for each in COMMANDS)
    parts = [
        HEAD,
        table(("status", "code", "what happened", "what to do"), http),
        AFTER_HTTP,
        table(("class", "code", "raised when", "what to do"), python),
        "\n## Of commands\n",
        table(("code", "what happened", "what to do"), commands),
    ]
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def _linked(code: str) -> str:
    return f"[`{code}`](errors/{code}.md)"
