"""Whatever the API server answers to a list or a watch, the process goes on, and so does the watch."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from headrace_operator import patience, term
from headrace_operator.requests import Requests
from headrace_operator.settings import OperatorSettings
from headrace_operator.term import Term
from operator_kit import resource

Json = dict[str, Any]
POOLS = {"/apis/headrace.dev/v1alpha1/namespaces/shop/workerpools", "/apis/headrace.dev/v1alpha1/workerpools"}
VERBS = ["list", "watch", "patch"]
PAGE = 2
PATIENCE_S = 20.0


def kinds(*names: tuple[str, str]) -> Json:
    told = [
        {"name": name, "kind": kind, "singularName": "", "namespaced": True, "verbs": VERBS} for name, kind in names
    ]
    return {"resources": told}


DISCOVERY = {
    "/api": {"versions": ["v1"]},
    "/api/v1": kinds(("pods", "Pod"), ("namespaces", "Namespace"), ("events", "Event")),
    "/apis": {
        "groups": [
            {"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}}
            for name, version in (("apps", "v1"), ("headrace.dev", "v1alpha1"))
        ]
    },
    "/apis/apps/v1": kinds(("deployments", "Deployment")),
    "/apis/headrace.dev/v1alpha1": kinds(("workerpools", "WorkerPool")),
}


def named(name: str) -> Json:
    made = resource()
    made["metadata"] |= {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    return made


class ApiServer:
    """Discovery, lists in pages of two, and watches; refuses what the test says."""

    def __init__(self) -> None:
        self.pools = [named("a"), named("b"), named("c")]
        self.refuse: Callable[[web.Request], int] = lambda _: 0
        """The status of a refusal, for each request about pools; 0 for none."""
        self.instead: tuple[Any, int, Mapping[str, str]] | None = None
        """Body, status and headers of every answer about pools."""
        self.refused = 0
        self.event: Json | None = None
        """What the next watch says first."""
        self.cut = asyncio.Event()
        """The watches that are out end."""
        self.untold: Container[int] = ()
        """Of the questions what is served, counted from 1, those whose answers leave out WorkerPools."""
        self.questions = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/apis/headrace.dev") and (status := self.refuse(request)):
            self.refused += 1
            return web.json_response({"kind": "Status", "code": status, "message": "no"}, status=status)
        if request.path.startswith("/apis/headrace.dev") and self.instead is not None:
            self.refused += 1
            body, status, headers = self.instead
            return web.Response(body=body, status=status, headers=headers)
        if request.path in DISCOVERY:
            return web.json_response(self._served(request.path))
        if request.method != "GET":
            return web.json_response({"message": "no"}, status=403)
        return await self._watch(request) if "watch" in request.query else self._list(request)

    def _served(self, path: str) -> Any:
        self.questions += path == "/apis"
        if path != "/apis" or self.questions not in self.untold:
            return DISCOVERY[path]
        return {"groups": [each for each in DISCOVERY["/apis"]["groups"] if each["name"] != "headrace.dev"]}

    def _list(self, request: web.Request) -> web.Response:
        items, start = self.pools if request.path in POOLS else [], int(request.query.get("continue") or 0)
        more = str(start + PAGE) if start + PAGE < len(items) else ""
        metadata = {"resourceVersion": "1", "continue": more}
        return web.json_response({"items": items[start : start + PAGE], "metadata": metadata})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        if request.path in POOLS and self.event is not None:
            event, self.event = self.event, None
            self.refused += 1
            await stream.write(json.dumps(event).encode() + b"\n")
        await self.cut.wait()
        return stream


@pytest.fixture
async def server() -> ApiServer:
    return ApiServer()


@asynccontextmanager
async def operating(
    server: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch, namespaces: tuple[str, ...] = ("shop",)
) -> AsyncIterator[Term]:
    """A term of an operator of these namespaces, none for all, which must not end by itself."""
    monkeypatch.setattr(patience, "PAUSE_S", 0.05)
    monkeypatch.setattr(term, "UNDEFINED_S", 0.05)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig = folder / "kubeconfig"
    entry = {"name": "x", "cluster": {"server": url}, "user": {"token": "t"}, "context": {"cluster": "x", "user": "x"}}
    kubeconfig.write_text(
        json.dumps({"current-context": "x", "clusters": [entry], "users": [entry], "contexts": [entry]})
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    requests, stop = Requests(client.ApiClient(client.Configuration(host=url))), asyncio.Event()
    made = Term(OperatorSettings(namespaces=namespaces), {}, requests, lambda: True)
    running = asyncio.create_task(made.run(stop, None, "me", lambda: None))
    try:
        yield made
        assert not running.done(), "the operator ended by itself"
    finally:
        stop.set()
        server.cut.set()
        await asyncio.wait([running], timeout=PATIENCE_S)
        await made.aclose()
        await requests.aclose()
        await runner.cleanup()
    await running


async def sees(made: Term, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while {key.name for key in made.loop.pools} != set(names):  # noqa: ASYNC110 - kopf makes it so
            await asyncio.sleep(0.01)


async def test_a_list_whose_next_page_has_expired_begins_anew(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuse = lambda request: 410 if request.query.get("continue") and not server.refused else 0
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")
        assert server.refused == 1


@pytest.mark.parametrize("status", [404, 410, 400, 422])
async def test_a_definition_that_is_gone_is_waited_for(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The watch breaks off, and for a while nothing of its kind is known any more."""
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")
        server.refuse = lambda _: status if server.refused < 5 else 0
        server.pools.append(named("d"))
        server.cut.set()
        await sees(made, "a", "b", "c", "d")
        assert server.refused >= 5


