"""Pools in a Kubernetes cluster: what the watches saw, and the few writes there are."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from . import manifests
from .cluster import ClusterError, Conflict, Refused
from .fleet import CHEAP, COST, GUARDS, Fleet, Key, Pod, Raw, pool_of, read_deployment, read_pod
from .manifests import Pool, Ref
from .news import News
from .ownership import corrected
from .requests import APPLY, MANAGER, MERGE, NotThere, Requests, query

logger = logging.getLogger("headrace.operator")

API_VERSION: Final = "headrace.dev/v1alpha1"
POOLS: Final = "/apis/headrace.dev/v1alpha1/namespaces/{0}/workerpools/{1}"
DEPLOYMENTS: Final = "/apis/apps/v1/namespaces/{0}/deployments/{1}"
BUDGETS: Final = "/apis/policy/v1/namespaces/{0}/poddisruptionbudgets/{1}"
PODS: Final = "/api/v1/namespaces/{0}/pods/{1}"
EVENTS: Final = "/api/v1/namespaces/{0}/events"
REMEMBERED: Final = 10_000
"""Pools of which is known that they had a Deployment: more than there are, fewer than come and go in a year."""
SCALE_TRIES: Final = 5
"""A new Deployment's status changes several times in its first moments."""
_APPLIED: Final = {"fieldManager": MANAGER, "force": "true"}
_WRITTEN: Final = {"fieldManager": MANAGER}


class Known(NamedTuple):
    """What watches have shown, at one moment."""

    deployments: Mapping[Key, Fleet]
    pods: Mapping[tuple[Key, str], Pod]


class Watched:
    """Deployments and pods as the watches last showed them."""

    def __init__(self) -> None:
        self._deployments: dict[Key, Fleet] = {}
        self._pods: dict[Key, dict[str, Pod]] = defaultdict(dict)
        self._fleets: dict[Key, Fleet] = {}
        """Both together, made when asked for."""

    def saw_deployment(self, raw: Raw, *, deleted: bool) -> Key | None:
        """A Deployment came, changed or went. Returns whose it is."""
        key = pool_of(raw)
        if key is None or raw["metadata"]["name"] != key.name:
            return None
        self._fleets.pop(key, None)
        seen = read_deployment(raw)
        if is_older(seen.version, self._deployments.get(key, Fleet()).version):
            return key
        if deleted:
            self._deployments.pop(key, None)
        else:
            self._deployments[key] = seen
        return key

    def saw_pod(self, raw: Raw, *, deleted: bool) -> tuple[Key, Pod] | None:
        """A pod came, changed or went. Returns whose it is, and the pod; None if that was known better."""
        key = pool_of(raw)
        if key is None:
            return None
        pod = read_pod(raw)
        known = self._pods[key].get(pod.name)
        if known is not None and is_older(pod.version, known.version):
            return None
        self._fleets.pop(key, None)
        if deleted:
            self._pods[key].pop(pod.name, None)
        else:
            self._pods[key][pod.name] = pod
        return key, pod

    def marked_pod(self, raw: Raw) -> None:
        """What a write of ours answered, which is no sign that the pod is there: it may have gone since."""
        key = pool_of(raw)
        if key is not None and raw["metadata"]["name"] in self._pods[key]:
            self.saw_pod(raw, deleted=False)

    def known(self) -> Known:
        """All that is held now."""
        pods = {(key, name): pod for key, named in self._pods.items() for name, pod in named.items()}
        return Known(dict(self._deployments), pods)

    def forget_others(
        self, deployments: set[Key], pods: Mapping[Key, set[str]], before: Known | None = None
    ) -> list[tuple[Key, str]]:
        """A full list is the truth: what it does not hold was deleted while nobody watched. Returns the pods.

        `before`: what was known before the list was made; what a watch has shown since then is newer than the list.
        """
        before = before or self.known()
        self._fleets.clear()
        for key, fleet in before.deployments.items():
            if key not in deployments and self._deployments.get(key) is fleet:
                del self._deployments[key]
        gone = [at for at in before.pods if at[1] not in pods.get(at[0], ())]
        gone = [(key, name) for key, name in gone if self._pods[key].get(name) is before.pods[key, name]]
        for key, name in gone:
            del self._pods[key][name]
        return gone

    def fleet(self, key: Key) -> Fleet:
        if key not in self._fleets:
            found = self._deployments.get(key, Fleet(exists=False))
            self._fleets[key] = replace(found, pods=tuple(self._pods.get(key, {}).values()))
        return self._fleets[key]

    def lost_deployment(self, key: Key) -> None:
        """A request found that it is gone, before any watch has told."""
        self._fleets.pop(key, None)
        self._deployments.pop(key, None)

    def wrote(self, key: Key, replicas: int, version: str) -> None:
        """A write of ours that the watch has not shown yet: the next tick must not repeat it."""
        found = self._deployments.get(key)
        if found is not None and not is_older(version, found.version):
            self._fleets.pop(key, None)
            self._deployments[key] = replace(found, asked_for=replicas, version=version)


