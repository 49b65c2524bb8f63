"""What the chart renders, checked by Kubernetes itself: by the schemas of three versions, and by a real API server."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import kubernetes_validate
import pytest
import yaml

from chart_render import CASES, CHART, ROOT, Json, kinds, rendered, values_of
from cluster import helm, programs
from control_plane import ControlPlane, running

VERSIONS: Final = ("1.30", "1.34", "1.37")
"""The oldest that Chart.yaml allows, one between, and that of the tests' cluster."""
ELSEWHERE: Final = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}
"""Kinds of others, of which Kubernetes has no schema."""
NAMESPACES: Final = ("tasks", "shop", "mail", "monitoring", "alone")

pytestmark = [
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.timeout(900, func_only=False),  # the first run builds Helm
]


def known(objects: list[Json]) -> list[Json]:
    return [each for each in objects if each["apiVersion"] not in ELSEWHERE]


# by the schemas of Kubernetes' own kinds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_one_of_kubernetes(case: str, version: str) -> None:
    """Strictly: a field that this version does not know is refused too."""
    for each in known(rendered(case)):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_oldest_version_is_that_of_the_chart() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert VERSIONS[-1] == ".".join(programs.KUBERNETES.split(".")[:2])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_slip_of_the_pen_is_found(version: str) -> None:
    [deployment] = [
        each for each in kinds(rendered("default"), "Deployment") if each["metadata"]["name"] == "headrace-api"
    ]
    slip = copy.deepcopy(deployment)
    slip["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slip, version, strict=True)


# by a real API server, which has no node


@dataclass(frozen=True, slots=True)
class Desk:
    """Somebody with helm and kubectl at an API server."""

    plane: ControlPlane
    config: Path

    def helm(self, *arguments: str, namespace: str = "tasks") -> subprocess.CompletedProcess[str]:
        where = ["--kubeconfig", str(self.config), "--namespace", namespace]
        return subprocess.run([str(helm.build()), *arguments, *where], capture_output=True, text=True, check=False)

    def refusal(self, *values: str, namespace: str = "tasks") -> str:
        """What a try to install says."""
        given = [part for each in values for part in ("--set", each)]
        done = self.helm("install", "headrace", str(CHART), "--dry-run=server", *given, namespace=namespace)
        assert done.returncode != 0, "it was not refused"
        return done.stderr

    def install(self, *arguments: str, namespace: str = "tasks") -> None:
        done = self.helm("install", "headrace", str(CHART), *arguments, namespace=namespace)
        assert done.returncode == 0, done.stderr

    def type_in(self, line: str) -> None:
        """A command that a message told, as it stands."""
        path = f"{programs.folder()}:{os.environ['PATH']}"
        environ = os.environ | {"KUBECONFIG": str(self.config), "PATH": path}
        done = subprocess.run(["bash", "-c", line], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"

    def may(self, account: str, *question: str) -> bool:
        """Whether an account, as `namespace:name`, may do what `kubectl auth can-i` is asked."""
        answer = self.plane.kubectl("auth", "can-i", *question, f"--as=system:serviceaccount:{account}", check=False)
        return answer == "yes"

    def keys(self, name: str) -> set[str]:
        return set(self.plane.get("secret", name, "--namespace=tasks")["data"])

    def forget(self) -> None:
        """Every release and every Secret of the test before."""
        for namespace in NAMESPACES:
            self.helm("uninstall", "headrace", "--ignore-not-found", namespace=namespace)
            self.plane.kubectl("delete", "secrets", "--all", f"--namespace={namespace}")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("plane")) as made:
        made.kubectl("delete", "crd", "workerpools.headrace.dev")  # as a fresh cluster has none
        for name in NAMESPACES:
            made.kubectl("create", "namespace", name)
            made.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        # What the values of a case name, and the platform has.
        made.kubectl("create", "priorityclass", "high", "--value=1000")
        gvisor = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "gvisor"},
            "handler": "runsc",
        }
        made.kubectl("apply", "-f", "-", given=gvisor)
        yield made


