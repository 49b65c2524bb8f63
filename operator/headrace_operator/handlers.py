"""kopf's part: watch, list and resync. What it shows goes into our store; nothing is patched or posted here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import kopf

from . import kopf_logs, patience
from .fleet import Key, Pod
from .kube import Watched
from .logins import PAUSE_S, Logins, credentials
from .loop import ControlLoop
from .manifests import MANAGED, POOL

ENDLESS: Final = (1, 1, 2, 3, 5) + (8,) * 100_000
"""Seconds between tries of a request of kopf's: days without an API server must not end the process, and the watches
begin anew within 15 s of its return."""

SILENT_S: Final = 70.0
"""A watch that says nothing for so long is begun anew: a line may be dead without a word. The API server says where it
is about once a minute."""

PodSeen = Callable[[Key, Pod, bool], None]


def watchers(
    loop: ControlLoop,
    watched: Watched,
    on_pod: PodSeen,
    on_pool: Callable[[Key], None],
    on_list: Callable[[], None],
) -> kopf.OperatorRegistry:
    """What kopf watches, and where it goes. `on_list`: a watch has begun, or begun anew, with a list.

    `on_pool`: this pool is known.
    """
    patience.install()
    kopf_logs.calm()
    registry, logins = kopf.OperatorRegistry(), Logins()

    @kopf.on.login(registry=registry, backoff=PAUSE_S)
    async def login(**given: Any) -> kopf.ConnectionInfo:
        return await logins.next(lambda: credentials(**given))

    @kopf.on.event("headrace.dev", "v1alpha1", "workerpools", registry=registry)
    async def pool(type: str | None, body: kopf.Body, **_: Any) -> None:
        raw = _plain(body)
        if type is None:
            on_list()
        key = Key(raw["metadata"]["namespace"], raw["metadata"]["name"])
        if type == "DELETED":
            loop.lost_pool(key)
        elif loop.saw_pool(raw) is None:
            on_pool(key)

    @kopf.on.event("apps", "v1", "deployments", registry=registry, labels={POOL: kopf.PRESENT})
    async def deployment(type: str | None, body: kopf.Body, **_: Any) -> None:
        if type is None:
            on_list()
        watched.saw_deployment(_plain(body), deleted=type == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=registry, labels={POOL: kopf.PRESENT})
    async def pod(type: str | None, body: kopf.Body, **_: Any) -> None:
        if type is None:
            on_list()
        seen = watched.saw_pod(_plain(body), deleted=type == "DELETED")
        if seen is not None:
            on_pod(*seen, type == "DELETED")

    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """Server-side filters, endless patience, no posting, names of our own.

    kopf watches no definitions: at an event of one it asks once what the API server serves, whose answer may lag
    behind the event, and then a definition that was deleted and made again is not served before another event. Terms
    wait for it themselves, and a watch of what is gone is tried until it is back.
    """
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    managed = ",".join(f"{name}={value}" for name, value in MANAGED.items())
    settings.watching.label_selectors["apps", "deployments"] = managed
    settings.watching.label_selectors["", "pods"] = managed
    settings.networking.error_backoffs = ENDLESS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    # What a watch showed is in the store at once: nothing is worth waiting for at the end, and another may take over.
    settings.queueing.exit_timeout = 0.1
    # A thousand pools come at once, each with a worker of kopf's that holds it while it waits for more.
    settings.queueing.idle_timeout = 0.5
    settings.watching.chunk_size = 200
    settings.watching.inactivity_timeout = SILENT_S
    settings.posting.enabled = False
    settings.peering.standalone = True
    # By default kopf ends the process ten minutes after it was stopped, which is not the end when a Lease was lost.
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.finalizer = "headrace.dev/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="headrace.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="headrace.dev", key="last-handled")
    return settings


def _plain(body: kopf.Body) -> dict[str, Any]:
    """The object without what only servers need, which is most of its size."""
    raw = dict(body)
    raw["metadata"] = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return raw
