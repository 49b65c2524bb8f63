"""The parameters of a task function as a msgspec struct: one rule for producer, API and worker.

`Parameters` is read from the function's type hints once, at import. Whatever could not be one JSON object (`*args`,
positional-only or unannotated parameters, types that JSON cannot carry) is refused there, with a sentence.
What a payload gets wrong is found by `headrace.payload`.
"""

from __future__ import annotations

import copy
import enum
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, NoReturn

import msgspec
from msgspec import inspect as types

from headrace.context import Ctx
from headrace.errors import BadDefinition

_ANNOTATE = "Give every parameter a type, as in `url: str`"


@dataclass(frozen=True)
class Parameters:
    """What a task function takes and gives."""

    takes_ctx: bool
    """Whether its first parameter is the Ctx, which is no part of the payload."""
    struct: type[msgspec.Struct]
    """The payload: one field a parameter."""
    names: tuple[str, ...]
    """The parameters in the order of the function."""
    keyword_only: tuple[str, ...]
    """Those of `names` that come after a `*`."""
    required: tuple[str, ...]
    hints: Mapping[str, Any]
    result: Any
    """The annotated type of what it returns; Any where none is given."""

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """Those of `names` that a caller may give by position."""
        return self.names[: len(self.names) - len(self.keyword_only)]

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the payload."""
        return _json_schema(self.struct)


def read_parameters(fn: Callable[..., Any], where: str, scope: Mapping[str, Any]) -> Parameters:
    """Read a function. `where` names it in errors, `scope` holds the local names its annotations may use.

    Raises BadDefinition.
    """
    reader = _Reader(fn, where, scope)
    reader.take_ctx()
    for parameter in reader.rest:
        reader.check(parameter)
    return reader.parameters()


class _Reader:
    """One function being read."""

    def __init__(self, fn: Callable[..., Any], where: str, scope: Mapping[str, Any]) -> None:
        self.where = where
        self.signature = inspect.signature(fn)
        self.hints = self._resolve(fn, scope)
        self.rest = list(self.signature.parameters.values())
        self.takes_ctx = False

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        raise BadDefinition(self.where, problem, remedy)

    def _resolve(self, fn: Callable[..., Any], scope: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(fn, localns=dict(scope), include_extras=True)
        except NameError as error:
            self.refuse(
                f"the annotation {error.name!r} cannot be resolved when the module is imported",
                f"Define or import {error.name!r} above the function, and not under TYPE_CHECKING only",
            )
        except (TypeError, SyntaxError, AttributeError) as error:
            self.refuse(f"an annotation cannot be read ({error})", "Correct it")

    def take_ctx(self) -> None:
        """The Ctx, if the function wants it, comes first and leaves the rest to the payload."""
        for index, parameter in enumerate(self.rest):
            if is_ctx(self.hints.get(parameter.name)) and index > 0:
                self.refuse(f"parameter {parameter.name!r} is the Ctx but not the first one", "Put it first")
        if self.rest and is_ctx(self.hints.get(self.rest[0].name)):
            self.takes_ctx = True
            del self.rest[0]

    def check(self, parameter: inspect.Parameter) -> None:
        name, kind = parameter.name, parameter.kind
        if kind is parameter.VAR_POSITIONAL:
            self.refuse(f"*{name} has no names in a JSON object", f"Take a list: {name}: list[...]")
        if kind is parameter.VAR_KEYWORD:
            self.refuse(f"**{name} accepts anything", f"Name the parameters, or take {name}: dict[str, ...]")
        if kind is parameter.POSITIONAL_ONLY:
            self.refuse(f"parameter {name!r} is positional-only, but a payload has names", "Remove the '/'")
        if name not in self.hints:
            self.refuse(f"parameter {name!r} has no type", _ANNOTATE)
        self._check_type(f"parameter {name!r}", self.hints[name])
        if parameter.default is not parameter.empty:
            self._check_default(parameter)

    def _check_type(self, what: str, hint: Any) -> None:
        try:
            inside = list(_within(types.type_info(hint)))
            msgspec.json.Decoder(hint)
        except RecursionError:
            self.refuse(f"the type of {what} is an alias that holds itself", "Use a dataclass that does, or typing.Any")
        except (TypeError, ValueError) as error:
            self.refuse(f"the type of {what} cannot be read from JSON ({error})", "Use another type")
        if any(getattr(each, "cls", None) is Ctx for each in inside):
            self.refuse(
                f"the type of {what} holds Ctx, which is no JSON", "Write `ctx: Ctx`, without `| None`, and first"
            )
        for each in inside:
            if isinstance(each, types.CustomType):
                self.refuse(
                    f"the type of {what} holds {each.cls.__module__}.{each.cls.__qualname__}, "
                    "which cannot be read from JSON",
                    "Use JSON types, dataclasses, msgspec Structs, TypedDicts, datetime, UUID, Decimal or Enum",
                )

    def _check_default(self, parameter: inspect.Parameter) -> None:
        hint = self.hints[parameter.name]
        try:
            msgspec.json.decode(msgspec.json.encode(parameter.default), type=hint)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            self.refuse(
                f"the default {parameter.default!r} of parameter {parameter.name!r} does not fit its type ({error})",
                "Change the default or widen the type, as in `int | None = None`",
            )

    def parameters(self) -> Parameters:
        result = self.hints.get("return", Any)
        if result is typing.NoReturn or result is typing.Never:
            result = Any
        self._check_type("the result", result)
        names = tuple(parameter.name for parameter in self.rest)
        return Parameters(
            takes_ctx=self.takes_ctx,
            struct=self._struct(),
            names=names,
            keyword_only=tuple(p.name for p in self.rest if p.kind is p.KEYWORD_ONLY),
            required=tuple(p.name for p in self.rest if p.default is p.empty),
            hints={name: self.hints[name] for name in names},
            result=result,
        )

    def _struct(self) -> type[msgspec.Struct]:
        fields = [self._field(parameter) for parameter in self.rest]
        try:
            # gc=False: a payload comes from JSON, so it holds no cycles; it saves a third of the decoding.
            return msgspec.defstruct("Payload", fields, forbid_unknown_fields=True, kw_only=True, gc=False)
        except (TypeError, ValueError, RuntimeError) as error:
            self.refuse(f"its parameters make no payload ({error})", "Rename or retype them")

    def _field(self, parameter: inspect.Parameter) -> tuple[str, Any] | tuple[str, Any, Any]:
        hint, default = self.hints[parameter.name], parameter.default
        if default is parameter.empty:
            return (parameter.name, hint)
        if isinstance(default, list | dict | set | bytearray | msgspec.Struct | msgspec.Raw) or _is_dataclass(default):
            # Each attempt gets a copy of its own, where Python's own default would be shared.
            return (parameter.name, hint, msgspec.field(default_factory=partial(copy.deepcopy, default)))
        return (parameter.name, hint, default)


def is_ctx(hint: Any) -> bool:
    """Whether this annotation is `Ctx` or `Ctx[...]`."""
    return hint is Ctx or typing.get_origin(hint) is Ctx


def _is_dataclass(value: Any) -> bool:
    return hasattr(type(value), "__dataclass_fields__")


def _json_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """As msgspec writes it, but for two things: it names single flags where it decodes any that are put together of
    them, and a set that is a default has another order in each process, so each would publish another version.
    """
    inside = _within(types.type_info(struct))
    flags = [each.cls for each in inside if isinstance(each, types.EnumType) and issubclass(each.cls, enum.Flag)]
    (payload, *named), parts = msgspec.json.schema_components([struct, *flags], ref_template="#/$defs/{name}")
    for each in named:
        part = parts[each["$ref"].removeprefix("#/$defs/")]
        part.pop("enum", None)
        part["type"] = "integer"
    for part in parts.values():
        for each in (*part.get("properties", {}).values(), *part.get("prefixItems", ())):
            if "default" in each and b'"uniqueItems":' in msgspec.json.encode(each):
                del each["default"]
    return {**payload, "$defs": parts}


def _within(info: Any, seen: frozenset[type] = frozenset()) -> Iterator[Any]:
    """A type and all types in it."""
    yield info
    cls = getattr(info, "cls", None)
    if cls in seen:
        return
    inner = seen | {cls} if cls else seen
    for child in _children(info):
        yield from _within(child, inner)


def _children(info: Any) -> Iterator[Any]:
    for name in ("type", "item_type", "key_type", "value_type"):
        if isinstance(child := getattr(info, name, None), types.Type):
            yield child
    for name in ("types", "item_types"):
        yield from getattr(info, name, ())
    for field in getattr(info, "fields", ()):
        yield field.type


def make_invoke(fn: Callable[..., Any], found: Parameters) -> Callable[[Any, Any], Any]:
    """`invoke(struct, ctx)`: call the function with a payload. Chosen once, since it runs for every attempt."""
    if found.keyword_only:
        return _invoke_by_name(fn, found)
    if not found.names:
        return (lambda struct, ctx: fn(ctx)) if found.takes_ctx else (lambda struct, ctx: fn())
    get = attrgetter(*found.names)
    if len(found.names) == 1:
        return (lambda struct, ctx: fn(ctx, get(struct))) if found.takes_ctx else lambda struct, ctx: fn(get(struct))
    return (lambda struct, ctx: fn(ctx, *get(struct))) if found.takes_ctx else lambda struct, ctx: fn(*get(struct))


def _invoke_by_name(fn: Callable[..., Any], found: Parameters) -> Callable[[Any, Any], Any]:
    positional, named = found.positional, found.keyword_only

    def invoke(struct: Any, ctx: Any) -> Any:
        args = [getattr(struct, name) for name in positional]
        kwargs = {name: getattr(struct, name) for name in named}
        return fn(ctx, *args, **kwargs) if found.takes_ctx else fn(*args, **kwargs)

    return invoke