@pytest.mark.parametrize("status", [404, 400, 401, 422, 500])
async def test_a_definition_that_comes_after_the_operator_is_waited_for(
    server: ApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """Whatever the API server says until then. Why it is waited for is said, and not each time."""
    server.refuse = lambda _: status if server.refused < 5 else 0
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")
    said = [each.getMessage() for each in caplog.records if each.module == "term" and each.levelname == "WARNING"]
    assert len(said) == 1, said
    assert ("do not know" in said[0] or "does not know" in said[0]) == (status == 404), said


async def test_what_is_no_list_of_what_is_served_ends_nothing(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([{"groups": None}, {"groups": [{}]}, {}])
    served = server._served
    monkeypatch.setattr(server, "_served", lambda path: next(answers, None) or served(path))
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")


async def test_another_server_that_does_not_tell_of_pools_yet_is_asked_again(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several, the one that kopf asks, and only once, may be behind the one that we asked."""
    server.untold = {2}
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")


@pytest.mark.parametrize("namespaces", [(), ("shop",)], ids=["everywhere", "one namespace"])
async def test_pools_that_are_served_and_not_yet_told_of_are_waited_for(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: tuple[str, ...]
) -> None:
    """An API server takes a new kind some time before it lists it, and kopf looks at the list once."""
    server.untold = range(1, 6)
    async with operating(server, tmp_path, monkeypatch, namespaces) as made:
        await sees(made, "a", "b", "c")


async def test_a_watch_that_tells_an_error_begins_anew(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.event = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcdserver: no leader"}}
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")
        before = patience.restarts["workerpools"]
        server.pools.append(named("d"))
        async with asyncio.timeout(PATIENCE_S):
            while not server.refused:  # noqa: ASYNC110 - kopf makes it so
                await asyncio.sleep(0.01)
        server.cut.set()
        await sees(made, "a", "b", "c", "d")
        assert patience.restarts["workerpools"] > before


def test_a_watch_that_never_began_anew_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 0: Prometheus sees no growth in a series that begins with 1."""
    monkeypatch.setattr(patience, "restarts", Counter())
    monkeypatch.setattr(patience, "_began", set())
    begin = patience.counted(lambda **_: None)
    begin(resource=SimpleNamespace(plural="pods"), namespace="shop")
    assert dict(patience.restarts) == {"pods": 0}
    begin(resource=SimpleNamespace(plural="pods"), namespace="mail")
    begin(resource=SimpleNamespace(plural="pods"), namespace="shop")
    assert dict(patience.restarts) == {"pods": 1}


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body="<h1>Bad gateway</h1>", content_type="text/html"),
        web.Response(body='{"items": [', content_type="application/json"),
        web.Response(body="later", status=429, headers={"Retry-After": "Mon, 30 Nov 2026 12:00:00 GMT"}),
        web.Response(body="later", status=429, headers={"Retry-After": "3600"}),
        web.Response(body="<h1>moved</h1>", status=418),
    ],
    ids=["a page of HTML", "half an object", "a date to come again", "an hour", "a status of its own"],
)
async def test_what_is_no_answer_of_an_api_server_ends_nothing(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: web.Response
) -> None:
    """Something in front of it answers in its place."""
    async with operating(server, tmp_path, monkeypatch) as made:
        await sees(made, "a", "b", "c")
        server.instead = answer.body, answer.status, answer.headers
        server.pools.append(named("d"))
        server.cut.set()
        async with asyncio.timeout(PATIENCE_S):
            while server.refused < 2:  # noqa: ASYNC110 - kopf makes it so
                await asyncio.sleep(0.01)
        server.event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
        server.instead = None
        await sees(made, "a", "b", "c", "d")
