"""An API server of external metrics for the tests' Kubernetes: one figure, registered by an APIService."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import trustme
from aiohttp import web

Json = dict[str, Any]
GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = f"{GROUP}/v1beta1"
SERVICE: Final = "metrics"


@asynccontextmanager
async def serving(address: str, metric: str, figure: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
    """Answers with the figure, whatever the namespace. Yields the port."""

    async def resources(request: web.Request) -> web.Response:
        there = {"name": metric, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList",
                 "verbs": ["get"]}  # fmt: skip
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [there]}
        )

    async def value(request: web.Request) -> web.Response:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        item = {"metricName": metric, "metricLabels": {}, "timestamp": now, "value": str(await figure())}
        return web.json_response(
            {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [item]}
        )

    app = web.Application()
    app.router.add_get(f"/apis/{VERSION}", resources)
    app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{metric}", value)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0, ssl_context=_certified(address))
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _certified(address: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(address).configure_cert(context)
    return context


def registration(namespace: str, address: str, port: int) -> Json:
    """What makes the cluster's API server pass on requests for external metrics."""
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": namespace},
        "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    }  # fmt: skip
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": SERVICE, "namespace": namespace, "labels": {"kubernetes.io/service-name": SERVICE}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }  # fmt: skip
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1beta1.{GROUP}"},
        "spec": {
            "group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": {"name": SERVICE, "namespace": namespace, "port": 443},
        },
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": [service, endpoints, registered]}
