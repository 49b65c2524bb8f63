"""Waiting and looking again over HTTP: `Prefer: wait`, ETags, the wait for a change, and the trace that tasks carry."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from api_kit import EMAIL, Api, running
from headrace import App, Ctx
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.prefer import preferred_wait
from headrace_api.server import serving
from worker_harness import working

READ, SUBMIT = "the-secret-of-read-0123456789", "the-secret-of-submit-0123456789"


@pytest.mark.parametrize(("headers", "expected"), [
    (["wait=10"], 10),
    (["respond-async"], None),
    (["respond-async, WAIT = 7 ; x=y"], 7),
    (['wait="3"'], 3),
    (["handling=lenient", "wait=5, wait=6"], 5),
    (["wait=100000"], 60),
    (["wait=-1"], None),
    (["wait=1.5"], None),
    (["wait"], None),
    (["await=5"], None),
    ([""], None),
])  # fmt: skip
def test_preferences(headers: list[str], expected: int | None) -> None:
    """RFC 7240: whole seconds, the first one counts, what is not understood is ignored."""
    assert preferred_wait(headers, 60.0) == expected


async def run_one(api: Api, outcome: str = "completed") -> None:
    """A worker that ends the next task."""
    while not (claims := await api.worker.claim(1)):  # noqa: ASYNC110 - another request makes it
        await asyncio.sleep(0.005)
    await api.worker.report(claims[0].report(outcome, result={"ok": True} if outcome == "completed" else None))


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_a_submission_is_answered_with_the_ended_task(redis_url: str, outcome: str) -> None:
    """201 all the same, with the task as GET shows it."""
    async with running(redis_url) as api:
        answer, _ = await asyncio.gather(api.submit(Prefer="wait=10"), run_one(api, outcome))
        shown = await api.task(answer.json["task_id"])
    assert (answer.status, answer.json["status"]) == (201, "submitted")
    assert answer.json["task"] == shown
    assert shown["status"] == outcome
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert answer.headers["Location"] == f"/api/v1/tasks/{shown['id']}"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=1"])
async def test_what_has_not_ended_in_time_is_answered_without_it(redis_url: str, prefer: str) -> None:
    """The task is stored, and goes on."""
    async with running(redis_url) as api:
        answer = await api.submit(Prefer=prefer)
        assert (await api.task(answer.json["task_id"]))["status"] == "pending"
    assert (answer.status, "task" in answer.json, answer.headers["Preference-Applied"]) == (201, False, prefer)


async def test_a_repeated_submission_is_told_how_the_first_ended(redis_url: str) -> None:
    """The same Idempotency-Key is the same task."""
    async with running(redis_url) as api:
        await asyncio.gather(api.submit(Idempotency_Key="k", Prefer="wait=10"), run_one(api))
        again = await api.submit(Idempotency_Key="k", Prefer="wait=10")
    assert (again.json["task"]["status"], again.headers["Idempotent-Replayed"]) == ("completed", "true")


async def test_other_preferences_are_ignored(redis_url: str) -> None:
    """Answered as ever, and nothing says that one was followed."""
    async with running(redis_url) as api:
        answer = await api.submit(Prefer="respond-async")
    assert (answer.status, set(answer.json)) == (201, {"task_id", "status", "warning"})
    assert "Preference-Applied" not in answer.headers


async def test_a_token_that_may_not_read_is_not_told_the_result(redis_url: str) -> None:
    """It submits without a wait."""
    tokens = f"read:{READ} scope=read, submit:{SUBMIT} scope=submit"
    async with running(redis_url, SUBMIT, tokens=tokens) as api:
        answer = await api.submit(Prefer="wait=10")
    assert (answer.status, "task" in answer.json, "Preference-Applied" in answer.headers) == (201, False, False)


async def test_get_takes_the_preference_like_the_parameter(redis_url: str) -> None:
    """Which goes before it."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        plain = await api.get(path + "?wait=0.01", headers={"Prefer": "wait=10"})
        ended, _ = await asyncio.gather(api.get(path, headers={"Prefer": "wait=10"}), run_one(api))
    assert (plain.json["status"], "Preference-Applied" in plain.headers) == ("pending", False)
    assert (ended.json["status"], ended.headers["Preference-Applied"]) == ("completed", "wait=10")


async def test_an_etag_changes_with_the_task_and_not_without(redis_url: str) -> None:
    """Also while it runs, where its start is measured anew each time."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        tags = []
        for act in (None, api.worker.claim, None):
            claims = await act() if act else []
            answer = await api.get(path)
            tags.append(answer.headers["ETag"])
            for _ in range(5):
                same = await api.get(path, headers={"If-None-Match": tags[-1]})
                assert (same.status, same.text, same.headers["ETag"]) == (304, "", tags[-1])
            for claim in claims:
                await api.worker.report(claim.report("completed"))
        older = await api.get(path, headers={"If-None-Match": f'"x", {tags[0]}'})
        any_ = await api.get(path, headers={"If-None-Match": "*"})
    assert len(set(tags)) == 3
    assert tags[0].startswith('W/"')
    assert (older.status, older.json["status"], any_.status) == (200, "completed", 304)


async def test_a_wait_with_an_etag_ends_with_the_next_change(redis_url: str) -> None:
    """A claim is one, progress is one; without any it is 304 in the end; a change that was before is told at once."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        path = f"/api/v1/tasks/{task_id}?wait="
        tag = (await api.get(path + "0")).headers["ETag"]
        unchanged = await api.get(path + "0.4", headers={"If-None-Match": tag})
        waiting = asyncio.create_task(api.get(path + "10", headers={"If-None-Match": tag}))
        await asyncio.sleep(0.05)
        [claim] = await api.worker.claim()
        changed = await waiting
        at_once = await api.get(path + "10", headers={"If-None-Match": tag})
    assert unchanged.status == 304
    assert (changed.status, changed.json["status"]) == (200, "processing")
    assert at_once.json["status"] == "processing"
    assert claim.task.id == task_id


async def test_a_wait_for_a_change_is_let_go_when_the_process_stops(redis_url: str) -> None:
    """It is answered with what is known: nothing new."""
    redis = RedisSettings.parse(redis_url, "the test")
    async with aiohttp.ClientSession() as session:
        async with serving(ApiSettings.from_env({}, port=0), redis, stop_s=10) as url:
            async with session.post(f"{url}/api/v1/tasks", json=EMAIL) as reply:
                path = url + reply.headers["Location"]
            async with session.get(path) as reply:
                tag = reply.headers["ETag"]
            waiting = asyncio.create_task(session.get(path + "?wait=30", headers={"If-None-Match": tag}))
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
        assert (await waiting).status == 304
        assert asyncio.get_running_loop().time() - began < 2


async def test_what_a_handler_submits_belongs_to_its_trace(redis_url: str) -> None:
    """From a client's header over the first task's Ctx to the second task's, and to its log."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    app = App("trace", url=redis_url)
    seen: list[str | None] = []

    @app.task()
    async def second(ctx: Ctx) -> None:
        seen.append(ctx.trace)

    @app.task()
    async def first(ctx: Ctx) -> None:
        seen.append(ctx.trace)
        await second.aenqueue()

    async with running(redis_url) as api, working(app, redis_url):
        await api.submit({"type": "first"}, traceparent=trace)
        async with asyncio.timeout(10):
            while len(seen) < 2:  # noqa: ASYNC110 - the worker says it
                await asyncio.sleep(0.005)
    await app.aclose()
    assert seen == [trace, trace]
