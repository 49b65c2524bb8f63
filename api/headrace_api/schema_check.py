"""A published JSON Schema as a quick check of a payload, for the part of JSON Schema that msgspec writes.

What is not understood is let through: the door may be coarser than the worker, never stricter. So formats, tags of
unions and multiples are the worker's business. A check takes a decoded JSON value and says what is wrong with it, by
pointers relative to that value; places are put together only when there is an error, so a good payload costs about a
microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headrace.errors import FieldError, nearest

from .strict_json import escape

MAX_ERRORS: Final = 20
"""Errors named for one payload."""

Errors = Sequence[FieldError]
Check = Callable[[Any], Errors]

_NONE: Final[Errors] = ()


def compile_schema(schema: Any) -> Check:
    """The check for a schema, which may be anything; whatever is no schema accepts everything."""
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    compiler = _Compiler(definitions if isinstance(definitions, dict) else {})
    return compiler.compile(compiler.meant(schema))


def accepts_all(value: Any) -> Errors:
    """The check of a schema that says nothing."""
    return _NONE


def accepts_either(checks: Sequence[Check]) -> Check:
    """What any of these accepts; what is wrong otherwise says the first."""
    first, *others = checks

    def check(value: Any) -> Errors:
        errors = first(value)
        return errors if errors and all(each(value) for each in others) else _NONE

    return check if others else first


_NAMES: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null",
}
_TYPES: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "object": ("an object", (dict,)),
    "array": ("an array", (list,)),
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "null": ("null", (type(None),)),
}


class _Compiler:
    """Schema to check; `definitions` are its $defs, each compiled when a payload first comes to it."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._compiled: dict[str, Check] = {}

    def compile(self, schema: Any) -> Check:
        if not isinstance(schema, dict):
            return accepts_all
        parts = (
            self._reference(schema.get("$ref")),
            _type(schema),
            self._alternatives(schema),
            _values(schema),
            _bounds(schema),
            self._object(schema),
            self._array(schema),
        )
        checks = [each for each in parts if each is not accepts_all]
        return _in_turn(checks) if checks else accepts_all

    def meant(self, schema: Any) -> Any:
        """The definition, where the whole schema is a reference to one."""
        name = self._name(schema.get("$ref")) if isinstance(schema, dict) and schema.keys() <= {"$ref", "$defs"} else ""
        return self._definitions[name] if name else schema

    def _name(self, ref: Any) -> str:
        """Of a definition that is there and ends; empty if the reference is to none."""
        name = ref.removeprefix("#/$defs/") if isinstance(ref, str) else ""
        return name if name in self._definitions and not self._goes_round(name) else ""

    def _reference(self, ref: Any) -> Check:
        name = self._name(ref)
        if not name:
            return accepts_all

        def check(value: Any) -> Errors:
            known = self._compiled.get(name)
            if known is None:
                known = self._compiled[name] = self.compile(self._definitions[name])
            return known(value)

        return check

    def _goes_round(self, name: str) -> bool:
        """Whether a definition comes back to itself without a step into the value: it would never end."""
        seen: set[str] = set()
        ahead = [*_same_value(self._definitions[name])]
        while ahead:
            if (each := ahead.pop()) == name:
                return True
            if each not in seen:
                seen.add(each)
                ahead += _same_value(self._definitions.get(each))
        return False

    def _alternatives(self, schema: Mapping[str, Any]) -> Check:
        given = schema.get("anyOf")
        if not isinstance(given, list):
            return accepts_all
        checks = [self.compile(each) for each in given]
        return _any(checks, [_describe(each) for each in given], *self._tags(schema.get("discriminator")))

    def _tags(self, discriminator: Any) -> tuple[str, Mapping[str, Check]]:
        """The field that tells the members of a union apart, and the check of each."""
        match discriminator:
            case {"propertyName": str(name), "mapping": dict(mapping)}:
                return name, {tag: self._reference(ref) for tag, ref in mapping.items()}
            case _:
                return "", {}

    def _object(self, schema: Mapping[str, Any]) -> Check:
        properties = schema.get("properties")
        known = {key: self.compile(each) for key, each in properties.items()} if isinstance(properties, dict) else {}
        given = schema.get("required")
        required = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
        required = [name for name in required if not _is_tag(properties, name)]
        rest = schema.get("additionalProperties")
        if not known and not required and rest is None:
            return accepts_all
        return _object(known, required, None if rest is False else self.compile(rest))

    def _array(self, schema: Mapping[str, Any]) -> Check:
        given = schema.get("prefixItems")
        first = [self.compile(each) for each in given] if isinstance(given, list) else []
        rest = self.compile(schema.get("items"))
        return accepts_all if not first and rest is accepts_all else _array(first, rest)


