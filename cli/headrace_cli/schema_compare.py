"""What two versions of an application's types have in common: which payloads of the old one the new one refuses.

The schemas are those that msgspec writes. A change is *breaking* if a task that was submitted for the old version, and
still waits, can be refused by the new one. Where that cannot be told, it is called breaking: a pattern that changed,
say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Schema = Mapping[str, Any]
Kind = Literal["breaking", "compatible"]


class Change(msgspec.Struct, frozen=True):
    """One difference."""

    type: str
    pointer: str
    """Where in the payload; '' = the whole of it."""
    kind: Kind
    what: str
    """A clause: `is required now`."""


def compare(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[Change]:
    """The differences of two sets of types, by name, each as workers publish it (`schema`, `queue`, …)."""
    changes: list[Change] = []
    for name in sorted({*old, *new}):
        if name not in new:
            changes.append(Change(name, "", "breaking", "is gone: its tasks wait for a worker that knows it"))
        elif name not in old:
            changes.append(Change(name, "", "compatible", "is new"))
        else:
            changes += (Change(name, *each) for each in _Walk(old[name], new[name]).changes())
    return changes


Found = tuple[str, Kind, str]
"""Pointer, kind, words."""
_NUMBERS: Final = {"integer", "number"}
_LOW: Final = {"minimum": "minimum", "exclusiveMinimum": "lower bound", "minLength": "minimal length",
               "minItems": "minimal number of items", "minProperties": "minimal number of fields"}  # fmt: skip
_HIGH: Final = {"maximum": "maximum", "exclusiveMaximum": "upper bound", "maxLength": "maximal length",
                "maxItems": "maximal number of items", "maxProperties": "maximal number of fields"}  # fmt: skip
_FORMS: Final = {"pattern": "pattern", "format": "format", "contentEncoding": "encoding", "multipleOf": "multiple"}
_ANY: Final[Schema] = {}


class _Walk:
    """Two versions of one type, looked at side by side."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._described = (old, new)
        self._old = old.get("schema", _ANY)
        self._new = new.get("schema", _ANY)
        self._seen: set[tuple[str, str]] = set()

    def changes(self) -> Iterator[Found]:
        yield from self._compare(self._old, self._new, "")
        old, new = self._described
        for name in ("queue", "priority", "max_retries", "timeout_s"):
            if old.get(name) != new.get(name):
                yield "", "compatible", f"has {name} {_json(new.get(name))}, it had {_json(old.get(name))}"

    def _compare(self, old: Schema, new: Schema, at: str) -> list[Found]:
        pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
        if all(pair):
            if pair in self._seen:
                return []
            self._seen.add(pair)
        return self._resolved(_resolve(old, self._old), _resolve(new, self._new), at)

    def _resolved(self, old: Schema, new: Schema, at: str) -> list[Found]:
        before, after = _alternatives(old), _alternatives(new)
        if len(before) == len(after) == 1:
            return self._one(before[0], after[0], at)
        found: list[Found] = []
        for each in before:
            found += self._best(each, after, at)
        return list(dict.fromkeys(found))

    def _best(self, old: Schema, after: Sequence[Schema], at: str) -> list[Found]:
        """The changes against the alternative that takes most of what the old one took."""
        tried = []
        for each in after:
            seen = self._seen.copy()
            tried.append(self._compare(old, each, at))
            self._seen = seen
        return min(tried, key=lambda found: sum(kind == "breaking" for _, kind, _ in found))

    def _one(self, old: Schema, new: Schema, at: str) -> list[Found]:
        if "enum" in old:
            return list(self._values(old["enum"], new, at))
        if "enum" in new:
            return [(at, "breaking", f"takes only {_listed(new['enum'])}, where it took {_named(old)}")]
        before, after = old.get("type"), new.get("type")
        if after is not None and before != after and not (before == "integer" and after == "number"):
            return [(at, "breaking", f"is {_named(new)}, where it was {_named(old)}")]
        found = [*_bounds(old, new, at), *_forms(old, new, at)]
        if after is None:
            return found
        if before == "object":
            found += self._object(old, new, at)
        elif before == "array":
            found += self._array(old, new, at)
        return found

    def _values(self, values: Sequence[Any], new: Schema, at: str) -> Iterator[Found]:
        from headrace_api.schema_check import compile_schema

        if unchecked := [words for name, words in _FORMS.items() if name in new and name != "pattern"]:
            yield at, "breaking", f"has {unchecked[0]}, where it took {_listed(values)}"
            return
        check = compile_schema({**new, "$defs": self._new.get("$defs", {})})
        for value in values:
            if value not in new["enum"] if "enum" in new else check(value):
                yield at, "breaking", f"does not take {_json(value)} any more"

    def _object(self, old: Schema, new: Schema, at: str) -> Iterator[Found]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", ()))
        for name in new.get("required", ()):
            if name not in required:
                yield f"{at}/{name}", "breaking", "is required now"
        for name in sorted({*before, *after}):
            place = f"{at}/{name}"
            if name in before and name in after:
                yield from self._compare(before[name], after[name], place)
            elif name in after:
                if name not in new.get("required", ()):
                    yield place, "compatible", "is new and may be left out"
            elif new.get("additionalProperties") is False:
                yield place, "breaking", "is gone, and unknown fields are refused"
            else:
                yield place, "compatible", "is gone and will be ignored"
        yield from self._rest(old.get("additionalProperties", True), new.get("additionalProperties", True), at)

    def _rest(self, old: bool | Schema, new: bool | Schema, at: str) -> Iterator[Found]:
        """Fields that are not named."""
        if new is False and old is not False:
            yield at, "breaking", "refuses unknown fields now"
        elif isinstance(new, Mapping) and old is not False:
            yield from self._compare(old if isinstance(old, Mapping) else _ANY, new, f"{at}/*")

    def _array(self, old: Schema, new: Schema, at: str) -> Iterator[Found]:
        first_old, first_new = old.get("prefixItems", []), new.get("prefixItems", [])
        for index in range(max(len(first_old), len(first_new))):
            before = first_old[index] if index < len(first_old) else old.get("items", _ANY)
            after = first_new[index] if index < len(first_new) else new.get("items", _ANY)
            if isinstance(before, Mapping) and isinstance(after, Mapping):
                yield from self._compare(before, after, f"{at}/{index}")
        before, after = old.get("items", _ANY), new.get("items", _ANY)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from self._compare(before, after, f"{at}/-")


