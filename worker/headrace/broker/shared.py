"""Calls of scripts whose keys all queues of a namespace share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from headrace.settings import Durability

from .broker import Call
from .durability import touches
from .keys import NamespaceKeys
from .scripts import Head, script

R = TypeVar("R")


def shared_call(name: str, namespace: str, args: Sequence[bytes | str | int], parse: Callable[[Any], R]) -> Call[R]:
    """A call of this script in this namespace."""
    return Call(_head(name, namespace), args, parse)


def secret_call(namespace: str, proposal: bytes | str, durability: Durability) -> Call[bytes]:
    """The secret that makes ids of idempotency keys; the proposal becomes it if there is none.

    It has to last as the tasks do, so carry it out as their durability asks. After a failover that lost it others make
    another one, and a key would be two tasks.
    """
    args = (proposal, int(touches(durability)))
    return Call(_head("secret", namespace), args, bytes, writes_tasks=True)


@lru_cache(maxsize=1_024)
def _head(name: str, namespace: str) -> Head:
    return script(name).head(NamespaceKeys(namespace).prefix)
