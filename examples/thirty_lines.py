"""The library in thirty lines: declare, submit, wait, test. mypy and pyright check every line of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from headrace import App, Ctx, Retry
from headrace.testing import Testing


@dataclass
class Deps:
    cdn: str


async def deps() -> AsyncIterator[Deps]:  # one yield; what follows it runs when the worker stops
    yield Deps("https://cdn")


app = App("pictures", deps=deps)  # finds Redis by HEADRACE_URL; importing this opens nothing


@app.task(priority="high", timeout=30, retry=Retry(5, on=(OSError,)))
async def resize(ctx: Ctx[Deps], url: str, width: Annotated[int, Meta(gt=0)] = 200) -> str:
    await ctx.progress(1, 2)  # ctx comes first if it is wanted, and is no argument of the call
    return f"{ctx.deps.cdn}/{width}"


@app.task()
def crunch(rows: list[int]) -> float:  # synchronous: runs in a thread, or with process=True in a process
    return float(sum(rows))


async def view() -> list[str]:  # from asyncio
    handle = await resize.using(key="cat-1", delay=5).aenqueue("s3://cat", width=300)
    first = await handle.aget(timeout=10)
    batch = await app.abatch(resize.call(url) for url in ("s3://cat", "s3://dog"))  # one round trip
    return [first, *await batch.aresults(timeout=10)]


def sync_view() -> float:  # from synchronous code, with the same words
    return crunch.enqueue([1, 2]).get(timeout=10)


async def test_view(headrace: Testing) -> None:  # without a server, and without waiting for the five seconds
    assert await resize.run("s3://cat") == "https://cdn/200"
    assert await view() == ["https://cdn/300", "https://cdn/200", "https://cdn/200"]
    headrace.assert_enqueued(resize, url="s3://cat", width=300)


def test_sync_view(headrace: Testing) -> None:
    assert sync_view() == 3.0
    headrace.assert_enqueued(crunch, rows=[1, 2])
