"""POST /api/v1/tasks:batch: many tasks in one request, stored together or not at all."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from api_kit import EMAIL, SCHEMA, Answer, Api, running
from headrace_api import strict_json
from headrace_api.batch_reading import SMALL, split
from headrace_api.strict_json import MAX_DEPTH, MAX_NODES, MalformedJson


async def batch(api: Api, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps({"tasks": body}).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("POST", "/api/v1/tasks:batch", data=io.BytesIO(data), headers=named)


async def test_a_thousand_tasks_in_one_request(redis_url: str) -> None:
    """One id a task, in the order of the request, and first in first out within each priority."""
    bodies = [EMAIL | {"priority": i % 4, "payload": {"n": i}} for i in range(1_000)]
    async with running(redis_url) as api:
        answer = await batch(api, bodies)
        ids = [each["task_id"] for each in answer.json["tasks"]]
        third = await api.task(ids[2])
        stats = (await api.get("/api/v1/stats")).json
        claims = await api.worker.claim(slots=250)
    assert (answer.status, answer.json["count"], len(set(ids))) == (201, 1_000, 1_000)
    assert third["payload"] == {"n": 2}
    assert stats["pending"] == 1_000
    assert [claim.task.id for claim in claims] == ids[3::4], "strict priority, first in first out"


async def test_one_wrong_task_refuses_all_and_is_named(redis_url: str) -> None:
    """Atomic: pointers lead into the batch, and nothing is stored."""
    bodies = [EMAIL, {"type": "a b"}, EMAIL | {"priority": 7}, EMAIL | {"payload": {"x": "y" * 70_000}}]
    async with running(redis_url) as api:
        answer = await batch(api, bodies)
        keys = await api.worker.keys()
    assert (answer.status, answer.code) == (422, "invalid_task")
    assert set(answer.errors) == {"/tasks/1/type", "/tasks/2/priority", "/tasks/3/payload"}
    assert keys == []


async def test_wrong_arguments_inside_a_batch_are_named(redis_url: str) -> None:
    """The published schema holds for each task of a batch."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        answer = await batch(api, [EMAIL, EMAIL | {"payload": {"recipient": "x", "subject": "y", "boddy": "z"}}])
    assert answer.errors["/tasks/1/payload/boddy"] == "is not a field of this type (did you mean 'body'?)"


