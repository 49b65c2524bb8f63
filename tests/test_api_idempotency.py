"""Idempotency-Key: the same request twice is one task, whatever happens in between."""

from __future__ import annotations

import asyncio

import pytest

from api_kit import EMAIL, TOKEN, running
from headrace.task import Failure

OTHER = "another-token-of-16-characters"


async def test_a_repetition_gets_the_same_answer_and_says_so(redis_url: str) -> None:
    """201 with the same id and Idempotent-Replayed: true; one task."""
    async with running(redis_url) as api:
        first = await api.submit(EMAIL, Idempotency_Key="order-17")
        again = await api.submit(EMAIL, Idempotency_Key='"order-17"')
        stats = (await api.get("/api/v1/stats")).json
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    assert first.headers["Location"] == again.headers["Location"]
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert stats["pending"] == 1


async def test_spacing_and_order_make_no_other_body(redis_url: str) -> None:
    """A client may write the same document in another way when it repeats itself."""
    async with running(redis_url) as api:
        await api.submitted(b'{"type": "t", "payload": {"a": 1, "b": [1, 2]}}', Idempotency_Key="k")
        again = await api.submit(b'{ "payload": {"b":[1,2],"a":1},"type":"t" }', Idempotency_Key="k")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")


@pytest.mark.parametrize("change", [{"priority": 0}, {"payload": {}}, {"type": "other"}, {"delay": 5}])
async def test_another_body_under_the_same_key_is_422(redis_url: str, change: dict[str, object]) -> None:
    """The key belongs to the first body; the second is not stored."""
    async with running(redis_url) as api:
        await api.submitted(EMAIL, Idempotency_Key="order-17")
        answer = await api.submit(EMAIL | change, Idempotency_Key="order-17")
        stats = (await api.get("/api/v1/stats")).json
    assert (answer.status, answer.code) == (422, "task_conflict")
    assert "Repeat a submission unchanged" in answer.json["detail"]
    assert stats["pending"] + stats["scheduled"] == 1


async def test_the_key_holds_through_the_tasks_whole_life(redis_url: str) -> None:
    """Waiting, delayed, running, retrying, failed: at no time does a repetition make a second task."""
    async with running(redis_url) as api:
        key = {"Idempotency_Key": "k"}
        task_id = await api.submitted(EMAIL, **key)
        [claim] = await api.worker.claim()
        assert await api.submitted(EMAIL, **key) == task_id
        await api.worker.report(claim.report("retrying", 60_000, Failure("E", "")))
        assert await api.submitted(EMAIL, **key) == task_id
        await api.ask("POST", f"/api/v1/tasks/{task_id}:retry")
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("failed", error=Failure("E", "")))
        assert await api.submitted(EMAIL, **key) == task_id
        assert (await api.task(task_id))["status"] == "failed"
        assert (await api.submit(EMAIL | {"priority": 0}, **key)).code == "task_conflict"


async def test_a_hundred_at_once_make_one_task(redis_url: str) -> None:
    """Also within one group commit."""
    async with running(redis_url) as api:
        answers = await asyncio.gather(*(api.submit(EMAIL, Idempotency_Key="k") for _ in range(100)))
        stats = (await api.get("/api/v1/stats")).json
        text = (await api.get("/metrics")).text
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["task_id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 99
    assert stats["pending"] == 1
    assert 'tasks_submitted_total{priority="high",type="unknown"} 1.0' in text.splitlines()


async def test_every_replica_makes_the_same_id_and_a_rotated_token_too(redis_url: str) -> None:
    """The secret behind the ids is kept once, in Redis; the subject counts, not its token."""
    async with running(redis_url, TOKEN, tokens=f"shop:{TOKEN}") as one:
        first = await one.submitted(EMAIL, Idempotency_Key="k")
    async with running(redis_url, OTHER, tokens=f"shop:{OTHER}") as two:
        assert await two.submitted(EMAIL, Idempotency_Key="k") == first


async def test_another_subject_or_queue_is_another_key(redis_url: str) -> None:
    """Two callers that both count from 1 do not meet."""
    async with running(redis_url, tokens=f"shop:{TOKEN},bank:{OTHER}") as api:
        ids = [
            await api.submitted(EMAIL | {"queue": queue}, Authorization=f"Bearer {token}", Idempotency_Key="1")
            for token in (TOKEN, OTHER)
            for queue in ("default", "mail")
        ]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("key", ["", " ", "a b", '"', '""', '"a', 'a"b', "é", "k" * 256, '"\\n"', "a\tb"])
async def test_a_key_that_cannot_be_used_is_400(redis_url: str, key: str) -> None:
    """It is not silently ignored: then a repetition would make two tasks."""
    async with running(redis_url) as api:
        answer = await api.submit(EMAIL, Idempotency_Key=key)
        keys = await api.worker.keys()
    assert (answer.status, answer.code) == (400, "bad_idempotency_key")
    assert keys == []


async def test_two_keys_are_400(redis_url: str) -> None:
    """Which one would count?"""
    headers = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    async with running(redis_url) as api:
        answer = await api.ask("POST", "/api/v1/tasks", data=b'{"type": "t"}', headers=headers)
    assert answer.code == "bad_idempotency_key"
