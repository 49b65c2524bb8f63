"""Payloads from type hints: what a function may take, and what a wrong payload is told."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn, TypedDict
from uuid import UUID, uuid4

import jsonschema_rs
import msgspec
import pydantic
import pytest

from headrace.context import Ctx
from headrace.errors import BadDefinition, FieldError, InvalidPayload
from headrace.payload import MAX_ERRORS, MAX_NAME, Payload, encode_arguments, make_decode
from headrace.schema import Parameters, make_invoke, read_parameters


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Address:
    street: str
    number: int = 1
    tags: list[str] = field(default_factory=list)


class Person(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    homes: list[Address] = []


class Row(TypedDict):
    id: int


class Model(pydantic.BaseModel):
    x: int


Positive = Annotated[int, msgspec.Meta(gt=0, le=1000)]


def read(fn: Callable[..., Any], scope: dict[str, Any] | None = None) -> Parameters:
    return read_parameters(fn, "Task function t", scope or {})


def errors_of(fn: Callable[..., Any], payload: Payload) -> list[FieldError]:
    with pytest.raises(InvalidPayload) as caught:
        make_decode("t", read(fn))(payload)
    return caught.value.errors


def resize(url: str, width: Positive = 200) -> str:
    return f"{url}/{width}"


def everything(
    when: datetime,
    span: timedelta,
    uid: UUID,
    price: Decimal,
    size: Size,
    address: Address,
    person: Person,
    row: Row,
    kind: Literal["a", "b"],
    pair: tuple[int, str],
    names: set[str],
    scores: dict[str, float],
    data: bytes,
    maybe: int | None = None,
    anything: Any = None,
) -> None: ...


# What a function may take


def test_parameters_of_a_function() -> None:
    """Names, what is required, and the result are read; the Ctx is no part of the payload."""

    def task(ctx: Ctx[str], url: str, *, width: Positive = 200) -> dict[str, int]:
        return {url: width}

    found = read(task)
    assert found.takes_ctx
    assert (found.names, found.required) == (("url", "width"), ("url",))
    assert (found.positional, found.keyword_only) == (("url",), ("width",))
    assert found.result == dict[str, int]


@pytest.mark.parametrize("hint", [Ctx, Ctx[int]])
def test_ctx_is_optional_and_may_be_bare(hint: Any) -> None:
    """`ctx: Ctx` and `ctx: Ctx[Deps]` are the same to the payload, whatever the parameter is called."""

    def task(c: Any, url: str) -> None: ...

    task.__annotations__["c"] = hint
    assert read(task).takes_ctx
    assert not read(resize).takes_ctx


def test_local_types_resolve() -> None:
    """String annotations may name what is local to where the function is defined."""

    class Local(msgspec.Struct):
        x: int

    def task(local: Local) -> None: ...

    assert make_decode("t", read(task, locals()))(b'{"local":{"x":1}}').local == Local(1)


def test_supported_types_round_trip() -> None:
    """Dataclass, Struct, TypedDict, datetime, UUID, Decimal, Enum, bytes, … arrive as what they were."""
    given = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "span": timedelta(seconds=90),
        "uid": uuid4(),
        "price": Decimal("1.10"),
        "size": Size.LARGE,
        "address": Address("Main", 2, ["x"]),
        "person": Person("Ada", [Address("Side")]),
        "row": {"id": 1},
        "kind": "b",
        "pair": (1, "x"),
        "names": {"a", "b"},
        "scores": {"x": 1.5},
        "data": b"\x00\xff",
    }
    found = read(everything)
    decoded = make_decode("t", found)(encode_arguments("t", found, (), given))
    assert {name: getattr(decoded, name) for name in given} == given
    assert (decoded.maybe, decoded.anything) == (None, None)


def test_schema_tells_types_bounds_and_defaults() -> None:
    """JSON Schema for the API: closed, with the bounds of Annotated and the defaults."""
    schema = read(resize).schema()
    [payload] = schema["$defs"].values()
    assert payload["additionalProperties"] is False
    assert payload["required"] == ["url"]
    assert payload["properties"]["width"] == {
        "type": "integer",
        "exclusiveMinimum": 0,
        "maximum": 1000,
        "default": 200,
    }


def test_schema_of_types_that_share_a_name() -> None:
    """A user's own type may be called as ours is."""

    class Payload(msgspec.Struct):
        x: int

    def task(payload: Payload) -> None: ...

    found = read(task, locals())
    assert len(found.schema()["$defs"]) == 2
    assert make_decode("t", found)(b'{"payload":{"x":1}}').payload == Payload(1)


