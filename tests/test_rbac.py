"""The operator's rights: the files are what the table says, and the table is what the operator asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from control_plane import ControlPlane, running
from headrace_operator.rbac import RIGHTS, Right, for_cluster, for_namespaces, main, rules
from operator_process import DEPLOY, USER, Shop, account, check_rights, operator_process, use_every_right


@pytest.mark.parametrize(("file", "arguments"), [("rbac.yaml", []), ("rbac-namespace.yaml", ["--namespaces", "shop"])])
def test_the_files_are_what_the_table_says(file: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Else: python -m headrace_operator.rbac > deploy/rbac.yaml."""
    main(arguments)
    assert (DEPLOY / file).read_text() == capsys.readouterr().out


def test_nothing_is_granted_in_general() -> None:
    for manifest in [*for_cluster(), *for_namespaces(["shop"])]:
        for rule in manifest.get("rules", ()):
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not {word for word in words if "*" in word}
            assert not words & {"secrets", "delete", "deletecollection", "escalate", "bind", "impersonate"}


def test_an_operator_of_some_namespaces_has_no_right_in_the_cluster_as_a_whole() -> None:
    kinds = {manifest["kind"] for manifest in for_namespaces(["shop", "mail"])}
    assert kinds == {"ServiceAccount", "Role", "RoleBinding"}


# on a real API server


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("plane"), "OwnerReferencesPermissionEnforcement") as made:
        for name in ("headrace", "shop", "other"):
            made.kubectl("create", "namespace", name)
        yield made


def token(plane: ControlPlane, file: str) -> Path:
    """A kubeconfig for an account that has exactly the rights of this file."""
    return plane.kubeconfig(account(plane, file), "operator")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["rbac.yaml", "rbac-namespace.yaml"])
async def test_what_is_asked_for_is_what_is_granted(
    plane: ControlPlane, file: str, plane_redis: str, tmp_path: Path
) -> None:
    """By the API server's audit log: no verb is missing, and none is unused."""
    everywhere = file == "rbac.yaml"
    before = len(list(plane.requests()))
    kubeconfig = token(plane, file)
    namespaces: dict[str, Any] = {} if everywhere else {"namespaces": "shop"}
    shop = Shop(plane, plane_redis)
    lease: dict[str, Any] = {"lease": "true", "lease_namespace": "headrace"}
    try:
        with operator_process(kubeconfig, plane_redis, tmp_path / "log", **lease, **namespaces) as operator:
            await use_every_right(shop, operator, before)
    finally:
        shop.kubectl("delete", "workerpool,deployment,pdb", "--all")
        plane.kubectl("-n", "headrace", "delete", "lease", "--all")
        await shop.client.aclose()
    check_rights(plane, before, everywhere=everywhere)


HIDDEN: Final = [right for right in RIGHTS if right.asked_by == "admission"]


@pytest.mark.slow
@pytest.mark.parametrize("right", HIDDEN, ids=[right.resource for right in HIDDEN])
async def test_what_only_admission_asks_for_is_needed(
    plane: ControlPlane, right: Right, plane_redis: str, tmp_path: Path
) -> None:
    """Without it the API server refuses what the operator asks for, and the pool says so."""
    kubeconfig = token(plane, "rbac.yaml")
    role = plane.get("clusterrole", "headrace-operator")
    role["rules"] = [rule for rule in role["rules"] if rule not in rules([right])]
    plane.kubectl("apply", "-f", "-", given=role)
    shop = Shop(plane, plane_redis, "other")
    try:
        with operator_process(kubeconfig, plane_redis, tmp_path / "log"):
            shop.apply()
            await shop.until(lambda: "Refused" in shop.kubectl("get", "wp", "emails", "-o", "jsonpath={.status}"))
    finally:
        shop.kubectl("delete", "workerpool,deployment", "--all")
        await shop.client.aclose()


DENIED: Final = [
    *((verb, "", "secrets", "") for verb in ("get", "list", "watch", "create", "update", "patch", "delete")),
    *((verb, "", "configmaps", "") for verb in ("get", "list", "create", "update")),
    *(("create", "", "pods", part) for part in ("", "exec", "attach", "portforward", "proxy", "eviction", "binding")),
    *((verb, "", "pods", "log") for verb in ("get",)),
    *(("update", "", "pods", part) for part in ("", "status", "ephemeralcontainers")),
    *(("delete", group, name, "") for group, name in (
        ("", "pods"), ("", "events"), ("", "namespaces"), ("apps", "deployments"), ("apps", "replicasets"),
        ("headrace.dev", "workerpools"), ("policy", "poddisruptionbudgets"), ("coordination.k8s.io", "leases"))),
    *(("deletecollection", group, name, "") for group, name in (("", "pods"), ("apps", "deployments"))),
    *((verb, "headrace.dev", "workerpools", "") for verb in ("create", "update", "patch")),
    *((verb, "rbac.authorization.k8s.io", name, "") for verb in ("create", "update", "bind", "escalate")
      for name in ("roles", "clusterroles", "rolebindings")),
    *(("create", "", "serviceaccounts", part) for part in ("", "token")),
    *(("impersonate", "", name, "") for name in ("users", "groups", "serviceaccounts")),
    *((verb, "", name, "") for verb in ("get", "list", "patch") for name in ("nodes", "services", "namespaces")),
    *(("create", "apps", name, "") for name in ("daemonsets", "statefulsets", "replicasets")),
    ("create", "batch", "jobs", ""), ("create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""), ("*", "*", "*", ""),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("file", ["rbac.yaml", "rbac-namespace.yaml"])
def test_what_is_denied(plane: ControlPlane, file: str) -> None:
    token(plane, file)
    asked = [*((*row, "shop") for row in DENIED), *_granted("other" if file == "rbac-namespace.yaml" else None)]
    assert len(asked) > 60
    items = {"apiVersion": "v1", "kind": "List", "items": [_review(*row) for row in asked]}
    verdict = "jsonpath={.status.allowed} "
    found = plane.kubectl("create", "-f", "-", "-o", verdict, given=items).split()
    allowed = [row for row, answer in zip(asked, found, strict=True) if answer != "false"]
    assert allowed == []


def _granted(namespace: str | None) -> list[tuple[str, str, str, str, str]]:
    """What an operator of other namespaces may do there, and must not do here."""
    if namespace is None:
        return []
    rows = [
        (verb, right.group, *right.resource.partition("/")[::2], namespace) for right in RIGHTS for verb in right.verbs
    ]
    return [(verb, group, name, part, where) for verb, group, name, part, where in rows]


def _review(verb: str, group: str, resource: str, part: str, namespace: str) -> Any:
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": namespace}
    spec = {
        "user": USER,
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "resourceAttributes": attributes,
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec}
