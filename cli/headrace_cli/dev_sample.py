"""A task to try: the line to copy, and the sample that runs at the start."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from .dev_probe import Found, Sample

_TEXTS: Final = {
    "date-time": "2026-01-15T10:30:00Z",
    "date": "2026-01-15",
    "time": "10:30:00Z",
    "duration": "PT5M",
    "uuid": "550e8400-e29b-41d4-a716-446655440000",
}


def curl(url: str, sample: Sample) -> str:
    """One line for a shell that submits this task."""
    body = json.dumps({"type": sample.type, "payload": sample.payload}, ensure_ascii=False)
    return f"curl -s {url}/api/v1/tasks -H 'Content-Type: application/json' -d {shlex.quote(body)}"


MOST: Final = 4
"""Lines to copy: more would push the box off the screen."""


def to_copy(found: Found) -> list[Sample]:
    """The application's own samples, else one made from the schema of its first type. Empty without types."""
    made = (Sample(name, type_.priority, example_of(type_.schema)) for name, type_ in sorted(found.types.items()))
    return list(islice(found.samples or islice(made, 1), MOST))


def example_of(schema: Mapping[str, Any]) -> Any:
    """A value that fits a JSON Schema as workers publish them, with only what is required."""
    return _Example(schema.get("$defs", {})).value(schema, "value", depth=0)


class _Example:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def value(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        for word in ("default", "const"):
            if word in schema:
                return schema[word]
        if "enum" in schema:
            return schema["enum"][0]
        if "$ref" in schema and depth < 8:
            return self.value(self._definitions[schema["$ref"].rpartition("/")[2]], name, depth + 1)
        for choices in ("anyOf", "oneOf"):
            if choices in schema:
                return self.value(_first_useful(schema[choices]), name, depth + 1)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match schema.get("type"):
            case "string":
                text = str(_TEXTS.get(schema.get("format", ""), name))
                return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return False
            case "array":
                return [self.value(schema.get("items") or {}, name, depth + 1)] * schema.get("minItems", 0)
            case "object":
                properties = schema.get("properties", {})
                return {key: self.value(properties[key], key, depth + 1) for key in schema.get("required", ())}
            case _:
                return None


def _first_useful(choices: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((each for each in choices if each.get("type") != "null"), choices[0])


def _number(schema: Mapping[str, Any]) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1 if "exclusiveMinimum" in schema else 1)
    value: int | float = max(1, low)
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if high is not None and value > high:
        value = high if "maximum" in schema else high - 1
    step = schema.get("multipleOf")
    return value if not step else step * -(-value // step)
