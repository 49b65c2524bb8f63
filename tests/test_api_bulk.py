"""Many tasks at once over HTTP: counted before, done as a job, aborted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from api_kit import EMAIL, TOKEN, Api, running
from bulk_kit import BULK, add, depth, ended, fail_all, metrics, order
from conftest import StartRedis
from headrace import audit
from headrace.bulk import MAX_RUNNING
from headrace.settings import Durabilities
from headrace.task import new_id
from headrace_api import bulk_driver
from worker_harness import eventually


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For jobs whose process is gone."""
    monkeypatch.setattr(bulk_driver, "LOOK_S", 0.05)


async def test_all_failures_of_one_kind_are_retried(redis_url: str) -> None:
    """The others stay; what was counted is what was done."""
    async with running(redis_url, bulk_rate=100_000) as api:
        await add(api, 250)
        await fail_all(api, "OSError")
        await add(api, 30)
        await fail_all(api, "ValueError")
        body = {"action": "retry", "filter": "exception:OSError"}
        dry = await api.ask("POST", BULK, json=body | {"dry_run": True})
        untouched = await depth(api)
        job = await ended(api, (await order(api, body | {"expected_count": 250}))["id"])
        after = await depth(api)
    assert (dry.status, dry.json) == (200, {"found": 250, "truncated": False})
    assert (untouched["dead_letters"], untouched["pending"]) == (280, 0)
    assert (job["state"], job["found"], job["done"], job["failed"]) == ("done", 250, 250, {})
    assert (after["dead_letters"], after["pending"]) == (30, 250)


async def test_jobs_and_what_they_did_are_counted(redis_url: str) -> None:
    """By action and outcome, from 0 on; a dry run counts nothing."""
    async with running(redis_url, bulk_rate=100_000) as api:
        ids = await add(api, 250)
        text = (await api.get("/metrics")).text
        await api.ask("POST", BULK, json={"action": "cancel", "filter": "queue:default", "dry_run": True})
        before = await metrics(api)
        await ended(api, (await order(api, {"action": "cancel", "filter": "queue:default"}))["id"])
        await ended(api, (await order(api, {"action": "retry", "ids": ids[:3]}))["id"])

        async def over() -> bool:
            return "jobs_running" not in await metrics(api)

        await eventually(over)
        after = await metrics(api)
    assert 'headrace_bulk_jobs_total{action="delete",outcome="aborted"} 0.0' in text
    assert before == {}
    assert after == {
        'jobs_total{action="cancel",outcome="done"}': 1,
        'jobs_total{action="retry",outcome="done"}': 1,
        'tasks_total{action="cancel",outcome="done"}': 250,
        'tasks_total{action="retry",outcome="failed"}': 3,
    }


async def test_what_waits_is_cancelled_and_what_runs_goes_on(redis_url: str) -> None:
    """Cancelling without a state means what waits; running tasks are named by state:processing."""
    async with running(redis_url, bulk_rate=100_000) as api:
        await add(api, 10)
        claims = await api.worker.claim(3)
        for delay in (60, 90):
            await api.submitted(EMAIL | {"delay": delay})
        job = await ended(api, (await order(api, {"action": "cancel", "filter": "queue:default"}))["id"])
        seen = await depth(api)
        await api.worker.report(claims[0].report("completed"))
        asked = await ended(api, (await order(api, {"action": "cancel", "filter": "state:processing"}))["id"])
        await api.worker.report(claims[1].report("cancelled"), claims[2].report("cancelled"))
    assert (job["found"], job["done"]) == (9, 9)
    assert (seen["cancelled"], seen["processing"], seen["live"]) == (9, 3, 3)
    assert (asked["found"], asked["done"]) == (2, 2)


