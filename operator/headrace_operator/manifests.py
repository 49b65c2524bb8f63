"""What a pool is made of in Kubernetes: a Deployment and a PodDisruptionBudget, as plain dicts. Pure.

What the pool's template says wins over what is filled in here. `spec.replicas` is never part of it: replicas belong to
the scale subresource, so that a new template and a new size cannot fight.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from .spec import InvalidSpec, PoolSpec

Manifest = dict[str, Any]

POOL: Final = "headrace.dev/pool"
"""The label that finds a pool's pods; the only one in the selector, which can never be changed."""
TEMPLATE: Final = "headrace.dev/template"
"""Annotation of the pods: which template of the pool they are made of."""
CONTAINER: Final = "headrace.dev/container"
"""Annotation of the pods: which of their containers is the worker, where it is not called `worker`."""
MANAGED: Final = {"app.kubernetes.io/managed-by": "headrace", "app.kubernetes.io/component": "worker"}
METRICS_PORT: Final = 9464
WORKER: Final = "worker"
# What Pod Security `restricted` asks for, and no more: a read-only root would break images that write to /tmp.
_STRICT: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_STRICT_POD: Final = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


class InvalidTemplate(InvalidSpec):
    """A pod template that no worker can be made of."""


class Ref(NamedTuple):
    """Names one WorkerPool object, whatever its spec says."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Pool:
    """One WorkerPool as the manifests need it."""

    name: str
    namespace: str
    uid: str
    spec: PoolSpec
    tenant: str = "default"
    """The headrace namespace, which is a prefix of the keys."""

    @property
    def ref(self) -> Ref:
        return Ref(self.namespace, self.name, self.uid)


def deployment(pool: Pool, *, allow_service_accounts: bool = False) -> Manifest:
    """For server-side apply; without `spec.replicas`. Raises InvalidTemplate."""
    template = pod_template(pool, allow_service_accounts=allow_service_accounts)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(pool),
        "spec": {"selector": {"matchLabels": {POOL: pool.name}}, "template": template},
    }


def disruption_budget(pool: Pool) -> Manifest:
    """At most one of a pool's pods at a time may be evicted on purpose; broken ones always."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(pool),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {POOL: pool.name}},
        },
    }


def selector(name: str) -> str:
    """Finds a pool's pods; for the scale subresource."""
    return f"{POOL}={name}"


def fingerprint(template: Mapping[str, Any]) -> str:
    """Tells one template from another, whatever the order of its keys."""
    return hashlib.sha256(msgspec.json.encode(template, order="deterministic")).hexdigest()[:16]


def pod_template(pool: Pool, *, allow_service_accounts: bool = False) -> Manifest:
    """The pool's template, filled in. Raises InvalidTemplate, with the field's name."""
    template = copy.deepcopy(pool.spec.template)
    spec = _object(template, "spec", "spec.template")
    _check_pod(spec, allow_service_accounts)
    containers = _containers(spec)
    worker = _worker_of(containers)
    _fill_container(worker, pool)
    for container in [*containers, *_list(spec, "initContainers", "spec.template.spec")]:
        _defaults(_object(container, "securityContext", "spec.template.spec.containers"), _STRICT)
    _defaults(_object(spec, "securityContext", "spec.template.spec"), _STRICT_POD)
    if not spec["initContainers"]:
        del spec["initContainers"]
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("terminationGracePeriodSeconds", pool.spec.grace_s)
    spec.setdefault("topologySpreadConstraints", [_spread(pool.name)])
    metadata = _object(template, "metadata", "spec.template")
    _object(metadata, "labels", "spec.template.metadata").update({**MANAGED, POOL: pool.name})
    named = {} if worker["name"] == WORKER else {CONTAINER: worker["name"]}
    annotations = {TEMPLATE: fingerprint(pool.spec.template), **named}
    _object(metadata, "annotations", "spec.template.metadata").update(annotations)
    return template


