"""The port behind which replicas run: pods of a Kubernetes cluster, or processes of `headrace dev`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .fleet import Fleet, Key
from .manifests import Pool, Ref
from .news import News


class ClusterError(Exception):
    """The cluster did not do what it was asked for; the text is fit for a condition. The next tick tries again."""


class Refused(ClusterError):  # noqa: N818 - what happened
    """The cluster will not do it, however often it is asked: quota, admission, a bad template."""


class Conflict(ClusterError):  # noqa: N818 - what happened
    """Somebody changed the object since it was read: look again, decide again."""


class Cluster(Protocol):
    """What the control loop asks of whoever runs replicas. Every method raises ClusterError."""

    def fleet(self, key: Key) -> Fleet:
        """What runs of this pool, as last seen; no request is made."""
        ...

    async def apply(self, pool: Pool) -> None:
        """Make the pool's Deployment what its template says; a new one begins with no replicas."""
        ...

    async def scale(self, key: Key, replicas: int, fleet: Fleet) -> None:
        """Ask for so many replicas. Raises Conflict if `fleet` is not the latest any more."""
        ...

    async def look_again(self, key: Key) -> None:
        """Ask how many replicas are asked for: a write whose answer was lost may have been done."""
        ...

    async def mark(self, key: Key, pods: Sequence[str], *, cheap: bool) -> None:
        """These go first when the number is lowered, or no longer."""
        ...

    async def guard(self, key: Key, pods: Sequence[str], *, busy: bool) -> None:
        """What moves pods to save nodes shall leave these alone, or need not any longer."""
        ...

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        """Show this status."""
        ...

    async def tell(self, pool: Ref, news: News) -> None:
        """Post an Event."""
        ...