async def test_ids_that_cannot_be_acted_on_are_told_by_reason(redis_url: str) -> None:
    """found = done + failed, whatever the tasks are."""
    async with running(redis_url, bulk_rate=100_000) as api:
        dead = await add(api, 2)
        await fail_all(api)
        waiting = await add(api, 1)
        unknown = [new_id(), "no id at all"]
        body = {"action": "delete", "ids": [*dead, *waiting, *unknown, dead[0]]}
        dry = (await api.ask("POST", BULK, json=body | {"dry_run": True})).json
        job = await ended(api, (await order(api, body))["id"])
        gone = await api.get(f"/api/v1/tasks/{dead[0]}")
    assert dry == {"found": 5, "truncated": False}
    assert (job["found"], job["done"]) == (5, 2)
    assert job["failed"] == {"wrong_state": 1, "unknown_task": 2}
    assert job["examples"] == {"wrong_state": waiting, "unknown_task": unknown}
    assert gone.code == "unknown_task"


async def test_scheduled_tasks_are_due_now_by_a_retry(redis_url: str) -> None:
    async with running(redis_url, bulk_rate=100_000) as api:
        await api.submitted(EMAIL | {"delay": 600})
        job = await ended(api, (await order(api, {"action": "retry", "filter": "state:scheduled"}))["id"])
        seen = await depth(api)
    assert (job["done"], seen["pending"], seen["scheduled"]) == (1, 1, 0)


async def test_ended_tasks_are_forgotten(redis_url: str) -> None:
    """Records of completed tasks go only when they are named."""
    async with running(redis_url, bulk_rate=100_000) as api:
        [done] = await add(api, 1)
        claims = await api.worker.claim()
        await api.worker.report(*(each.report("completed") for each in claims))
        [dead] = await add(api, 1)
        await fail_all(api)
        first = await ended(api, (await order(api, {"action": "delete", "filter": "queue:default"}))["id"])
        kept = await api.get(f"/api/v1/tasks/{done}")
        second = await ended(api, (await order(api, {"action": "delete", "filter": "state:completed"}))["id"])
        codes = {(await api.get(f"/api/v1/tasks/{each}")).code for each in (done, dead)}
    assert (first["done"], second["done"]) == (1, 1)
    assert kept.json["status"] == "completed"
    assert codes == {"unknown_task"}


async def test_another_count_than_expected_does_nothing(redis_url: str) -> None:
    """Whoever saw 3 tasks and asks for 3 never acts on 4."""
    async with running(redis_url) as api:
        await add(api, 4)
        answer = await api.ask("POST", BULK, json={"action": "cancel", "filter": "type:noop", "expected_count": 3})
        seen = await depth(api)
        jobs = (await api.get(BULK)).json
    assert (answer.status, answer.code) == (409, "wrong_count")
    assert "3 tasks were expected, but 4 fit now" in answer.json["detail"]
    assert (seen["pending"], jobs) == (4, {"jobs": []})


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"action": "retry"}, ""),
        ({"action": "retry", "filter": "", "ids": ["a"]}, ""),
        ({"action": "retry", "filter": "", "ids": []}, ""),
        ({"action": "retry", "ids": []}, ""),
        ({"action": "retri", "filter": ""}, "/action"),
        ({"action": "retry", "filter": "stat:failed"}, "/filter"),
        ({"action": "retry", "filter": "state:completed"}, "/filter"),
        ({"action": "cancel", "filter": "state:failed"}, "/filter"),
        ({"action": "delete", "filter": "state:pending"}, "/filter"),
        ({"action": "retry", "ids": ["a"] * 1_001}, "/ids"),
        ({"action": "retry", "filter": "", "expected_count": -1}, "/expected_count"),
        ({"action": "retry", "filter": "", "dryrun": True}, "/dryrun"),
    ],
)
async def test_a_wrong_order_is_refused_at_its_place(redis_url: str, body: Any, pointer: str) -> None:
    async with running(redis_url) as api:
        answer = await api.ask("POST", BULK, json=body)
    assert (answer.status, answer.code, list(answer.errors)) == (422, "invalid_request", [pointer]), answer.text