@pytest.fixture
def desk(plane: ControlPlane) -> Iterator[Desk]:
    made = Desk(plane, plane.kubeconfig())
    yield made
    made.forget()


def lines_of(refused: str) -> list[str]:
    return re.findall(r"^kubectl create secret generic .+$", refused, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (
            (),
            [
                "kubectl create secret generic headrace-redis --namespace tasks "
                "--from-literal=url='redis://:PASSWORD@HOST:6379/0' "
                '--from-literal=tokens="admin:$(openssl rand -hex 24)"'
            ],
        ),
        (
            ("redis.embedded.enabled=true",),
            [
                "kubectl create secret generic headrace-redis --namespace tasks "
                '--from-literal=addr=headrace-redis.tasks:6379 --from-literal=password="$(openssl rand -hex 24)" '
                '--from-literal=tokens="admin:$(openssl rand -hex 24)"'
            ],
        ),
        (
            ("redis.external.host=redis.example.org", "redis.external.username=shop", "api.auth.existingSecret=doors"),
            [
                "kubectl create secret generic headrace-redis --namespace tasks "
                "--from-literal=url='redis://shop:PASSWORD@redis.example.org:6379/0' "
                "--from-literal=password='PASSWORD'",
                "kubectl create secret generic doors --namespace tasks "
                '--from-literal=tokens="admin:$(openssl rand -hex 24)"',
            ],
        ),
        (
            ("redis.keys.url=", "api.auth.mode=none"),
            ["kubectl create secret generic headrace-redis --namespace tasks --from-literal=addr='HOST:6379'"],
        ),
    ],
)
def test_without_its_secrets_the_message_has_the_lines_that_help(
    desk: Desk, values: tuple[str, ...], lines: list[str]
) -> None:
    assert lines_of(desk.refusal(*values)) == lines
    for line in lines:
        desk.type_in(line)
    given = [part for each in values for part in ("--set", each)]
    desk.install("--dry-run=server", *given)


@pytest.mark.slow
def test_a_key_that_is_missing_is_added_to_its_secret(desk: Desk) -> None:
    desk.type_in("kubectl create secret generic headrace-redis --namespace tasks --from-literal=addr=mine:6379")
    refused = desk.refusal("redis.embedded.enabled=true")
    assert "the Secret headrace-redis in namespace tasks lacks the key password and the key tokens" in refused
    [line] = lines_of(refused)
    desk.type_in(line)
    assert desk.keys("headrace-redis") == {"addr", "password", "tokens"}
    desk.install("--dry-run=server", "--set", "redis.embedded.enabled=true")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_every_object(desk: Desk, case: str) -> None:
    """With its own validation, strict about fields, and with Pod Security `restricted` enforced for the test's pod."""
    given = {"apiVersion": "v1", "kind": "List", "items": known(rendered(case))}
    desk.plane.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", given=given)


@pytest.mark.slow
def test_pods_are_let_in_where_restricted_is_enforced(desk: Desk) -> None:
    """By the API server's own admission, not by our reading of its rules; two operators, API and Redis."""
    desk.install(
        *values_of("embedded-redis"), "--set", "checkSecrets=false", "--set", "operator.replicas=2",
        "--set", "operator.leaderElection.enabled=true", "--set", "redis.embedded.podSecurityContext.runAsUser=999",
    )  # fmt: skip
    wanted = sum(
        each["spec"]["replicas"] for each in desk.plane.get("deployments,statefulsets", "--namespace=tasks")["items"]
    )
    assert wanted == 5
    until(lambda: len(desk.plane.get("pods", "--namespace=tasks")["items"]), wanted)