class Right(enum.Flag):
    READ = 1
    WRITE = 2


def test_schema_of_flags_takes_all_that_the_worker_takes() -> None:
    """Several together are none of the values that have a name; a single one is."""

    def task(rights: Right, more: list[Right] | None = None) -> None: ...

    found = read(task)
    payload = encode_arguments("t", found, (Right.READ | Right.WRITE,), {})
    assert make_decode("t", found)(payload).rights == Right.READ | Right.WRITE
    assert found.schema()["$defs"]["Right"] == {"title": "Right", "type": "integer"}
    jsonschema_rs.validate(found.schema(), json.loads(payload))


@dataclass
class Tagged:
    tags: frozenset[str] = frozenset({"a", "b"})
    size: int = 3


def takes_sets(
    plain: frozenset[str] = frozenset({"a", "b"}),
    maybe: frozenset[str] | None = frozenset({"a", "b"}),
    several: tuple[frozenset[str], ...] = (frozenset({"a", "b"}),),
    rest: tuple[int, ...] = (2, 1),
    tagged: Tagged = Tagged(),  # noqa: B008
) -> None: ...


def test_schema_is_the_same_in_each_process() -> None:
    """Else each worker would publish a version of its own: a set of texts has another order in each."""
    defs = read(takes_sets).schema()["$defs"]
    defaults = {
        name: each["default"]
        for part in defs.values()
        for name, each in part["properties"].items()
        if "default" in each
    }
    assert defaults == {"rest": (2, 1), "size": 3}
    assert make_decode("t", read(takes_sets))(b"{}").plain == {"a", "b"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement `type` is of Python 3.12")
def test_alias_of_itself_is_refused() -> None:
    """With a sentence: a RecursionError names neither the function nor the parameter."""
    names: dict[str, Any] = {}
    exec("type Json = int | list[Json]\ndef task(tree: Json) -> None: ...", names)
    with pytest.raises(BadDefinition, match=r"parameter 'tree' is an alias that holds itself\. Use a dataclass"):
        read(names["task"])


def test_result_that_never_comes() -> None:
    """A function that never returns has any result."""

    def task() -> NoReturn:
        raise ValueError

    assert read(task).result is Any


def test_default_is_not_shared() -> None:
    """A mutable default is a new one for each attempt."""

    def task(rows: list[int] = [1], *, home: Address = Address("x")) -> None: ...  # noqa: B006, B008

    decode = make_decode("t", read(task))
    first = decode(b"{}")
    first.rows.append(2)
    first.home.tags.append("used")
    assert decode(b"{}").rows == [1]
    assert decode(b"{}").home.tags == []


def test_json_as_it_is_may_be_a_default() -> None:
    """No schema could be made of it, and a worker that knew such a type did not start."""

    def task(extra: msgspec.Raw = msgspec.Raw(b'{"a":1}')) -> None: ...  # noqa: B008 - it does not change

    found = read(task)
    assert list(found.schema()["$defs"]["Payload"]["properties"]) == ["extra"]
    assert bytes(make_decode("t", found)(b"{}").extra) == b'{"a":1}'


class Plain:
    """A class that JSON knows nothing of."""


def takes_model(x: Model) -> None: ...
def takes_nested_model(x: list[dict[str, Model | None]]) -> None: ...
def takes_plain(x: Plain) -> None: ...
def takes_callable(x: Callable[[], int]) -> None: ...
def takes_iterable(x: Iterable[int]) -> None: ...
def takes_two_structs(x: Person | Parameters) -> None: ...
def takes_star(*urls: str) -> None: ...
def takes_stars(**urls: str) -> None: ...
def takes_positional(url: str, /) -> None: ...
def takes_untyped(url, width: int) -> None: ...  # type: ignore[no-untyped-def]
def takes_ctx_second(url: str, ctx: Ctx[None]) -> None: ...
def takes_ctx_or_none(url: str, ctx: Ctx | None = None) -> None: ...
def takes_mangled(__url: str) -> None: ...
def takes_unknown_name(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_wrong_default(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def takes_bad_default(x: Positive = 0) -> None: ...
def gives_model() -> Model: ...  # type: ignore[empty-body]


@dataclass
class Holder:
    inner: Model


def takes_holder(x: Holder) -> None: ...


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (takes_model, ["parameter 'x'", "test_schema.Model", "cannot be read from JSON"]),
        (takes_nested_model, ["parameter 'x'", "Model"]),
        (takes_holder, ["parameter 'x'", "Model"]),
        (takes_plain, ["parameter 'x'", "Plain"]),
        (takes_callable, ["parameter 'x'", "Callable"]),
        (takes_iterable, ["parameter 'x'", "Iterable"]),
        (takes_two_structs, ["parameter 'x'"]),
        (takes_star, ["*urls", "list"]),
        (takes_stars, ["**urls", "dict"]),
        (takes_positional, ["'url'", "positional-only"]),
        (takes_untyped, ["'url' has no type", "url: str"]),
        (takes_ctx_second, ["'ctx'", "first"]),
        (takes_ctx_or_none, ["'ctx'", "holds Ctx", "`ctx: Ctx`"]),
        (takes_mangled, ["'__url'", "Rename"]),
        (takes_unknown_name, ["'Nowhere'", "TYPE_CHECKING"]),
        (takes_wrong_default, ["default None", "'x'", "int | None"]),
        (takes_bad_default, ["default 0", "'x'"]),
        (gives_model, ["the result", "Model"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refused_at_import(fn: Callable[..., Any], words: list[str]) -> None:
    """What cannot be one JSON object is refused with the function, the parameter and a way out."""
    with pytest.raises(BadDefinition) as caught:
        read(fn)
    for word in ["Task function t", *words]:
        assert word in str(caught.value)


# What a payload gets wrong


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"url":3}', [FieldError("/url", "Expected `str`, got `int`")]),
        (b'{"url":"x","width":0}', [FieldError("/width", "Expected `int` >= 1")]),
        (b"{}", [FieldError("/url", "is required but missing")]),
        (
            b'{"url":"x","widht":3}',
            [FieldError("/widht", "is not a field of this type", "did you mean 'width'?")],
        ),
        (
            b'{"url":"x","zzz":3}',
            [FieldError("/zzz", "is not a field of this type", "known are url, width")],
        ),
        (b"[]", [FieldError("", "Expected `object`, got `array`")]),
        (b"null", [FieldError("", "Expected `object`, got `null`")]),
        (b"", [FieldError("", "Input data was truncated")]),
        (b'{"url":"\xff"}', [FieldError("/url", "is not valid UTF-8")]),
        (
            b'{"uri":"x","width":"y"}',
            [
                FieldError("/uri", "is not a field of this type", "did you mean 'url'?"),
                FieldError("/width", "Expected `int`, got `str`"),
                FieldError("/url", "is required but missing"),
            ],
        ),
    ],
)
def test_every_wrong_field_is_named(payload: bytes, expected: list[FieldError]) -> None:
    """All of them at once, with pointers and the nearest names."""
    assert errors_of(resize, payload) == expected


def nested(
    person: Person,
    homes: dict[str, Address],
    rows: list[Row],
    guests: Annotated[list[Person], msgspec.Meta(max_length=2)] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"person": {"name": 1}}, FieldError("/person/name", "Expected `str`, got `int`")),
        (
            {"person": {"name": "a", "homes": [{"street": "s"}, {"street": 5}]}},
            FieldError("/person/homes/1/street", "Expected `str`, got `int`"),
        ),
        (
            {"person": {"nmae": "a"}},
            FieldError("/person/nmae", "is not a field of this type", "did you mean 'name'?"),
        ),
        ({"homes": {"a/b": {}}}, FieldError("/homes", "Object missing required field `street` (in one of its values)")),
        (
            {"guests": [{"name": "a"}, {"nam": "b"}]},
            FieldError("/guests/1/nam", "is not a field of this type", "did you mean 'name'?"),
        ),
        ({"rows": [{}]}, FieldError("/rows/0", "Object missing required field `id`")),
    ],
)
def test_pointer_into_the_depth(changed: dict[str, Any], expected: FieldError) -> None:
    """The pointer leads to the wrong value, as far as it can be told."""
    good: dict[str, Any] = {"person": {"name": "a"}, "homes": {}, "rows": []}
    assert errors_of(nested, msgspec.json.encode({**good, **changed})) == [expected]


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense",
        b'{"url":NaN}',
        b'{"url":"x"} {}',
        b'{"url":"\\ud800"}',
        b'{"url":' + b"[" * 200_000,
        b'{"anything":' + b"[" * 200_000 + b"]" * 200_000 + b',"url":"x"}',
        b"[" * 200_000,
        b'{"width":' + b"9" * 5_000 + b',"url":"x"}',
        b'{"width":1e999,"url":"x"}',
        b"\x00",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_hostile_payload_is_refused(payload: bytes) -> None:
    """Whatever lies in Redis, decoding it ends in an InvalidPayload and nothing else."""

    def task(url: str, width: int = 1, anything: Any = None) -> None: ...

    assert errors_of(task, payload)


