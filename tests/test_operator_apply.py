"""A Deployment is made with no replicas, also one that has just vanished: never with the one that is the default."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from control_plane import ControlPlane
from headrace_operator import kube
from headrace_operator.cluster import Conflict, Refused
from headrace_operator.fleet import Key
from headrace_operator.kube import KubeCluster, Watched
from headrace_operator.manifests import POOL, Pool
from headrace_operator.ownership import corrected
from headrace_operator.requests import NotThere, Requests, connect
from headrace_operator.spec import read_spec
from operator_kit import KEY, resource

OTHER_IMAGE = {"spec": {"containers": [{"name": "worker", "image": "shop:1.5"}]}}


def pool(uid: str = "uid-1", namespace: str = KEY.namespace, **spec: Any) -> Pool:
    return Pool(KEY.name, namespace, uid, read_spec(resource(**spec)["spec"]))


class ApiServer:
    """Knows one Deployment, and does with it what a server does."""

    def __init__(self) -> None:
        self.deployment: dict[str, Any] | None = None
        self.numbers: list[int] = []
        """Replicas at each moment at which one was made."""
        self.vanish_before: list[str] = []
        """Methods before which the Deployment is deleted by somebody, once each."""
        self.status_writes = 0
        """So often the Deployment's status changes just before a write of its scale."""
        self._uids = 0

    async def send(self, method: str, path: str, body: Any = None, *, kind: str = "", accept: str = "") -> Any:
        if method in self.vanish_before:
            self.vanish_before.remove(method)
            self.deployment = None
        what = path.partition("?")[0].rsplit("/", 2)
        if "poddisruptionbudgets" in what:
            return {}
        if what[-1] == "workerpools":
            return {"items": [{"metadata": {"uid": "uid-1"}}]}
        if what[-1] == "scale":
            if self.deployment is None:
                raise NotThere("deployments not found")
            return self._scale(body) if method == "PATCH" else copy.deepcopy(self.deployment)
        return self._create(body) if method == "POST" else self._apply(body)

    def _scale(self, body: Any) -> Any:
        assert self.deployment is not None
        metadata = self.deployment["metadata"]
        if self.status_writes:
            self.status_writes -= 1
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict("the object has been modified")
        self.deployment["spec"]["replicas"] = body["spec"]["replicas"]
        return copy.deepcopy(self.deployment)

    def _create(self, body: Any) -> Any:
        if self.deployment is not None:
            raise Conflict("it exists")
        return self._make(body, body["spec"].get("replicas", 1))

    def _apply(self, body: Any) -> Any:
        uid = body["metadata"].get("uid")
        if self.deployment is None:
            if uid:
                raise Conflict("uid mismatch: the provided object specified uid, and no existing object was found")
            return self._make(body, 1)
        if uid and uid != self.deployment["metadata"]["uid"]:
            raise Conflict("uid mismatch")
        self.deployment["spec"]["template"] = body["spec"]["template"]
        return self.deployment

    def _make(self, body: Any, replicas: int) -> Any:
        self._uids += 1
        self.numbers.append(replicas)
        metadata = {**body["metadata"], "uid": f"d{self._uids}", "resourceVersion": str(self._uids)}
        self.deployment = {"metadata": metadata, "spec": {**body["spec"], "replicas": replicas}}
        return self.deployment


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def cluster(server: ApiServer) -> KubeCluster:
    return KubeCluster(cast(Any, server), Watched())


@pytest.mark.parametrize("moment", [["PATCH"], ["POST", "PATCH"], ["PATCH", "POST"]], ids=" ".join)
async def test_one_that_vanished_comes_back_with_no_replicas(
    server: ApiServer, cluster: KubeCluster, moment: list[str]
) -> None:
    """The watch still shows it; somebody deletes it just before our request."""
    await cluster.apply(pool())
    server.vanish_before = moment
    await cluster.apply(pool(template=OTHER_IMAGE))
    assert set(server.numbers) == {0} and len(server.numbers) == 2
    assert cluster.fleet(KEY).exists and cluster.fleet(KEY).asked_for == 0
    assert server.deployment is not None
    assert server.deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1.5"


async def test_a_status_that_changes_with_each_look_does_not_keep_a_pool_from_its_size(
    server: ApiServer, cluster: KubeCluster
) -> None:
    """Controllers write it several times in the moments in which a Deployment is new."""
    await cluster.apply(pool())
    server.status_writes = 3
    await cluster.scale(KEY, 3, cluster.fleet(KEY))
    assert cluster.fleet(KEY).asked_for == 3
    server.status_writes = 1_000
    with pytest.raises(Conflict, match="again and again"):
        await cluster.scale(KEY, 4, cluster.fleet(KEY))


