"""Objects that are nested deeper than Python reads: nobody who makes one may keep the operator from the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_operator.shallow import LEVELS, loads
from headrace_operator.spec import InvalidSpec, read_spec


def nested(levels: int, inner: str = "1") -> str:
    return '{"a]": [{"b": "\\"}"}, ' * levels + inner + ', "c"]}' * levels


def depth(found: Any) -> int:
    """Of the first branch that goes on, without recursion."""
    levels = 0
    while isinstance(found, dict | list):
        levels, found = levels + 1, found["a]"] if isinstance(found, dict) else found[1]
    return levels


def test_what_python_reads_is_read_whole() -> None:
    assert loads(nested(200)) == json.loads(nested(200))
    assert loads(b'{"a": "\xc3\xa4"}') == {"a": "ä"}


@pytest.mark.parametrize("text", [nested(5_000), nested(5_000).encode()], ids=["text", "bytes"])
def test_what_is_deeper_is_cut(text: str | bytes) -> None:
    """Beside it nothing is lost; brackets in texts are no brackets."""
    found = loads(text)
    assert depth(found) == LEVELS
    assert found["a]"][0] == {"b": '"}'} and found["a]"][2] == "c"


def test_what_is_no_json_is_refused_as_ever() -> None:
    for text in ("{", '{"a": "', nested(5_000)[:-3]):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            loads(text)


@pytest.mark.parametrize("levels", [100, 600, 900])
def test_a_pool_that_deep_is_invalid(levels: int) -> None:
    template: dict[str, Any] = {}
    for _ in range(levels):
        template = {"a": template}
    with pytest.raises(InvalidSpec, match="nested more than 50 deep"):
        read_spec({"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5}, "template": template})
