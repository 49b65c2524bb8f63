"""Pages of a list while tasks come, are claimed, end and move: what stays is in it once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import task
from headrace.broker.broker import NewTask, Queue
from headrace.filters import Argument, Filter
from headrace.listing import Position
from headrace.moments import Moment
from headrace.task import Attempt, Counters, Envelope, Failure
from list_kit import chosen, listed, page
from model_desk import Desk
from model_task import QUEUE, new, task_id
from redis_server import RedisServer

VERBS: Final = (
    "submit",
    "delay",
    "claim",
    "complete",
    "fail",
    "retry",
    "park",
    "cancel",
    "replay",
    "promote",
    "hand back",
)
steps = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 30)), max_size=12)


class World:
    """A queue, and which tasks were moved since the list began."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.made: list[str] = []
        self.moved: set[str] = set()

    def do(self, verb: str, number: int) -> None:
        """One step; it notes whom it moved."""
        desk = self.desk
        match verb:
            case "submit" | "delay":
                self.made.append(task_id(len(self.made) + 1))
                desk.submit(new(self.made[-1], number % 4, delay_ms=60_000 + number if verb == "delay" else 0))
                self.moved.add(self.made[-1])
            case "claim":
                self.moved |= {claim.id for claim in desk.claim(slots=number % 4)}
            case "complete" | "fail" | "retry" | "park" | "hand back":
                self._end(verb, number)
            case "cancel" | "replay" if self.made:
                self._order(verb, self.made[number % len(self.made)])
            case "promote":
                before = {id_ for id_ in self.made if desk.state(id_) in {"scheduled", "retrying"}}
                self.moved |= set(list(before)[: number % 3])
                if ids := list(before)[: number % 3]:
                    desk.promote(*ids)

    def _end(self, verb: str, number: int) -> None:
        held = self.desk.reconcile()
        if not held:
            return
        claim = held[number % len(held)]
        self.moved.add(claim.id)
        if verb == "hand back":
            self.desk.hand_back("w", claim.place)
            return
        outcome = {"complete": "completed", "fail": "failed", "retry": "retrying", "park": "parked"}[verb]
        argument: int | str = number * 1_000 if verb == "retry" else "noop" if verb == "park" else ""
        self.desk.report(claim.report(outcome, argument))

    def _order(self, verb: str, id_: str) -> None:
        before = self.desk.state(id_)
        _ = self.desk.cancel(id_) if verb == "cancel" else self.desk.replay(id_)
        if self.desk.state(id_) != before:
            self.moved.add(id_)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    yield redis_server


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 30)), min_size=5, max_size=60),
    between=st.lists(steps, max_size=20),
    limit=st.integers(1, 7),
    budget=st.integers(1, 40),
    text=st.sampled_from(["", "state:pending", "state:failed,completed", "type:noop", "state:retrying,scheduled"]),
)
def test_what_stays_is_listed_once_and_what_moves_is_not_listed_twice_in_one_state(
    server: RedisServer,
    before: list[tuple[str, int]],
    between: list[list[tuple[str, int]]],
    limit: int,
    budget: int,
    text: str,
) -> None:
    server.ensure()
    server.redis.flushall()
    desk = Desk.at(server.socket)
    try:
        world = World(desk)
        for step in before:
            world.do(*step)
        world.moved.clear()
        begun = {id_: desk.state(id_) for id_ in world.made}
        listed: list[tuple[str, str]] = []
        cursor: Position | None = None
        turns = iter(between)
        for _ in range(3_000):
            found = page(desk, text, cursor, Queue(QUEUE), limit=limit, budget=budget)
            listed += [(seen.id, str(seen.state)) for seen in found.items]
            cursor = found.next
            if cursor is None:
                break
            for step in next(turns, []):
                world.do(*step)
        assert cursor is None, "a list ends"
        wanted = set(text.removeprefix("state:").split(",")) if text.startswith("state:") else None
        stayed = {
            (id_, state)
            for id_, state in begun.items()
            if id_ not in world.moved and (wanted is None or state in wanted)
        }
        assert stayed <= set(listed)
        counts = Counter(id_ for id_, _ in listed if id_ not in world.moved)
        assert all(count == 1 for count in counts.values()), "no task that stays comes twice"
    finally:
        desk.wire.close()


words = st.text(st.sampled_from('abAB:. /"\\u0061é\u212a\n4'), min_size=1, max_size=4)
payloads = st.dictionaries(st.sampled_from(["k", "é", "a b"]), words | st.integers(0, 50) | st.lists(words, max_size=2))
tags = st.lists(st.sampled_from(["acme", "acm", "a/b"]), max_size=2, unique=True).map(tuple)
made = st.tuples(payloads, st.booleans(), tags, st.sampled_from(["noop", "noop.x"]), st.integers(1, 9), words, words)
some_filter = st.builds(
    Filter,
    types=st.sampled_from([(), ("noop",), ("noop.*",), ("noop", "noop.x")]),
    tags=tags,
    errors=st.lists(words, max_size=1).map(tuple),
    exceptions=st.lists(words, max_size=1).map(tuple),
    args=st.lists(st.builds(Argument, st.sampled_from([("k",), ("é",), ("a b",)]), words), max_size=1).map(tuple),
    since=st.none() | st.integers(1, 9).map(lambda ms: Moment(f"2026-01-0{ms}", ms)),
    until=st.none() | st.integers(1, 9).map(lambda ms: Moment(f"2026-01-0{ms}", ms)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(tasks=st.lists(made, min_size=1, max_size=6), filters=st.lists(some_filter, min_size=1, max_size=10))
def test_what_redis_leaves_out_does_not_match(
    redis_server: RedisServer, tasks: list[Any], filters: list[Filter]
) -> None:
    """The script compares texts as JSON writes them; the list is what `Filter.matches` would choose of all tasks."""
    redis_server.ensure()
    redis_server.redis.flushall()
    desk = Desk.at(redis_server.socket)
    try:
        base = desk.now = time.time_ns() // 1_000_000
        for number, (payload, ascii_, tags, type_, created, kind, message) in enumerate(tasks, 1):
            raw = msgspec.Raw(json.dumps(payload, ensure_ascii=ascii_).encode())
            envelope = Envelope(1, 1, task_id(number), type=type_, created_ms=base + created, payload=raw, tags=tags)
            desk.submit(NewTask(envelope.id, task.encode_envelope(envelope), 1))
            if number % 2:
                claim = desk.one()
                attempt = Attempt(claim.place, "failed", "w", 1, base + created, Failure(kind, message))
                carried = task.extend(b"", Counters(1, 1), task.encode_attempt(attempt))
                record = task.record("failed", claim.envelope, carried)
                desk.report(msgspec.structs.replace(claim.report("failed"), record=record))
        everything = listed(desk, payloads=True)
        for relative in filters:
            since, until = (each and Moment(each.text, base + each.ms) for each in (relative.since, relative.until))
            filter = replace(relative, since=since, until=until)
            found = [seen.id for seen in chosen(desk, filter)]
            assert found == [seen.id for seen in everything if filter.matches(seen)], filter.text()
    finally:
        desk.wire.close()
