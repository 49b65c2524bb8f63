"""The audit log: every change is in it, whoever asked and whatever came of it, and nothing of a task's content."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from api_kit import EMAIL, TOKEN, Api, running
from headrace import audit
from headrace.audit import Entry
from headrace.broker.broker import Queue
from headrace_api.app import ROUTES
from headrace_api.endpoint import Route
from worker_harness import eventually

CHANGES: Final = [route for route in ROUTES if route.audit]
SECRET: Final = "canary-93c1"
BODIES: Final[dict[str, Any]] = {
    "queue.limit": {"max_depth": 7, "rate": "5/s"},
    "queue.purge": {"tasks": "dead"},
    "bulk.start": {"action": "cancel", "filter": f"args.recipient:{SECRET}"},
}
"""Action → a body that is in order, where it takes one."""
DETAILS: Final[dict[str, dict[str, Any]]] = {
    "queue.limit": {"max_depth": 7, "rate": "5/s"},
    "queue.purge": {"tasks": "dead", "dry_run": False, "expected_count": None},
    "bulk.start": {
        "do": "cancel", "filter": "args.recipient:…", "ids": None, "dry_run": False, "expected_count": None,
    },
    "task.cancel": {"force": False},
}  # fmt: skip


def test_a_route_that_changes_something_is_audited_or_a_submission() -> None:
    """A new route fails here until it says what the audit log calls it."""
    assert [f"{route.method} {route.path}" for route in ROUTES if route.method == "GET" and route.audit] == []
    unnamed = {f"{route.method} {route.path}" for route in ROUTES if route.method != "GET" and not route.audit}
    assert unnamed == {f"{route.method} {route.path}" for route in ROUTES if route.submits}


async def entries(api: Api) -> list[Entry]:
    """Newest first."""
    return [each.entry for each in (await audit.page(api.worker.client, "default", 200)).entries]


async def prepared(api: Api, route: Route) -> str:
    """The path of a request to this route that succeeds."""
    task_id = await api.submitted(EMAIL | {"payload": {"recipient": SECRET, "subject": "a", "body": "b"}})
    job = ""
    if route.audit == "task.retry":
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("failed"))
    if "{job}" in route.path:
        body = {"action": "cancel", "filter": "type:nothing"}
        job = (await api.ask("POST", "/api/v1/bulk", json=body)).json["id"]
    return route.path.replace("{id}", task_id).replace("{queue}", "default").replace("{job}", job)


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.path}")
async def test_each_change_is_written_down(redis_url: str, route: Route) -> None:
    """Generated from the route table: who, what, on what, under which request, with which outcome."""
    async with running(redis_url, TOKEN, tokens=f"shop:{TOKEN}") as api:
        path = await prepared(api, route)
        headers = {"X-Request-Id": "request-7"}
        answer = await api.ask(route.method, path, headers=headers, json=BODIES.get(route.audit))
        assert answer.status < 300, answer.text
        [entry] = [each for each in await entries(api) if each.request_id == "request-7"]
        everything = str(await entries(api))
    assert (entry.who, entry.action, entry.outcome, entry.status) == ("shop", route.audit, "ok", answer.status)
    if "{" in route.path:
        assert entry.target and entry.target in path
        assert entry.queue == ("" if "{job}" in route.path else "default")
    detail = dict(entry.detail)
    if route.audit in {"bulk.start", "queue.purge"}:
        assert detail.pop("bulk") == answer.json["id"]
    assert detail == DETAILS.get(route.audit, {})
    assert SECRET not in everything and TOKEN not in everything


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_refused_change_is_written_down_with_its_code(redis_url: str, route: Route) -> None:
    """Who tries is of as much interest as who does."""
    path = route.path.replace("{id}", "0" * 8 + "-0000-4000-8000-" + "0" * 12)
    path = path.replace("{queue}", "nothing").replace("{job}", "0" * 20)
    body = {"action": "nonsense"} if route.audit == "bulk.start" else BODIES.get(route.audit)
    async with running(redis_url) as api:
        answer = await api.ask(route.method, path, json=body)
        [entry] = await entries(api)
    assert answer.status >= 400
    assert (entry.action, entry.outcome, entry.status) == (route.audit, answer.code, answer.status)
    assert entry.request_id == answer.headers["X-Request-Id"]


async def test_looking_and_submitting_leave_no_entry(redis_url: str) -> None:
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL)
        await api.task(task_id)
        await api.get("/api/v1/queues")
        assert await entries(api) == []


async def test_pages_are_newest_first_and_complete(redis_url: str) -> None:
    async with running(redis_url) as api:
        for number in range(25):
            await audit.record(api.worker.client, "default", Entry("me", "queue.pause", f"q{number}"))
        seen, cursor = [], ""
        while True:
            page = (await api.get(f"/api/v1/audit?limit=10{cursor}")).json
            seen += page["entries"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        wrong = [await api.get(f"/api/v1/audit?{each}") for each in ("limit=0", "limit=201", "who=me")]
        cut = [await api.get(f"/api/v1/audit?cursor={each}") for each in ("", "x", "%21", "17-")]
    assert [each["target"] for each in seen] == [f"q{number}" for number in reversed(range(25))]
    assert (seen[0]["status"], seen[0]["request_id"]) == (None, None)
    assert {(each.status, each.code) for each in wrong} == {(400, "bad_query")}
    assert {(each.status, each.code) for each in cut} == {(400, "bad_cursor")}
    assert {each.json["hint"] for each in cut} == {"Send `next` as it was answered, or begin without a cursor."}


async def test_a_token_of_some_queues_sees_their_entries(redis_url: str) -> None:
    """What is about other queues, or about none, is left out."""
    tokens = f"mine:{TOKEN} queue=mine-*,all:the-token-of-everyone-else"
    async with running(redis_url, TOKEN, tokens=tokens) as api:
        everyone = {"Authorization": "Bearer the-token-of-everyone-else"}
        for queue in ("mine-1", "other"):
            await api.submit(EMAIL | {"queue": queue}, **everyone)
            await api.ask("POST", f"/api/v1/queues/{queue}:pause", headers=everyone)
        await api.ask("POST", "/api/v1/bulk", json={"action": "retry", "filter": ""}, headers=everyone)
        seen = (await api.get("/api/v1/audit")).json["entries"]
    assert [(each["who"], each["target"]) for each in seen] == [("all", "mine-1")]


async def test_the_log_is_capped(redis_url: str) -> None:
    """About so many are kept; Redis drops them in blocks of 100."""
    async with running(redis_url) as api:
        for number in range(400):
            await audit.record(api.worker.client, "default", Entry("me", "queue.pause", str(number)), length=100)
        kept = await entries(api)
    assert 100 <= len(kept) <= 200
    assert kept[0].target == "399"


async def test_long_texts_are_cut(redis_url: str) -> None:
    async with running(redis_url) as api:
        await audit.record(
            api.worker.client, "default", Entry("me", "bulk.start", "t" * 9_999, detail={"filter": "f" * 9_999})
        )
        [entry] = await entries(api)
    assert (len(entry.target), len(str(entry.detail["filter"]))) == (audit.MAX_TEXT, audit.MAX_TEXT)


async def test_who_goes_away_before_the_answer_is_written_down(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose client hung up may have been made, and hanging up must hide nothing."""
    begun = asyncio.Event()

    async def slow(client: Any, queue: Queue) -> bool:
        begun.set()
        await asyncio.sleep(60)
        return True

    monkeypatch.setattr("headrace.queues.pause", slow)
    async with running(redis_url) as api:
        asked = asyncio.create_task(api.ask("POST", "/api/v1/queues/default:pause"))
        await begun.wait()
        asked.cancel()
        seen = await eventually(lambda: entries(api))
    assert [(each.action, each.target, each.outcome, each.status) for each in seen] == [
        ("queue.pause", "default", "gone", 499)
    ]


async def test_an_entry_that_redis_refuses_is_logged_and_the_change_stands(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is made by then; to call it refused would be a lie."""
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL)
        await api.worker.client.command("SET", "hr:{default}:audit", "no stream")
        answer = await api.ask("DELETE", f"/api/v1/tasks/{task_id}")
        state = (await api.task(task_id))["status"]
    [line] = [each for each in caplog.records if each.name == "headrace_api.auditing"]
    assert (answer.status, state) == (200, "cancelled")
    assert line.levelname == "ERROR"
    assert {name: line.__dict__["fields"][name] for name in ("namespace", "who", "action", "target", "status")} == {
        "namespace": "default", "who": "anonymous", "action": "task.cancel", "target": task_id, "status": 200,
    }  # fmt: skip


def test_a_persons_name_says_that_it_was_a_command() -> None:
    assert audit.person().endswith(" (command)")