async def test_a_word_that_is_none_of_a_few_is_told_which_there_are(redis_url: str) -> None:
    async with running(redis_url) as api:
        slip = await api.ask("POST", BULK, json={"action": "retri", "filter": "type:t"})
        none = await api.ask("POST", BULK, json={"filter": "type:t"})
    assert slip.errors["/action"] == "'retri' is none of cancel, delete, replay, retry (did you mean 'retry'?)"
    assert none.errors["/action"] == "is required but missing (give one of cancel, delete, replay, retry)"


async def test_a_queue_is_purged_of_what_waits_or_of_its_dead_letters(redis_url: str) -> None:
    """The first cancels, and so leaves records; the second deletes. Other queues are untouched."""
    async with running(redis_url, bulk_rate=100_000) as api:
        await add(api, 3, "orders")
        await fail_all(api, queue="orders")
        await add(api, 5, "orders")
        await add(api, 2)
        path = "/api/v1/queues/orders:purge"
        dry = [
            (await api.ask("POST", path, json={"tasks": what, "dry_run": True})).json for what in ("waiting", "dead")
        ]
        for what in ("waiting", "dead"):
            answer = await api.ask("POST", path, json={"tasks": what})
            assert answer.status == 202
            await ended(api, answer.json["id"])
        orders, others = await depth(api, "orders"), await depth(api)
        unknown = await api.ask("POST", "/api/v1/queues/ordres:purge", json={"tasks": "dead"})
    assert [each["found"] for each in dry] == [5, 3]
    assert {name: orders[name] for name in ("pending", "cancelled", "dead_letters")} == {
        "pending": 0, "cancelled": 5, "dead_letters": 0,
    }  # fmt: skip
    assert others["pending"] == 2
    assert unknown.code == "unknown_queue"


async def test_a_job_is_aborted_within_a_step(redis_url: str) -> None:
    """What was done stays done and is counted; the rest is as it was."""
    async with running(redis_url, bulk_rate=500) as api:
        await add(api, 3_000)
        job = await order(api, {"action": "cancel", "filter": "type:noop"})

        async def begun() -> bool:
            return bool((await api.get(f"{BULK}/{job['id']}")).json["done"] > 0)

        await eventually(begun)
        answer = await api.ask("DELETE", f"{BULK}/{job['id']}")
        seen = await ended(api, job["id"])
        left = await depth(api)
        again = await api.ask("DELETE", f"{BULK}/{job['id']}")
        unknown = await api.ask("DELETE", f"{BULK}/{'0' * 20}")
    assert (answer.status, answer.json["state"]) in {(202, "aborting"), (200, "aborted")}, "the step may end before it"
    assert (again.status, again.json["state"]) == (200, "aborted")
    assert seen["state"] == "aborted"
    assert 0 < seen["done"] == seen["found"] <= answer.json["done"] + 200
    assert left["pending"] == 3_000 - seen["done"]
    assert unknown.code == "unknown_bulk"


async def test_only_so_many_jobs_run_at_once(redis_url: str) -> None:
    async with running(redis_url, bulk_rate=1) as api:
        await add(api, 200)
        for _ in range(MAX_RUNNING):
            await order(api, {"action": "cancel", "filter": "type:noop"})
        answer = await api.ask("POST", BULK, json={"action": "cancel", "filter": "type:noop"})
    assert (answer.status, answer.code) == (429, "too_many_bulks")
    assert answer.headers["Retry-After"]


async def fail_and_complete(api: Api, number: int) -> Counter[str]:
    """A worker that claims all it can get, until it had so many tasks; it lets every other one fail again.

    Attempts by task id.
    """
    attempts: Counter[str] = Counter()
    while len(attempts) < number:
        claims = await api.worker.claim(50)
        attempts.update(each.task.id for each in claims)
        reports = [each.report("failed" if i % 2 else "completed") for i, each in enumerate(claims)]
        if reports:
            await api.worker.report(*reports)
        await asyncio.sleep(0.001)
    return attempts


