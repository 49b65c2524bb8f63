"""One attempt for all who ask for the same while it is out."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from headrace.broker.single_flight import SingleFlight
from headrace.errors import DurabilityUnconfirmed, HeadraceError, StoreTimeout, StoreUnavailable


class Attempts:
    """Are out until `end` is set."""

    def __init__(self) -> None:
        self.flights: SingleFlight[int] = SingleFlight("here")
        self.begun = 0
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def _attempt(self) -> int:
        self.begun += 1
        return await self.end

    async def ask(self, callers: int, key: str = "k") -> list[asyncio.Task[int]]:
        """So many callers, of whom each waits when this returns."""
        calls = [asyncio.create_task(self.flights.share(key, self._attempt)) for _ in range(callers)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return calls


async def test_all_who_ask_meanwhile_get_one_answer_and_who_comes_later_another() -> None:
    """What came before may be over by then."""
    attempts = Attempts()
    calls = await attempts.ask(3)
    attempts.end.set_result(7)
    assert await asyncio.gather(*calls) == [7, 7, 7]
    assert attempts.begun == 1
    assert await asyncio.gather(*await attempts.ask(2)) == [7, 7]
    assert attempts.begun == 2


async def test_another_key_is_another_attempt() -> None:
    attempts = Attempts()
    calls = await attempts.ask(2, "a") + await attempts.ask(2, "b")
    attempts.end.set_result(7)
    await asyncio.gather(*calls)
    assert attempts.begun == 2


@pytest.mark.parametrize(
    "error", [StoreTimeout("there", "no answer"), DurabilityUnconfirmed((), "fsync"), ValueError("x")]
)
async def test_it_fails_once_for_all(error: Exception) -> None:
    """To each an error of its own: a shared one would collect the stacks of all."""
    attempts = Attempts()
    calls = await attempts.ask(3)
    attempts.end.set_exception(error)
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert attempts.begun == 1
    assert {(type(each), str(each)) for each in told} == {(type(error), str(error))}
    assert len({id(each) for each in told}) == (3 if isinstance(error, HeadraceError) else 1)


async def test_who_leaves_does_not_end_it_for_the_others() -> None:
    attempts = Attempts()
    first, second = await attempts.ask(2)
    first.cancel()
    await asyncio.wait({first})
    attempts.end.set_result(7)
    assert (first.cancelled(), await second) == (True, 7)


async def test_what_is_ended_from_outside_is_told_as_closed() -> None:
    """Not as if the caller had been cancelled."""
    attempts = Attempts()
    [call] = await attempts.ask(1)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "headrace-shared"]
    task.cancel()
    with pytest.raises(StoreUnavailable, match="closed"):
        await call


async def test_a_failure_that_nobody_waits_for_is_none_that_asyncio_complains_of() -> None:
    """All left; closing waits for the end of what they began."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what other tests left
        gc.collect()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    attempts = Attempts()
    [call] = await attempts.ask(1)
    call.cancel()
    await asyncio.wait({call})
    closing = asyncio.create_task(attempts.flights.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    attempts.end.set_exception(StoreTimeout("there", "no answer"))
    await closing
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()
    assert complaints == []
