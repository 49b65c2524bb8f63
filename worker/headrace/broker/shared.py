"""Calls of scripts whose keys all queues of a namespace share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from .broker import Call
from .keys import NamespaceKeys
from .scripts import script

R = TypeVar("R")


def shared_call(name: str, namespace: str, args: Sequence[bytes | str | int], parse: Callable[[Any], R]) -> Call[R]:
    """A call of this script in this namespace."""
    return Call(script(name), _head(name, namespace), args, parse)


@lru_cache(maxsize=1_024)
def _head(name: str, namespace: str) -> tuple[bytes, ...]:
    return script(name).head(NamespaceKeys(namespace).prefix)
