"""Makes README.md's table and values.schema.json of the chart's values.yaml: `python charts/values_page.py`.

A key with a comment `# --` is a value with that description; a key without one is a group of values. `# @schema` adds
to the schema what a default cannot say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parent / "headrace"
BEGIN, END = "<!-- values -->", "<!-- end of values -->"
_KEY: Final = re.compile(r"( *)([A-Za-z][A-Za-z0-9-]*):")
_TYPES: Final[dict[type, str]] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
_OPEN: Final = frozenset({"global"})
"""Groups that other charts add to."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value that can be set."""

    path: tuple[str, ...]
    description: str
    extra: dict[str, Any]
    default: Any

    @property
    def schema(self) -> dict[str, Any]:
        """Of it alone. A map takes any key, and null, by which users take a default away."""
        if isinstance(self.default, dict):
            inferred: dict[str, Any] = {"type": ["object", "null"]}
        else:
            inferred = {"type": _TYPES[type(self.default)]}
        return {"description": self.description, **inferred, **self.extra}


def values(text: str) -> list[Value]:
    """All that are described, in order. Raises KeyError if a comment stands above no key."""
    defaults, found = yaml.safe_load(text), []
    path: list[str] = []
    described, extra = "", {}
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("# -- "):
            described = comment[5:]
        elif comment.startswith("# @schema "):
            extra = yaml.safe_load(comment[10:])
        elif comment.startswith("# ") and described:
            described += " " + comment[2:]
        elif key := _KEY.match(line):
            path[len(key[1]) // 2 :] = [key[2]]
            if described:
                found.append(Value(tuple(path), described, extra, _at(defaults, path)))
            described, extra = "", {}
    return found


def _at(defaults: Any, path: list[str]) -> Any:
    for name in path:
        defaults = defaults[name]
    return defaults


def schema(found: list[Value]) -> dict[str, Any]:
    """Draft 2020-12: a name that the chart does not know is refused, but in `global`."""
    root = _group()
    for value in found:
        group = root
        for name in value.path[:-1]:
            group = group["properties"].setdefault(name, _group(open=name in _OPEN))
        group["properties"][value.path[-1]] = value.schema
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "headrace", **root}


def _group(*, open: bool = False) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": open, "properties": {}}


def table(found: list[Value]) -> str:
    """Markdown."""
    rows = [f"| `{'.'.join(each.path)}` | {_cell(each.default)} | {each.description} |" for each in found]
    return "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *rows])


def _cell(default: Any) -> str:
    if default == "":
        return "none"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def pages() -> dict[Path, str]:
    """What the files should hold."""
    found = values((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        CHART / "README.md": f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}",
        CHART / "values.schema.json": json.dumps(schema(found), indent=1) + "\n",
    }


if __name__ == "__main__":
    for file, content in pages().items():
        file.write_text(content)