async def test_a_size_that_is_looked_up_of_one_that_is_gone_is_none(server: ApiServer, cluster: KubeCluster) -> None:
    """After a write without an answer: else it would be looked up for ever, and never made again."""
    await cluster.apply(pool())
    server.deployment = None
    await cluster.look_again(KEY)
    assert not cluster.fleet(KEY).exists


async def test_a_smaller_size_is_not_written_for_long_for_it_was_decided_for_pods_as_they_were(
    server: ApiServer, cluster: KubeCluster
) -> None:
    await cluster.apply(pool())
    await cluster.scale(KEY, 5, cluster.fleet(KEY))
    server.status_writes = 2
    with pytest.raises(Conflict):
        await cluster.scale(KEY, 3, cluster.fleet(KEY))
    assert server.deployment is not None and server.deployment["spec"]["replicas"] == 5


async def test_one_that_is_gone_when_its_size_is_written_is_made_at_the_next_tick(
    server: ApiServer, cluster: KubeCluster
) -> None:
    await cluster.apply(pool())
    server.deployment = None
    with pytest.raises(Conflict, match="deleted meanwhile"):
        await cluster.scale(KEY, 3, cluster.fleet(KEY))
    assert not cluster.fleet(KEY).exists


async def test_an_answer_that_comes_after_newer_news_changes_nothing(server: ApiServer, cluster: KubeCluster) -> None:
    await cluster.apply(pool())
    assert server.deployment is not None
    newer = copy.deepcopy(server.deployment)
    newer["metadata"]["resourceVersion"], newer["spec"]["replicas"] = "9", 7
    cluster.watched.saw_deployment(newer, deleted=False)
    cluster.watched.wrote(KEY, 3, "8")
    assert (cluster.fleet(KEY).asked_for, cluster.fleet(KEY).version) == (7, "9")


async def test_a_size_that_somebody_else_wrote_stands(server: ApiServer, cluster: KubeCluster) -> None:
    await cluster.apply(pool())
    seen, server.status_writes = cluster.fleet(KEY), 1
    assert server.deployment is not None
    server.deployment["spec"]["replicas"] = 7
    with pytest.raises(Conflict, match="somebody else set replicas to 7"):
        await cluster.scale(KEY, 3, seen)
    assert server.deployment["spec"]["replicas"] == 7


async def test_one_that_vanishes_between_the_two_requests_that_make_it_is_made_at_the_next_tick(
    server: ApiServer, cluster: KubeCluster
) -> None:
    server.vanish_before = ["PATCH"]
    with pytest.raises(Conflict):
        await cluster.apply(pool())
    await cluster.apply(pool())
    assert set(server.numbers) == {0}


async def test_one_that_the_watch_has_not_shown_yet_keeps_its_number(server: ApiServer, cluster: KubeCluster) -> None:
    """As after a restart: the pool is shown before its Deployment is."""
    await cluster.apply(pool())
    assert server.deployment is not None
    server.deployment["spec"]["replicas"] = 7
    fresh = KubeCluster(cast(Any, server), Watched())
    await fresh.apply(pool(template=OTHER_IMAGE))
    assert fresh.fleet(KEY).asked_for == 7


