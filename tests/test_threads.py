"""Synchronous handlers in threads of our own."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from headrace.runtime.threads import ThreadSlots
from redis_server import await_true

LIMIT_S = 10.0
"""No test waits longer for what should come at once."""


class Slots:
    """ThreadSlots with awaitable results, which closes itself."""

    def __init__(self, size: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.slots = ThreadSlots(self.loop, size)

    def run(self, work: Callable[[], object]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result((result, threading.get_ident()))
            else:
                future.set_exception(RaisedError(error))

        self.slots.submit(work, done)
        return future


class RaisedError(Exception):
    """Carries what a handler raised, which may be no Exception."""


def slot_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("headrace-slot")]


@pytest.fixture
async def make_slots() -> Any:
    made: list[Slots] = []

    def make(size: int) -> Slots:
        made.append(Slots(size))
        return made[-1]

    yield make
    for each in made:
        each.slots.close()
        for thread in each.slots._threads:
            await asyncio.to_thread(thread.join, LIMIT_S)
            assert not thread.is_alive()


async def test_work_runs_in_a_thread_and_done_in_the_loop(make_slots: Callable[[int], Slots]) -> None:
    """The handler is away from the loop, its result is told in it."""
    ran_in, told_in = await make_slots(1).run(threading.get_ident)
    assert ran_in != threading.get_ident() and told_in == threading.get_ident()


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_whatever_is_raised_is_handed_over_and_the_thread_goes_on(
    make_slots: Callable[[int], Slots], raised: BaseException
) -> None:
    """sys.exit() in a handler ends its attempt, not the worker's thread."""
    slots = make_slots(1)

    def work() -> None:
        raise raised

    with pytest.raises(RaisedError) as caught:
        await slots.run(work)
    assert caught.value.args == (raised,)
    assert (await slots.run(lambda: "next"))[0] == "next"


async def test_threads_start_as_they_are_needed_up_to_the_size(make_slots: Callable[[int], Slots]) -> None:
    """One after the other needs one thread; five at once on three slots need three."""
    slots = make_slots(3)
    for _ in range(4):
        await slots.run(lambda: None)
    assert len(slots.slots._threads) == 1
    together = threading.Barrier(3)
    await asyncio.wait_for(asyncio.gather(*(slots.run(lambda: together.wait(LIMIT_S)) for _ in range(3))), LIMIT_S)
    await asyncio.gather(*(slots.run(lambda: None) for _ in range(5)))
    assert len(slots.slots._threads) == 3


@pytest.mark.parametrize("running", [0, 1])
async def test_a_thread_that_cannot_start_costs_no_slot(
    make_slots: Callable[[int], Slots],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    running: int,
) -> None:
    """As where a container may have no more: those that are there do the work; without any, the attempt fails."""
    slots = make_slots(2)
    for _ in range(running):
        await slots.run(lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _refused)
        jobs = [slots.run(lambda: "done") for _ in range(2)]
        told: list[Any] = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), LIMIT_S)
    if running:
        assert [result for result, _ in told] == ["done"] * 2
    else:
        assert [str(error.args[0]) for error in told] == ["can't start new thread"] * 2
    assert len(caplog.messages) == 1, "not one for each task, which may be thousands a second"
    both = threading.Barrier(2)
    await asyncio.wait_for(asyncio.gather(*(slots.run(lambda: both.wait(LIMIT_S)) for _ in range(2))), LIMIT_S)


