"""Serving the API: aiohttp's server, with problem documents for what never reaches a route, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy, RawRequestMessage
from prometheus_client.registry import Collector

from headrace.errors import BadSetting, ConfigError
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings

from .app import create_app
from .connections import HEADERS_S, TOO_SLOW, UNREAD_S, Connections, bytes_of, network_of, room_for
from .created import Created
from .problems import Problem, not_http, problem_of_http, unexpected
from .request_ids import request_id
from .services import SERVICES

logger = logging.getLogger(__name__)

KEEPALIVE_S: Final = 75.0
"""Seconds that a connection may be idle between two requests."""
LEAVE_S: Final = 1.0
"""Seconds in which kept connections, at a stop, hear with their next answer that they are closed after it."""
STOP_S: Final = 20.0
"""Seconds that requests have to end when the process is told to stop."""
_received: Final = web.RequestHandler.data_received
_finish: Final = web.RequestHandler.finish_response
_OPTIONS: Final[dict[str, Any]] = {
    "keepalive_timeout": KEEPALIVE_S,
    "access_log": None,
    "lingering_time": 5.0,
    "auto_decompress": False,  # compressed bodies are refused, so no bomb is ever opened
}


class Protocol(web.RequestHandler):
    """aiohttp's connection, within limits, whose own errors are told as ours are."""

    def __init__(self, connections: Connections, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, **_OPTIONS)
        self._connections = connections
        self._network = ""
        self._over: Problem | None = None
        self._wire: asyncio.Transport | None = None
        self._silent = True
        """Nothing has come yet."""
        self._partial = False
        """The headers of a request have begun and not ended."""
        self._leaving = False
        """It was told why it is closed."""
        self._waited_s = 0.0
        self._unread = 0
        """Bytes of answers that the client had not taken at the last tick."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Over a limit nothing of aiohttp's is started."""
        self._wire = cast(asyncio.Transport, transport)  # uvloop's are none by class
        self._network = network_of(transport.get_extra_info("peername"))
        self._over = self._connections.enter(self, self._network)
        if self._over is None:
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.leave(self, self._network)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over is not None:
            self._say_and_close(self._over)
            return
        messages, known = self._messages, len(self._messages)
        _received(self, data)
        if len(messages) > known and type(messages[-1][0]) is not RawRequestMessage:
            self._tell_a_broken_body()
        if data:  # aiohttp calls this without any when it reads on
            self._silent = False
            self._partial = self._current_request is None and not messages

    def _tell_a_broken_body(self) -> None:
        """To who reads it: aiohttp takes bytes that are no chunk for the next request, and the body would never end.

        After its answer the connection is closed, as after that to any body with an error.
        """
        error = getattr(self._messages[-1][0], "exc", None)
        body = None if error is None else self._arriving()
        if body is not None and not body.is_eof():
            self._messages.pop()
            body.set_exception(web.RequestPayloadError(str(error)))

    def _arriving(self) -> StreamReader | None:
        """The body of the request before the newest one."""
        if len(self._messages) > 1:
            return self._messages[-2][1]
        return None if self._current_request is None else self._current_request.content

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this for each body; unless reading was paused, it would parse nothing at some expense."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _say_and_close(self, problem: Problem) -> None:
        """Closed for good at the next tick: at once, with bytes of the client's unread, it might not see the answer."""
        if self._wire is None or self._leaving or self._wire.is_closing():
            return
        self._leaving = True
        self.close()
        self._wire.write(bytes_of(problem))
        self._wire.write_eof()

    def tick(self, seconds: float) -> None:
        """Closes the connection if its headers take too long, or if its client reads nothing."""
        if self._wire is None:
            return
        if self._leaving:
            self.drop()
            return
        unread, before = self._wire.get_write_buffer_size(), self._unread
        waiting, stuck = self._silent or self._partial, 0 < before <= unread
        self._unread = unread
        self._waited_s = self._waited_s + seconds if waiting or stuck else 0.0
        if self._waited_s <= (UNREAD_S if stuck else HEADERS_S):
            return
        if self._partial and not stuck:
            self._say_and_close(TOO_SLOW)
        else:
            self.drop()

    def drop(self) -> None:
        """Close it at once, whatever waits to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP is the client's error, and no line in the log: strangers send it all day."""
        name = request_id(None)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("A request failed outside its route", exc_info=exc, extra={"fields": {"request_id": name}})
        else:
            logger.debug("Refused %s from %s", message, request.remote)
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer is sent already")
        problem = not_http(message or "") if status < HTTPStatus.INTERNAL_SERVER_ERROR else unexpected()
        answer = problem.response("", name)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that breaks off or is badly framed, noticed after its answer, is the client's affair as well."""
        level = logging.DEBUG if isinstance(kw.get("exc_info"), web.RequestPayloadError) else logging.ERROR
        logger.log(level, *args, **kw)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """The router's 404 and 405, and a refused Expect, arrive here as exceptions."""
        # Created first: whether something is an instance of aiohttp's abstract classes costs as much as a route.
        if type(resp) is not Created and isinstance(resp, web.HTTPException):
            name = request_id(request.headers.get("X-Request-Id"))
            problem: Problem = problem_of_http(resp)
            resp = problem.response(request.rel_url.raw_path, name)
        if self._connections.leaving:
            resp.force_close()
        return _finish(self, request, resp, start_time)


