"""A pool's Deployment is what its spec says: applied when that changed, and again when it vanished."""

from __future__ import annotations

from .cluster import Cluster, Refused
from .fleet import Key
from .manifests import Pool, fingerprint
from .refusal import Refusals
from .spec import InvalidSpec
from .status import Condition
from .troubles import TEMPLATE_VALID, Troubles, put


class Applied:
    """Of one pool. `found` says what is wrong with its template."""

    def __init__(self, key: Key, found: Troubles) -> None:
        self._key = key
        self._troubles = found
        self._done: tuple[str, ...] | None = None
        self._refusals = Refusals()

    async def bring_about(self, pool: Pool, cluster: Cluster, now_s: float) -> None:
        """A template that is bad or refused is told; what was applied before goes on, and its workers are led on."""
        spec = pool.spec
        wanted = (fingerprint(spec.template), repr(spec.worker), repr(spec.queues), repr(spec.redis), pool.tenant)
        exists = cluster.fleet(self._key).exists
        if wanted != self._done or not exists:
            try:
                if (standing := self._refusals.standing((wanted, exists), now_s)) is not None:
                    raise standing.with_traceback(None)
                await cluster.apply(pool)
            except (InvalidSpec, Refused) as error:
                if error is not standing:
                    self._refusals.refused((wanted, exists), error, now_s)
                reason = "InvalidTemplate" if isinstance(error, InvalidSpec) else "Refused"
                put(self._troubles, TEMPLATE_VALID, Condition(TEMPLATE_VALID, False, reason, str(error)))
                if exists:
                    return
                raise
            self._refusals.granted()
        self._done = wanted
        put(self._troubles, TEMPLATE_VALID, None)
