"""The world that the operator's model test acts on: Deployments and pods, as they really are.

What the operator sees of it comes through watches that lag (operator_model_api.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace_operator.fleet import CHEAP, COST
from headrace_operator.manifests import MANAGED, POOL
from operator_model_queue import EPOCH, TrueQueue, Worker

Raw = dict[str, Any]


def rfc3339(at_s: float) -> str:
    """Whole seconds, cut off."""
    return datetime.fromtimestamp(EPOCH + int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class TruePod:
    name: str
    born_s: float
    template: str
    ready: bool = False
    leaving: bool = False
    failed: bool = False
    cheap: bool = False
    stuck: bool = False
    """It stays pending until somebody makes room."""
    boots: int = 0
    worker: Worker | None = None
    ended: Raw | None = None
    running_since_s: float | None = None
    crashed_s: float | None = None
    died_unheard: bool = False
    """A boot ended before its first beat: nobody can tell it from the one that follows in the same second."""

    def raw(self, pool: str, namespace: str) -> Raw:
        state: Raw = {"waiting": {"reason": "ContainerCreating"}}
        if self.running_since_s is not None:
            state = {"running": {"startedAt": rfc3339(self.running_since_s)}}
        container: Raw = {"name": "worker", "state": state}
        if self.ended is not None:
            container["lastState"] = {"terminated": self.ended}
        metadata: Raw = {
            "name": self.name, "namespace": namespace, "labels": {**MANAGED, POOL: pool},
            "creationTimestamp": rfc3339(self.born_s), "annotations": {COST: CHEAP} if self.cheap else {},
        }  # fmt: skip
        if self.leaving and not self.failed:
            metadata["deletionTimestamp"] = rfc3339(self.born_s)
        status: Raw = {
            "phase": "Failed" if self.failed else "Running",
            "conditions": [{"type": "Ready", "status": str(self.ready)}],
            "containerStatuses": [container],
        }
        if self.failed:
            status["reason"] = "Evicted"
        return {"metadata": metadata, "status": status}

    @property
    def order(self) -> tuple[bool, bool, bool, float, str]:
        """Which pod a ReplicaSet stops first: pending, not ready, cheap, newest."""
        return (self.running_since_s is not None, self.ready, not self.cheap, -self.born_s, self.name)


@dataclass
class TrueDeployment:
    uid: str
    replicas: int = 0
    template: str = ""
    generation: int = 1
    observed: int = 0
    version: int = 0


class TruePool:
    """The Deployment of one WorkerPool and its pods."""

    def __init__(self, name: str, queue: TrueQueue) -> None:
        self.name, self.namespace = name, "shop"
        self.queue = queue
        self.deployment: TrueDeployment | None = None
        self.pods: dict[str, TruePod] = {}
        self.made = 0
        self.foreign = False
        """Somebody else lowered the number, and the pods that this costs are not stopped yet."""
        self.excused: set[str] = set()
        """Pods of which nobody could know that they work when the number was lowered."""

    @property
    def staying(self) -> list[TruePod]:
        return [pod for pod in self.pods.values() if not pod.leaving]

    @property
    def rolling(self) -> bool:
        made = self.deployment
        return made is not None and any(pod.template != made.template for pod in self.staying)

    @property
    def workers(self) -> Iterator[tuple[TruePod, Worker]]:
        return ((pod, pod.worker) for pod in self.pods.values() if pod.worker is not None)

    def running(self, pod: TruePod) -> int:
        return self.queue.running(pod.worker.name) if pod.worker is not None else 0

    def deployment_raw(self) -> Raw:
        made = self.deployment
        assert made is not None
        fresh = sum(pod.template == made.template for pod in self.staying)
        return {
            "metadata": {
                "name": self.name, "namespace": self.namespace, "labels": {**MANAGED, POOL: self.name},
                "generation": made.generation, "resourceVersion": str(made.version), "uid": made.uid,
            },
            "spec": {"replicas": made.replicas},
            "status": {
                "observedGeneration": made.observed, "replicas": len(self.staying), "updatedReplicas": fresh
            },
        }  # fmt: skip
