"""Tasks that run in place, and what a handler is given."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app_kit import Deps, Page, declare, make_app
from headrace import (
    App,
    BadDefinition,
    Ctx,
    InvalidPayload,
    Permanent,
    TooLarge,
)
from headrace.connections import Connections


async def test_run_goes_through_json() -> None:
    """Arguments and result are what a worker would see, without Redis."""
    app = make_app()

    @app.task()
    def pairs(given: tuple[int, str]) -> tuple[int, str]:
        return (given[0] + 1, threading.current_thread().name)

    number, thread = await pairs.run((1, "x"))
    assert number == 2
    assert thread != threading.current_thread().name
    with pytest.raises(InvalidPayload):
        await pairs.run((1, 2))  # type: ignore[arg-type]


async def test_run_gives_deps_and_middleware() -> None:
    """The lifespan is entered and left, middleware nests in its order, and the Ctx is what handlers get."""
    seen: list[str] = []

    async def deps() -> AsyncIterator[Deps]:
        seen.append("open")
        yield Deps("cdn")
        seen.append("close")

    def named(name: str) -> Callable[[Ctx[Any]], Any]:
        @asynccontextmanager
        async def middleware(ctx: Ctx[Any]) -> AsyncIterator[None]:
            seen.append(f"{name} {ctx.type}")
            yield
            seen.append(f"{name} left")

        return middleware

    app = App("test", deps=deps, middleware=(named("a"), named("b")))

    @app.task()
    async def link(ctx: Ctx[Deps], path: str) -> str:
        seen.append(f"attempt {ctx.attempt}")
        return f"{ctx.deps.cdn}/{path}"

    assert await link.run("x") == "cdn/x"
    assert seen == ["open", "a link", "b link", "attempt 1", "b left", "a left", "close"]


async def test_run_raises_what_the_handler_raises() -> None:
    """And the lifespan's end still runs."""
    seen: list[str] = []

    async def deps() -> AsyncIterator[None]:
        try:
            yield
        finally:
            seen.append("closed")

    app = App("test", deps=deps)

    @app.task()
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await fail.run()
    assert seen == ["closed"]


async def test_lifespan_cannot_swallow_an_error() -> None:
    """It sees what went wrong and may clean up; what it raises instead is raised."""
    seen: list[str] = []

    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            seen.append("saw it")

    async def again() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            yield

    async def worse() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            raise KeyError("worse") from None

    for deps, raised in ((swallowing, ValueError), (again, ValueError), (worse, KeyError)):
        with pytest.raises(raised):
            async with App("test", deps=deps).lifespan():
                raise ValueError("wrong")
    assert seen == ["saw it"]


async def no_deps() -> AsyncIterator[int]:
    if len("ab") == 3:
        yield 1


async def two_deps() -> AsyncIterator[int]:
    yield 1
    yield 2


async def plain_deps() -> int:
    return 1


def sync_deps() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("deps", "word"),
    [(no_deps, "nothing"), (two_deps, "more than once"), (plain_deps, "one value"), (sync_deps, "no async generator")],
)
async def test_lifespan_yields_once(deps: Any, word: str) -> None:
    """Anything else is refused with the form that is right."""
    app: App[int] = App("test", deps=deps)
    with pytest.raises(BadDefinition, match=f"{word}.*one `yield"):
        async with app.lifespan():
            pass


class Hollow(msgspec.Struct):
    """Without its field it raises AttributeError while it is written."""

    field: int


def test_result_that_is_no_json() -> None:
    """It cannot get better by a retry, and a large one names the limit."""
    definition = declare(make_app()).definition
    with pytest.raises(Permanent, match="cannot be written as JSON"):
        definition.encode_result(object(), 100)
    hollow = Hollow(1)
    del hollow.field
    with pytest.raises(Permanent, match="cannot be written as JSON"):
        definition.encode_result(hollow, 100)
    with pytest.raises(TooLarge, match="result"):
        definition.encode_result("x" * 200, 100)
    assert definition.encode_result(None, 100) is None
    assert definition.encode_result(Page("u", 1), 100) == b'{"url":"u","words":1}'


async def test_coroutine_that_a_decorator_hides() -> None:
    """A wrapper that is a plain def may also run what it wraps, so only its result tells."""

    async def resize(url: str) -> str:
        return url

    @functools.wraps(resize)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return resize(*args, **kwargs)

    with pytest.raises(Permanent, match=r"'resize' is async, but its decorator .* return an async def"):
        await App("test").task()(wrapper).run("x")


def test_ctx_tells_its_fence_and_its_time() -> None:
    """The token grows with epoch, then attempt; the remaining time is never negative."""
    old = Ctx(id="a", type="t", queue="q", attempt=9, epoch=1, deadline=0.0, deps=None)
    new = Ctx(id="a", type="t", queue="q", attempt=1, epoch=2, deadline=time.monotonic() + 60, deps=None)
    assert old.token < new.token
    assert old.remaining_s == 0
    assert 50 < new.remaining_s <= 60


def test_connections_read_the_environment_once(redis_url: str) -> None:
    """What was found at the first use holds; a later change of the environment moves nobody to another server."""
    environ = {"HEADRACE_URL": redis_url, "HEADRACE_NAMESPACE": "team-a"}
    connections = Connections(None, None, environ)
    assert connections.client().settings.namespace == "team-a"
    environ["HEADRACE_NAMESPACE"] = "team-b"
    assert connections.client().settings.namespace == "team-a"
