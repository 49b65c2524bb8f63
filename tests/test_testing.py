"""`headrace.testing`: what a user's test may do. What runs in it as in a worker is in test_contract.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from headrace import (
    App,
    Ctx,
    Permanent,
    Priority,
    ResultTimeout,
    Retry,
    State,
    StoreUnavailable,
    TaskFailed,
    UnknownTask,
    WrongCaller,
)
from headrace.broker.broker import TaskView
from headrace.testing import Testing, fixture
from headrace.testing.standin import StandIn

# No Redis is there: whatever gets past the fixture fails.
app = App("shop", url="redis://127.0.0.1:1")
ran: list[Any] = []


@app.task(priority="high")
async def resize(ctx: Ctx, url: str, width: int = 200, *, at: datetime | None = None) -> str:
    ran.append(url)
    return f"{url}/{width}"


@app.task()
def crunch(rows: list[int]) -> float:
    ran.append(rows)
    return float(sum(rows))


@app.task(retry=Retry(3, base_s=60))
async def third_time(ctx: Ctx) -> int:
    if ctx.attempt < 3:
        raise OSError("not yet")
    return ctx.attempt


@app.task(process=True)
def square(number: int) -> int:
    ran.append(threading.current_thread() is threading.main_thread())
    return number * number


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    ran.clear()
    yield


# -- assertions


def test_what_was_submitted_is_found(headrace: Testing) -> None:
    resize.using(delay=5, queue="slow", tags=("acme",)).enqueue("s3://cat", width=300)
    found = headrace.assert_enqueued(resize, url="s3://cat")
    assert found is headrace.enqueued[0]
    assert (found.type, found.arguments) == ("resize", {"url": "s3://cat", "width": 300})
    assert (found.queue, found.priority, found.delay_s, found.tags) == ("slow", Priority.HIGH, 5.0, ("acme",))
    headrace.assert_enqueued(resize)
    headrace.assert_enqueued(resize, url=ANY, width=300)
    headrace.assert_not_enqueued(resize, url="s3://dog")
    headrace.assert_not_enqueued(crunch)


def test_what_has_run_was_submitted_all_the_same(headrace: Testing) -> None:
    resize.enqueue("s3://cat")
    headrace.work()
    headrace.assert_enqueued(resize, url="s3://cat")
    headrace.enqueued.clear()
    headrace.assert_not_enqueued(resize)


def test_arguments_are_compared_as_the_handler_gets_them(headrace: Testing) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    resize.enqueue("s3://cat", at=at)
    headrace.assert_enqueued(resize, at=at)
    headrace.assert_enqueued(resize, at="2026-01-02T00:00:00Z")
    headrace.assert_enqueued(resize, width=200)  # the default
    headrace.assert_not_enqueued(resize, at=at + timedelta(seconds=1))


def test_one_task_is_submitted_once_however_often_it_is_said(headrace: Testing) -> None:
    for _ in range(2):
        resize.using(key="order-17").enqueue("s3://cat")
        resize.using(unique="u").enqueue("s3://dog")
    assert [each.arguments["url"] for each in headrace.enqueued] == ["s3://cat", "s3://dog"]


@contextmanager
def saying(*lines: str) -> Iterator[None]:
    with pytest.raises(AssertionError) as raised:
        yield
    assert str(raised.value).splitlines() == list(lines)


def test_an_assertion_that_fails_says_what_there_is(headrace: Testing) -> None:
    with saying("No task 'resize' was enqueued. Nothing was."):
        headrace.assert_enqueued(resize)
    crunch.enqueue([1, 2])
    with saying("No task 'resize' was enqueued. These were:", "  crunch(rows=[1, 2])"):
        headrace.assert_enqueued(resize, url="s3://cat")
    resize.enqueue("s3://dog", 300)
    resize.enqueue("s3://cat")
    with saying(
        "No task 'resize' was enqueued with url='s3://cat', width=300. Of this type were:",
        "  resize(url='s3://dog', width=300)",
        "      url: 's3://dog', not 's3://cat'",
        "  resize(url='s3://cat')",
        "      width: 200, not 300",
    ):
        headrace.assert_enqueued(resize, url="s3://cat", width=300)
    with saying("Task 'resize' has no argument 'widht' (did you mean 'width'?)."):
        headrace.assert_enqueued(resize, widht=3)
    with saying("Task 'crunch' has no argument 'x'; it takes rows."):
        headrace.assert_not_enqueued(crunch, x=3)
    [first, *_] = headrace.enqueued
    with saying(f"crunch(rows=[1, 2]) was enqueued, as task {first.id}."):
        headrace.assert_not_enqueued(crunch)


def test_a_type_of_the_same_name_elsewhere_is_another_one(headrace: Testing) -> None:
    def resize_here(size: int) -> None: ...

    tenant, twin = App("tenant", namespace="tenant").task("resize"), App("twin").task("resize")
    tenant(resize_here).enqueue(3)
    headrace.assert_not_enqueued(resize)
    twin(resize_here).enqueue(3)
    with pytest.raises(AssertionError, match=r"resize\(size=3\)\n      The payload does not fit"):
        headrace.assert_enqueued(resize, url="s3://cat")


def test_a_long_list_is_cut(headrace: Testing) -> None:
    for number in range(12):
        crunch.enqueue([number])
    with pytest.raises(AssertionError) as raised:
        headrace.assert_enqueued(resize)
    assert str(raised.value).splitlines()[-1] == "  … and 2 more"


# -- work


def test_work_runs_all_that_is_due_in_order(headrace: Testing) -> None:
    crunch.enqueue([1])
    resize.using(delay=10).enqueue("later")
    resize.enqueue("now")
    assert headrace.work() == 2
    assert ran == ["now", [1]]
    assert headrace.work() == 0
    headrace.advance(9.9)
    assert headrace.work() == 0
    headrace.advance(timedelta(seconds=0.1))
    assert headrace.work() == 1
    assert ran[-1] == "later"


def test_an_error_is_raised_at_once(headrace: Testing) -> None:
    handle = third_time.enqueue()
    crunch.enqueue([1])
    with pytest.raises(OSError, match="not yet") as raised:
        headrace.work()
    assert raised.value.__notes__ == [
        f"Raised by task {handle.id} of type 'third_time', which is retrying now. "
        "work(raises=False) goes on after that."
    ]
    assert raised.traceback[-1].name == "third_time"
    assert handle.state() is State.RETRYING
    assert ran == []


def test_retries_and_delays_cost_no_time(headrace: Testing) -> None:
    began = headrace.now
    handle = third_time.enqueue()
    far = resize.using(delay=timedelta(hours=12)).enqueue("far")
    assert headrace.work(raises=False) == 1
    assert headrace.work(raises=False, delayed=True) == 3
    assert handle.get() == 3
    assert far.get() == "far/200"
    assert headrace.now - began == timedelta(hours=12)


def test_delays_are_drawn_alike_in_every_run() -> None:
    times = []
    for _ in range(2):
        with Testing() as headrace:
            began = headrace.now
            third_time.enqueue()
            headrace.work(raises=False, delayed=True)
            times.append(headrace.now - began)
    assert times[0] == times[1] > timedelta(seconds=1)


def test_what_got_to_no_handler_is_told_too(headrace: Testing) -> None:
    other = App("other")

    @other.task()
    async def loud(word: str) -> str:
        return word

    loud.enqueue("a")
    other._registry["loud"] = App("newer").task("loud")(_newer_loud).definition
    with pytest.raises(TaskFailed, match="invalid_payload"):
        headrace.work()


async def _newer_loud(words: int) -> None: ...


def test_tasks_that_submit_each_other_are_stopped(headrace: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixture, "LIMIT", 20)
    other = App("endless")

    @other.task()
    async def again() -> None:
        await again.aenqueue()

    again.enqueue()
    with pytest.raises(AssertionError, match="still work after 10 attempts"):
        headrace.work(limit=10)
    with pytest.raises(AssertionError, match="still work after 20 attempts"):
        resize.using(priority="low").enqueue("never").get()


def test_a_limit_that_is_just_reached_is_fine(headrace: Testing) -> None:
    app.batch(crunch.call([number]) for number in range(5))
    assert headrace.work(limit=5) == 5


def test_process_handlers_run_in_a_thread(headrace: Testing) -> None:
    assert square.enqueue(7).get() == 49
    assert ran == [False]


def test_lifespan_is_entered_for_the_work_and_left_after_it(headrace: Testing) -> None:
    async def deps() -> AsyncIterator[str]:
        ran.append("open")
        yield "shared"
        ran.append("close")

    own = App("own", deps=deps)

    @own.task()
    async def use(ctx: Ctx[str]) -> None:
        ran.append(ctx.deps)

    use.enqueue()
    assert ran == []
    use.enqueue()
    headrace.work()
    assert ran == ["open", "shared", "shared", "close"]


def test_work_for_nobody(headrace: Testing) -> None:
    assert headrace.work(delayed=True) == 0


async def test_in_a_running_loop_it_is_awork(headrace: Testing) -> None:
    await resize.aenqueue("s3://cat")
    with pytest.raises(WrongCaller, match=r"await headrace\.awork\(\)"):
        headrace.work()
    assert await headrace.awork() == 1


async def test_two_may_work_at_once(headrace: Testing) -> None:
    """What the first one has open is not closed under the second."""

    async def deps() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        ran.append(-1)
        yield None

    other = App("two", deps=deps)

    @other.task()
    async def turns(number: int) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        ran.append(number)

    await other.abatch(turns.call(number) for number in range(4))
    done = await asyncio.gather(headrace.awork(), headrace.awork())
    assert sum(done) == 4 and sorted(ran) == [-1, 0, 1, 2, 3]


@app.task(retry=Retry(1, base_s=60))
async def read_pages(ctx: Ctx, number: int) -> None:
    for page in range(ctx.attempt, number + 1):
        await ctx.progress(page, number, f"page {page}")
        if ctx.attempt == 1:
            raise OSError("not yet")


@app.task(process=True)
def count_up(ctx: Ctx, number: int) -> None:
    for step in range(number):
        ctx.progress_sync(step)


def test_what_handlers_say_of_their_progress_is_kept(headrace: Testing) -> None:
    """Of all attempts, in order, at the time of the test; by the handle, what was submitted, or an id."""
    pages, steps = read_pages.enqueue(3), count_up.enqueue(100)
    began = headrace.clock.ms()
    headrace.work(raises=False, delayed=True)
    said = headrace.progress_of(pages)
    assert [(each.attempt, each.done, each.total, each.message) for each in said] == [
        (1, 1, 3, "page 1"), (2, 2, 3, "page 2"), (2, 3, 3, "page 3"),
    ]  # fmt: skip
    assert [each.at for each in said] == [began, headrace.clock.ms(), headrace.clock.ms()]
    assert [each.done for each in headrace.progress_of(steps.id)] == list(range(100))
    assert headrace.progress_of(headrace.assert_enqueued(read_pages)) == said
    assert headrace.progress_of(resize.enqueue("s3://cat")) == []
    assert pages.progress() is None


def test_progress_of_an_attempt_that_was_given_up_is_not_that_of_the_next(headrace: Testing) -> None:
    """A thread cannot be ended: it goes on to speak, of what is no longer its task."""
    given_up, over = threading.Event(), threading.Event()
    late = App("late", url="redis://127.0.0.1:1")

    @late.task(timeout=0.01, retry=Retry(1, base_s=0.01))
    def hang(ctx: Ctx) -> None:
        if ctx.attempt == 1:
            given_up.wait()
            ctx.progress_sync(99)
            over.set()
        else:
            given_up.set()
            over.wait()
            ctx.progress_sync(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HARD_EXTRA_S", "0.01")
        handle = hang.enqueue()
        headrace.work(raises=False, delayed=True)
    assert [each.done for each in headrace.progress_of(handle)] == [1]


# -- waiting for results


async def test_a_wait_works_off_what_has_to_be_done_for_it(headrace: Testing) -> None:
    assert await (await resize.using(delay=60).aenqueue("s3://cat")).aget(timeout=100) == "s3://cat/200"
    assert await (await third_time.aenqueue()).aget(timeout=1_000) == 3


def test_a_wait_without_end_ends_when_nothing_is_left(headrace: Testing) -> None:
    handle = resize.enqueue("s3://cat")
    del (registry := app._registry)["resize"]
    try:
        with pytest.raises(ResultTimeout, match="parked"):
            handle.get()
    finally:
        registry["resize"] = resize.definition


def test_a_wait_for_many_looks_at_each_a_few_times(headrace: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked at all of them after each attempt, so a test of a thousand tasks did not end."""
    looks: list[str] = []
    look = StandIn._look

    def counted(self: StandIn, task_id: str) -> TaskView | None:
        looks.append(task_id)
        return look(self, task_id)

    monkeypatch.setattr(StandIn, "_look", counted)
    batch = app.batch(resize.call(str(number)) for number in range(50))
    assert batch.results() == [f"{number}/200" for number in range(50)]
    assert len(looks) < 3 * 50