def _refused(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_burst_wakes_the_loop_once(make_slots: Callable[[int], Slots], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up is a system call: all that ended while the loop was busy shares one."""
    slots = make_slots(1)
    await slots.run(lambda: None)
    woken: list[int] = []
    wake = slots.loop.call_soon_threadsafe

    def counted(*args: Any) -> asyncio.Handle:
        woken.append(1)
        return wake(*args)

    monkeypatch.setattr(slots.loop, "call_soon_threadsafe", counted)
    last = threading.Event()
    burst = [slots.run(lambda: None) for _ in range(200)] + [slots.run(last.set)]
    assert last.wait(LIMIT_S)  # the loop stands still here, on purpose
    await_true(lambda: len(slots.slots._ended) == 201)
    assert len(woken) == 1
    await asyncio.wait_for(asyncio.gather(*burst), LIMIT_S)


async def test_no_wake_up_is_lost_when_work_ends_while_the_loop_delivers(make_slots: Callable[[int], Slots]) -> None:
    """Many short tasks, each submitted when another one ended: all of them are told."""
    slots, left = make_slots(4), 3_000
    finished = slots.loop.create_future()

    def done(result: Any, error: BaseException | None) -> None:
        nonlocal left
        left -= 1
        if left > 4:
            slots.slots.submit(int, done)
        elif left == 0:
            finished.set_result(None)

    for _ in range(5):
        slots.slots.submit(int, done)
    left += 1
    await asyncio.wait_for(finished, LIMIT_S)


async def test_a_handler_that_never_ends_keeps_its_slot_and_only_that(make_slots: Callable[[int], Slots]) -> None:
    """No thread takes the place of the stuck one; the other slot works on, and the end comes through when it comes."""
    slots, release = make_slots(2), threading.Event()
    stuck = slots.run(lambda: release.wait(LIMIT_S))
    idents = {(await slots.run(threading.get_ident))[0] for _ in range(5)}
    assert len(idents) == 1 and len(slots.slots._threads) == 2 and not stuck.done()
    release.set()
    assert (await asyncio.wait_for(stuck, LIMIT_S))[0] is True


var: ContextVar[str] = ContextVar("var", default="unset")


async def test_context_variables_do_not_leak_into_the_next_task(make_slots: Callable[[int], Slots]) -> None:
    """What a handler sets is gone with it, though the thread is the same."""
    slots = make_slots(1)
    await slots.run(lambda: var.set("mine"))
    assert (await slots.run(var.get))[0] == "unset"


class _Payload:
    pass


async def test_an_idle_thread_holds_nothing_of_its_last_task(make_slots: Callable[[int], Slots]) -> None:
    """A worker that waits for work must not keep the last payload in memory."""
    slots = make_slots(1)
    payload = _Payload()
    alive = weakref.ref(payload)
    await slots.run(lambda held=payload: held)  # type: ignore[misc]
    del payload
    await asyncio.sleep(0)  # the loop itself holds the result until this step ends
    await_true(lambda: gc.collect() >= 0 and alive() is None)


async def test_a_done_that_raises_does_not_hold_up_the_others(make_slots: Callable[[int], Slots]) -> None:
    """The loop's exception handler is told, and the results behind it are delivered all the same."""
    slots, told = make_slots(1), []
    slots.loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    await slots.run(lambda: None)

    def bad(result: Any, error: BaseException | None) -> None:
        raise RuntimeError("a bug")

    slots.slots.submit(lambda: None, bad)
    after = slots.run(lambda: "delivered")
    await_true(lambda: len(slots.slots._ended) == 2)  # the loop stands still, so both are delivered together
    assert (await asyncio.wait_for(after, LIMIT_S))[0] == "delivered"
    assert [str(error) for error in told] == ["a bug"]


@pytest.fixture
def closed_loop_work() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


def test_a_handler_may_end_after_loop_and_slots_are_gone(closed_loop_work: threading.Event) -> None:
    """A worker that stops does not wait for a stuck thread; its late end is nobody's business."""
    told: list[Any] = []

    async def leave_one_behind() -> ThreadSlots:
        slots = ThreadSlots(asyncio.get_running_loop(), 1)
        slots.submit(lambda: closed_loop_work.wait(LIMIT_S), lambda *ended: told.append(ended))
        slots.close()
        return slots

    slots = asyncio.run(leave_one_behind())
    closed_loop_work.set()
    slots._threads[0].join(LIMIT_S)
    assert not slots._threads[0].is_alive() and told == []
