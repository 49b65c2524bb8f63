"""JSON however deep, where Python reads some hundred levels only: what lies below is cut off.

Whoever may make a WorkerPool may nest its template as deep as an API server takes it, which is ten times as deep; and
one object that cannot be read would keep the operator from reading the list that it is in. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

LEVELS: Final = 100
"""No object of Kubernetes that is meant has half as many."""
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|[^"\[\]{}]+')


def loads(text: str | bytes) -> Any:
    """As json.loads; of what is too deep for that, no more than so many levels, with null for the rest."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads("".join(_cut(text.decode() if isinstance(text, bytes) else text)))


def _cut(text: str) -> Iterator[str]:
    depth = 0
    for token in _TOKEN.findall(text):
        depth += token in {"[", "{"}
        if depth <= LEVELS:
            yield token
        elif depth == LEVELS + 1 and token in {"[", "{"}:
            yield "null"
        depth -= token in {"]", "}"}
