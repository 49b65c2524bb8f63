"""Permits from a bucket that all processes share, such as the rate limit of a token."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from headrace.rates import Rate

from .broker import Call
from .keys import NamespaceKeys
from .scripts import Head, script


class Spent(NamedTuple):
    """What a bucket gave."""

    taken: int
    """Permits; 0 = it is empty."""
    left: int
    wait_ms: int
    """Until it holds a permit again, if it is empty."""


def spend(
    namespace: str,
    bucket: str,
    rate: Rate,
    needed: int,
    wanted: int = 0,
    *,
    credit: bool = False,
    now_ms: int | None = None,
) -> Call[Spent]:
    """Take `wanted` permits or as many as there are, but `needed` at least, and be it on credit.

    A bucket that holds no permit gives none, but on `credit`.
    """
    now = "" if now_ms is None else now_ms
    args = (now, bucket, rate.count, rate.window_s * 1_000, needed, max(needed, wanted), int(credit))
    return Call(_head(namespace), args, _parse)


@lru_cache(maxsize=1_024)
def _head(namespace: str) -> Head:
    return script("spend").head(NamespaceKeys(namespace).prefix)


def _parse(reply: list[Any]) -> Spent:
    return Spent(*map(int, reply))