def _same_value(schema: Any) -> Iterator[str]:
    """The definitions that a schema applies to the same value."""
    if isinstance(schema, dict):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref.removeprefix("#/$defs/")
        if isinstance(alternatives := schema.get("anyOf"), list):
            for each in alternatives:
                yield from _same_value(each)


def _is_tag(properties: Any, name: str) -> bool:
    """Whether this field tells the members of a union apart; msgspec does not insist on it where there is no union."""
    values = properties.get(name) if isinstance(properties, dict) else None
    return isinstance(values, dict) and isinstance(values.get("enum"), list) and len(values["enum"]) == 1


def _in_turn(checks: Sequence[Check]) -> Check:
    """The first that finds something is all: a value of a wrong type is wrong in no other way that would help."""
    first, *others = checks
    if not others:
        return first
    types, second = _types_of(first), _in_turn(others)
    if types:
        return lambda value: second(value) if type(value) in types else first(value)
    return lambda value: first(value) or second(value)


@dataclass(frozen=True, slots=True)
class _OfType:
    """The check of a JSON type. Others look at `types` first, for a call costs more than the look."""

    types: frozenset[type]
    words: str

    def __call__(self, value: Any) -> Errors:
        kind = type(value)
        return _NONE if kind in self.types else (FieldError("", f"is {_NAMES.get(kind)}, not {self.words}"),)


def _types_of(check: Check) -> frozenset[type]:
    """Whose values this check lets pass, whatever they are; none, if it looks closer."""
    return check.types if isinstance(check, _OfType) else frozenset()


def _type(schema: Mapping[str, Any]) -> Check:
    given = schema.get("type")
    kinds = given if isinstance(given, list) else [given]
    wanted = [_TYPES[kind] for kind in kinds if isinstance(kind, str) and kind in _TYPES]
    if len(wanted) < len(kinds) or schema.get("format") == "decimal":  # which may be a number as well
        return accepts_all
    types = frozenset(each for _, classes in wanted for each in classes)
    return _OfType(types, " or ".join(name for name, _ in wanted))


