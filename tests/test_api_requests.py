"""Requests to an API server that answers badly, late or not at all: an error that says which, and no retry."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from headrace_operator import requests, slots
from headrace_operator.cluster import ClusterError, Conflict, Refused
from headrace_operator.requests import Forbidden, NotThere, Requests, connect, resource_of

PATH = "/apis/apps/v1/namespaces/shop/deployments/emails/scale"
DEPLOYMENT = "deployments/scale"


@dataclass
class FakeApi:
    """Answers every request with the same."""

    code: int = 200
    body: str = "{}"
    hangs: bool = False
    seen: list[str] = field(default_factory=list)
    most: int = 0
    _now: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(30 if self.hangs else 0.002)
        finally:
            self._now -= 1
        return web.Response(status=self.code, text=self.body, content_type="application/json")


@pytest.fixture
async def api() -> AsyncIterator[tuple[FakeApi, str]]:
    fake, app = FakeApi(), web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield fake, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def connected(folder: Path, url: str) -> Requests:
    config = folder / "kubeconfig"
    config.write_text(
        '{"apiVersion":"v1","kind":"Config","current-context":"t","users":[{"name":"t","user":{"token":"x"}}],'
        f'"clusters":[{{"name":"t","cluster":{{"server":"{url}"}}}}],'
        '"contexts":[{"name":"t","context":{"cluster":"t","user":"t"}}]}'
    )
    return await connect(str(config))


@pytest.fixture
async def sender(api: tuple[FakeApi, str], tmp_path: Path) -> AsyncIterator[tuple[FakeApi, Requests]]:
    made = await connected(tmp_path, api[1])
    yield api[0], made
    await made.aclose()


REFUSED = [400, 405, 413, 422]
AGAIN = [408, 410, 429, 500, 502, 503, 504]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, Refused) for code in REFUSED),
        *((code, ClusterError) for code in AGAIN),
        (403, Forbidden),
        (404, NotThere),
        (409, Conflict),
    ],
)
async def test_a_bad_answer_is_an_error_of_its_kind(
    sender: tuple[FakeApi, Requests], code: int, kind: type[ClusterError]
) -> None:
    """And it is asked once: the next tick decides anew, on what is so then."""
    fake, made = sender
    fake.code, fake.body = code, '{"kind":"Status","message":"exceeded quota: pods"}'
    with pytest.raises(ClusterError, match="exceeded quota: pods") as raised:
        await made.send("PATCH", PATH, {"spec": {"replicas": 3}})
    assert raised.type is kind
    assert fake.seen == [f"PATCH {PATH}"]
    assert dict(made.made) == {("PATCH", DEPLOYMENT, code): 1}


@pytest.mark.parametrize("body", ["", "<html>bad gateway</html>", "[]", '{"message":null}', "nul"])
async def test_what_a_proxy_says_instead_is_told(sender: tuple[FakeApi, Requests], body: str) -> None:
    fake, made = sender
    fake.code, fake.body = 502, body
    with pytest.raises(ClusterError, match=r"the API server answers 502"):
        await made.send("GET", PATH)


@pytest.mark.parametrize("body", ["", "<html>log in here</html>"])
async def test_a_good_answer_that_is_no_object_is_an_error(sender: tuple[FakeApi, Requests], body: str) -> None:
    fake, made = sender
    fake.body = body
    with pytest.raises(ClusterError, match="is no object of Kubernetes"):
        await made.send("GET", PATH)


async def test_no_answer_at_all_ends_by_the_time_limit(
    sender: tuple[FakeApi, Requests], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, made = sender
    fake.hangs = True
    monkeypatch.setattr(requests, "TIMEOUT_S", 0.2)
    with pytest.raises(ClusterError, match="the API server does not answer"):
        await made.send("GET", PATH)
    assert made.made["GET", DEPLOYMENT, 0] == 1


async def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = await connected(tmp_path, f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(ClusterError, match="the API server does not answer"):
            await made.send("GET", PATH)
        await made.aclose()


async def test_a_thousand_at_once_are_not_a_flood(sender: tuple[FakeApi, Requests]) -> None:
    fake, made = sender
    await asyncio.gather(*(made.send("GET", PATH) for _ in range(200)))
    assert len(fake.seen) == 200
    assert 1 < fake.most <= slots.AT_ONCE


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (PATH, DEPLOYMENT),
        ("/apis/apps/v1/namespaces/shop/deployments?fieldManager=x", "deployments"),
        ("/apis/apps/v1/deployments?limit=500", "deployments"),
        ("/api/v1/namespaces/shop/pods/emails-1", "pods"),
        ("/apis/headrace.dev/v1alpha1/namespaces/shop/workerpools/emails/status", "workerpools/status"),
    ],
)
def test_what_a_request_is_counted_as(path: str, resource: str) -> None:
    assert resource_of(path) == resource
