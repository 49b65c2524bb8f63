"""Publishing what a worker knows of its types, and keeping it published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from .broker import Call
from .shared import shared_call

RENEW_S: Final = 30.0
"""Seconds between two renewals."""
LIFE_S: Final = 120.0
"""Seconds after which a version that no worker renews does not count any more, if there is another one."""


def version_of(described: bytes) -> str:
    """What a description is called: other words, another version."""
    return hashlib.sha1(described, usedforsecurity=False).hexdigest()[:16]


def publish(
    namespace: str, types: Mapping[str, bytes], *, life_s: float = LIFE_S, now_ms: int | None = None
) -> Call[int]:
    """These types are known by a worker: name → description as JSON. The answer is 0."""
    rows = ((name, version_of(described), described) for name, described in types.items())
    return _call(namespace, rows, life_s, now_ms)


def renew(
    namespace: str, types: Mapping[str, bytes], *, life_s: float = LIFE_S, now_ms: int | None = None
) -> Call[int]:
    """The worker that published these still lives. Returns how many are not known and have to be published again."""
    rows = ((name, version_of(described), b"") for name, described in types.items())
    return _call(namespace, rows, life_s, now_ms)


def _call(namespace: str, rows: Iterable[tuple[str, str, bytes]], life_s: float, now_ms: int | None) -> Call[int]:
    args = ("" if now_ms is None else str(now_ms), int(life_s * 1000), *(part for row in rows for part in row))
    return shared_call("publish", namespace, args, int)
