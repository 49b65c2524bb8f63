"""App and tasks: declaring, and who may call what."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from app_kit import declare, make_app
from headrace import (
    App,
    BadDefinition,
    ConfigError,
    Priority,
    Retry,
    WrongCaller,
)
from headrace import task as tasks
from headrace.settings import WorkerSettings


def test_declaration_becomes_a_definition() -> None:
    """What the decorator was told, and for the rest the defaults."""
    app = make_app(queue="images")

    @app.task("images.resize", priority="high", max_retries=5, timeout=30)
    def resize(url: str) -> str:
        """Make it smaller."""
        return url

    crunch_def = TOP.registry["crunch_top"]
    definition = app.registry["images.resize"]
    assert (definition.kind, crunch_def.kind) == ("sync", "process")
    assert (definition.queue, definition.priority) == ("images", Priority.HIGH)
    assert definition.retry == Retry(5)
    assert (definition.soft_timeout_s, definition.hard_timeout_s) == (30, 60)
    assert (crunch_def.soft_timeout_s, crunch_def.hard_timeout_s, crunch_def.max_retries) == (300, 330, 3)
    assert (resize.__name__, resize.__doc__) == ("resize", "Make it smaller.")


TOP = make_app()


@TOP.task(process=True)
def crunch_top() -> None: ...


def test_settings_fill_what_was_not_said() -> None:
    """A worker's settings count where the declaration is silent, and only there."""
    app = make_app()

    @app.task(max_retries=1, timeout=5)
    async def said() -> None: ...

    @app.task()
    async def silent() -> None: ...

    settings = WorkerSettings(max_retries=9, backoff_base_s=3, soft_timeout_s=60, hard_extra_s=7)
    a, b = (app.registry[name].with_settings(settings) for name in ("said", "silent"))
    assert (a.max_retries, a.retry.base_s, a.soft_timeout_s, a.hard_timeout_s) == (1, 3, 5, 12)
    assert (b.max_retries, b.retry.base_s, b.soft_timeout_s, b.hard_timeout_s) == (9, 3, 60, 67)


def test_description_for_the_door() -> None:
    """What workers publish: schema with a stable hash, first lines of the docstring, defaults."""
    app = make_app()
    declare(app)
    described = app.registry["count"].describe()
    assert json.loads(msgspec.json.encode(described))["queue"] == "default"
    assert described == app.registry["count"].describe()
    [payload] = described["schema"]["$defs"].values()
    assert payload["required"] == ["url"]


def bad_generator(x: int) -> Iterator[int]:
    yield x


async def bad_async_generator(x: int) -> AsyncIterator[int]:
    yield x


