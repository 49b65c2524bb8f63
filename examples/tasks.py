"""The example tasks: `headrace dev --app examples.tasks`. The handlers are thin; the work is in the modules beside.

A handler raises Permanent where no retry can help, RetryAfter where the other side said when, and any other error
where a later try may succeed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from examples.samples import samples
from examples.settings import MailSettings, Settings
from headrace import App, ConfigError, Ctx

try:
    from examples import export, images, mailer, webhook
except ModuleNotFoundError as error:
    raise ConfigError(
        f"The example tasks need {error.name!r}, which is not installed", "Run `pip install 'headrace[examples]'`"
    ) from error
from examples.exchange import Door, Limits

if TYPE_CHECKING:
    from examples.targets import Targets

__all__ = ["SAMPLES", "app", "call_webhook", "dev_targets", "export_data", "process_image", "send_email"]

Side = Annotated[int, Meta(ge=1, le=10_000)]
Angle = Annotated[float, Meta(ge=-360, le=360)]


@dataclass(frozen=True, slots=True)
class Deps:
    """What the handlers share."""

    mail: MailSettings
    studio: images.Studio
    sender: webhook.Sender
    output: Path


async def deps() -> AsyncIterator[Deps]:
    """Reads the settings when a worker starts, so that a wrong one stops the start. Raises ConfigError."""
    settings = Settings.from_env(os.environ)
    yield Deps(
        mail=settings.mail,
        studio=images.Studio(Door(settings.images, Limits(reply_bytes=10_000_000)), settings.output),
        sender=webhook.Sender(Door(settings.webhooks), settings.secrets),
        output=settings.output,
    )


app = App("examples", deps=deps)

SAMPLES = samples(os.environ)
"""Tasks to try: (type, priority, payload). All four in an environment that has the variables of `dev_targets()`."""


@app.task(priority="high", timeout=60)
async def send_email(ctx: Ctx[Deps], recipient: str, subject: str, body: str) -> mailer.Sent:
    """Send one mail by SMTP. A copy sent again after a crash has the same Message-ID."""
    return await mailer.send(mailer.Mail(ctx.id, recipient, subject, body), ctx.deps.mail)


@app.task(priority="medium", timeout=60)
async def process_image(
    ctx: Ctx[Deps],
    image_url: str,
    operation: images.Operation,
    width: Side | None = None,
    height: Side | None = None,
    angle: Angle | None = None,
) -> images.Processed:
    """Fetch an image and write it resized, as a thumbnail, in grays or turned clockwise."""
    edit = images.Edit(operation, width, height, angle)
    return await images.process(ctx.id, image_url, edit, ctx.deps.studio)


@app.task(priority="low", timeout=60)
def export_data(ctx: Ctx[Deps], format: export.Format, filters: dict[str, Any] = {}) -> export.Exported:  # noqa: B006
    """Write the orders that pass the filters to a file. Not async, so it runs in a thread."""
    return export.export(ctx.id, format, filters, ctx.deps.output)


@app.task(priority="critical", timeout=30)
async def call_webhook(
    ctx: Ctx[Deps],
    url: str,
    method: webhook.Method = "POST",
    body: dict[str, Any] = {},  # noqa: B006 - each call gets a copy
) -> webhook.Delivered:
    """Send a signed message to a URL that the worker's settings allow."""
    return await webhook.deliver(webhook.Hook(ctx.id, url, method, body), ctx.deps.sender, datetime.now(UTC))


def dev_targets() -> AbstractAsyncContextManager[Targets]:
    """The servers that the samples talk to, on loopback; `headrace dev` keeps them open while its workers run."""
    # Workers import this module too, and need no servers.
    from examples import targets

    return targets.dev_targets()
