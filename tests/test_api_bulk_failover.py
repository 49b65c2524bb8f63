"""Bulk jobs whose process, or whose Redis, goes away: carried on by another, and each task counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from api_kit import Api, running
from bulk_kit import BULK, add, depth, ended, fail_all, metrics, order, pretend_dead_process
from chaos.proxy import FaultProxy
from headrace.broker.broker import Queue
from headrace.broker.shared import shared_call
from headrace.bulk import LEASE_MS, Jobs
from headrace.bulk_job import Chosen, Order, Work
from headrace.errors import StoreUnavailable
from headrace.task import new_id
from headrace_api import bulk_driver
from redis_server import RedisServer
from worker_harness import eventually


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For jobs whose process is gone."""
    monkeypatch.setattr(bulk_driver, "LOOK_S", 0.05)


async def test_what_a_lost_answer_kept_is_counted_too(redis_server: RedisServer, redis_url: str) -> None:
    """Redis kept the step, and this process did not hear of it: the last one that it did not hear of, too."""
    async with FaultProxy(redis_server.port) as proxy, running(redis_url, door=proxy.url, bulk_rate=100_000) as api:
        await add(api, 250)
        proxy.lose_reply(b'"found":200')
        proxy.lose_reply(b'"found":250')
        job = await ended(api, (await order(api, {"action": "cancel", "filter": "queue:default"}))["id"])

        async def over() -> bool:
            return "jobs_running" not in await metrics(api)

        await eventually(over)
        counted = await metrics(api)
    assert proxy.faults == 2
    assert (job["state"], job["done"]) == ("done", 250)
    assert counted == {
        'jobs_total{action="cancel",outcome="done"}': 1,
        'tasks_total{action="cancel",outcome="done"}': 250,
    }


async def test_what_others_did_meanwhile_is_not_counted_here(redis_url: str) -> None:
    """A process that lost its job and gets it again counts on from where the others left it."""
    async with running(redis_url) as api:
        ids = await add(api, 300)
        jobs = Jobs(api.worker.client, "default")
        job = await jobs.start(Order("cancel", ids=tuple(ids)), owner="first")
        counts = bulk_driver.Counts(Counter())
        for owner, found, seen in (("first", 100, 100), ("other", 200, 100), ("first", 200, 100), ("first", 300, 200)):
            work = await jobs.take(owner, job.id) or await _when_the_lease_is_over(jobs, api, job.id, owner)
            if owner == "first":
                counts.took(work)
            work.progress.found = work.progress.done = found
            assert await jobs.save(work, owner, ()) == "running"
            if owner == "first":
                counts.saw(work.progress)
            assert counts.of["cancel", "done"] == seen


async def _when_the_lease_is_over(jobs: Jobs, api: Api, bulk_id: str, owner: str) -> Work:
    await api.worker.client.command("HSET", jobs._key(bulk_id), "until", 0)
    work = await jobs.take(owner, bulk_id)
    assert work is not None
    return work


async def test_a_task_that_begins_to_run_meanwhile_is_left_to_run(redis_url: str) -> None:
    """It was chosen because it waited; a cancellation of what waits must not reach it."""
    async with running(redis_url, bulk_rate=100_000) as api:
        [task_id] = await add(api, 1)
        jobs = Jobs(api.worker.client, "default")
        body = {"action": "cancel", "ids": [task_id]}
        # Another process chose it, kept that, and died.
        await pretend_dead_process(api, jobs, body, [Chosen(task_id, "pending", "")])
        [claim] = await api.worker.claim(1)
        [job] = (await api.get(BULK)).json["jobs"]
        job = await ended(api, job["id"])
        await api.worker.report(claim.report("completed"))
        task = await api.task(task_id)
    assert (job["done"], job["failed"]) == (0, {"wrong_state": 1})
    assert task["status"] == "completed"