def test_flood_of_unknown_fields_is_bounded() -> None:
    """Neither the number of errors nor the length of a name is the client's to choose."""
    payload = msgspec.json.encode({f"{i}{'x' * 10_000}": 1 for i in range(200)})
    found = errors_of(resize, payload)
    assert len(found) == MAX_ERRORS
    assert all(len(error.pointer) <= MAX_NAME + 2 for error in found)


def test_pointer_escapes() -> None:
    """`~` and `/` in a name are written as RFC 6901 says."""
    assert errors_of(resize, b'{"url":"x","a/b~c":1}')[0].pointer == "/a~1b~0c"


# What a caller gets wrong


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (("a", 1, 2), {}, [FieldError("", "takes 2 positional arguments, got 3")]),
        (("a",), {"url": "b"}, [FieldError("/url", "given by position and by name")]),
        (
            ("a",),
            {"widht": 1},
            [FieldError("/widht", "is not a field of this type", "did you mean 'width'?")],
        ),
        (
            (object(),),
            {},
            [FieldError("/url", "cannot be written as JSON (Encoding objects of type object is unsupported)")],
        ),
    ],
)
def test_wrong_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], expected: list[FieldError]) -> None:
    """The producer is told the same way as a client of the API."""
    with pytest.raises(InvalidPayload) as caught:
        encode_arguments("t", read(resize), args, kwargs)
    assert caught.value.errors == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_json_lacks(value: float) -> None:
    """NaN would arrive as null, so it is refused where it is given."""

    def task(x: float) -> None: ...

    found = read(task)
    with pytest.raises(InvalidPayload):
        make_decode("t", found)(encode_arguments("t", found, (value,), {}))