def is_older(version: str, known: str) -> bool:
    """Whether a watch shows a state from before a write of ours. Versions of one resource grow, as numbers."""
    return version.isdecimal() and known.isdecimal() and int(version) < int(known)


class KubeCluster:
    """The port of the control loop, by requests to an API server."""

    def __init__(self, requests: Requests, watched: Watched, *, allow_service_accounts: bool = False) -> None:
        self.requests = requests
        self.watched = watched
        self.on_ghost: Callable[[], None] = lambda: None
        """Called when a pool turns out to be gone that no watch has told of."""
        self._allow_service_accounts = allow_service_accounts
        self._made: dict[str, None] = {}
        """Uids of the pools whose Deployments were there; the last of them, in the order of their last apply."""

    def fleet(self, key: Key) -> Fleet:
        return self.watched.fleet(key)

    async def apply(self, pool: Pool) -> None:
        """Create it with no replicas, or else a new pool would start a pod for nothing; then apply without them."""
        key = Key(pool.namespace, pool.name)
        made = manifests.deployment(pool, allow_service_accounts=self._allow_service_accounts)
        if not await self._is_applied(key, made):
            await self._check_is_there(pool)
            await self._apply_onto(key, made, await self._create(key, made))
        self._remember(pool.uid)
        await self._apply_budget(pool)

    async def _apply_budget(self, pool: Pool) -> None:
        """Without force: a pod may have one budget only, so whoever wants another than ours has it under this name."""
        path = BUDGETS.format(pool.namespace, pool.name)
        try:
            await self.requests.send("PATCH", query(path, _WRITTEN), manifests.disruption_budget(pool), kind=APPLY)
        except (Conflict, Refused) as error:
            if not _is_anothers(error):
                raise
            logger.info("pool %s/%s: a PodDisruptionBudget of its name stays: %s", pool.namespace, pool.name, error)

    def _remember(self, uid: str) -> None:
        self._made.pop(uid, None)
        self._made[uid] = None
        while len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]

    async def _is_applied(self, key: Key, made: dict[str, Any]) -> bool:
        """Onto the Deployment that the watch shows. False if there is none, or none any more."""
        fleet = self.watched.fleet(key)
        if not fleet.exists:
            return False
        try:
            await self._apply_onto(key, made, fleet.uid)
        except Conflict:
            pass
        except Refused:  # what a server says if there is another one of that name
            if (await self._look_up(key))["metadata"].get("uid", "") == fleet.uid:
                raise
        else:
            return True
        self.watched.lost_deployment(key)
        return False

    async def _check_is_there(self, pool: Pool) -> None:
        """Its Deployment vanished, maybe with the pool itself: then none is made again. Raises NotThere."""
        if pool.uid not in self._made:
            return
        path = POOLS.format(pool.namespace, "").rstrip("/")
        found = await self.requests.send("GET", query(path, {"fieldSelector": f"metadata.name%3D{pool.name}"}))
        if pool.uid not in [each["metadata"]["uid"] for each in found["items"]]:
            self.on_ghost()
            raise NotThere(f"the WorkerPool {pool.name} was deleted")

    async def _create(self, key: Key, made: dict[str, Any]) -> str:
        """Returns the uid of the Deployment, which may have been there all the while."""
        path = DEPLOYMENTS.format(key.namespace, "").rstrip("/")
        empty = {**made, "spec": {**made["spec"], "replicas": 0}}
        try:
            shown = await self.requests.send("POST", query(path, _WRITTEN), empty)
        except Conflict:  # it is there, and the watch has not shown it yet
            shown = await self._look_up(key)
        return str(shown["metadata"].get("uid", ""))

    async def _look_up(self, key: Key) -> dict[str, Any]:
        try:
            return await self.requests.send("GET", DEPLOYMENTS.format(*key) + "/scale")
        except NotThere:
            raise Conflict("the Deployment is made and deleted again meanwhile") from None

    async def _apply_onto(self, key: Key, made: dict[str, Any], uid: str) -> None:
        """Onto the very Deployment that was seen, and no other.

        An apply onto one that has just vanished would make it anew, with one replica, which is what a Deployment has
        whose template names no number. The uid makes that a conflict.
        """
        path = DEPLOYMENTS.format(*key)
        body = {**made, "metadata": {**made["metadata"], "uid": uid}} if uid else made
        try:
            shown = await self.requests.send("PATCH", query(path, _APPLIED), body, kind=APPLY)
        except Refused as error:
            raise _other_name(key, error) from None
        owners = corrected(shown["metadata"].get("managedFields", []), MANAGER)
        if owners is not None:
            # Without a version: controllers write at the same time, and what they own they come to own again.
            own = {"metadata": {"managedFields": owners}}
            shown = await self.requests.send("PATCH", query(path, _WRITTEN), own, kind=MERGE)
        self.watched.saw_deployment(shown, deleted=False)

    async def scale(self, key: Key, replicas: int, fleet: Fleet) -> None:
        """Only if nobody else changed the number since `fleet` was seen; a mere change of the status does not count."""
        path = DEPLOYMENTS.format(*key) + "/scale"
        try:
            await self._scale(path, replicas, key, fleet)
        except NotThere:
            self.watched.lost_deployment(key)
            raise Conflict("the Deployment is deleted meanwhile") from None

    async def _scale(self, path: str, replicas: int, key: Key, fleet: Fleet) -> None:
        version = fleet.version
        # What lowers was decided for pods as they were: by the time of many tries one of them may have claimed a task.
        for _ in range(SCALE_TRIES if replicas > fleet.asked_for else 2):
            with suppress(Conflict):
                shown = await self._set(path, replicas, version)
                self.watched.wrote(key, replicas, shown["metadata"]["resourceVersion"])
                return
            now = await self.requests.send("GET", path)
            if now["spec"].get("replicas", 0) != fleet.asked_for:
                raise Conflict(f"somebody else set replicas to {now['spec'].get('replicas', 0)}")
            version = now["metadata"]["resourceVersion"]
        raise Conflict("the Deployment was changed again and again while its size was written")

    async def _set(self, path: str, replicas: int, version: str) -> dict[str, Any]:
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        return await self.requests.send("PATCH", query(path, _WRITTEN), body, kind=MERGE)

    async def look_again(self, key: Key) -> None:
        try:
            now = await self.requests.send("GET", DEPLOYMENTS.format(*key) + "/scale")
        except NotThere:
            self.watched.lost_deployment(key)
            return
        self.watched.wrote(key, now["spec"].get("replicas", 0), now["metadata"]["resourceVersion"])

    async def mark(self, key: Key, pods: Sequence[str], *, cheap: bool) -> None:
        await self._annotate(key, pods, {COST: CHEAP if cheap else None})

    async def guard(self, key: Key, pods: Sequence[str], *, busy: bool) -> None:
        await self._annotate(key, pods, {name: value if busy else None for name, value in GUARDS.items()})

    async def _annotate(self, key: Key, pods: Sequence[str], annotations: dict[str, str | None]) -> None:
        done = (self._annotate_one(key, name, annotations) for name in pods)
        failed = [each for each in await asyncio.gather(*done, return_exceptions=True) if each is not None]
        for error in failed[:1]:
            raise error

    async def _annotate_one(self, key: Key, name: str, annotations: dict[str, str | None]) -> None:
        path, body = PODS.format(key.namespace, name), {"metadata": {"annotations": annotations}}
        try:
            shown = await self.requests.send("PATCH", query(path, _WRITTEN), body, kind=MERGE)
        except NotThere:
            return  # it is gone already
        self.watched.marked_pod(shown)

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        path = POOLS.format(pool.namespace, pool.name) + "/status"
        try:
            await self.requests.send("PATCH", query(path, _WRITTEN), {"status": status}, kind=MERGE)
        except NotThere:
            return  # the pool was deleted; its watch tells in a moment

    async def tell(self, pool: Ref, news: News) -> None:
        await self.requests.send("POST", EVENTS.format(pool.namespace), event(pool, news, datetime.now(UTC)))


def _other_name(key: Key, error: Refused) -> Refused:
    """No selector is ever changed, so one that is another was never this pool's."""
    if "spec.selector" not in str(error) or "immutable" not in str(error):
        return error
    return Refused(
        f"the Deployment {key.name} is somebody else's, for it selects other pods: delete it, or give the pool "
        f"another name ({error})"
    )


def _is_anothers(error: ClusterError) -> bool:
    """What a server says where somebody else has set what we would, or the opposite."""
    return str(error).startswith("Apply failed with") or "cannot be both set" in str(error)


def event(pool: Ref, news: News, now: datetime) -> dict[str, Any]:
    """A core/v1 Event about a pool."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "apiVersion": API_VERSION, "kind": "WorkerPool",
        "name": pool.name, "namespace": pool.namespace, "uid": pool.uid,
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": f"{pool.name}.", "namespace": pool.namespace},
        "involvedObject": about, "type": news.type, "reason": str(news.reason), "message": news.message[:1_000],
        "source": {"component": MANAGER}, "reportingComponent": MANAGER, "firstTimestamp": stamp,
        "lastTimestamp": stamp, "count": 1,
    }  # fmt: skip
