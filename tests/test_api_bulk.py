"""Many tasks at once over HTTP: counted before, done as a job, aborted, carried on by another process."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from api_kit import EMAIL, TOKEN, Api, running
from chaos.proxy import FaultProxy
from conftest import StartRedis
from headrace import audit
from headrace.broker.broker import NewTask, Queue
from headrace.broker.shared import shared_call
from headrace.bulk import LEASE_MS, MAX_RUNNING, Jobs
from headrace.bulk_job import Chosen, Order, Work
from headrace.errors import StoreUnavailable
from headrace.settings import Durabilities
from headrace.task import Envelope, Failure, encode_envelope, new_id
from headrace_api import bulk_driver
from redis_server import RedisServer
from worker_harness import eventually

BULK = "/api/v1/bulk"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For jobs whose process is gone."""
    monkeypatch.setattr(bulk_driver, "LOOK_S", 0.05)


async def add(api: Api, number: int, queue: str = "default", **fields: Any) -> list[str]:
    """So many tasks that wait."""
    made = Queue(queue)
    await api.worker.client.call(made.enlist())
    await api.worker.client.call(made.init())
    ids = [new_id(queue) for _ in range(number)]
    tasks = [NewTask(id_, encode_envelope(Envelope(1, 1, id_, type="noop", created_ms=1, **fields)), 1) for id_ in ids]
    for start in range(0, number, 500):
        await api.worker.client.call(made.submit(tasks[start : start + 500]))
    return ids


async def fail_all(api: Api, error: str = "OSError", queue: str = "default") -> int:
    """All that waits fails. How many that were."""
    failed = 0
    while claims := await api.worker.claim(500, queue):
        await api.worker.report(*(each.report("failed", error=Failure(error, "no")) for each in claims), queue=queue)
        failed += len(claims)
    return failed


async def ended(api: Api, job_id: str) -> Any:
    """The job when it has ended."""
    job: Any = None

    async def look() -> bool:
        nonlocal job
        job = (await api.get(f"{BULK}/{job_id}")).json
        return job["ended_at"] is not None

    await eventually(look)
    return job


async def order(api: Api, body: Any) -> Any:
    """An order that is taken."""
    answer = await api.ask("POST", BULK, json=body)
    assert answer.status == 202, answer.text
    assert answer.headers["Location"] == f"{BULK}/{answer.json['id']}"
    return answer.json


async def depth(api: Api, queue: str = "default") -> Any:
    return (await api.get(f"/api/v1/queues/{queue}")).json


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


async def metrics(api: Api) -> dict[str, float]:
    """Those of bulk jobs that are not 0."""
    text = (await api.get("/metrics")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("headrace_bulk_"))
    return {name.removeprefix("headrace_bulk_"): float(value) for name, _, value in lines if float(value)}


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


async def pretend_dead_process(api: Api, jobs: Jobs, body: Any, chosen: list[Chosen]) -> str:
    """A job whose process kept which tasks it acts on next, and then died."""
    job = await jobs.start(Order(body["action"], ids=tuple(body["ids"]), who="somebody"), owner="gone")
    work = await jobs.take("gone", job.id)
    assert work is not None
    work.progress.listed = True
    assert await jobs.save(work, "gone", chosen) == "running"
    await jobs.let_go(work, "gone")
    return job.id


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
