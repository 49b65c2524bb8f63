"""An HTTP proxy in front of a real API server: it answers in its place, keeps silent, and sees every write."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from control_plane import ADMIN, ControlPlane

Instead = Callable[[web.Request], web.Response | None]
Around = Callable[["Write", str], Awaitable[web.Response | None]]
_NOT_PASSED: Final = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Write:
    """A request that changes something."""

    number: int
    """The first one is 1."""
    method: str
    path: str
    body: Any


class ApiProxy:
    """On a loopback port, without TLS, until the block ends."""

    def __init__(self, plane: ControlPlane) -> None:
        self.port = 0
        self.instead: Instead = lambda _: None
        """The answer to a request that is not passed on."""
        self.around: Around | None = None
        """Called `before` and `after` each write is passed on; may answer in its place."""
        self.writes: list[Write] = []
        self.statuses: dict[int, int] = {}
        """Number of a write → what the API server answered."""
        self.asked = 0
        """All requests."""
        self._plane = plane
        self._deaf = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        trust = ssl.create_default_context(cafile=str(self._plane.folder / "pki/ca.crt"))
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=2**21)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, folder: Path) -> Path:
        """For who is to reach the API server by this proxy, with every right."""
        entry = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{self.port}"}, "user": {"token": ADMIN}}
        entry["context"] = {"cluster": "x", "user": "x"}
        path = folder / f"proxy-{self.port}.kubeconfig"
        path.write_text(
            json.dumps({"current-context": "x", "clusters": [entry], "users": [entry], "contexts": [entry]})
        )
        return path

    def silence(self) -> None:
        """The watches that are out say nothing any more, and stay open; those that begin later are heard."""
        self._deaf += 1

    def cut(self) -> None:
        """The watches that are out end."""
        for stream in [*self._streams]:
            stream.cancel()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        given = self.instead(request)
        if given is not None:
            return given
        content = await request.read()
        if request.method == "GET":
            return await self._pass_on(request, content)
        write = Write(len(self.writes) + 1, request.method, request.path, json.loads(content or b"null"))
        self.writes.append(write)
        return await self._write(write, request, content)

    async def _write(self, write: Write, request: web.Request, content: bytes) -> web.StreamResponse:
        around = self.around
        if around is not None and (given := await around(write, "before")) is not None:
            return given
        answer = await self._pass_on(request, content)
        self.statuses[write.number] = answer.status
        given = None if around is None else await around(write, "after")
        return answer if given is None else given

    async def _pass_on(self, request: web.Request, content: bytes) -> web.StreamResponse:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED}
        url = f"https://127.0.0.1:{self._plane.port}{request.raw_path}"
        whole = aiohttp.ClientTimeout(total=None, sock_connect=5)
        try:
            async with self._session.request(
                request.method, url, data=content or None, headers=headers, timeout=whole
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED}
                if "watch" in request.query:
                    return await self._stream(request, answer, kept)
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"<h1>Bad gateway</h1>{error}", content_type="text/html")

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        deaf, stream = self._deaf, web.StreamResponse(status=answer.status, headers=headers)
        await stream.prepare(request)
        pump = asyncio.create_task(self._pump(answer, stream, deaf))
        self._streams.add(pump)
        pump.add_done_callback(self._streams.discard)
        try:
            await asyncio.wait([pump])
        finally:
            pump.cancel()
        return stream

    async def _pump(self, answer: aiohttp.ClientResponse, stream: web.StreamResponse, deaf: int) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            async for piece in answer.content.iter_any():
                if deaf == self._deaf:
                    await stream.write(piece)
