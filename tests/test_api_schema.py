"""Payloads at the door: the published schema is checked as far as it is understood, never more than at the worker."""

from __future__ import annotations

import enum
import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from api_kit import EMAIL, SCHEMA, running
from headrace.errors import nearest
from headrace_api import registry
from headrace_api.registry import Types
from headrace_api.schema_check import MAX_ERRORS, compile_schema
from headrace_api.store import Store


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    ONE = 1
    TWO = 2


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog", forbid_unknown_fields=True):
    name: str


class Node(msgspec.Struct):
    value: int
    children: list[Node] = []


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str = "x"


class Options(TypedDict, total=False):
    width: int


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclass
class Box:
    size: int
    colour: Colour = Colour.RED


TYPES: list[Any] = [
    int, float, str, bool, None, Any, Colour, Level, Cat, Dog, Node, Row, Options, Point, Box,
    list[int], dict[str, int], dict[int, str], tuple[int, str], tuple[int, ...], set[int],
    Annotated[int, Meta(ge=1, lt=5, multiple_of=2)], Annotated[float, Meta(gt=0, le=1)],
    Annotated[str, Meta(pattern="^a", min_length=1, max_length=3)], Annotated[list[int], Meta(min_length=1)],
    Annotated[set[int], Meta(max_length=1)], Annotated[dict[str, int], Meta(max_length=1)],
    Literal["a", "b", 1], Literal["only"], datetime, date, timedelta, uuid.UUID, Decimal, bytes,
    int | None, int | str | list[int], Cat | Dog, Box | None, Decimal | None, msgspec.Raw,
]  # fmt: skip

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10)
    | st.floats(-2, 2, width=16)
    | st.sampled_from(
        ["", "a", "ab", "abcd", "b", "red", "cat", "dog", "only", "1", "1.5", "PT1S", "2026-01-01", "YQ=="]
    )
    | st.sampled_from(["2026-01-01T00:00:00Z", "550e8400-e29b-41d4-a716-446655440000"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["1", "lives", "name", "type", "value", "children", "width", "size", "colour"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@given(value=values)
@settings(max_examples=150)
def test_the_door_is_never_stricter_than_the_worker(kind: Any, value: Any) -> None:
    """Whatever msgspec decodes into a type passes the check of that type's schema."""
    text = msgspec.json.encode(value)
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        return
    assert not compile_schema(msgspec.json.schema(kind))(msgspec.json.decode(text))


WRONG: list[tuple[Any, Any, str, str]] = [
    (int, 1.5, "", "is a number with a fraction, not a whole number"),
    (int, True, "", "is true or false, not a whole number"),
    (float, "1", "", "is text, not a number"),
    (list[int], [1, "x", None], "/1", "is text, not a whole number"),
    (dict[str, int], {"a/b": None}, "/a~1b", "is null"),
    (Colour, "grean", "", "did you mean 'green'?"),
    (Level, 3, "", "is not one of 1, 2"),
    (Node, {"value": 1, "children": [{"value": 1, "children": [{}]}]}, "/children/0/children/0/value", "required"),
    (Annotated[int, Meta(ge=1)], 0, "", "is less than 1"),
    (Annotated[int, Meta(lt=5)], 5, "", "is not less than 5"),
    (Annotated[str, Meta(max_length=3)], "abcd", "", "has more than 3 characters"),
    (Annotated[str, Meta(pattern="^a")], "b", "", "does not match"),
    (Annotated[list[int], Meta(min_length=1)], [], "", "has fewer than 1 items"),
    (tuple[int, str], [1, 2], "/1", "is a whole number, not text"),
    (tuple[int, str], [1, "a", "b"], "", "has more than 2 items"),
    (int | None, "x", "", "is text, not a whole number or null"),
    (Box | None, {"size": "x"}, "/size", "is text, not a whole number"),
    (Cat | Dog, {"type": "dog", "nam": "x"}, "/nam", "did you mean 'name'?"),
]


@pytest.mark.parametrize(("kind", "value", "pointer", "part"), WRONG, ids=lambda each: str(each)[:40])
def test_wrong_values_are_named_by_place(kind: Any, value: Any, pointer: str, part: str) -> None:
    """The pointer leads to the value, the words say what it is and what was wanted."""
    errors = compile_schema(msgspec.json.schema(kind))(value)
    assert part in {error.pointer: str(error) for error in errors}[pointer]


@pytest.mark.parametrize(
    "schema",
    [
        None, 5, "x", [], {}, {"type": 5}, {"type": ["x"]}, {"$ref": "#/$defs/none"}, {"$ref": 7}, {"anyOf": 1},
        {"properties": [1]}, {"required": "a"}, {"enum": "abc"}, {"minimum": "x"}, {"pattern": "("}, {"prefixItems": 5},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
        {"$defs": 5}, {"type": "object", "properties": {"a": None}},
    ],
)  # fmt: skip
def test_a_schema_that_is_none_lets_everything_pass(schema: Any) -> None:
    """Redis may hold anything under our keys; the door neither fails nor refuses for it."""
    assert not compile_schema(schema)({"a": 1})


def test_a_member_that_no_property_describes_may_be_required() -> None:
    """msgspec writes no such schema; another publisher may."""
    check = compile_schema({"properties": {"a": {"type": "integer"}}, "required": ["b"]})
    assert [error.pointer for error in check({"a": 1})] == ["/b"]
    assert not check({"a": 1, "b": 2})


def test_a_payload_wrong_in_ten_thousand_places_is_answered_quickly() -> None:
    """The number of errors is bounded, and with it the looking for names that were meant."""
    check = compile_schema(msgspec.json.schema(Dog))
    began = time.process_time()
    errors = check({"type": "dog", "name": "x"} | {f"nam{i}": i for i in range(9_000)})
    assert len(errors) == MAX_ERRORS
    assert time.process_time() - began < 0.5


# -- the setting


@pytest.mark.parametrize(
    ("schemas", "wrong_payload", "unknown_type"), [("off", 201, 201), ("warn", 422, 201), ("enforce", 422, 422)]
)
async def test_the_setting_schemas(redis_url: str, schemas: str, wrong_payload: int, unknown_type: int) -> None:
    """off checks nothing, warn checks known types, enforce refuses unknown ones as well."""
    async with running(redis_url, schemas=schemas) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        wrong = await api.submit(EMAIL | {"payload": {}})
        unknown = await api.submit({"type": "sendemail"})
        right = await api.submit(EMAIL)
    assert (wrong.status, unknown.status, right.status) == (wrong_payload, unknown_type, 201)
    if schemas == "warn":
        assert "did you mean 'send_email'?" in unknown.json["warning"]
    if schemas == "enforce":
        assert "did you mean 'send_email'?" in unknown.errors["/type"]
    if schemas == "off":
        assert "warning" not in unknown.json


async def test_what_was_meant_by_an_unknown_type_is_worked_out_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until other types are known; and it is kept for a bounded number, for clients invent names."""
    asked: list[str] = []

    def counted(word: str, known: Any) -> str | None:
        asked.append(word)
        return nearest(word, known)

    monkeypatch.setattr(registry, "nearest", counted)
    monkeypatch.setattr(registry, "MAX_MEANT", 5)
    now = [10.0]
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        types = await _types(api, now)
        await types.find("sendmail")
        found = [types.nearest(name) for name in ("sendmail", "nothing", *["sendmail"] * 9)]
        assert found == ["send_email", None, *["send_email"] * 9]
        assert asked == ["sendmail", "nothing"]
        await api.worker.publish("send_mail", {"schema": SCHEMA})
        now[0] += 10
        await types.find("sendmail")
        assert types.nearest("sendmail") == "send_mail"
        await types._refresh()
        assert types.nearest("sendmail") == "send_mail"
    assert asked == ["sendmail", "nothing", "sendmail"]
    for number in range(20):
        types.nearest(f"invented_{number}")
    assert len(types._meant) <= 5


async def test_a_type_that_was_just_published_is_known(redis_url: str) -> None:
    """A worker starts, and the next submission after a quarter of a second meets its schema."""
    now = [0.0]
    async with running(redis_url) as api:
        app_types = await _types(api, now)
        assert await app_types.find("send_email") is None
        await api.worker.publish("send_email", {"schema": SCHEMA})
        assert await app_types.find("send_email") is None, "looked a moment ago"
        now[0] += 0.3
        found = await app_types.find("send_email")
        assert found is not None
        assert found.errors({})


async def test_during_a_rollout_the_old_and_the_new_payload_pass(redis_url: str) -> None:
    """Old and new workers publish in turn; a payload that either accepts is accepted."""
    now = [0.0]
    new: dict[str, Any] = SCHEMA | {"required": ["recipient", "subject", "body", "tone"]}
    new["properties"] = SCHEMA["properties"] | {"tone": {"type": "string"}}
    async with running(redis_url) as api:
        types = await _types(api, now)
        for schema, name in ((SCHEMA, "old"), (new, "new")):
            await api.worker.publish("send_email", {"schema": schema, "hash": name})
            now[0] += 10
            types.get("send_email")
            await types._refresh()
        known = types.get("send_email")
    assert known is not None
    payload = {"recipient": "a", "subject": "b", "body": "c"}
    assert not known.errors(payload)
    assert not known.errors(payload | {"tone": "kind"})
    assert known.errors(payload | {"tune": "kind"})


async def _types(api: Any, now: list[float]) -> Types:
    store = Store(api.worker.client.settings)
    store._reads = api.worker.client
    return Types(store, "default", clock=lambda: now[0])


@pytest.mark.parametrize(
    "description",
    [
        b"not JSON", b"[]", b'"x"', b"null", b"\xff\xfe", {"schema": 5}, {"schema": {"type": "objekt"}},
        {"queue": "No{}"}, {"priority": 9}, {"priority": "x"}, {"max_retries": []},
    ],
)  # fmt: skip
async def test_a_description_that_is_none_hurts_nobody(redis_url: str, description: Any) -> None:
    """Hostile or newer entries of the registry: the type counts as known, everything about it is let through."""
    async with running(redis_url, schemas="enforce") as api:
        await api.worker.publish("send_email", description)
        task_id = await api.submitted({"type": "send_email", "payload": {"a": 1}})
        task = await api.task(task_id)
    assert (task["queue"], task["priority"]) == ("default", 1)