def _describe(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "anything"
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES:
        return _TYPES[kind][0]
    if isinstance(values := schema.get("enum"), list):
        return _one_of(values)
    return str(schema.get("title") or schema.get("$ref", "another form")).rpartition("/")[2]


def _any(checks: Sequence[Check], words: Sequence[str], tag: str, by_tag: Mapping[str, Check]) -> Check:
    def check(value: Any) -> Errors:
        meant = by_tag.get(str(value.get(tag))) if type(value) is dict else None
        deepest: Errors = meant(value) if meant else _NONE
        for each in checks:
            errors = each(value)
            if not errors:
                return _NONE
            if not deepest and any(error.pointer for error in errors):
                deepest = errors  # of the alternative that fits at least from outside
        detail = f"is {_NAMES.get(type(value))}, not {' or '.join(dict.fromkeys(words))}"
        return deepest or (FieldError("", detail),)

    return check


def _values(schema: Mapping[str, Any]) -> Check:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        return accepts_all

    def check(value: Any) -> Errors:
        if any(type(each) is type(value) and each == value for each in values):
            return _NONE
        words = [each for each in values if isinstance(each, str)]
        meant = nearest(value[:80], words) if type(value) is str else None
        return (FieldError("", f"is not {_one_of(values)}", f"did you mean {meant!r}?" if meant else None),)

    return check


def _one_of(values: Sequence[Any]) -> str:
    shown = [repr(each) for each in values[:20]]
    return shown[0] if len(values) == 1 else f"one of {', '.join(shown)}" + (" …" if len(values) > 20 else "")


def _bounds(schema: Mapping[str, Any]) -> Check:
    rules: list[tuple[Callable[[Any], bool], str]] = []
    for name, (words, measure, wrong) in _LIMITS.items():
        limit = schema.get(name)
        if name == "maxItems" and schema.get("uniqueItems"):
            continue  # a set is counted without what is in it twice
        if type(limit) is int or type(limit) is float:
            rules.append((_breaks(measure, wrong, limit), words.format(limit)))
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (compiled := _pattern(pattern)):
        rules.append((lambda value: type(value) is str and not compiled.search(value), f"does not match {pattern!r}"))
    if not rules:
        return accepts_all

    def check(value: Any) -> Errors:
        return [FieldError("", words) for breaks, words in rules if breaks(value)]

    return check


def _breaks(measure: Callable[[Any], Any], wrong: Callable[[Any, Any], bool], limit: float) -> Callable[[Any], bool]:
    def breaks(value: Any) -> bool:
        size = measure(value)
        return size is not None and wrong(size, limit)

    return breaks


def _number(value: Any) -> Any:
    return value if type(value) is int or type(value) is float else None


def _length(kind: type[list[Any] | dict[str, Any] | str]) -> Callable[[Any], Any]:
    def length(value: Any) -> int | None:
        return len(value) if type(value) is kind else None

    return length


_LIMITS: Final[Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any, Any], bool]]]] = {
    "minimum": ("is less than {}", _number, lambda size, limit: size < limit),
    "maximum": ("is more than {}", _number, lambda size, limit: size > limit),
    "exclusiveMinimum": ("is not more than {}", _number, lambda size, limit: size <= limit),
    "exclusiveMaximum": ("is not less than {}", _number, lambda size, limit: size >= limit),
    "minLength": ("has fewer than {} characters", _length(str), lambda size, limit: size < limit),
    "maxLength": ("has more than {} characters", _length(str), lambda size, limit: size > limit),
    "minItems": ("has fewer than {} items", _length(list), lambda size, limit: size < limit),
    "maxItems": ("has more than {} items", _length(list), lambda size, limit: size > limit),
    "minProperties": ("has fewer than {} members", _length(dict), lambda size, limit: size < limit),
    "maxProperties": ("has more than {} members", _length(dict), lambda size, limit: size > limit),
}


def _pattern(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _object(known: Mapping[str, Check], required: Sequence[str], others: Check | None) -> Check:
    types = {key: _types_of(each) for key, each in known.items()}
    closed = others is None and known.keys() >= set(required)
    complete = len(known) if closed else None
    """Members of an object of which none is missing, if nothing is wrong with any."""

    def check(value: Any) -> Errors:
        if type(value) is not dict:
            return _NONE
        errors: list[FieldError] = []
        for key, inner in value.items():
            if type(inner) in types.get(key, ()):
                continue
            each = known.get(key, others)
            if each is None:
                errors.append(_unknown(key, [name for name in required if name not in value] or list(known)))
            elif found := each(inner):
                errors += _below(key, found)
            if len(errors) >= MAX_ERRORS:
                return errors
        if not errors and len(value) == complete:
            return _NONE
        for name in required:
            if name not in value:
                errors.append(FieldError(f"/{escape(name)}", "is required but missing"))
        return errors

    return check


def _below(key: str | int, errors: Errors) -> Errors:
    step = f"/{escape(key)}" if isinstance(key, str) else f"/{key}"
    return [replace(error, pointer=step + error.pointer) for error in errors[:MAX_ERRORS]]


def _unknown(key: str, known: Sequence[str]) -> FieldError:
    meant = nearest(key[:80], known)
    hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(known[:20])}" if known else None
    return FieldError(f"/{escape(key)}", "is not a field of this type", hint)


def _array(first: Sequence[Check], rest: Check) -> Check:
    def check(value: Any) -> Errors:
        if type(value) is not list:
            return _NONE
        errors: list[FieldError] = []
        for index, inner in enumerate(value):
            found = first[index](inner) if index < len(first) else rest(inner)
            if found:
                errors += _below(index, found)
                if len(errors) >= MAX_ERRORS:
                    break
        return errors

    return check
