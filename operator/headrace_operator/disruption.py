"""Voluntary disruption: what moves pods to save nodes is asked to leave those alone that run a task.

A PodDisruptionBudget holds back evictions; cluster autoscalers decide by annotations, which follow the work slowly: a
pod that is busy on and off must not cost a request to the API server each second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from .fleet import GUARDS, Pod

PAUSE_S: Final = 30.0
"""No more than one write of a pod's annotations in so long; and one that was busy within it is not idle yet."""


def left_to_us(template: Mapping[str, Any]) -> bool:
    """Whether the pool's template says nothing of it: what its author says counts."""
    metadata = template.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return not (isinstance(annotations, Mapping) and GUARDS.keys() & annotations.keys())


class Guards:
    """Of one pool, as long as this process knows it. Time is a parameter."""

    def __init__(self) -> None:
        self._busy_s: dict[str, float] = {}
        self._written_s: dict[str, float] = {}

    def due(self, pods: Sequence[Pod], busy: Collection[str], now_s: float) -> tuple[list[str], list[str]]:
        """Pods to protect and pods to release, to be written now."""
        names = [pod.name for pod in pods]
        # One that this process did not see before counts as busy until now.
        self._busy_s = {name: now_s if name in busy else self._busy_s.get(name, now_s) for name in names}
        self._written_s = {name: self._written_s[name] for name in names if name in self._written_s}
        free = [pod for pod in pods if now_s - self._written_s.get(pod.name, float("-inf")) >= PAUSE_S]
        protect = [pod.name for pod in free if pod.name in busy and not pod.guarded]
        release = [pod.name for pod in free if pod.guarded and now_s - self._busy_s[pod.name] >= PAUSE_S]
        self._written_s.update(dict.fromkeys([*protect, *release], now_s))
        return protect, release