async def test_another_process_goes_on_and_counts_no_task_twice(redis_url: str) -> None:
    """The first process stops in the middle of a job; the second one ends it. Every task is cancelled, once counted."""
    async with running(redis_url, bulk_rate=2_000) as second:
        await add(second, 2_000)
        async with running(redis_url, bulk_rate=2_000) as first:
            job = await order(first, {"action": "cancel", "filter": "type:noop", "expected_count": 2_000})

            async def begun() -> bool:
                return bool((await first.get(f"{BULK}/{job['id']}")).json["done"] >= 200)

            await eventually(begun)
        left = (await second.get(f"{BULK}/{job['id']}")).json
        seen = await ended(second, job["id"])
        queue, counted = await depth(second), await metrics(second)
    assert left["state"] == "running" and left["done"] < 2_000
    assert (seen["state"], seen["found"], seen["done"]) == ("done", 2_000, 2_000)
    assert (queue["pending"], queue["cancelled"]) == (0, 2_000)
    assert counted['jobs_total{action="cancel",outcome="done"}'] == 1
    mine = counted['tasks_total{action="cancel",outcome="done"}']
    assert 2_000 - left["done"] <= mine <= 1_800, "each process counts what it did itself"


@pytest.mark.parametrize(("action", "acted_on"), [("retry", "dead"), ("cancel", "waiting"), ("delete", "dead")])
async def test_a_step_that_was_done_already_counts_once(redis_url: str, action: str, acted_on: str) -> None:
    """Its process died after it had acted and before it had counted: who takes over counts them as done."""
    async with running(redis_url, bulk_rate=100_000) as api:
        ids = await add(api, 4)
        if acted_on == "dead":
            await fail_all(api)
        jobs = Jobs(api.worker.client, "default")
        queue = Queue("default")
        seen = [(await api.task(each)) for each in ids]
        state = {"dead": "failed", "waiting": "pending"}[acted_on]
        assert {each["status"] for each in seen} == {state}
        for task_id in ids[:3]:
            call: Any = {
                "retry": queue.replay(task_id),
                "cancel": queue.cancel(task_id),
                "delete": queue.forget([(task_id, "")]),
            }[action]
            await api.worker.client.call(call)
        chosen = [Chosen(each, state, "") for each in ids]
        job_id = await pretend_dead_process(api, jobs, {"action": action, "ids": ids}, chosen)
        job = await ended(api, job_id)
        entries = (await api.get("/api/v1/audit")).json["entries"]
    assert (job["state"], job["found"], job["done"], job["failed"]) == ("done", 4, 4, {})
    assert [(each["who"], each["action"], each["target"], each["detail"]) for each in entries] == [
        ("somebody", "bulk.end", job_id, {"found": 4, "done": 4, "failed": 0})
    ]


