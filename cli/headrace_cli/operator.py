"""`headrace operator`: scale WorkerPools of a Kubernetes cluster, from inside it or with a kubeconfig."""

from __future__ import annotations

import asyncio
import os

import click

from .command import Command
from .options import redis_option


@click.command(
    "operator",
    cls=Command,
    examples="""
        headrace operator
        headrace operator --kubeconfig ~/.kube/config --namespaces shop,mail
        HEADRACE_URL=redis://redis.shop.svc:6379/0 headrace operator
    """,
)
@click.option("--kubeconfig", metavar="FILE", help="Which cluster; in a pod by default the pod's own account.")
@click.option("--namespaces", metavar="NAME,…", help="Namespaces to watch. [all]")
@click.option("--tick-s", metavar="SECONDS", help="Between two looks at all queues. [1]")
@click.option("--metrics-port", metavar="PORT", help="Port for health and metrics; 0 takes a free one. [9464]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [info]")
@click.option("--log-format", metavar="FORMAT", help="json, text, or auto: text in a terminal. [auto]")
@redis_option
def command(url: str | None, kubeconfig: str | None, **flags: str | None) -> int:
    """Watch WorkerPools and scale their workers on what waits in their queues, until SIGTERM or Ctrl-C.

    Every option is also a setting: HEADRACE_OPERATOR_TICK_S is --tick-s. Pools name a Redis by `redis.connection`:
    `default` is that of HEADRACE_URL or REDIS_ADDR, HEADRACE_OPERATOR_CONNECTION_SHOP that of `shop`.
    """
    try:
        import kopf  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "The operator needs more packages. Install them with: pip install 'headrace[operator]'"
        ) from None
    from headrace.logs import setup_logging
    from headrace_operator.main import Operator
    from headrace_operator.settings import OperatorSettings, connections

    settings = OperatorSettings.from_env(os.environ, **flags)
    setup_logging(settings.log_level, None if settings.log_format == "auto" else settings.log_format == "json")
    environ = os.environ | ({"HEADRACE_URL": url} if url else {})
    operator = Operator(settings, connections(environ))
    # Not in uvloop, where a connection that is given up at the wrong moment leaves a descriptor that no later one can
    # use (https://github.com/MagicStack/uvloop/issues/653). Watches and requests are given up for years here.
    asyncio.run(operator.run(kubeconfig))
    return 0