def test_a_wait_moves_the_clock_by_its_time_out_only(headrace: Testing) -> None:
    began = headrace.now
    with pytest.raises(ResultTimeout, match="still scheduled after 30 s"):
        resize.using(delay=3600).enqueue("s3://cat").get(timeout=30)
    assert headrace.now - began == timedelta(seconds=30)
    assert ran == []


def test_handlers_may_wait_for_each_other(headrace: Testing) -> None:
    other = App("nested")

    @other.task()
    async def leaf(number: int) -> int:
        return number + 1

    @other.task()
    async def branch(number: int) -> int:
        return await (await leaf.aenqueue(number)).aget(timeout=5)

    @other.task()
    def root(number: int) -> int:
        return sum(handle.get(timeout=5) for handle in [branch.enqueue(number), branch.enqueue(10 * number)])

    handle = root.enqueue(1)
    headrace.work()
    assert handle.get() == 13


# -- whose Apps


def test_every_app_uses_it_until_the_test_ends() -> None:
    first, second = App("first", url="redis://127.0.0.1:1"), App("second", namespace="tenant", queue="own")

    @first.task()
    async def same(word: str) -> str:
        return f"first {word}"

    @second.task("same")
    async def also_same(word: str) -> str:
        return f"second {word}"

    with Testing() as headrace:
        handles = [same.enqueue("a"), also_same.enqueue("b")]
        headrace.work()
        assert [handle.get() for handle in handles] == ["first a", "second b"]
        with pytest.raises(WrongCaller, match="another one is in use"):
            Testing().__enter__()
        assert same.enqueue("c").state() is State.PENDING
    with Testing() as headrace:
        assert headrace.work() == 0 and headrace.enqueued == []
    with pytest.raises(StoreUnavailable):
        same.enqueue("d")