def _resolve(schema: Schema, root: Schema) -> Schema:
    seen = set()
    while isinstance(ref := schema.get("$ref"), str) and ref not in seen:
        seen.add(ref)
        rest = {key: value for key, value in schema.items() if key not in {"$ref", "$defs"}}
        schema = {**root.get("$defs", {}).get(ref.rpartition("/")[2], {}), **rest}
    return schema


def _alternatives(schema: Schema) -> list[Schema]:
    if "anyOf" in schema:
        return list(schema["anyOf"])
    if isinstance(kinds := schema.get("type"), list):
        return [{**schema, "type": kind} for kind in kinds]
    return [schema]


def _bounds(old: Schema, new: Schema, at: str) -> Iterator[Found]:
    for names, tighter in ((_LOW, 1), (_HIGH, -1)):
        for name, words in names.items():
            before, after = old.get(name), new.get(name)
            if after is not None and after != before and (before is None or (after - before) * tighter > 0):
                yield at, "breaking", f"has {words} {after}, {_before(before)}"
            elif before is not None and after != before:
                yield at, "compatible", f"has {words} {'none' if after is None else after}, {_before(before)}"


def _forms(old: Schema, new: Schema, at: str) -> Iterator[Found]:
    for name, words in _FORMS.items():
        before, after = old.get(name), new.get(name)
        if before != after:
            kind: Kind = "compatible" if after is None else "breaking"
            yield at, kind, f"has {words} {_json(after)}, {_before(before)}"


def _before(value: Any) -> str:
    return "it had none" if value is None else f"it was {_json(value)}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(_json, values))


def _named(schema: Schema) -> str:
    if "enum" in schema:
        return f"one of {_listed(schema['enum'])}"
    kind = schema.get("type")
    if kind is None:
        return "anything"
    return f"{'an' if kind[0] in 'aio' else 'a'} {kind}" if kind != "null" else "null"
