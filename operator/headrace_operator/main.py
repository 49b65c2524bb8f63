"""An operator process: the Lease, one term of leading after the other, and the port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from headrace.redis_settings import RedisSettings

from .lease import Lease
from .metrics import registry_for
from .requests import Requests, connect
from .server import Health, alive, serving
from .settings import OperatorSettings
from .term import LeaseLostError, Term

logger = logging.getLogger("headrace.operator")


class Operator:
    """One process, once."""

    def __init__(self, settings: OperatorSettings, connections: Mapping[str, RedisSettings]) -> None:
        self.settings = settings
        self.connections = connections
        self.lease: Lease | None = None
        self.term: Term | None = None
        """None while this process stands by."""
        self._stop = asyncio.Event()

    async def run(self, kubeconfig: str | None = None) -> None:
        """Until SIGTERM or SIGINT. Raises what ended one of its parts; the process should end then."""
        settings = self.settings
        if kubeconfig is not None:
            os.environ["KUBECONFIG"] = kubeconfig
        self._take_signals()
        async with AsyncExitStack() as stack:
            requests = await connect(kubeconfig)
            stack.push_async_callback(requests.aclose)
            if settings.lease:
                self.lease = Lease(requests, settings.lease_namespace, self._identity())
            registry = registry_for(lambda: self.term, self.leads, requests)
            await stack.enter_async_context(serving(settings.host, settings.metrics_port, registry, self.health))
            while await self._may_begin():
                await self._lead(requests)

    async def _may_begin(self) -> bool:
        """Wait until this process may act. False if it is told to end before."""
        return not self._stop.is_set() if self.lease is None else await self.lease.acquire(self._stop)

    async def _lead(self, requests: Requests) -> None:
        """One term. When the Lease is lost, it ends and the process stands by."""
        self.term = term = Term(self.settings, self.connections, requests, self.leads)
        try:
            await term.run(self._stop, self.lease, self._identity(), self._take_signals)
        except* LeaseLostError:
            logger.warning("this operator stands by, and campaigns for the Lease again")
        finally:
            self.term = None
            await term.aclose()
            if self.lease is not None:
                await self.lease.release()

    def leads(self) -> bool:
        """Whether this process may act at this moment."""
        return self.lease is None or self.lease.leads()

    def health(self) -> Health:
        """How this process is, for probes."""
        term, lease = self.term, self.lease
        wrong = "" if term is None else alive(term.loop.numbers, time.monotonic(), term.began_s)
        if lease is None or lease.leads():
            return Health(wrong)
        why = lease.trouble or (f"{lease.holder} holds the Lease" if lease.holder else "the Lease was not seen yet")
        return Health(wrong, f"standing by: {why}", cut_off=bool(lease.trouble))

    def _identity(self) -> str:
        return self.settings.identity or f"{socket.gethostname()}-{os.getpid()}"

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