def test_settings_count_as_in_a_worker(headrace: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MAX_RETRIES", "0")
    other = App("settings")

    @other.task()
    async def fail() -> None:
        raise OSError("once")

    handle = fail.enqueue()
    assert headrace.work(raises=False, delayed=True) == 1
    assert handle.state() is State.FAILED


def test_records_are_kept_as_long_as_their_type_says(headrace: Testing) -> None:
    other = App("kept")

    @other.task(retention=60)
    async def short() -> int:
        return 1

    handle = short.enqueue()
    headrace.work()
    headrace.advance(59)
    assert handle.get() == 1
    headrace.advance(2)
    with pytest.raises(UnknownTask):
        handle.get()


def test_threads_of_the_code_under_test_submit_too(headrace: Testing) -> None:
    threads = [threading.Thread(target=lambda: [crunch.enqueue([1]) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert headrace.work() == 20


def test_time_moves_forward_only(headrace: Testing) -> None:
    with pytest.raises(ValueError, match="forward only, not by -1 seconds"):
        headrace.advance(-1)


def test_the_clock_stands_still(headrace: Testing) -> None:
    """So what is due in a moment is not due yet, however long the test takes."""
    crunch.using(delay=0.001).enqueue([1])
    threading.Event().wait(0.005)
    assert headrace.work() == 0
    headrace.advance(0.001)
    assert headrace.work() == 1


def test_permanent_failures_are_raised_as_they_are(headrace: Testing) -> None:
    other = App("permanent")

    @other.task()
    def fail() -> None:
        raise Permanent("no use")

    fail.enqueue()
    with pytest.raises(Permanent, match="no use"):
        headrace.work()


# -- the plugin

USER_TEST = """
from headrace import App
from headrace.testing import Testing

app = App("user")


@app.task()
async def hello(name: str) -> str:
    return f"Hello, {name}!"


def test_sync(headrace: Testing) -> None:
    assert hello.enqueue("you").get() == "Hello, you!"


def test_again(headrace: Testing) -> None:
    assert headrace.enqueued == []
    headrace.assert_enqueued(hello, name="you")
"""


QUICKLY = ("-p", "no:schemathesis", "-p", "no:hypothesispytest")
"""Plugins of ours that take seconds to import."""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICKLY, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_to_install_headrace_is_enough_for_the_fixture(tmp_path: Path) -> None:
    """No conftest, no setting; and what an assertion says is the last thing that is shown, without our own lines."""
    (tmp_path / "test_user.py").write_text(USER_TEST)
    run = run_pytest(tmp_path, "--tb=short")
    assert "1 failed, 1 passed" in run.stdout, run.stdout + run.stderr
    assert "E   AssertionError: No task 'hello' was enqueued. Nothing was." in run.stdout
    assert "fixture.py" not in run.stdout


def test_a_run_that_does_not_use_it_does_not_import_the_library(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(
        "import sys\n\n\ndef test_it() -> None:\n"
        "    assert 'headrace_pytest' in sys.modules\n"
        "    assert not {'headrace', 'fakeredis', 'msgspec'} & sys.modules.keys()\n"
    )
    run = run_pytest(tmp_path)
    assert run.returncode == 0, run.stdout


def test_without_fakeredis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ImportError, match=r"but 'lupa' is not installed\. Run: pip install 'headrace\[dev\]'"):
        Testing()
