"""What a program does to its queues and to many tasks at once: `app.queues` and `app.bulk`, on a real Redis."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from headrace import (
    App,
    InvalidRequest,
    QueueFull,
    State,
    StoreUnavailable,
    TaskCall,
    UnknownBulk,
    UnknownQueue,
    WrongCaller,
    WrongCount,
    audit,
)
from headrace.bulk import Count, Jobs
from headrace.bulk_control import BulkControl
from headrace.bulk_job import Order, Progress
from headrace.filters import Filter
from headrace.queue_control import QueueControl
from headrace.queues import QueueState
from headrace.testing import Testing
from worker_harness import eventually, working

WHO = f"{getpass.getuser()} (app shop)"


def shop(url: str) -> tuple[App[None], Callable[[int], TaskCall[None]]]:
    """An application with one type, whose tasks of negative numbers fail."""
    app = App("shop", url=url)

    @app.task(max_retries=0)
    async def count(number: int) -> None:
        if number < 0:
            raise ValueError(f"{number} is below zero")

    return app, count.call


async def written_down(app: App[None]) -> list[audit.Entry]:
    client, settings = app.connections.reach()
    page = await audit.page(client, settings.namespace)
    return [each.entry for each in reversed(page.entries)]


def words(control: type[Any]) -> set[str]:
    return {name for name, _ in inspect.getmembers(control, inspect.isfunction) if not name.startswith("_")}


async def test_queues_are_listed_and_shown(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        assert await app.queues.list() == []
        await app.abatch(call(number) for number in range(3))
        [seen] = await app.queues.list()
        shown = await app.queues.get("default")
        assert await asyncio.to_thread(app.queues.get_sync, "default")
    assert (seen.queue, seen.pending, seen.live, seen.paused, seen.workers) == ("default", 3, 3, False, ())
    assert (shown.queue, shown.priorities["medium"].pending) == ("default", 3)


async def test_a_queue_shows_who_serves_it(redis_url: str) -> None:
    app, _ = shop(redis_url)
    async with app, working(app, redis_url) as worker:

        async def served() -> bool:
            found = await app.queues.list()
            return bool(found and found[0].workers == (worker.name,))

        await eventually(served)


@pytest.mark.parametrize(
    ("name", "said"),
    [("maill", "worker makes it"), ("No Queue!", "use 1 to 63"), ("q" * 64, "use 1 to 63"), ("", "'' is no")],
)
async def test_a_queue_that_is_not_there_is_not_made_by_a_look_or_a_change(
    redis_url: str, name: str, said: str
) -> None:
    app, _ = shop(redis_url)
    async with app:
        for change in (
            app.queues.get,
            app.queues.pause,
            app.queues.resume,
            lambda name: app.queues.limit(name, rate=None),
        ):
            with pytest.raises(UnknownQueue, match=said):
                await change(name)
        assert await app.queues.list() == []
        assert await written_down(app) == []


async def test_a_queue_is_paused_and_resumed(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        await app.abatch([call(1)])
        assert await app.queues.pause("default") == QueueState("default", paused=True, changed=True)
        assert await app.queues.pause("default") == QueueState("default", paused=True, changed=False)
        assert (await app.queues.get("default")).paused
        async with working(app, redis_url):
            batch = await app.abatch([call(2)])
            await eventually(lambda: _serves(app))
            assert (await app.queues.get("default")).pending == 2
            resumed = await asyncio.to_thread(app.queues.resume_sync, "default")
            await batch.aresults(timeout=10)
        entries = await written_down(app)
    assert resumed == QueueState("default", paused=False, changed=True)
    assert [(each.who, each.action, each.target, each.queue) for each in entries] == [
        (WHO, action, "default", "default") for action in ("queue.pause", "queue.pause", "queue.resume")
    ]


async def _serves(app: App[None]) -> bool:
    return bool((await app.queues.get("default")).workers)


async def test_a_queue_has_limits_of_its_own(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        await app.abatch([call(1)])
        seen = await app.queues.limit("default", max_depth=1, rate="100/s")
        assert (seen.limits.max_depth, seen.limits.rate) == (1, "100/s")
        with pytest.raises(QueueFull):
            await app.abatch([call(2)])
        seen = await asyncio.to_thread(lambda: app.queues.limit_sync("default", max_depth=None))
        assert (seen.limits.max_depth, seen.limits.rate) == (None, "100/s"), "what is not named stays"
        await app.abatch([call(2)])
        with pytest.raises(InvalidRequest, match="names no limit"):
            await app.queues.limit("default")
        with pytest.raises(InvalidRequest, match="/rate"):
            await app.queues.limit("default", rate="fast")
        entries = await written_down(app)
    assert [each.detail for each in entries] == [{"max_depth": 1, "rate": "100/s"}, {"max_depth": None}]


async def test_failed_tasks_start_over_after_a_count(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        async with working(app, redis_url):
            batch = await app.abatch(call(-number) for number in range(1, 4))
            await batch.aoutcomes(timeout=10)
        assert await app.bulk.dry_run("retry", "args.number:-2") == Count(1)
        assert await app.bulk.dry_run("retry", "") == Count(3)
        with pytest.raises(WrongCount):
            await app.bulk.retry("", expected_count=2)
        assert (await app.queues.get("default")).dead_letters == 3, "then nothing is done"
        job = await app.bulk.retry("args.number:-2", expected_count=1)
        after = await app.queues.get("default")
        entries = await written_down(app)
    assert (job.action, job.state, job.done, job.failed, job.who) == ("retry", "done", 1, {}, WHO)
    assert (after.dead_letters, after.pending) == (2, 1)
    begun, ended = entries
    assert (begun.who, begun.action) == (ended.who, ended.action.replace("end", "start")) == (WHO, "bulk.start")
    assert begun.detail == {"do": "retry", "filter": "args.number:…", "expected_count": 1, "bulk": job.id}
    assert (ended.target, ended.outcome) == (job.id, "done")


async def test_waiting_tasks_are_cancelled_and_then_deleted_with_progress(redis_url: str) -> None:
    app, call = shop(redis_url)
    seen: list[int] = []

    def tell(progress: Progress) -> None:
        seen.append(progress.done)

    async with app:
        await app.abatch(call(number) for number in range(250))
        cancelled = await app.bulk.cancel("type:count", tell=tell)
        deleted = await asyncio.to_thread(lambda: app.bulk.delete_sync("state:cancelled"))
        left = [task async for task in app.inspect.tasks()]
    assert (cancelled.done, deleted.done, left) == (250, 250, [])
    assert seen == sorted(seen) and 100 in seen


async def test_tasks_are_named_in_place_of_a_filter(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        batch = await app.abatch(call(number) for number in range(4))
        ids = [handle.id for handle in batch]
        assert await app.bulk.dry_run("cancel", ids=ids[:2]) == Count(2)
        with pytest.raises(WrongCount):
            await app.bulk.cancel(ids=ids[:2], expected_count=3)
        job = await app.bulk.cancel(ids=ids[:2], expected_count=2)
        again = await asyncio.to_thread(lambda: app.bulk.cancel_sync(ids=ids[1]))
        both: list[dict[str, Any]] = [{"filter": "type:count", "ids": ids}, {"filter": "type:count", "ids": []}]
        neither: list[dict[str, Any]] = [{}, {"ids": []}]
        for wrong in (*both, *neither, {"ids": ids * 300}):
            with pytest.raises(InvalidRequest):
                await app.bulk.cancel(**wrong)
        begun, *_ = await written_down(app)
        assert (await app.queues.get("default")).pending == 2
    assert (job.ids, job.filter, job.done) == (2, None, 2)
    assert (again.ids, again.done) == (1, 1), "a single name is one, and not its letters"
    assert begun.detail == {"do": "cancel", "ids": 2, "expected_count": 2, "bulk": job.id}


async def test_a_replay_is_of_dead_letters_alone(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        async with working(app, redis_url):
            failed = await app.abatch([call(-1), call(-2)])
            await failed.aoutcomes(timeout=10)
        waiting = await app.abatch([call(1)])
        assert await app.bulk.dry_run("replay", "") == Count(2)
        with pytest.raises(InvalidRequest, match="cannot be replayed"):
            await app.bulk.replay("state:scheduled")
        job = await app.bulk.replay(ids=[failed[0].id, waiting[0].id])
        rest = await asyncio.to_thread(lambda: app.bulk.replay_sync(""))
        assert [await handle.astate() for handle in failed] == [State.PENDING] * 2
    assert (job.action, job.done, job.failed, rest.done) == ("replay", 1, {"wrong_state": 1}, 1)


async def test_jobs_are_listed_looked_at_and_aborted(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        await app.abatch([call(1)])
        client, settings = app.connections.reach()
        other = await Jobs(client, settings.namespace).start(Order("cancel", Filter()))  # that nobody carries out
        mine = await app.bulk.cancel("type:count")
        assert [job.id for job in await app.bulk.list()] == [mine.id, other.id]
        assert await asyncio.to_thread(app.bulk.get_sync, mine.id) == mine
        aborting = await app.bulk.abort(other.id)
        with pytest.raises(UnknownBulk):
            await app.bulk.get("0" * 20)
        entry = (await written_down(app))[-1]
    assert aborting.state == "aborting"
    assert (entry.who, entry.action, entry.target) == (WHO, "bulk.abort", other.id)


async def test_a_queue_is_purged_of_what_waits_or_of_its_dead_letters(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        async with working(app, redis_url):
            batch = await app.abatch([call(-1)])
            await batch.aoutcomes(timeout=10)
        await app.abatch(call(number) for number in range(3))
        with pytest.raises(WrongCount):
            await app.queues.purge("default", "waiting", expected_count=4)
        waiting = await app.queues.purge("default", "waiting", expected_count=3)
        dead = await asyncio.to_thread(app.queues.purge_sync, "default", "dead")
        after = await app.queues.get("default")
        with pytest.raises(UnknownQueue):
            await app.queues.purge("maill", "dead")
        with pytest.raises(InvalidRequest, match="say waiting, or dead"):
            await app.queues.purge("default", "all")  # type: ignore[arg-type]
        begun, *_ = await written_down(app)
    assert (waiting.action, waiting.done, dead.action, dead.done) == ("cancel", 3, "delete", 1)
    assert (after.live, after.dead_letters) == (0, 0)
    assert (begun.who, begun.action, begun.target, begun.queue) == (WHO, "queue.purge", "default", "default")
    assert begun.detail == {"tasks": "waiting", "expected_count": 3, "bulk": waiting.id}


async def test_a_job_ends_where_its_listener_raises_or_its_caller_is_cancelled(redis_url: str) -> None:
    app, call = shop(redis_url)

    def raises(progress: Progress) -> None:
        if progress.done:
            raise KeyError("the listener's own")

    reached = asyncio.Event()

    def tell(progress: Progress) -> None:
        if progress.done:
            reached.set()

    async with app:
        batch = await app.abatch(call(number) for number in range(1_000))
        with pytest.raises(KeyError, match="own"):
            await app.bulk.cancel("", tell=raises)
        cancelling = asyncio.create_task(app.bulk.cancel("", tell=tell))
        await reached.wait()
        cancelling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelling
        client, settings = app.connections.reach()
        jobs = await Jobs(client, settings.namespace).ls()
        pending = (await app.queues.get("default")).pending
    assert [job.state for job in jobs] == ["aborted", "aborted"], "nobody else goes on with them"
    assert 0 < pending == len(batch) - sum(job.done for job in jobs)


async def test_a_filter_that_cannot_be_is_refused(redis_url: str) -> None:
    app, _ = shop(redis_url)
    async with app:
        with pytest.raises(InvalidRequest, match="cannot be deleted"):
            await app.bulk.delete("state:pending")
        with pytest.raises(InvalidRequest, match="did you mean"):
            await app.bulk.cancel("stat:pending")


@pytest.mark.parametrize("control", [QueueControl, BulkControl])
def test_each_word_is_there_for_both_kinds_of_callers(control: type[Any]) -> None:
    found = words(control)
    sync = {name for name in found if name.endswith("_sync")}
    assert {f"{name}_sync" for name in found - sync} == sync
    for name in found - sync:
        one, other = (inspect.signature(getattr(control, each)) for each in (name, f"{name}_sync"))
        assert one == other


ARGUMENTS = {"list": (), "dry_run": ("retry", ""), "purge": ("x", "dead")}
SYNC = [
    (place, name)
    for place in ("queues", "bulk")
    for name in sorted(words({"queues": QueueControl, "bulk": BulkControl}[place]))
    if name.endswith("_sync")
]


@pytest.mark.parametrize(("place", "name"), SYNC)
async def test_a_sync_call_in_an_event_loop_is_refused_and_says_what_to_write(place: str, name: str) -> None:
    control = getattr(App("shop", url="redis://127.0.0.1:1"), place)
    word = name.removesuffix("_sync")
    options = {"rate": None} if word == "limit" else {}
    with pytest.raises(WrongCaller, match=rf"{place}\.{name}\(\) .*Use await {place}\.{word}\(\)"):
        getattr(control, name)(*ARGUMENTS.get(word, ("x",)), **options)


def test_nothing_is_opened_before_the_first_question() -> None:
    app = App("shop", url="redis://127.0.0.1:1")
    control = app.queues
    with pytest.raises(StoreUnavailable):
        control.list_sync()


def test_a_test_without_a_server_manages_no_queues(headrace: Testing) -> None:
    """It must not reach the Redis that the environment names."""
    app = App("shop", url="redis://127.0.0.1:1")
    for ask in (app.queues.list_sync, lambda: app.bulk.retry_sync("")):
        with pytest.raises(WrongCaller, match=r"headrace\.testing has tasks to run.*Use a real Redis"):
            ask()


def test_a_worker_imports_none_of_it() -> None:
    """Each module costs its start."""
    code = "import sys, headrace, headrace.runtime.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needless = (
        "queue_control",
        "bulk_control",
        "watching",
        "bulk",
        "bulk_job",
        "bulk_order",
        "bulk_run",
        "ended",
        "audit",
        "filters",
    )
    assert not {f"headrace.{name}" for name in needless} & {*done.stdout.split()}


async def test_what_an_application_does_with_its_own_tasks_is_not_written_down(redis_url: str) -> None:
    """As its submissions are not; docs/how-to/manage.md says so."""
    app, call = shop(redis_url)
    async with app:
        first, second = await app.abatch([call(1), call(2)])
        await first.acancel()
        await second.aretry()
        await app.queues.pause("default")
        assert [each.action for each in await written_down(app)] == ["queue.pause"]


async def test_a_handle_still_sees_what_a_job_did(redis_url: str) -> None:
    app, call = shop(redis_url)
    async with app:
        [handle] = await app.abatch([call(1)])
        await app.bulk.cancel("type:count", expected_count=1)
        assert await handle.astate() is State.CANCELLED
