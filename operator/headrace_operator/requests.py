"""Requests to the API server: one way to send them, errors as sentences, and how many of which kind there were."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio import client, config

from .cluster import ClusterError, Conflict, Refused
from .holdoff import BUSY, Holdoff
from .shallow import loads
from .slots import Slots

logger = logging.getLogger("headrace.operator")

Json = dict[str, Any]

TIMEOUT_S: Final = 10.0
LEASES: Final = "leases"
"""Requests for these queue behind no others: what keeps this process leading is the last to wait for its pools."""
TOLD: Final = frozenset({"events", "workerpools/status"})
"""Requests for these change nothing that runs, so they wait for those that do."""
JSON: Final = "application/json"
NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Lists come with the objects' metadata and no more."""
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
MANAGER: Final = "headrace-operator"
_FINAL: Final = frozenset({400, 403, 404, 405, 413, 422})


class NotLeading(ClusterError):  # noqa: N818 - what happened
    """Another process may lead now, so this one must not write."""


class Forbidden(Refused):
    """The account has no right to that."""


class NotThere(Refused):
    """There is no such object."""


class Requests:
    """For one event loop. Every method raises ClusterError."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._slots = Slots()
        self._may_write: Callable[[], bool] = lambda: True
        self._holdoff = Holdoff()
        self.made: Counter[tuple[str, str, int]] = Counter()
        """(method, resource, status) → requests."""

    def fenced(self, may_write: Callable[[], bool]) -> Requests:
        """The same requests, of which none that changes anything leaves this process unless it may write just then."""
        fenced = copy.copy(self)
        fenced._may_write = may_write
        return fenced

    async def send(
        self, method: str, path: str, body: Json | None = None, *, kind: str = JSON, accept: str = JSON
    ) -> Json:
        """One request; gives the object that came back. `path` may carry a query."""
        headers = {"Content-Type": kind, "Accept": accept}
        prepared = await self._api.param_serialize(method, path, header_params=headers, auth_settings=["BearerToken"])
        resource = resource_of(path)
        async with self._turn(resource):
            if method != "GET" and not self._may_write():
                raise NotLeading("this operator does not lead, and writes nothing")
            status, answer, content = await self._exchange(method, resource, prepared, body)
        self._heed(resource, status, answer, content)
        if status >= 400:
            raise _refusal(status, content)
        return _object(content)

    def _heed(self, resource: str, status: int, headers: Mapping[str, str], content: bytes) -> None:
        if status in BUSY:
            why = str(_refusal(status, content))
            if self._holdoff.busy(resource, headers, why, time.monotonic()):
                logger.warning("%s; %s waits", why, resource)
        elif self._holdoff.reached(resource):
            logger.warning("the API server answers again")

    @asynccontextmanager
    async def _turn(self, resource: str) -> AsyncIterator[None]:
        """Among all requests that want to go out; a Lease waits for nothing."""
        if resource == LEASES:
            yield
            return
        async with self._slots.one(telling=resource in TOLD):
            if why := self._holdoff.standing(resource, time.monotonic()):
                raise ClusterError(why)
            yield

    async def _exchange(
        self, method: str, resource: str, prepared: Any, body: Json | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer."""
        try:
            answer = await self._api.call_api(method, prepared[1], {**prepared[2]}, body, _request_timeout=TIMEOUT_S)
            content: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.made[method, resource, 0] += 1
            why = f"the API server does not answer: {_worded(error)}"
            nobody = isinstance(error, aiohttp.ClientConnectorError)
            if self._holdoff.unreachable(why, time.monotonic()) if nobody else self._holdoff.silent():
                logger.warning("%s", why)
            raise ClusterError(why) from error
        self.made[method, resource, answer.status] += 1
        headers: Mapping[str, str] = answer.getheaders()  # type: ignore[no-untyped-call]
        return answer.status, headers, content

    async def aclose(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]


def _worded(error: Exception) -> str:
    late = isinstance(error, TimeoutError) and not str(error)
    return f"nothing within {TIMEOUT_S:g} s" if late else str(error) or type(error).__name__


def _object(content: bytes) -> Json:
    try:
        found = loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        start = content[:60].decode(errors="replace")
        raise ClusterError(f"what the API server answers is no object of Kubernetes, but {start!r}")
    return found


def resource_of(path: str) -> str:
    """`deployments/scale` of `/apis/apps/v1/namespaces/shop/deployments/emails/scale`; `apis` of what tells them."""
    parts = path.partition("?")[0].strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(parts[0::2]) or "apis"


def _refusal(status: int, content: bytes) -> ClusterError:
    message = _message(content)
    if status == 409:
        return Conflict(message)
    if status == 404:
        return NotThere(message)
    if status == 403:
        return Forbidden(message)
    if status in _FINAL:
        return Refused(message)
    return ClusterError(f"the API server answers {status}: {message}")


def _message(content: bytes) -> str:
    try:
        found = json.loads(content)
        return str(found["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace") or "no reason given"


async def connect(kubeconfig: str | None = None) -> Requests:
    """In a cluster by the pod's own account, elsewhere by the kubeconfig. Raises ConfigException."""
    configuration = client.Configuration()
    if kubeconfig is None and in_cluster():
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration
        )
    return Requests(client.ApiClient(configuration))


def in_cluster() -> bool:
    """Whether this process runs in a pod that has an account."""
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def query(path: str, parameters: Mapping[str, str]) -> str:
    """A path with a query."""
    return path + "?" + "&".join(f"{name}={value}" for name, value in parameters.items())