def test_text_that_utf8_lacks() -> None:
    """A lone surrogate cannot be sent."""
    with pytest.raises(InvalidPayload, match="/url"):
        encode_arguments("t", read(resize), ("\ud800",), {})


def test_default_stays_out_of_the_payload() -> None:
    """What is not said is the worker's to fill in."""
    assert encode_arguments("t", read(resize), ("x",), {}) == b'{"url":"x"}'


# Calling the handler


def plain(a: int, b: int = 2) -> tuple[Any, ...]:
    return (a, b)


def nothing() -> tuple[Any, ...]:
    return ()


def one(a: int) -> tuple[Any, ...]:
    return (a,)


def named(a: int, *, b: int = 2) -> tuple[Any, ...]:
    return (a, b)


def with_ctx(ctx: Ctx[None], a: int, b: int = 2) -> tuple[Any, ...]:
    return (ctx, a, b)


def with_ctx_only(ctx: Ctx[None]) -> tuple[Any, ...]:
    return (ctx,)


def with_ctx_one(ctx: Ctx[None], a: int) -> tuple[Any, ...]:
    return (ctx, a)


def with_ctx_named(ctx: Ctx[None], *, a: int) -> tuple[Any, ...]:
    return (ctx, a)


@pytest.mark.parametrize(
    ("fn", "payload", "expected"),
    [
        (plain, b'{"a":1}', (1, 2)),
        (nothing, b"{}", ()),
        (nothing, b" { } ", ()),
        (one, b'{"a":1}', (1,)),
        (named, b'{"a":1,"b":3}', (1, 3)),
        (with_ctx, b'{"a":1}', ("ctx", 1, 2)),
        (with_ctx_only, b"{}", ("ctx",)),
        (with_ctx_one, b'{"a":1}', ("ctx", 1)),
        (with_ctx_named, b'{"a":1}', ("ctx", 1)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("wrap", [bytes, msgspec.Raw, memoryview])
def test_invoke_passes_what_was_sent(
    fn: Callable[..., Any], payload: bytes, expected: tuple[Any, ...], wrap: Callable[[bytes], Payload]
) -> None:
    """Every shape of signature gets its arguments, from every kind of buffer."""
    found = read(fn)
    assert make_invoke(fn, found)(make_decode("t", found)(wrap(payload)), "ctx") == expected


def test_task_without_parameters_refuses_a_payload() -> None:
    """Nothing passes but an empty object."""
    assert errors_of(nothing, b'{"a":1}')[0].pointer == "/a"
    assert errors_of(nothing, b"[]")[0].detail == "Expected `object`, got `array`"
