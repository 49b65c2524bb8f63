"""Queues over HTTP: what is in them, pausing, limits of their own; what one changes, one sees at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api_kit import EMAIL, TOKEN, Api, running
from headrace import App
from headrace.errors import QueueFull
from headrace.redis_settings import RedisSettings
from headrace.task import LABEL_WORDS
from headrace_api.overview import Lookout
from headrace_api.store import Store, queue_of_namespace

ORDERS = EMAIL | {"queue": "orders"}


async def send(api: Api, method: str, path: str, body: Any = None) -> Any:
    """The document of an answer that must be 200."""
    answer = await api.ask(method, path, **({} if body is None else {"json": body}))
    assert answer.status == 200, answer.text
    return answer.json


async def test_a_queue_shows_what_lies_where(redis_url: str) -> None:
    """Counts by state and by priority, the oldest waiting task, who serves it, its limits."""
    async with running(redis_url) as api:
        for priority in (3, 2, 2):
            await api.submitted(ORDERS | {"priority": priority})
        await api.submitted(ORDERS | {"delay": 60})
        await api.worker.claim(1, "orders")
        shown = await send(api, "GET", "/api/v1/queues/orders")
    assert {name: shown[name] for name in ("queue", "pending", "processing", "scheduled", "parked", "live")} == {
        "queue": "orders", "pending": 2, "processing": 1, "scheduled": 1, "parked": 0, "live": 4,
    }  # fmt: skip
    assert shown["priorities"]["critical"] == {"pending": 0, "processing": 1, "oldest_s": None}
    assert shown["priorities"]["high"]["pending"] == 2
    assert shown["priorities"]["high"]["oldest_s"] == shown["oldest_s"] >= 0
    assert shown["workers"] == ["worker-1"]
    assert shown["limits"] == {"max_depth": None, "rate": None}
    assert shown["next_due_at"].endswith("Z")
    assert (shown["paused"], shown["paused_at"]) == (False, None)


async def test_the_list_has_every_queue_and_what_was_changed_here_at_once(redis_url: str) -> None:
    """It may be a second old, but not older than a change that this process made: nobody doubts a button."""
    async with running(redis_url) as api:
        await api.submitted(EMAIL)
        await api.submitted(ORDERS)
        for _ in range(3):
            for verb, paused in (("pause", True), ("resume", False)):
                await send(api, "POST", f"/api/v1/queues/orders:{verb}")
                listed = (await send(api, "GET", "/api/v1/queues"))["queues"]
                stats = await send(api, "GET", "/api/v1/stats")
                assert [(each["queue"], each["paused"]) for each in listed] == [("default", False), ("orders", paused)]
                assert stats["queues"]["orders"]["paused"] is paused


async def test_a_reading_that_began_before_a_change_is_not_shown_after_it(redis_url: str) -> None:
    """Whoever looks after the change waits for the next reading, not for the one under way."""
    store = Store(RedisSettings.parse(redis_url, "the test"))
    depths_are_read, go_on = asyncio.Event(), asyncio.Event()

    class SlowLookout(Lookout):
        async def _memory(self) -> None:
            depths_are_read.set()
            await go_on.wait()

    lookout = SlowLookout(store, "default")
    queue = queue_of_namespace("default", "default")
    await store.read(queue.enlist())
    await store.read(queue.init())
    early = asyncio.create_task(lookout.look())
    await depths_are_read.wait()
    await store.read(queue.pause(True))
    lookout.forget()
    late = asyncio.create_task(lookout.look())
    await asyncio.sleep(0)
    go_on.set()
    assert (await early).depths["default"].paused is False, "else this test shows nothing"
    assert (await late).depths["default"].paused
    assert (await lookout.look()).depths["default"].paused
    await lookout.aclose()
    await store.aclose()


async def test_pausing_is_remembered_with_its_time_and_says_whether_it_changed_anything(redis_url: str) -> None:
    async with running(redis_url) as api:
        await api.submitted(ORDERS)
        first = await send(api, "POST", "/api/v1/queues/orders:pause")
        since = (await send(api, "GET", "/api/v1/queues/orders"))["paused_at"]
        second = await send(api, "POST", "/api/v1/queues/orders:pause")
        again = (await send(api, "GET", "/api/v1/queues/orders"))["paused_at"]
        claimed = await api.worker.claim(5, "orders")
        resumed = [await send(api, "POST", "/api/v1/queues/orders:resume") for _ in range(2)]
        claimed_then = await api.worker.claim(5, "orders")
    assert (first, second["changed"]) == ({"queue": "orders", "paused": True, "changed": True}, False)
    assert since == again and since.startswith("20")
    assert [each["changed"] for each in resumed] == [True, False]
    assert (len(claimed), len(claimed_then)) == (0, 1)


async def test_limits_are_set_one_by_one_and_taken_away_by_null(redis_url: str) -> None:
    async with running(redis_url) as api:
        await api.submitted(ORDERS)
        path = "/api/v1/queues/orders"
        seen = [
            (await send(api, "PATCH", path, body))["limits"]
            for body in ({"max_depth": 10}, {"rate": "100/s"}, {}, {"max_depth": None}, {"rate": None})
        ]
    assert seen == [
        {"max_depth": 10, "rate": None},
        {"max_depth": 10, "rate": "100/s"},
        {"max_depth": 10, "rate": "100/s"},
        {"max_depth": None, "rate": "100/s"},
        {"max_depth": None, "rate": None},
    ]


async def test_a_queues_own_depth_holds_for_everyone_at_once(redis_url: str) -> None:
    """Over HTTP and in the library, alone and in a batch; the refusal names the limit that holds."""
    async with running(redis_url) as api:
        await api.submitted(ORDERS)
        await send(api, "PATCH", "/api/v1/queues/orders", {"max_depth": 2})
        batch = await api.ask("POST", "/api/v1/tasks:batch", json={"tasks": [ORDERS, ORDERS]})
        await api.submitted(ORDERS)
        full = await api.submit(ORDERS)
        other = await api.submit(EMAIL)
        await send(api, "PATCH", "/api/v1/queues/orders", {"max_depth": 3})
        app = App("shop", url=redis_url, queue="orders")

        @app.task()
        async def noop() -> None: ...

        async with app:
            await noop.aenqueue()
            with pytest.raises(QueueFull) as refused:
                await noop.aenqueue()
        await send(api, "PATCH", "/api/v1/queues/orders", {"max_depth": None})
        await api.submitted(ORDERS)
    for answer, live in ((batch, 2), (full, 2)):
        assert (answer.status, answer.code) == (429, "queue_full")
        assert f"its limit of {live} live tasks" in answer.json["detail"]
    assert refused.value.limit == 3
    assert other.status == 201


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"max_depth": 0}, "/max_depth"),
        ({"max_depth": 2_000_000_000}, "/max_depth"),
        ({"max_depth": True}, "/max_depth"),
        ({"max_depth": "10"}, "/max_depth"),
        ({"rate": "fast"}, "/rate"),
        ({"max_dept": 10}, "/max_dept"),
        ([], ""),
    ],
)
async def test_a_wrong_limit_is_refused_at_its_place(redis_url: str, body: Any, pointer: str) -> None:
    async with running(redis_url) as api:
        await api.submitted(ORDERS)
        answer = await api.ask("PATCH", "/api/v1/queues/orders", json=body)
        after = await send(api, "GET", "/api/v1/queues/orders")
    assert (answer.status, answer.code, list(answer.errors)) == (422, "invalid_request", [pointer])
    assert after["limits"] == {"max_depth": None, "rate": None}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/queues/{}"),
        ("PATCH", "/api/v1/queues/{}"),
        ("POST", "/api/v1/queues/{}:pause"),
        ("POST", "/api/v1/queues/{}:resume"),
        ("POST", "/api/v1/queues/{}:purge"),
    ],
)
async def test_managing_makes_no_queue(redis_url: str, method: str, path: str) -> None:
    """A slip of the pen is answered with the name that was meant, and leaves nothing in Redis but the audit entry."""
    bodies = {"PATCH": {"max_depth": 5}, "POST": {"tasks": "dead"}}
    options: dict[str, Any] = {"json": bodies[method]} if method == "PATCH" or path.endswith("purge") else {}
    async with running(redis_url) as api:
        await api.submitted(ORDERS)
        before = set(await api.worker.keys())
        answer = await api.ask(method, path.format("ordres"), **options)
        strange = [await api.ask(method, path.format(name), **options) for name in ("No_Queue", "q" * 64, "q" * 2_000)]
        after = set(await api.worker.keys())
    assert (answer.status, answer.code) == (404, "unknown_queue")
    assert "Did you mean 'orders'?" in answer.json["detail"]
    for each in strange:
        assert (each.status, each.code) == (404, "unknown_queue")
        assert each.json["detail"].endswith(f"is no queue name: use {LABEL_WORDS}."), "no task can make it"
        assert len(each.json["detail"]) < 300
    assert after - before <= {"hr:{default}:audit"}


async def test_a_token_sees_and_manages_its_own_queues_only(redis_url: str) -> None:
    """Others are 403 whether they exist or not, and missing from the list."""
    async with running(redis_url, TOKEN, tokens=f"ops:{TOKEN} queue=mail-*,all:the-token-of-everyone-else") as api:
        everyone = {"Authorization": "Bearer the-token-of-everyone-else"}
        for name in ("orders", "mail-out"):
            assert (await api.submit(EMAIL | {"queue": name}, **everyone)).status == 201
        listed = await send(api, "GET", "/api/v1/queues")
        codes = {(await api.ask("POST", f"/api/v1/queues/{name}:pause")).code for name in ("orders", "nonsense")}
        mine = await send(api, "POST", "/api/v1/queues/mail-out:pause")
    assert [each["queue"] for each in listed["queues"]] == ["mail-out"]
    assert codes == {"forbidden_queue"}
    assert mine["changed"] is True