class _Site(web.TCPSite):
    """A listening socket whose connections are ours."""

    def __init__(self, runner: web.AppRunner, settings: ApiSettings, connections: Connections) -> None:
        super().__init__(runner, settings.host, settings.port)
        self._connections = connections

    async def start(self) -> None:
        await web.BaseSite.start(self)
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None, "the runner is set up"
        connections = self._connections
        self._server = await loop.create_server(
            lambda: Protocol(connections, server, loop),
            self._host,
            self._port,
            backlog=1_024,
            reuse_port=self._reuse_port,
        )


@contextlib.asynccontextmanager
async def serving(
    settings: ApiSettings,
    redis: RedisSettings,
    collectors: Iterable[Collector] = (),
    *,
    leave_s: float = 0.0,
    stop_s: float = STOP_S,
) -> AsyncIterator[str]:
    """The API while it runs, as `http://host:port`. At the end it listens no more, tells clients for `leave_s` to close
    their connections, finishes requests and closes the connections that are left.

    Raises BadSetting if the address cannot be listened on.
    """
    app = create_app(settings, redis, collectors)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=stop_s)
    await runner.setup()
    connections = app[SERVICES].connections
    try:
        async with connections.watching():
            try:
                await _Site(runner, settings, connections).start()
            except OSError as error:
                raise _refuse_address(settings, error) from None
            try:
                yield f"http://{_host(settings.host)}:{runner.addresses[0][1]}"
            finally:
                for site in tuple(runner.sites):
                    await site.stop()
                await connections.take_leave(leave_s)
    finally:
        # aiohttp would wait as long again, for it cancels no handler of which the client is still there.
        over = asyncio.get_running_loop().call_later(stop_s, connections.drop)
        await runner.cleanup()
        over.cancel()


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refuse_address(settings: ApiSettings, error: OSError) -> BadSetting:
    # asyncio's own words tell the address once more.
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return BadSetting(
        "PORT", str(settings.port), "the settings", f"a port that is free on {settings.host} ({why.lower()})",
        "Stop what listens there, or choose another by --port or PORT; 0 takes a free one",
    )  # fmt: skip


async def serve(settings: ApiSettings, redis: RedisSettings, stop: asyncio.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until `stop` is set."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with serving(settings, redis, leave_s=LEAVE_S) as url:
        logger.info("The API listens on %s, with %s", url, redis)
        if settings.auth == "none":
            logger.warning("HEADRACE_AUTH=none: everyone who reaches %s may submit and cancel tasks", url)
        await stop.wait()
        logger.info("Stopping: requests have %g s to end", STOP_S)


def _insist_on_the_c_parser() -> None:
    """aiohttp's parser in Python reads some requests otherwise, and more than once could be made to smuggle one."""
    if HttpRequestParser is HttpRequestParserPy:
        remedy = "Unset AIOHTTP_NO_EXTENSIONS, or install aiohttp from a wheel or with a C compiler"
        raise ConfigError("aiohttp runs without its C parser, so the API does not start", remedy)


def _calm_the_collector() -> None:
    """What is there now stays, and a request leaves no cycles: looking for them seldom saves a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run(settings: ApiSettings, redis: RedisSettings) -> None:
    """Serve the API in this process until it is told to stop. Raises ConfigError."""
    _insist_on_the_c_parser()
    settings = replace(settings, max_connections=room_for(settings.max_connections))
    _calm_the_collector()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings, redis))
    else:
        uvloop.run(serve(settings, redis))
