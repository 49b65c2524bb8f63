"""What the operator may do in a cluster, and why: one table, of which deploy/rbac.yaml and its like are made.

`python -m headrace_operator.rbac` prints the rights for a whole cluster, with `--namespaces shop,mail` those for these
namespaces only. A test runs the operator with exactly these rights and compares them with what it asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

Scope = Literal["namespace", "own"]
"""Where a right is needed: in each watched namespace, in the operator's own namespace."""

NAME: Final = "headrace-operator"


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on one resource."""

    group: str
    resource: str
    verbs: Mapping[str, str]
    """Verb → what it is for."""
    names: tuple[str, ...] = ()
    """Only objects of these names; none means all."""
    scope: Scope = "namespace"
    asked_by: Literal["operator", "admission"] = "operator"
    """`admission`: no request of ours has this verb, but the API server refuses another one without the right."""


_WATCHED: Final = "what the watch begins with, and begins anew with when it broke off; the full list each five minutes"
RIGHTS: Final = (
    Right("headrace.dev", "workerpools", {"list": _WATCHED, "watch": "pools as they come, change and go"}),
    Right("headrace.dev", "workerpools/status", {"patch": "counts, the decision in words, conditions"}),
    Right(
        "headrace.dev", "workerpools/finalizers",
        {"update": "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on"},
        asked_by="admission",
    ),
    Right(
        "apps", "deployments",
        {
            "list": _WATCHED,
            "watch": "replicas, rollouts, and who else writes them",
            "create": "a pool's Deployment, with no replicas",
            "patch": "server-side apply of what the template says; without replicas",
        },
    ),
    Right(
        "apps", "deployments/scale",
        {"patch": "the number of replicas", "get": "after a conflict: whether somebody else changed the number"},
    ),
    Right(
        "", "pods",
        {
            "list": _WATCHED,
            "watch": "containers that ended, and why; pods that do not start",
            "patch": "annotations: who goes first, who is not to be moved",
        },
    ),
    Right("policy", "poddisruptionbudgets", {"patch": "server-side apply of the pool's budget"}),
    Right(
        "policy",
        "poddisruptionbudgets",
        {"create": "the same, where there is none yet"},
        asked_by="admission",
    ),
    Right("", "events", {"create": "what happened, for kubectl describe"}),
    Right("coordination.k8s.io", "leases", {"create": "the first of several operators makes it"}, scope="own"),
    Right(
        "coordination.k8s.io", "leases", {"get": "which of them works", "update": "to take it, and to keep it"},
        scope="own", names=(NAME,),
    ),
)  # fmt: skip

Manifest = dict[str, Any]


def for_cluster(operator: str = "headrace") -> list[Manifest]:
    """An operator that lives in the namespace `operator` and works in all."""
    account = _object("v1", "ServiceAccount", operator)
    rights = [right for right in RIGHTS if right.scope != "own"]
    role = _object("rbac.authorization.k8s.io/v1", "ClusterRole", None, rules=rules(rights))
    binding = _binding("ClusterRoleBinding", "ClusterRole", None, operator)
    return [account, role, binding, *_within(operator, "own", operator)]


def for_namespaces(namespaces: Iterable[str], operator: str = "headrace") -> list[Manifest]:
    """An operator that works in these namespaces, and has no right anywhere else."""
    found = [_object("v1", "ServiceAccount", operator)]
    for name in namespaces:
        found += _within(name, "namespace", operator)
    return [*found, *_within(operator, "own", operator, f"{NAME}-lease")]


def _within(namespace: str, scope: Scope, operator: str, name: str = NAME) -> list[Manifest]:
    rights = [right for right in RIGHTS if right.scope == scope]
    role = _object("rbac.authorization.k8s.io/v1", "Role", namespace, name, rules=rules(rights))
    return [role, _binding("RoleBinding", "Role", namespace, operator, name)]


def _binding(kind: str, role: str, namespace: str | None, operator: str, name: str = NAME) -> Manifest:
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": operator}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name}
    return _object("rbac.authorization.k8s.io/v1", kind, namespace, name, roleRef=reference, subjects=subjects)


def _object(api: str, kind: str, namespace: str | None, name: str = NAME, **more: Any) -> Manifest:
    metadata: Manifest = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    metadata["labels"] = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "headrace"}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}


def rules(rights: Iterable[Right]) -> list[Manifest]:
    """As a Role lists them."""
    return [_rule(right) for right in rights]


def _rule(right: Right) -> Manifest:
    names = {"resourceNames": list(right.names)} if right.names else {}
    return {"apiGroups": [right.group], "resources": [right.resource], **names, "verbs": list(right.verbs)}


def text(manifests: Sequence[Manifest], command: str) -> str:
    """As a file, with the reason of every right."""
    why = [f"#   {right.resource} {verb}: {reason}" for right in RIGHTS for verb, reason in right.verbs.items()]
    head = [
        f"# The rights of headrace's operator, printed by: python -m headrace_operator.rbac{command}",
        "# It reads no Secrets, makes no pods, deletes nothing, and grants no rights. But who may make WorkerPools in",
        "# a namespace may run pods there, by their template; a service account in it is refused unless a setting",
        "# allows it.",
        "#",
        "# What each verb is for:",
        *why,
    ]
    body: str = yaml.safe_dump_all(manifests, sort_keys=False, default_flow_style=None)
    return "\n".join(head) + "\n---\n" + body


def main(arguments: Sequence[str] | None = None) -> None:
    """Print them."""
    parser = argparse.ArgumentParser(prog="python -m headrace_operator.rbac", description="The operator's rights.")
    parser.add_argument("--namespaces", help="only these, as in shop,mail; by default the whole cluster")
    parser.add_argument("--operator-namespace", default="headrace", help="where the operator runs [headrace]")
    given = parser.parse_args(arguments)
    command = "" if given.namespaces is None else f" --namespaces {given.namespaces}"
    if given.operator_namespace != "headrace":
        command += f" --operator-namespace {given.operator_namespace}"
    if given.namespaces is None:
        manifests = for_cluster(given.operator_namespace)
    else:
        manifests = for_namespaces(given.namespaces.split(","), given.operator_namespace)
    sys.stdout.write(text(manifests, command))


if __name__ == "__main__":
    main()