async def fine(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("declare_it", "words"),
    [
        (lambda app: app.task(fine), ["parentheses", "@app.task()", "fine"]),
        (lambda app: app.task("no name!")(fine), ["'no name!'", "fine"]),
        (lambda app: app.task(queue="Bad")(fine), ["'Bad'"]),
        (lambda app: app.task(priority="urgent")(fine), ["'urgent'"]),
        (lambda app: app.task(timeout=0)(fine), ["timeout is 0"]),
        (lambda app: app.task(timeout=float("nan"))(fine), ["timeout is nan"]),
        (lambda app: app.task(max_retries=-1)(fine), ["max_retries is -1"]),
        (
            lambda app: app.task(max_retries=5, retry=Retry(base_s=10))(fine),
            ["max_retries is 5, but its retry is for 3, Retry's default. Say it once: retry=Retry(5, …)."],
        ),
        (lambda app: app.task(max_retries=5, retry=Retry(4))(fine), ["max_retries is 5, but its retry is for 4. Say"]),
        (lambda app: app.task(process=True)(fine), ["process=True", "async"]),
        (lambda app: app.task(process=True)(lambda: None), ["another process"]),
        (lambda app: app.task()(lambda: None), ["'<lambda>'"]),
        (lambda app: app.task()(bad_generator), ["yields"]),
        (lambda app: app.task()(bad_async_generator), ["yields"]),
        (lambda app: app.task()(print), ["plain function"]),
        (lambda app: [app.task()(fine), app.task()(fine)], ["'fine' is taken", "another_name"]),
        (lambda app: App("x", queue="Bad"), ["'Bad'"]),
        (lambda app: App("x", namespace="a/b"), ["'a/b'"]),
        (lambda app: App("x", middleware=cast(Any, ("nothing",))), ["middleware 'nothing'"]),
        (lambda app: App("x", deps=cast(Any, "nothing")), ["deps 'nothing'", "async generator function"]),
        (lambda app: app.task(timeout=cast(Any, "30"))(fine), ["timeout is '30'. Give seconds, more than 0."]),
        (lambda app: app.task(timeout=cast(Any, timedelta(seconds=30)))(fine), ["timeout is datetime.timedelta"]),
        (lambda app: app.task(retention=cast(Any, "1d"))(fine), ["retention is '1d'. Give seconds"]),
        (lambda app: app.task(max_retries=cast(Any, "3"))(fine), ["max_retries is '3'. Give a whole number"]),
        (lambda app: app.task(max_retries=True)(fine), ["max_retries is True"]),
        (lambda app: app.task(retry=cast(Any, 5))(fine), ["retry is 5. Write retry=Retry(5, …)."]),
        (lambda app: app.task(queue=cast(Any, 5))(fine), ["queue is 5. Give a text."]),
        (lambda app: app.task(cast(Any, 5))(fine), ["name is 5. Give a text."]),
        (lambda app: app.task(priority=cast(Any, 1.5))(fine), ["priority is 1.5. Give a name"]),
    ],
)
def test_bad_declaration_is_refused_at_import(declare_it: Callable[[App[None]], Any], words: list[str]) -> None:
    """With the place, what is wrong, and what to write instead."""
    with pytest.raises(BadDefinition) as caught:
        declare_it(make_app())
    for word in words:
        assert word in str(caught.value)


def test_importing_and_declaring_open_nothing() -> None:
    """A wrong address does no harm until something is submitted."""
    count = declare(make_app("redis://nowhere.invalid:1"))
    assert count.call("u", 1).payload == b'{"url":"u","words":1}'


def test_task_cannot_be_called() -> None:
    """Calling could mean either, so it is refused and both are named."""
    count = declare(make_app())
    with pytest.raises(WrongCaller, match=r"count\.enqueue.*count\.aenqueue.*count\.run"):
        count("u")  # type: ignore[operator]


@pytest.mark.parametrize("name", ["delay", "apply_async", "send", "kiq"])
def test_the_word_of_another_queue_is_answered_with_ours(name: str) -> None:
    """What Celery, Dramatiq and taskiq call it; a name that is nobody's is Python's usual error."""
    count = declare(make_app())
    with pytest.raises(AttributeError, match=rf"no `{name}`.*count\.enqueue.*count\.aenqueue.*count\.using"):
        getattr(count, name)
    assert not hasattr(count, name)
    with pytest.raises(AttributeError, match=r"^'Task' object has no attribute 'enqeue'$") as caught:
        count.enqeue  # type: ignore[attr-defined] # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("enqeue", count), 'of which Python makes its "Did you mean"'
    assert repr(copy.copy(count)) == repr(count)


async def test_blocking_calls_are_refused_in_a_loop() -> None:
    """At once and before anything is sent; the sentence names the right method."""
    count = declare(make_app())
    handle = count.handle(tasks.new_id())
    with pytest.raises(WrongCaller, match=r"await count\.aenqueue"):
        count.enqueue("u", 1)
    with pytest.raises(WrongCaller, match=r"await handle\.aget"):
        handle.get()
    with pytest.raises(WrongCaller, match=r"await handle\.astate"):
        handle.state()


async def test_thread_beside_a_loop_may_block(app: App[None]) -> None:
    """A sync handler runs in a thread of an async worker; there enqueue is right."""
    count = declare(app)
    handle = await asyncio.to_thread(count.enqueue, "u", 1)
    assert tasks.queue_of(handle.id) == "default"


def test_bad_setting_is_found_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at import, where it would break programs that never submit."""
    monkeypatch.setenv("HEADRACE_MAX_DEPHT", "5")
    count = declare(make_app())
    with pytest.raises(ConfigError, match="HEADRACE_MAX_DEPTH"):
        count.enqueue("u", 1)
