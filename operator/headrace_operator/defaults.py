"""What the pods of every pool have where its own template says nothing: the wishes of who runs the cluster. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from .manifests import WORKER
from .spec import PoolSpec, said

Template = dict[str, Any]
NOT_HERE: Final = {
    "terminationGracePeriodSeconds": "a pool's own timeouts make it",
    "serviceAccountName": "it would be the account of whoever may make pools",
    "restartPolicy": "a Deployment has only one",
    "initContainers": "they belong to a pool's image",
}
"""Fields of a pod that cannot be the same for all pools → why."""


@dataclass(frozen=True, slots=True)
class House:
    """What who runs the operator decides for all pools."""

    tenants: bool = False
    """Whether each Kubernetes namespace is a namespace of headrace; else all are `default`."""
    pod_defaults: Mapping[str, Any] = field(default_factory=dict)


def read(given: str) -> Template:
    """A part of a pod template, as JSON. Raises ValueError with what is wrong."""
    found = said(json.loads(given or "{}"))
    if not isinstance(found, dict) or not found.keys() <= {"metadata", "spec"}:
        raise ValueError("it is no object of metadata and spec")
    if not all(isinstance(each, dict) for each in found.values()):
        raise ValueError("metadata and spec must be objects")
    for name, why in NOT_HERE.items():
        if name in found.get("spec", {}):
            raise ValueError(f"spec.{name} cannot be the same for all pools: {why}")
    containers = found.get("spec", {}).get("containers", [])
    if not isinstance(containers, list) or len(containers) > 1 or not _objects(containers):
        raise ValueError("spec.containers has more than one object, which is the worker's")
    return found


def _objects(found: list[Any]) -> bool:
    return all(isinstance(each, dict) for each in found)


def filled(spec: PoolSpec, defaults: Mapping[str, Any]) -> PoolSpec:
    """With a template that has them too. Maps are merged, all else is taken as the pool says it."""
    return msgspec.structs.replace(spec, template=_template(spec.template, defaults)) if defaults else spec


def _template(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Template:
    pods = dict(defaults.get("spec", {}))
    worker = (pods.pop("containers", None) or [{}])[0]
    made = merged(own, {**defaults, "spec": pods})
    spec = made.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    if worker and isinstance(containers, list) and containers and _objects(containers):
        named = [place for place, each in enumerate(containers) if each.get("name") == WORKER]
        place = named[0] if named else 0
        containers[place] = merged(containers[place], worker)
    return made


def merged(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Template:
    """Both, and what both say as `own` has it."""
    found = copy.deepcopy(dict(own))
    for name, value in defaults.items():
        if name not in found:
            found[name] = copy.deepcopy(value)
        elif isinstance(found[name], dict) and isinstance(value, Mapping):
            found[name] = merged(found[name], value)
    return found