def _metadata(pool: Pool) -> Manifest:
    owner = {
        "apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "name": pool.name, "uid": pool.uid,
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    labels = {**MANAGED, POOL: pool.name}
    return {"name": pool.name, "namespace": pool.namespace, "labels": labels, "ownerReferences": [owner]}


def _object(parent: Manifest, name: str, where: str) -> Manifest:
    value = parent.setdefault(name, {})
    if not isinstance(value, dict):
        raise InvalidTemplate(f"{where}.{name} must be an object, not {type(value).__name__}.")
    return value


def _check_pod(spec: Manifest, allow_service_accounts: bool) -> None:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account and account != "default" and not allow_service_accounts:
        raise InvalidTemplate(
            f"spec.template.spec.serviceAccountName {account!r} is refused: whoever may make pools would run as it. "
            "The operator's setting HEADRACE_OPERATOR_ALLOW_SERVICE_ACCOUNTS allows it."
        )
    if spec.get("restartPolicy", "Always") != "Always":
        raise InvalidTemplate("spec.template.spec.restartPolicy must be Always, as for every Deployment.")


def _containers(spec: Manifest) -> list[Manifest]:
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers or not all(isinstance(each, dict) for each in containers):
        raise InvalidTemplate("spec.template.spec.containers needs at least one container, which is the worker.")
    return containers


def _worker_of(containers: list[Manifest]) -> Manifest:
    """The container called `worker`, else the first one."""
    named = [each for each in containers if each.get("name") == WORKER]
    worker = named[0] if named else containers[0]
    worker.setdefault("name", WORKER)
    if not worker.get("image"):
        raise InvalidTemplate(f"spec.template.spec.containers[{worker['name']}] needs an image.")
    return worker


def _fill_container(container: Manifest, pool: Pool) -> None:
    where = f"spec.template.spec.containers[{container['name']}]"
    _merge_named(container, "env", environment(pool), where)
    _fill_port(_list(container, "ports", where))
    _list(container, "envFrom", where).append(
        {"prefix": "redis_secret_", "secretRef": {"name": pool.spec.redis.secret_name}}
    )
    probe = {"httpGet": {"path": "/livez", "port": METRICS_PORT}, "timeoutSeconds": 5}
    container.setdefault("startupProbe", {**probe, "periodSeconds": 1, "failureThreshold": 60})
    container.setdefault("livenessProbe", {**probe, "periodSeconds": 10, "failureThreshold": 3})
    # Ready as soon as it runs, whatever Redis does: a busy pod that turns unready would be the first to be stopped.
    container.setdefault("readinessProbe", {**probe, "periodSeconds": 1, "failureThreshold": 30})


def _fill_port(ports: list[Manifest]) -> None:
    """That of the metrics, by the name by which they are scraped, unless the template gives it to another port."""
    found = [port for port in ports if port.get("containerPort") == METRICS_PORT]
    if not found:
        found = [{"containerPort": METRICS_PORT, "protocol": "TCP"}]
        ports.extend(found)
    taken = any(port.get("name") == "metrics" for port in ports)
    found[0].setdefault("name", "headrace" if taken else "metrics")


def environment(pool: Pool) -> list[Manifest]:
    """What the worker is told, as Kubernetes writes it."""
    spec = pool.spec
    queues = ",".join(f"{queue.name}={queue.weight}" for queue in spec.queues)
    plain = {
        "HEADRACE_QUEUES": queues,
        "HEADRACE_NAMESPACE": pool.tenant,
        "HEADRACE_CONCURRENCY": str(spec.worker.concurrency),
        "HEADRACE_SOFT_TIMEOUT_S": f"{spec.worker.task_timeout_seconds:g}",
        "HEADRACE_GRACE_S": str(spec.worker_grace_s),
        "HEADRACE_METRICS_PORT": str(METRICS_PORT),
        "HEADRACE_LOG_FORMAT": "json",
        "HEADRACE_REDIS_SECRET": spec.redis.secret_name,
    }
    suspects = ",".join(f"{each.name}={each.suspects.lower()}" for each in spec.queues if each.suspects != "Run")
    if suspects:  # images of before do not know it
        plain["HEADRACE_SUSPECTS"] = suspects
    own_name = {"name": "WORKER_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    secret = spec.redis.secret_name
    return [
        own_name,
        *({"name": name, "value": value} for name, value in plain.items()),
        *(_from_secret(name, secret, key) for name, key in _SECRET_KEYS.items()),
    ]


_SECRET_KEYS: Final = {
    "HEADRACE_URL": "url",
    "REDIS_ADDR": "addr",
    "REDIS_PASSWORD": "password",
    "HEADRACE_REDIS_USERNAME": "username",
    "HEADRACE_REDIS_PASSWORD": "password",
    "HEADRACE_REDIS_SENTINEL_PASSWORD": "sentinel-password",
}
REDIS: Final = frozenset({*_SECRET_KEYS, "HEADRACE_REDIS_SECRET"})
"""Variables of a pod that say which Redis there is."""


def _from_secret(name: str, secret: str, key: str) -> Manifest:
    reference = {"name": secret, "key": key, "optional": True}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _spread(name: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {POOL: name}},
    }


def _list(parent: Manifest, name: str, where: str) -> list[Manifest]:
    value = parent.setdefault(name, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidTemplate(f"{where}.{name} must be a list of objects.")
    return value


def _merge_named(parent: Manifest, name: str, more: list[Manifest], where: str) -> None:
    """Append what is not there yet under its name."""
    there = _list(parent, name, where)
    for at, each in enumerate(there):
        if not isinstance(each.get("name"), str):
            raise InvalidTemplate(f"{where}.{name}[{at}].name must be a text.")
    names = {each["name"] for each in there}
    there.extend(each for each in more if each["name"] not in names)


def _defaults(target: Manifest, defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        target.setdefault(name, copy.deepcopy(value))