@pytest.mark.parametrize("query", ["", "?partial=true"])
async def test_a_traceparent_goes_with_every_task_and_comes_back(redis_url: str, query: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running(redis_url) as api:
        answer = await api.ask(
            "POST", f"/api/v1/tasks:batch{query}", json={"tasks": [EMAIL, EMAIL]}, headers={"traceparent": trace}
        )
        claims = await api.worker.claim()
    assert answer.headers["traceparent"] == trace
    assert [claim.task.trace for claim in claims] == [trace, trace]


BAD: dict[str, tuple[bytes, int, str]] = {
    "an array": (b"[]", 422, ""),
    "no tasks": (b"{}", 422, "/tasks"),
    "tasks twice": (b'{"tasks": [], "tasks": [{"type": "t"}]}', 400, "/tasks"),
    "a hidden first batch": (b'{"tasks": [{"type": "a"}], "tasks": [{"type": "t"}]}', 400, "/tasks"),
    "empty": (b'{"tasks": []}', 422, "/tasks"),
    "more fields": (b'{"tasks": [{"type": "t"}], "atomic": false}', 422, "/atomic"),
    "numbers": (b'{"tasks": [' + b"1," * 100_000 + b"1]}", 422, "/tasks/0"),
    "a key twice in a task": (b'{"tasks": [{"type": "t"}, {"type": "t", "type": "t"}]}', 400, "/tasks/1/type"),
    "NaN in a task": (b'{"tasks": [{"type": "t", "payload": {"a": NaN}}]}', 400, ""),
    "65 bits in a task": (
        b'{"tasks": [{"type": "t", "payload": {"a": 18446744073709551616}}]}',
        400,
        "/tasks/0/payload/a",
    ),
    "an unknown field in a task": (b'{"tasks": [{"type": "t", "paylod": {}}]}', 422, "/tasks/0/paylod"),
    "two queues": (b'{"tasks": [{"type": "t"}, {"type": "t", "queue": "b"}]}', 422, "/tasks/1/queue"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_batch_is_refused_with_its_place(redis_url: str, name: str) -> None:
    """Every way a batch can be wrong is a 4xx with a pointer; nothing is stored."""
    body, status, pointer = BAD[name]
    async with running(redis_url) as api:
        answer = await batch(api, body)
        keys = await api.worker.keys()
    assert answer.status == status, answer.text
    assert answer.code
    assert pointer in answer.errors
    assert keys == []


MOST = MAX_NODES - 2 - len(EMAIL)
"""Numbers in an array of the payload: the task, its fields and the array are values, too."""
HUGE: dict[str, tuple[Any, int, str]] = {
    "as deep as may be": ({"n": json.loads("[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2))}, 201, ""),
    "too deep": ({"n": json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))}, 400, "/tasks/1"),
    "as many values as may be": ({"n": [1] * MOST}, 201, ""),
    "too many values": ({"n": [1] * (MOST + 1)}, 400, "/tasks/1"),
}


@pytest.mark.parametrize("name", HUGE)
async def test_the_bounds_of_a_document_hold_for_each_task(redis_url: str, name: str) -> None:
    """Not for all of them together."""
    payload, status, pointer = HUGE[name]
    async with running(redis_url) as api:
        answer = await batch(api, [EMAIL, EMAIL | {"payload": payload}, EMAIL | {"payload": {"n": [1] * 8_000}}])
    assert answer.status == status, answer.text
    assert status == 201 or answer.errors.keys() == {pointer}


@pytest.mark.parametrize("wrong", [{}, {"type": "a b"}])
async def test_a_batch_of_more_bytes_is_read_by_parts(redis_url: str, wrong: dict[str, Any]) -> None:
    """What is wrong is named as in a small one, and the order stays."""
    bodies: list[dict[str, Any]] = [EMAIL | {"payload": {"n": i, "text": "x" * (SMALL // 40)}} for i in range(45)]
    bodies[43] |= wrong
    async with running(redis_url) as api:
        answer = await batch(api, bodies)
        payloads = [(await api.task(each["task_id"]))["payload"] for each in answer.json.get("tasks", ())]
    if wrong:
        assert answer.errors.keys() == {"/tasks/43/type"}
    else:
        assert [each["n"] for each in payloads] == [*range(45)]


async def test_a_payload_over_its_limit_is_refused_before_it_is_decoded(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As objects it would take thirty times its bytes."""
    decoded: list[int] = []
    decode = strict_json.decode

    def watched(text: bytes) -> tuple[Any, bool]:
        decoded.append(len(text))
        return decode(text)

    monkeypatch.setattr(strict_json, "decode", watched)
    async with running(redis_url) as api:
        answer = await batch(api, b'{"tasks":[{"type":"t","payload":{"n":[%b0]}}]}' % (b"{}," * 1_000_000))
    assert answer.errors.keys() == {"/tasks/0/payload"}
    assert decoded == []


async def test_more_than_a_thousand_tasks_or_4_mib_are_413(redis_url: str) -> None:
    """Both limits are named."""
    async with running(redis_url) as api:
        many = await batch(api, [{"type": "t"}] * 1_001)
        large = await batch(api, b'{"tasks": [' + b" " * (4 << 20) + b"]}")
    assert (many.status, many.code) == (413, "too_large")
    assert many.json["detail"] == "The batch has 1001 tasks; the limit is 1000. Send several batches."
    assert (large.status, large.code) == (413, "too_large")
    assert "4194304" in large.json["detail"]


async def test_a_batch_that_does_not_fit_is_429_and_stores_nothing(redis_url: str) -> None:
    """All or nothing also at the queue's limit."""
    async with running(redis_url, max_depth=5) as api:
        assert (await batch(api, [{"type": "t"}] * 3)).status == 201
        full = await batch(api, [{"type": "t"}] * 3)
        stats = (await api.get("/api/v1/stats")).json
        fits = await batch(api, [{"type": "t"}] * 2)
    assert (full.status, full.code, full.headers["Retry-After"]) == (429, "queue_full", "1")
    assert stats["pending"] == 3
    assert fits.status == 201


async def test_a_repeated_batch_is_replayed(redis_url: str) -> None:
    """Under one Idempotency-Key the same ids come back; another batch under it is 422."""
    async with running(redis_url) as api:
        first = await batch(api, [EMAIL, EMAIL], Idempotency_Key="b-1")
        again = await batch(api, [EMAIL, EMAIL], Idempotency_Key="b-1")
        other = await batch(api, [EMAIL, EMAIL | {"priority": 0}], Idempotency_Key="b-1")
        stats = (await api.get("/api/v1/stats")).json
    assert first.json == again.json
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status, other.code) == (422, "task_conflict")
    assert stats["pending"] == 2


async def pending(api: Api) -> int:
    """As it is now, which the stats need not be."""
    return int((await api.get("/api/v1/queues/default")).json["pending"])


async def test_another_batch_under_a_used_key_stores_nothing_of_it(redis_url: str) -> None:
    """Those of its tasks that the key does not name yet are not new ones: it is refused whole."""
    async with running(redis_url) as api:
        assert (await batch(api, [EMAIL, EMAIL], Idempotency_Key="batch")).status == 201
        assert (await api.submit(EMAIL, Idempotency_Key="single")).status == 201
        before = await pending(api)
        others = [await batch(api, [EMAIL] * 250, Idempotency_Key=key) for key in ("batch", "single")]
        after = await pending(api)
    assert [answer.code for answer in others] == ["task_conflict", "task_conflict"]
    assert (before, after) == (3, 3)


async def test_another_batch_is_refused_whichever_of_its_tasks_the_key_names(redis_url: str) -> None:
    """The first one was held back by its unique key, which is free by now."""
    held = EMAIL | {"unique": {"key": "k"}}
    async with running(redis_url) as api:
        holder = await api.submitted(held)
        assert (await batch(api, [held] + [EMAIL] * 150, Idempotency_Key="batch")).status == 201
        assert (await api.ask("DELETE", f"/api/v1/tasks/{holder}")).status == 200
        other = await batch(api, [EMAIL] * 151, Idempotency_Key="batch")
        after = await pending(api)
    assert (other.code, after) == ("task_conflict", 150)


async def test_a_repeated_batch_acknowledges_no_task_that_the_queue_has_no_room_for(redis_url: str) -> None:
    """One was held back the first time and would be new now; what is stored by then is told as that, and counted."""
    held = EMAIL | {"unique": {"key": "k"}}
    async with running(redis_url, max_depth=2) as api:
        holder = await api.submitted(held)
        first = await batch(api, [EMAIL, held], Idempotency_Key="batch")
        await api.ask("DELETE", f"/api/v1/tasks/{holder}")
        other = await api.submitted()
        full = await batch(api, [EMAIL, held], Idempotency_Key="batch")
        await api.ask("DELETE", f"/api/v1/tasks/{other}")
        fits = await batch(api, [EMAIL, held], Idempotency_Key="batch")
        again = await batch(api, [EMAIL, held], Idempotency_Key="batch")
        metrics = (await api.get("/metrics")).text
    assert [each["status"] for each in first.json["tasks"]] == ["submitted", "held"]
    assert full.code == "queue_full"
    assert [each["status"] for each in fits.json["tasks"]] == ["submitted", "submitted"]
    assert again.json == fits.json
    assert ["Idempotent-Replayed" in answer.headers for answer in (first, fits, again)] == [False, False, True]
    assert 'tasks_submitted_total{priority="high",type="unknown"} 4.0' in metrics


def test_a_key_written_with_escapes_hides_no_batch() -> None:
    """However the second `tasks` is spelt, it is seen."""
    with pytest.raises(MalformedJson):
        split(b'{"\\u0074asks": [{"type": "\\u0022"}], "tasks": [{"type": "t"}]}', 10)


async def ask_partial(api: Api, bodies: Any, **headers: str) -> Answer:
    data = json.dumps({"tasks": bodies}).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("POST", "/api/v1/tasks:batch?partial=true", data=data, headers=named)


async def test_partial_stores_what_is_in_order_and_tells_of_each(redis_url: str) -> None:
    """207, a status for each in order; queues may differ, and pointers lead into the task."""
    bodies = [
        EMAIL,
        {"type": "a b"},
        EMAIL | {"queue": "other", "unique": {"key": "k"}},
        EMAIL | {"queue": "other", "unique": {"key": "k"}},
        EMAIL | {"payload": {"x": "y" * 70_000}},
    ]
    async with running(redis_url) as api:
        answer = await ask_partial(api, bodies)
        tasks = answer.json["tasks"]
        stored = [(await api.task(tasks[at]["task_id"]))["queue"] for at in (0, 2)]
        stats = (await api.get("/api/v1/stats")).json
    assert answer.status == 207, answer.text
    assert list(answer.json) == ["failed", "count", "tasks"]
    assert (answer.json["failed"], answer.json["count"]) == (3, 2)
    assert [each["status"] for each in tasks] == [201, 422, 201, 409, 413]
    assert [each["problem"]["code"] for each in tasks if "problem" in each] == [
        "invalid_task",
        "unique_held",
        "too_large",
    ]
    assert tasks[1]["problem"]["errors"][0]["pointer"] == "/type"
    assert tasks[3]["problem"]["task_ids"] == [tasks[2]["task_id"]]
    assert stored == ["default", "other"] and stats["pending"] == 2


async def test_partial_fills_a_queue_to_its_limit(redis_url: str) -> None:
    """Whoever does not fit is told so; the same batch goes on where it was, under its key."""
    async with running(redis_url, max_depth=2) as api:
        answer = await ask_partial(api, [EMAIL] * 3, Idempotency_Key="p-1")
        again = await ask_partial(api, [EMAIL] * 3, Idempotency_Key="p-1")
        other = await ask_partial(api, [EMAIL] * 2, Idempotency_Key="p-1")
    assert sorted(each["status"] for each in answer.json["tasks"]) == [201, 201, 429]
    assert [each["status"] for each in again.json["tasks"]] == [each["status"] for each in answer.json["tasks"]]
    assert [each.get("replayed", False) for each in again.json["tasks"]].count(True) == 2
    assert {each["problem"]["code"] for each in other.json["tasks"]} == {"task_conflict"}


async def test_partial_that_the_store_keeps_out_is_503(redis_url: str) -> None:
    async with running(redis_url, door="redis://127.0.0.1:1/0") as api:
        answer = await ask_partial(api, [EMAIL] * 3)
    assert answer.status == 503


LINE = json.dumps(EMAIL).encode()


async def by_line(api: Api, data: bytes, query: str = "") -> Answer:
    headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    return await api.ask("POST", f"/api/v1/tasks:batch{query}", data=data, headers=headers)


async def test_a_batch_may_come_by_the_line(redis_url: str) -> None:
    """Empty lines are none, whatever ends the others."""
    async with running(redis_url) as api:
        good = await by_line(api, LINE + b"\r\n\n" + LINE)
        bad = await by_line(api, LINE + b"\n" + b'{"type": "t", "paylod": {}}\n')
        each = await by_line(api, LINE + b"\n" + b"{\n", "?partial=true")
        empty = await by_line(api, b"\n")
    assert (good.status, good.json["count"]) == (201, 2)
    assert (bad.status, set(bad.errors)) == (422, {"/tasks/1/paylod"})
    assert [each["status"] for each in each.json["tasks"]] == [201, 400]
    assert (empty.status, empty.code) == (422, "invalid_task")


async def test_lines_that_are_json_only_together_are_refused(redis_url: str) -> None:
    """Joined by commas these would be three tasks."""
    lines = b'{"type": "a"\n"payload": {}}\n{"type": "b"}, {"type": "c"}\n'
    async with running(redis_url) as api:
        answer = await by_line(api, lines)
        keys = await api.worker.keys()
    assert (answer.status, answer.code, keys) == (400, "malformed_json", [])