@pytest.mark.timeout(300)  # for a machine that is busy, as is the deadline
async def test_ten_thousand_under_a_busy_worker_are_done_as_often_as_they_were_counted(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dead letter is replayed once, although half of them die again while the job runs."""
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)
    async with running(redis_url, bulk_rate=100_000) as api:
        ids = await add(api, 10_000)
        assert await fail_all(api) == 10_000
        body = {"action": "retry", "filter": "state:failed"}
        count = (await api.ask("POST", BULK, json=body | {"dry_run": True})).json["found"]
        job_id = (await order(api, body | {"expected_count": count}))["id"]
        attempts = await fail_and_complete(api, 10_000)
        job = await ended(api, job_id)
        claimed_after = await api.worker.claim(50)
    assert count == job["found"] == job["done"] == 10_000
    assert job["failed"] == {}
    assert set(attempts) == set(ids)
    assert set(attempts.values()) == {1}
    assert claimed_after == []


async def test_replays_are_confirmed_as_the_queue_asks(start_redis: StartRedis) -> None:
    """Durability fsync holds for what a bulk job replays as for what is submitted."""
    server = start_redis(appendfsync="always")
    async with running(server.url, bulk_rate=100_000, durability=Durabilities.parse("fsync")) as api:
        await add(api, 5)
        await fail_all(api)
        job = await ended(api, (await order(api, {"action": "retry", "filter": ""}))["id"])
        touched = await api.worker.client.command("HGET", "hr:{default/default}:ctl", "touch")
    assert (job["state"], job["done"]) == ("done", 5)
    assert int(touched) > 0, "a write that WAITAOF can confirm followed the replays"


async def test_a_token_acts_in_its_own_queues_only(redis_url: str) -> None:
    """A filter without queues means its own; a foreign queue or id is 403; foreign jobs do not exist."""
    tokens = f"ops:{TOKEN} queue=mail-* scope=operate,all:the-token-of-everyone-else"
    async with running(redis_url, TOKEN, tokens=tokens, bulk_rate=100_000) as api:
        mine, foreign = await add(api, 3, "mail-out"), await add(api, 3, "orders")
        job = await ended(api, (await order(api, {"action": "cancel", "filter": "type:noop"}))["id"])
        codes = {
            (await api.ask("POST", BULK, json={"action": "cancel"} | more)).code
            for more in ({"filter": "queue:orders"}, {"ids": [mine[0], foreign[0]]})
        }
        codes.add((await api.ask("POST", "/api/v1/queues/orders:purge", json={"tasks": "dead"})).code)
        everyone = {"Authorization": "Bearer the-token-of-everyone-else"}
        theirs = await api.ask("POST", BULK, json={"action": "cancel", "filter": "type:noop"}, headers=everyone)
        hidden = await api.get(f"{BULK}/{theirs.json['id']}")
        by_id = await api.ask("POST", BULK, json={"action": "cancel", "ids": foreign}, headers=everyone)
        hidden_too = await api.get(f"{BULK}/{by_id.json['id']}")
        listed = (await api.get(BULK)).json["jobs"]
    assert (job["done"], job["queues"]) == (3, ["mail-out"])
    assert codes == {"forbidden_queue"}
    assert {hidden.code, hidden_too.code} == {"unknown_bulk"}
    assert [each["id"] for each in listed] == [job["id"]]


async def test_arguments_of_a_filter_are_not_in_the_audit_log(redis_url: str) -> None:
    """They are a task's content; names and other conditions are there."""
    async with running(redis_url, bulk_rate=100_000) as api:
        await add(api, 1)
        job = await order(api, {"action": "cancel", "filter": "type:noop args.card:4711"})
        await ended(api, job["id"])
        page = await audit.page(api.worker.client, "default")
    texts = [str(each) for each in page.entries]
    assert [each.entry.action for each in page.entries] == ["bulk.end", "bulk.start"]
    assert all("4711" not in text for text in texts)
    assert page.entries[1].entry.detail["filter"] == "type:noop args.card:…"