async def test_redis_may_go_away_in_the_middle(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call the loss hits, the job goes on, and each task is done and counted once."""
    monkeypatch.setattr(bulk_driver, "AGAIN_S", 0.01)
    async with running(redis_url, bulk_rate=5_000) as api:
        await add(api, 2_000)
        job = await order(api, {"action": "cancel", "filter": "type:noop"})
        killed = 0
        while killed < 10:
            await asyncio.sleep(0.02)
            clients = (await api.worker.client.command("CLIENT", "LIST")).decode().splitlines()
            for name in (line.split()[0].removeprefix("id=") for line in clients if "name=headrace-api-bulk" in line):
                killed += await api.worker.client.command("CLIENT", "KILL", "ID", name)
        seen = await ended(api, job["id"])
        queue = await depth(api)
    assert (seen["state"], seen["found"], seen["done"], seen["failed"]) == ("done", 2_000, 2_000, {})
    assert queue["cancelled"] == 2_000


@pytest.mark.parametrize("aborted", [False, True], ids=["done", "aborted"])
async def test_an_end_whose_answer_was_lost_is_told_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, aborted: bool
) -> None:
    """Redis has kept that the job is over, but its process does not hear that."""
    monkeypatch.setattr(bulk_driver, "AGAIN_S", 0.01)
    save, answers = Jobs.save, list[str]()

    async def lossy(self: Jobs, *args: Any, **more: Any) -> str:
        if aborted and not answers:
            await self.abort(args[0].id)
        answers.append(await save(self, *args, **more))
        if answers[-1] != "running" and answers.count(answers[-1]) == 1:
            raise StoreUnavailable("redis://nearby", "the connection broke")
        return answers[-1]

    monkeypatch.setattr(Jobs, "save", lossy)
    state = "aborted" if aborted else "done"
    async with running(redis_url, bulk_rate=100_000) as api:
        await add(api, 250)
        job = await order(api, {"action": "cancel", "filter": "type:noop"})

        async def over() -> bool:
            return f'jobs_total{{action="cancel",outcome="{state}"}}' in await metrics(api)

        await eventually(over)
        counted = await metrics(api)
        entries = (await api.get("/api/v1/audit")).json["entries"]
        seen = await ended(api, job["id"])
    assert counted[f'jobs_total{{action="cancel",outcome="{state}"}}'] == 1
    assert [(each["target"], each["outcome"]) for each in entries if each["action"] == "bulk.end"] == [
        (job["id"], state)
    ]
    assert (answers[-2:], seen["done"]) == ([state, state], 0 if aborted else 250)


async def test_what_somebody_else_wrote_hinders_no_other_job(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(redis_url, bulk_rate=100_000) as api:
        [task_id] = await add(api, 1)
        for number, order_ in enumerate((b"no JSON", b'{"action":"explode","queues":[]}')):
            foreign = f"{number}" * 20
            await api.worker.client.command("ZADD", "hr:{default}:bulk", 1, foreign)
            key = f"hr:{{default}}:bulk:{foreign}"
            await api.worker.client.command("HSET", key, "order", order_, "begun", 1, "owner", "x", "until", 1)
        jobs = Jobs(api.worker.client, "default")
        job_id = await pretend_dead_process(api, jobs, {"action": "cancel", "ids": [task_id]}, [])
        job = await jobs.get(job_id)

        async def is_ended() -> bool:
            return (await jobs.get(job_id)).ended_at is not None

        await eventually(is_ended)
        listed = (await api.get(BULK)).json["jobs"]
    assert job.state == "running"
    assert [each["id"] for each in listed] == [job_id]
    assert "A bulk job in Redis cannot be read" in caplog.text


async def test_a_process_that_lost_its_job_changes_nothing_of_it(redis_url: str) -> None:
    """It was only slow: its step may be repeated, but only the owner counts."""
    async with running(redis_url) as api:
        jobs = Jobs(api.worker.client, "default")
        job = await jobs.start(Order("cancel", ids=(new_id(),)), owner="slow")
        slow = await jobs.take("slow", job.id)
        assert slow is not None
        await jobs.let_go(slow, "slow")
        other = await jobs.take("other", job.id)
        assert other is not None
        slow.progress.done = 77
        assert await jobs.save(slow, "slow", []) == "lost"
        assert (await jobs.get(job.id)).done == 0
        assert await jobs.save(other, "other", [], last=True) == "done"


async def test_a_job_can_be_taken_when_its_lease_is_over_and_not_before(redis_url: str) -> None:
    """A process that was killed lets go of nothing."""
    async with running(redis_url) as api:
        job = await Jobs(api.worker.client, "default").start(Order("cancel", ids=(new_id(),)), owner="killed")
        begun = int(await api.worker.client.command("HGET", f"hr:{{default}}:bulk:{job.id}", "begun"))

        async def take(now_ms: int) -> Any:
            return await api.worker.client.call(
                shared_call("bulk_take", "default", (now_ms, "next", LEASE_MS, ""), bytes.decode)
            )

        assert await take(begun + LEASE_MS - 1) == ""
        assert await take(begun + LEASE_MS) == job.id
        assert await take(begun + LEASE_MS + 1) == "", "it has a lease again"
