"""What runs of a pool, whether in pods or in processes; and how a cluster's own objects are read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from .manifests import CONTAINER, POOL, WORKER

Raw = Mapping[str, Any]


class Key(NamedTuple):
    """Names a pool."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that ended, which is proof that the worker in it is dead."""

    at_s: float
    """Unix time, whole seconds as Kubernetes tells it."""
    cause: str
    """OOMKilled, Error, Evicted, … with the exit code."""
    harmless: bool
    """It left by itself, or the cluster ended it (eviction, preemption, node shutdown): no task is to blame."""
    again_s: float | None = None
    """When the container that followed began, if there is one."""

    @property
    def alive_from_ms(self) -> int:
        """Workers of this pod that began before that are dead. Whole seconds are cut off, so an end counts up."""
        return int((self.at_s + 1 if self.again_s is None else self.again_s) * 1_000)


@dataclass(frozen=True, slots=True)
class Pod:
    """One replica as the cluster shows it."""

    name: str
    born_s: float
    ready: bool = False
    leaving: bool = False
    """It is being deleted, or has ended for good."""
    cheap: bool = False
    """It is marked to go first."""
    guarded: bool = False
    """What moves pods to save nodes is asked to leave it alone."""
    waiting: str = ""
    """Why its worker does not start: CreateContainerConfigError: secret "headrace-redis" not found."""
    ended: Ended | None = None
    version: str = field(default="", compare=False)
    """Changes whenever the pod changed, mostly in what is of no interest here."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All replicas of a pool."""

    asked_for: int = 0
    pods: tuple[Pod, ...] = ()
    exists: bool = True
    """The Deployment is there."""
    rollout: bool = False
    """Pods of two templates run side by side."""
    behind: bool = False
    """The cluster has not taken note of the present number yet, and may still act by the one before."""
    version: str = ""
    """Changes whenever the Deployment changed: a write based on an older one is refused."""
    uid: str = ""
    """Of the Deployment: one that is made anew under the same name is another."""
    refused: str = ""
    """Why the cluster makes no pod that is asked for: a quota, a webhook …"""

    @property
    def staying(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if not pod.leaving)

    @property
    def ready(self) -> int:
        return sum(pod.ready for pod in self.staying)


COST: Final = "controller.kubernetes.io/pod-deletion-cost"
CHEAP: Final = "-1"
GUARDS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
_CLUSTERS_DOING: Final = {"Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost", "UnexpectedAdmissionError"}
_STARTING: Final = {"ContainerCreating", "PodInitializing"}


def pool_of(raw: Raw) -> Key | None:
    """Which pool an object belongs to, by its label."""
    metadata = raw.get("metadata", {})
    name = metadata.get("labels", {}).get(POOL)
    return Key(metadata.get("namespace", ""), name) if name else None


def read_pod(raw: Raw) -> Pod:
    """A Pod object as it comes from the API server."""
    metadata, status = raw["metadata"], raw.get("status", {})
    container = _worker_status(raw)
    state = container.get("state", {})
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    return Pod(
        name=metadata["name"],
        born_s=unix(metadata.get("creationTimestamp")),
        ready=conditions.get("Ready", {}).get("status") == "True",
        leaving="deletionTimestamp" in metadata or status.get("phase") in {"Succeeded", "Failed"},
        cheap=metadata.get("annotations", {}).get(COST) == CHEAP,
        guarded=bool(GUARDS.keys() & metadata.get("annotations", {}).keys()),
        waiting=_waiting(state.get("waiting", {})),
        ended=_ended(status, conditions, state, container.get("lastState", {})),
        version=metadata.get("resourceVersion", ""),
    )


def _worker_status(raw: Raw) -> Raw:
    """By name: a kubelet sorts statuses, and whoever injects containers may put them first."""
    statuses: dict[str, Raw] = {each.get("name"): each for each in raw.get("status", {}).get("containerStatuses", ())}
    named = raw["metadata"].get("annotations", {}).get(CONTAINER, WORKER)
    containers = [each["name"] for each in raw.get("spec", {}).get("containers", ())]
    # Pods of before say no name.
    name = named if named in statuses or named in containers else next(iter([*containers, *statuses]), "")
    return statuses.get(name, {})


def _waiting(waiting: Raw) -> str:
    reason = waiting.get("reason", "")
    if not reason or reason in _STARTING:
        return ""
    message = waiting.get("message", "")
    return f"{reason}: {message}" if message else str(reason)


def _ended(status: Raw, conditions: Mapping[str, Raw], state: Raw, last: Raw) -> Ended | None:
    ended = state.get("terminated") or last.get("terminated")
    if not ended:
        return None
    pod_reason = status.get("reason", "")
    disrupted = pod_reason in _CLUSTERS_DOING or conditions.get("DisruptionTarget", {}).get("status") == "True"
    reason = pod_reason or ended.get("reason") or "Error"
    running = state.get("running")
    return Ended(
        at_s=unix(ended.get("finishedAt")),
        cause=f"{reason}, exit code {ended.get('exitCode')}",
        harmless=disrupted or ended.get("exitCode") == 0,
        again_s=unix(running.get("startedAt")) if running else None,
    )


def read_deployment(raw: Raw) -> Fleet:
    """A Deployment object as it comes from the API server, without its pods."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    asked_for = spec.get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    version, uid = metadata.get("resourceVersion", ""), metadata.get("uid", "")
    refused = next((each.get("message", "") for each in status.get("conditions", ()) if _makes_none(each)), "")
    return Fleet(asked_for, rollout=not seen or old > 0, behind=not seen, version=version, uid=uid, refused=refused)


def _makes_none(condition: Raw) -> bool:
    failed = (condition.get("type"), condition.get("status"), condition.get("reason"))
    return failed == ("ReplicaFailure", "True", "FailedCreate")


def unix(text: str | None) -> float:
    """Unix time of an RFC 3339 text; 0 if there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