async def test_pools_that_were_made_are_remembered_up_to_a_bound(
    cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools come and go for months; the last ones are those whose end no watch may have told yet."""
    monkeypatch.setattr(kube, "REMEMBERED", 2)
    for uid in ("a", "b", "a", "c"):
        await cluster.apply(pool(uid))
    assert [*cluster._made] == ["a", "c"]


def test_the_request_that_made_it_keeps_the_number_and_no_other_field() -> None:
    def entry(operation: str, fields: dict[str, Any], manager: str = "us", **more: str) -> dict[str, Any]:
        return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}

    replicas: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    applied, scaled = entry("Apply", {"f:spec": {"f:template": {}}}), entry("Update", replicas, subresource="scale")
    other = entry("Update", {"f:metadata": {}}, "somebody")
    made = entry("Update", {"f:metadata": {}, "f:spec": {"f:replicas": {}, "f:template": {}}})
    assert corrected([made, applied, scaled, other], "us") == [entry("Update", replicas), applied, scaled, other]
    assert corrected([entry("Update", replicas), applied, scaled, other], "us") is None
    assert corrected([entry("Update", {"f:spec": {"f:template": {}}}), applied], "us") == [applied]
    assert corrected([], "us") is None


# on a real API server


@pytest.fixture
async def requests(plane: ControlPlane) -> AsyncIterator[Requests]:
    made = await connect(str(plane.kubeconfig()))
    yield made
    await made.aclose()


def real_pool(plane: ControlPlane, namespace: str) -> Pool:
    plane.kubectl("create", "namespace", namespace)
    body = resource()
    body["metadata"] = {"name": KEY.name, "namespace": namespace}
    plane.kubectl("create", "-f", "-", given=body)
    return pool(plane.get("-n", namespace, "workerpool", KEY.name)["metadata"]["uid"], namespace)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew by somebody"])
async def test_a_real_server_refuses_to_apply_onto_one_that_is_gone(
    plane: ControlPlane, requests: Requests, again: bool
) -> None:
    made, namespace = KubeCluster(requests, Watched()), f"apply-{again}".lower()
    real, key = real_pool(plane, namespace), Key(namespace, KEY.name)
    await made.apply(real)
    await made.scale(key, 3, made.fleet(key))
    shown = plane.get("-n", namespace, "deployment", KEY.name)
    plane.kubectl("-n", namespace, "delete", "deployment", KEY.name, "--cascade=foreground")
    if again:
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            del shown["metadata"][field]
        plane.kubectl("create", "-f", "-", given={**shown, "spec": {**shown["spec"], "replicas": 5}})
    await made.apply(pool(real.uid, namespace, template=OTHER_IMAGE))
    found = plane.get("-n", namespace, "deployment", KEY.name)
    assert found["spec"]["replicas"] == (5 if again else 0)
    assert made.fleet(key).asked_for == found["spec"]["replicas"]
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1.5"


@pytest.mark.slow
async def test_what_a_template_no_longer_names_leaves_the_deployment(plane: ControlPlane, requests: Requests) -> None:
    """The request that makes it must not own fields beside the applies that follow."""
    made, namespace = KubeCluster(requests, Watched()), "apply-fields"
    real = real_pool(plane, namespace)
    container = {"name": "worker", "image": "shop:1.4", "env": [{"name": "COLOUR", "value": "red"}]}
    await made.apply(pool(real.uid, namespace, template={"spec": {"containers": [container]}}))
    await made.apply(pool(real.uid, namespace, template=OTHER_IMAGE))
    [found] = plane.get("-n", namespace, "deployment", KEY.name)["spec"]["template"]["spec"]["containers"]
    assert found["image"] == "shop:1.5"
    assert "COLOUR" not in {each["name"] for each in found["env"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "theirs",
    [{"maxUnavailable": "50%"}, {"minAvailable": 2}],
    ids=["as ours, of another number", "the other way round"],
)
async def test_a_budget_that_somebody_made_for_the_pool_stays_as_it_is(
    plane: ControlPlane, requests: Requests, theirs: dict[str, Any]
) -> None:
    """Kubernetes takes one budget a pod, so whoever wants another than ours has to have that of the pool's name."""
    namespace = f"budget-{next(iter(theirs)).lower()}"
    real, cluster = real_pool(plane, namespace), KubeCluster(requests, Watched())
    spec = theirs | {"selector": {"matchLabels": {POOL: KEY.name}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": KEY.name}, "spec": spec}
    plane.kubectl("-n", namespace, "apply", "-f", "-", given=budget)
    await cluster.apply(real)
    shown = plane.get("-n", namespace, "pdb", KEY.name)
    assert shown["spec"] == spec
    assert "ownerReferences" not in shown["metadata"]


@pytest.mark.slow
async def test_a_budget_of_other_pods_is_not_taken_over(plane: ControlPlane, requests: Requests) -> None:
    namespace = "budget-other"
    real, cluster = real_pool(plane, namespace), KubeCluster(requests, Watched())
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": KEY.name}, "spec": spec}
    plane.kubectl("-n", namespace, "apply", "-f", "-", given=budget)
    await cluster.apply(real)
    assert plane.get("-n", namespace, "pdb", KEY.name)["spec"] == spec


@pytest.mark.slow
async def test_our_budget_follows_a_pool_that_is_made_again(plane: ControlPlane, requests: Requests) -> None:
    namespace = "budget-again"
    real, cluster = real_pool(plane, namespace), KubeCluster(requests, Watched())
    await cluster.apply(real)
    plane.kubectl("-n", namespace, "delete", "workerpool", KEY.name, "--cascade=orphan")
    body = plane.get("-n", namespace, "pdb", KEY.name)
    assert body["spec"]["maxUnavailable"] == 1
    plane.kubectl("create", "-f", "-", given=resource() | {"metadata": {"name": KEY.name, "namespace": namespace}})
    uid = plane.get("-n", namespace, "workerpool", KEY.name)["metadata"]["uid"]
    await cluster.apply(pool(uid, namespace))
    owners = plane.get("-n", namespace, "pdb", KEY.name)["metadata"]["ownerReferences"]
    assert [each["uid"] for each in owners] == [uid]


@pytest.mark.slow
async def test_somebody_elses_deployment_of_that_name_is_told_as_that(plane: ControlPlane, requests: Requests) -> None:
    namespace = "taken"
    real = real_pool(plane, namespace)
    plane.kubectl("-n", namespace, "create", "deployment", KEY.name, "--image=web:1")
    with pytest.raises(Refused, match=r"Deployment emails is somebody else's.*another name"):
        await KubeCluster(requests, Watched()).apply(real)
    [container] = plane.get("-n", namespace, "deployment", KEY.name)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "web:1"
