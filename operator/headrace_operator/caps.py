"""Caps that pools share: how many replicas all pools, or those of one namespace, may have together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .fleet import Key


@dataclass(frozen=True, slots=True)
class Caps:
    """0 is no cap."""

    cluster: int = 0
    namespace: int = 0


def share(caps: Caps, wanted: Mapping[Key, int], held: Mapping[Key, int]) -> dict[Key, int]:
    """What each pool may have; pools that no cap concerns are left out.

    `held`: what other pools have, whose number is not ours to write; it is theirs before anything is shared. Then the
    largest wishes are cut first, down to a common height: a small pool does not starve beside a large one.
    """
    granted: dict[Key, int] = {}
    if caps.namespace:
        for namespace in {key.namespace for key in wanted}:
            own = {key: n for key, n in wanted.items() if key.namespace == namespace}
            taken = sum(n for key, n in held.items() if key.namespace == namespace)
            granted.update(level(own, max(0, caps.namespace - taken)))
    if caps.cluster:
        left = max(0, caps.cluster - sum(held.values()))
        granted = level({key: min(n, granted.get(key, n)) for key, n in wanted.items()}, left)
    return granted


def level(wanted: Mapping[Key, int], cap: int) -> dict[Key, int]:
    """At most `cap` together, small wishes whole; what is left goes to the first names."""
    granted: dict[Key, int] = {}
    left = cap
    rest = sorted(wanted, key=lambda key: (wanted[key], key))
    for at, key in enumerate(rest):
        fair, more = divmod(left, len(rest) - at)
        granted[key] = min(wanted[key], fair + (1 if more else 0))
        left -= granted[key]
    return granted