@pytest.mark.slow
def test_with_named_namespaces_the_installer_needs_no_right_in_the_cluster(desk: Desk) -> None:
    """Somebody who owns a namespace installs there, beside a release that works in all of them."""
    desk.install("--set", "checkSecrets=false")
    owner = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    kubectl = desk.plane.kubectl
    about = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "owner"}}
    kubectl("apply", "--namespace=alone", "--filename=-", given=about | {"rules": [owner]})
    kubectl("create", "rolebinding", "owner", "--role=owner", "--serviceaccount=alone:owner", "--namespace=alone")
    try:
        desk.install(
            "--kube-as-user=system:serviceaccount:alone:owner", "--set", "checkSecrets=false,crds.enabled=false",
            "--set", "watchNamespaces={alone}", namespace="alone",
        )  # fmt: skip
        everywhere, here = "tasks:headrace-operator", "alone:headrace-operator"
        for question in (("list", "workerpools"), ("patch", "deployments", "--subresource=scale"), ("watch", "pods")):
            assert desk.may(everywhere, *question, "--all-namespaces")
            assert desk.may(here, *question, "--namespace=alone")
            assert not desk.may(here, *question, "--namespace=shop")
        for account in (everywhere, here, "tasks:headrace-api"):
            assert not desk.may(account, "get", "secrets", "--namespace=alone")
            assert not desk.may(account, "create", "pods", "--namespace=alone")
        roles = desk.plane.get("clusterroles,clusterrolebindings", "--selector=app.kubernetes.io/name=headrace")[
            "items"
        ]
        owners = {each["metadata"]["annotations"]["meta.helm.sh/release-namespace"] for each in roles}
        assert owners == {"tasks"}
    finally:
        kubectl("delete", "role,rolebinding", "owner", "--namespace=alone")


@pytest.mark.slow
def test_roles_of_the_cluster_get_the_rights_for_pools(desk: Desk) -> None:
    """Whoever may edit a namespace may make pools there, and whoever may view it sees them."""
    desk.install("--set", "checkSecrets=false")
    for role in ("view", "edit"):
        desk.plane.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount=shop:{role}",
                           "--namespace=shop")  # fmt: skip
    until(lambda: desk.may("shop:edit", "create", "workerpools", "--namespace=shop"), True)
    until(lambda: desk.may("shop:view", "watch", "workerpools", "--namespace=shop"), True)
    assert desk.may("shop:edit", "get", "workerpools", "--namespace=shop")
    assert not desk.may("shop:view", "patch", "workerpools", "--namespace=shop")
    assert not desk.may("shop:edit", "create", "workerpools", "--namespace=mail")


@pytest.mark.slow
def test_the_crd_and_its_pools_outlive_the_release(desk: Desk) -> None:
    """A release of the same name takes it up again, one of another namespace says what is in its way."""
    pool = yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text())
    desk.install("--set", "checkSecrets=false")
    desk.plane.kubectl("wait", "--for=condition=Established", "crd/workerpools.headrace.dev")
    desk.plane.kubectl("apply", "--namespace=shop", "--filename=-", given=pool)
    assert desk.helm("uninstall", "headrace").returncode == 0
    before = desk.plane.get("workerpool", "examples", "--namespace=shop")["metadata"]["uid"]
    other = desk.helm("install", "headrace", str(CHART), "--set", "checkSecrets=false", namespace="mail")
    assert other.returncode != 0 and "invalid ownership metadata" in other.stderr
    desk.install("--set", "checkSecrets=false")
    assert desk.plane.get("workerpool", "examples", "--namespace=shop")["metadata"]["uid"] == before
    desk.plane.kubectl("delete", "workerpool", "examples", "--namespace=shop")


def until(look: Callable[[], object], wanted: object, patience_s: float = 30) -> None:
    """Until `look` gives what is wanted."""
    end = time.monotonic() + patience_s
    while (seen := look()) != wanted:
        assert time.monotonic() < end, f"it stays {json.dumps(seen, default=str)}"
        time.sleep(0.1)
