"""Types over HTTP and in the library: what workers know, and the door during a rollout of real worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from api_kit import SCHEMA, Api, running
from command_line import Command
from headrace import App
from headrace.settings import QueueShare
from worker_harness import eventually, working

ALL: Final = "a-token-of-more-than-16-characters"
SOME: Final = "another-token-of-more-than-16-characters"
TOKENS: Final = f"all:{ALL},some:{SOME} scope=read queue=mail-*"
QUEUES: Final = (QueueShare("mail-1"), QueueShare("other"))

app = App("typed", queue="mail-1")


@app.task(priority="high", max_retries=7, timeout=9)
def send_mail(to: str, subject: str = "") -> None:
    """Send an e-mail.

    More about it.
    """


@app.task(queue="other")
def cleanup() -> None: ...


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[Api]:
    async with running(redis_url, ALL, tokens=TOKENS) as api:
        yield api


async def types(api: Api, **headers: str) -> dict[str, Any]:
    answer = await api.get("/api/v1/types", headers=headers)
    assert answer.status == 200, answer.text
    return {each["type"]: each for each in answer.json["types"]}


async def test_what_a_worker_knows_is_shown_with_its_defaults(api: Api, redis_url: str) -> None:
    async with working(app, redis_url, queues=QUEUES):
        await eventually(lambda: known_by(api, "send_mail", 1))
        shown = (await types(api))["send_mail"]
        assert shown | {"schema": None, "hash": None, "versions": None} == {
            "type": "send_mail",
            "queue": "mail-1",
            "priority": 2,
            "max_retries": 7,
            "timeout_s": 9.0,
            "doc": "Send an e-mail.\n\nMore about it.",
            "schema": None,
            "hash": None,
            "versions": None,
            "workers": 1,
        }
        assert shown["versions"] == [shown["hash"]]
        [payload] = shown["schema"]["$defs"].values()
        assert payload["required"] == ["to"]
        assert (await api.get("/api/v1/types/send_mail")).json == shown
    await eventually(lambda: known_by(api, "send_mail", 0))
    assert (await types(api))["send_mail"]["hash"] == shown["hash"], "a type stays known without workers"


async def known_by(api: Api, name: str, workers: int) -> bool:
    found = (await types(api)).get(name)
    return found is not None and found["workers"] == workers


async def test_a_worker_of_two_queues_counts_once_and_two_workers_twice(api: Api, redis_url: str) -> None:
    async with working(app, redis_url, queues=QUEUES), working(app, redis_url, queues=QUEUES):
        await eventually(lambda: known_by(api, "cleanup", 2))


async def test_a_type_that_nobody_published_is_404_with_did_you_mean(api: Api) -> None:
    await api.worker.publish("send_mail", {"schema": SCHEMA})
    answer = await api.get("/api/v1/types/send_mial")
    assert (answer.status, answer.code) == (404, "unknown_type")
    assert "'send_mail'" in answer.json["detail"]
    assert (await api.get("/api/v1/types/a%00b")).status == 404


async def test_a_token_of_some_queues_sees_the_types_that_go_there(api: Api) -> None:
    """A type without a queue goes to `default`."""
    for name, described in {
        "a": {"queue": "mail-1"},
        "b": {"queue": "orders"},
        "c": {},
    }.items():
        await api.worker.publish(name, described)
    narrow = {"Authorization": f"Bearer {SOME}"}
    assert (await types(api)).keys() == {"a", "b", "c"}
    assert (await types(api, **narrow)).keys() == {"a"}
    assert (await api.get("/api/v1/types/b", headers=narrow)).code == "unknown_type"


async def test_what_something_foreign_published_is_shown_by_name(api: Api) -> None:
    for name, text in {"a": b"not JSON", "b": b"\xff", "c": b'{"priority": 9, "queue": "NO"}'}.items():
        await api.worker.publish(name, text)
    found = await types(api)
    assert {name: (each["schema"], each["priority"]) for name, each in found.items()} == {
        name: ({}, None) for name in "abc"
    }


async def test_the_library_tells_the_same(api: Api, redis_url: str) -> None:
    await api.worker.publish("send_mail", {"schema": SCHEMA, "hash": "1", "doc": "Send."})
    client = App("client", url=redis_url)
    [found] = await client.inspect.types()
    shown = (await types(api))["send_mail"]
    assert {name: getattr(found, name) for name in shown} == shown
    await client.aclose()


# -- a rollout


OLD: Final = """
from headrace import App
app = App("shop")

@app.task()
def resize(url: str, width: int) -> None: ...
"""
NEW: Final = """
from headrace import App
app = App("shop")

@app.task()
def resize(url: str, size: str) -> None: ...
"""
OLD_PAYLOAD: Final = {"type": "resize", "payload": {"url": "s3://cat", "width": 3}}
NEW_PAYLOAD: Final = {"type": "resize", "payload": {"url": "s3://cat", "size": "3x3"}}
NEITHER: Final = {"type": "resize", "payload": {"url": "s3://cat", "width": 3, "size": "3x3"}}


async def status(api: Api, body: Any) -> int:
    return (await api.submit(body)).status


async def test_an_old_and_a_new_worker_side_by_side(redis_url: str, tmp_path: Path) -> None:
    """Real processes of two versions of an app: the door takes what either takes, whoever of them starts again last,
    also an API that was not there when they started."""
    for name, text in {"old": OLD, "new": NEW}.items():
        (tmp_path / f"shop_{name}.py").write_text(text)
    with worker(tmp_path, redis_url, "old"), worker(tmp_path, redis_url, "new"):
        async with running(redis_url) as api:
            await eventually(lambda: known_by(api, "resize", 2))
            with worker(tmp_path, redis_url, "old"):
                await eventually(lambda: known_by(api, "resize", 3))
                for body, expected in ((OLD_PAYLOAD, 201), (NEW_PAYLOAD, 201), (NEITHER, 422)):
                    assert await status(api, body) == expected, body
                assert len((await types(api))["resize"]["versions"]) == 2


def worker(folder: Path, redis_url: str, version: str) -> Command:
    arguments = ("worker", "--app", f"shop_{version}", "--metrics-port", "0", "--grace-s", "1")
    return Command(*arguments, cwd=folder, HEADRACE_URL=redis_url)
