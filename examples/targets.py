"""What the example tasks talk to on a laptop: a mail server, an image server and a webhook receiver, on loopback.

`headrace dev` keeps them open while its workers run, so all four tasks complete as they are shipped. Nothing here
leaves the machine: mails are shown and forgotten.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from examples import webhook
from examples.samples import Sample, samples

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

log = logging.getLogger("examples.targets")

_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Targets:
    """Servers that run. Valid inside `async with dev_targets()`."""

    environ: Mapping[str, str]
    """The variables that point the workers of the example tasks here. They go above those of the shell: a mail
    server that happens to be set there must not be sent the samples."""
    samples: tuple[Sample, ...]
    """One task of each type: ready to submit, and each completes."""
    url: str
    """Of the image server (`/wheel.png`, `/wheel.jpg`) and the webhook receiver (`/webhook`)."""
    mail: asyncio.Queue[str]
    """The Message-IDs of what the mail server took; the oldest is dropped when a hundred were not asked for."""
    hooks: asyncio.Queue[str]
    """The ids of the webhooks that came with a valid signature; bounded in the same way."""


@asynccontextmanager
async def dev_targets(state: Path = Path(".headrace/targets.json")) -> AsyncIterator[Targets]:
    """Start all servers, yield where they are, stop them.

    Ports are free ones, kept in `state` for the next start: tasks that still wait in the queue name them.
    """
    secret = secrets.token_bytes(32)
    mail, hooks = asyncio.Queue[str](100), asyncio.Queue[str](100)
    with _listen(_remembered(state, "smtp")) as smtp, _listen(_remembered(state, "http")) as http:
        ports = {"smtp": smtp.getsockname()[1], "http": http.getsockname()[1]}
        _remember(state, ports)
        async with AsyncExitStack() as stack:
            await _serve_mail(stack, smtp, mail)
            await _serve_http(stack, http, secret, hooks)
            yield _targets(ports, secret, mail, hooks)


def _targets(ports: Mapping[str, int], secret: bytes, mail: asyncio.Queue[str], hooks: asyncio.Queue[str]) -> Targets:
    at = f"{_HOST}:{ports['http']}"
    environ = {
        "SMTP_HOST": _HOST,
        "SMTP_PORT": str(ports["smtp"]),
        "SMTP_TLS": "off",
        "SMTP_USERNAME": "",
        "EXAMPLES_LOOPBACK": at,
        "EXAMPLES_WEBHOOK_SECRETS": "whsec_" + base64.b64encode(secret).decode(),
    }
    return Targets(environ=environ, samples=samples(environ), url=f"http://{at}", mail=mail, hooks=hooks)


def _remembered(state: Path, name: str) -> int:
    try:
        port = json.loads(state.read_bytes())[name]
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # the first start here, or somebody else's file: any port will do
    return port if isinstance(port, int) and 1024 <= port <= 65535 else 0


def _remember(state: Path, ports: Mapping[str, int]) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps(ports))


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port))
    except OSError:
        return socket.create_server((_HOST, 0))


def _note(queue: asyncio.Queue[str], entry: str) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(entry)


class _Sink:
    """Takes every mail, shows one line of it and forgets it."""

    def __init__(self, taken: asyncio.Queue[str]) -> None:
        self._taken = taken

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        message = message_from_bytes(content if isinstance(content, bytes) else b"", policy=policy.default)
        log.info("mail for %s: %s", ", ".join(envelope.rcpt_tos), message["Subject"])
        _note(self._taken, str(message["Message-ID"]))
        return "250 taken by the development mail server"


async def _serve_mail(stack: AsyncExitStack, listener: socket.socket, taken: asyncio.Queue[str]) -> None:
    # Imported here: workers import this module too, and need no mail server.
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(_Sink(taken), hostname="localhost", ident="headrace dev", loop=loop), sock=listener
    )
    await stack.enter_async_context(server)


async def _serve_http(stack: AsyncExitStack, listener: socket.socket, secret: bytes, taken: asyncio.Queue[str]) -> None:
    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        if not webhook.verify(request.headers, body, [secret], time.time()):
            return web.json_response({"error": "the signature does not match"}, status=401)
        log.info("webhook %s: %s, %d bytes", request.headers["webhook-id"], request.method, len(body))
        _note(taken, request.headers["webhook-id"])
        return web.json_response({"taken": True})

    app = web.Application()
    app.router.add_route("*", "/webhook", receive)
    for kind in ("png", "jpg"):
        app.router.add_get(f"/wheel.{kind}", _image_handler(kind))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


def _image_handler(kind: str) -> Any:
    data = draw_wheel("JPEG" if kind == "jpg" else "PNG")

    async def send(request: web.Request) -> web.Response:
        return web.Response(body=data, content_type="image/jpeg" if kind == "jpg" else "image/png")

    return send


def draw_wheel(kind: str) -> bytes:
    """A water wheel of 640 by 480 pixels, in the given format of Pillow."""
    from math import cos, pi, sin

    from PIL import Image, ImageDraw

    image = Image.new("RGB", (640, 480), "#cfe8f5")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 360, 640, 480), fill="#3b7ea1")
    for step in range(12):
        x, y = 320 + 190 * cos(step * pi / 6), 230 + 190 * sin(step * pi / 6)
        draw.line((320, 230, x, y), fill="#6b4a2b", width=8)
        draw.rectangle((x - 16, y - 16, x + 16, y + 16), fill="#8a6138")
    draw.ellipse((140, 50, 500, 410), outline="#6b4a2b", width=10)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()
