"""Filters: their text, what they match, and what is said of a wrong one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.broker.broker import TaskView
from headrace.filters import Argument, Filter, InvalidFilter
from headrace.moments import Moment
from headrace.task import Attempt, Counters, Envelope, Failure, State

NOW = 1_790_000_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:-]{0,8}\*?", fullmatch=True)
queues = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,4}[a-z0-9])?", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_.:/@-]{1,10}", fullmatch=True)
moments = st.sampled_from(
    ["90s", "15m", "2h", "3d", "1w", "2026-01-15", "2026-01-15T10:30:00Z", "2026-01-15 10:30+02:00"]
)
arguments = st.builds(Argument, st.lists(texts, min_size=1, max_size=3).map(tuple), texts)


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(each, max_size=3, unique=True).map(tuple)


filters = st.builds(
    Filter,
    states=several(st.sampled_from(State)),
    types=several(names),
    queues=several(queues),
    tags=several(tags),
    errors=several(texts),
    exceptions=several(texts),
    places=several(texts),
    args=several(arguments),
    since=st.none() | moments.map(lambda text: Moment.parse(text, NOW)),
    until=st.none() | moments.map(lambda text: Moment.parse(text, NOW)),
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the filters
@given(filters)
def test_the_text_of_a_filter_reads_as_the_same_filter(filter: Filter) -> None:
    assert Filter.parse(filter.text(), NOW) == filter


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the filters
@given(filters)
def test_the_words_of_a_filter_as_parameters_are_the_same_filter(filter: Filter) -> None:
    by_name: dict[str, str] = {}
    for name, value in filter.terms():
        if name in by_name or "," in value:
            return  # an address may repeat a name, a dict cannot
        by_name[name] = value
    assert Filter.from_query(by_name, NOW) == filter
    assert Filter.from_query({"q": filter.text()}, NOW) == filter


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_refused_with_a_sentence(text: str) -> None:
    try:
        filter = Filter.parse(text, NOW)
    except InvalidFilter as error:
        assert error.errors and str(error).startswith("The filter is refused: ")
    else:
        assert Filter.parse(filter.text(), NOW) == filter


def task(state: State = State.FAILED, payload: Any = None, **changes: Any) -> TaskView:
    raw = payload if isinstance(payload, bytes) else json.dumps({} if payload is None else payload).encode()
    envelope = Envelope(
        1, 1, "an-id", type="image.resize", created_ms=NOW - 60_000, payload=msgspec.Raw(raw), tags=("acme", "x/y")
    )
    trace = 'File "/srv/shop/tasks.py", line 31, in fetch\n  File "/usr/lib/python3.11/ssl.py", line 9, in read\n'
    failure = Failure("httpx.ReadTimeout", "The read of s3://Cat took too long", trace)
    attempt = Attempt("3-1", "failed", "w", NOW - 2_000, NOW - 1_000, failure)
    seen = TaskView("an-id", "media", state, envelope, Counters(1, 1), [attempt], ended_ms=NOW - 1_000)
    return replace(seen, **changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("state:failed", True),
        ("state:FAILED,completed", True),
        ("state:completed", False),
        ("type:image.resize", True),
        ("type:image.*", True),
        ("type:image", False),
        ("type:other,image.resize", True),
        ("queue:media", True),
        ("queue:default", False),
        ("tag:acme tag:x/y", True),
        ("tag:acme tag:other", False),
        ("error:timeout", True),
        ('error:"READ OF s3://cat"', True),
        ("error:timeout error:dog", False),
        ("exception:ReadTimeout", True),
        ("exception:httpx.ReadTimeout", True),
        ("exception:Timeout", False),
        ("exception:x.ReadTimeout", False),
        ("place:shop/tasks.py:fetch", True),
        ("place:tasks.py:fetch", True),
        ("place:asks.py:fetch", False),
        ("place:shop/tasks.py:read", False),
        ("since:2s", True),
        ("since:500ms", False),
        ("until:500ms", True),
        ("until:2s", False),
    ],
)
def test_what_a_filter_matches(text: str, expected: bool) -> None:
    assert Filter.parse(text, NOW).matches(task()) is expected


def test_a_task_that_has_not_ended_counts_from_its_submission() -> None:
    seen = task(State.PENDING, attempts=[], ended_ms=None)
    assert Filter.parse("since:2m", NOW).matches(seen)
    assert not Filter.parse("since:30s", NOW).matches(seen)


PAYLOAD = {
    "user": {"id": 42, "a.b": "x y"},
    "n": 12345678901234567890,
    "on": True,
    "none": None,
    "list": [1, {"k": "v"}, "é"],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("args.user.id:42", True),
        ("args.user.id:4", False),
        ("args.user.id:42.0", False),
        ('args.user.a\\.b:"x y"', True),
        ("args.user:42", False),
        ("args.n:12345678901234567890", True),
        ("args.on:true", True),
        ("args.on:True", False),
        ("args.none:null", True),
        ("args.list:1", True),
        ("args.list:é", True),
        ("args.list.1.k:v", True),
        ("args.list.k:v", False),
        ("args.list.9:v", False),
        ("args.nothing:v", False),
        ("args.on.deeper:true", False),
    ],
)
def test_what_an_argument_matches(text: str, expected: bool) -> None:
    assert Filter.parse(text).matches(task(payload=PAYLOAD)) is expected


@pytest.mark.parametrize("payload", [b"", b"no json", b"{", b'{"a":', b'"a"', b"[[[", b'{"a":"\\ud800"}', b"\xff"])
def test_a_payload_that_is_no_json_matches_nothing_and_raises_nothing(payload: bytes) -> None:
    assert not Filter.parse("args.a:1").matches(task(payload=payload))


def test_a_task_that_cannot_be_read_matches_by_its_state_only() -> None:
    seen = task(envelope=None)
    assert Filter.parse("state:failed").matches(seen)
    assert not Filter.parse("type:image.*").matches(seen)
    assert not Filter.parse("tag:acme").matches(seen)


@pytest.mark.parametrize(
    ("text", "pointer", "said"),
    [
        ("state:faild", "/state", "did you mean 'failed'?"),
        ("state:x", "/state", "there are scheduled, pending"),
        ("stat:failed", "/stat", "did you mean 'state'?"),
        ("arg.x:1", "/arg.x", "did you mean 'args.NAME'?"),
        ("user.id:42", "/user.id", "did you mean args.user.id?"),
        ("Timeout", "", "as in error:Timeout"),
        ("since:yesterday", "/since", "2026-01-15T10:30:00Z"),
        ("since:2026-01-15T10:30:00", "/since", "with its zone"),
        ("since:1h since:2h", "/since", "more than once"),
        ("args:3", "/args", "args.NAME:VALUE"),
        ("args.a..b:3", "/args.a..b", "args.NAME:VALUE"),
        ("error:", "/error", "no value"),
        ('error:"a b', "", "has no name"),
        ("type:9", "/type", "no type name"),
        ("queue:A_B", "/queue", "no queue name: use 1 to 63 of a-z, 0-9 and '-', "),
        ("queue:A_B", "/queue", "as in image-resize"),
        ("tag:#", "/tag", "no tag"),
        ("x" * 5_000, "", "the limit is 4096"),
        ("tag:a " * 51, "", "more than 50"),
    ],
)
def test_a_wrong_filter_is_refused_with_what_to_write(text: str, pointer: str, said: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        Filter.parse(text)
    assert [each.pointer for each in caught.value.errors] == [pointer]
    assert said in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidFilter) as caught:
        Filter.parse("state:faild type:9 nothing:1")
    assert [each.pointer for each in caught.value.errors] == ["/state", "/type", "/nothing"]


@pytest.mark.parametrize("text", ["error:\udcff", "args.\udcff:1", "\udcff:x", "\udcff:", "\udcff"])
def test_what_is_no_text_is_refused_in_words_that_are(text: str) -> None:
    """Half a character cannot be sent, neither to Redis nor in the answer."""
    name, _, value = text.partition(":")
    for read in (partial(Filter.parse, text), partial(Filter.from_query, {name: value})):
        with pytest.raises(InvalidFilter, match="no valid Unicode") as caught:
            read()
        assert str(caught.value).encode()
