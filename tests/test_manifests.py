"""What a WorkerPool becomes in Kubernetes: filled in, overridable, refused with the field's name."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from headrace.errors import BadSetting
from headrace.redis_settings import RedisSettings
from headrace.settings import WorkerSettings
from headrace_operator.manifests import (
    CONTAINER,
    POOL,
    TEMPLATE,
    InvalidTemplate,
    Pool,
    deployment,
    disruption_budget,
    environment,
    pod_template,
)
from headrace_operator.settings import OperatorSettings
from headrace_operator.spec import InvalidSpec, read_spec

Json = dict[str, Any]


def pool(template: Json | None = None, **spec: Any) -> Pool:
    container = {"image": "shop:1.4", "args": ["worker", "--app", "shop.tasks"]}
    raw = {
        "queues": [{"name": "mail", "weight": 3}, {"name": "default"}],
        "scaling": {"maxReplicas": 20},
        "template": {"spec": {"containers": [container]}} if template is None else template,
        **spec,
    }
    return Pool("emails", "shop", "uid-1", read_spec(raw))


def worker(made: Json) -> Json:
    container: Json = made["spec"]["containers"][0]
    return container


def named(items: list[Json]) -> dict[str, Json]:
    return {item["name"]: item for item in items}


def test_replicas_are_never_part_of_it() -> None:
    assert set(deployment(pool())["spec"]) == {"selector", "template"}


def test_the_pool_owns_what_is_made_and_finds_its_pods() -> None:
    made = deployment(pool())
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert made["spec"]["selector"]["matchLabels"] == {POOL: "emails"}
    assert made["spec"]["template"]["metadata"]["labels"][POOL] == "emails"
    assert disruption_budget(pool())["spec"]["selector"]["matchLabels"] == {POOL: "emails"}


def test_the_worker_is_told_its_queues_and_limits() -> None:
    env = named(environment(pool(worker={"concurrency": 4, "taskTimeoutSeconds": 60})))
    assert env["HEADRACE_QUEUES"]["value"] == "mail=3,default=1"
    assert env["HEADRACE_CONCURRENCY"]["value"] == "4"
    assert env["HEADRACE_SOFT_TIMEOUT_S"]["value"] == "60"
    assert env["WORKER_ID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_the_worker_understands_every_setting_it_is_given() -> None:
    plain = {each["name"]: each["value"] for each in environment(pool()) if "value" in each}
    settings = WorkerSettings.from_env({**plain, "WORKER_ID": "emails-abc"})
    assert [(share.name, share.weight) for share in settings.queues] == [("mail", 3), ("default", 1)]
    assert settings.grace_s == 325, "five seconds before the pod's own grace of 330 end"


def test_redis_comes_from_a_secret_of_the_namespace() -> None:
    made = worker(pod_template(pool(redis={"secretName": "shop-redis"})))
    env = named(made["env"])
    assert env["HEADRACE_URL"]["valueFrom"]["secretKeyRef"] == {"name": "shop-redis", "key": "url", "optional": True}
    assert made["envFrom"] == [{"prefix": "redis_secret_", "secretRef": {"name": "shop-redis"}}], "a missing one shows"


def test_a_worker_gets_the_login_that_its_secret_has_and_no_other_redis_than_it_says() -> None:
    """With a Secret that has neither `url` nor `addr` it would look for a Redis in its own pod."""
    env = named(environment(pool(redis={"secretName": "shop-redis"})))
    from_secret = {
        name: each["valueFrom"]["secretKeyRef"]["key"]
        for name, each in env.items()
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    secret = {"addr": "redis.shop:6379", "username": "emails", "password": "s3cret"}
    plain = {name: each["value"] for name, each in env.items() if "value" in each}
    told = plain | {name: secret[key] for name, key in from_secret.items() if key in secret}
    found = RedisSettings.from_env(told)
    assert (found.host, found.username, found.password) == ("redis.shop", "emails", "s3cret")
    found = RedisSettings.from_env({name: value for name, value in told.items() if name != "REDIS_ADDR"} | {
        "HEADRACE_URL": "rediss://redis.shop"
    })  # fmt: skip
    assert (found.host, found.username, found.password) == ("redis.shop", "emails", "s3cret")
    with pytest.raises(BadSetting, match=r"Secret shop-redis.*`url`.*`addr`"):
        RedisSettings.from_env(plain)
    assert RedisSettings.from_env(plain, "redis://here:1").host == "here", "what the application says counts"


def test_a_refused_account_names_the_setting_that_allows_it() -> None:
    own: Json = {"spec": {"serviceAccountName": "root", "containers": [{"image": "shop:1.4"}]}}
    with pytest.raises(InvalidTemplate) as refused:
        pod_template(pool(own))
    [name] = re.findall(r"HEADRACE_\w+", str(refused.value))
    assert OperatorSettings.from_env({name: "true"}).allow_service_accounts
    assert pod_template(pool(own), allow_service_accounts=True)


def test_pods_meet_the_restricted_level() -> None:
    made = pod_template(pool())
    assert made["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert worker(made)["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert made["spec"]["automountServiceAccountToken"] is False


def test_grace_outlasts_the_longest_task() -> None:
    assert pod_template(pool())["spec"]["terminationGracePeriodSeconds"] == 330
    longer = pool(worker={"taskTimeoutSeconds": 600, "terminationGracePeriodSeconds": 700})
    assert pod_template(longer)["spec"]["terminationGracePeriodSeconds"] == 700


@pytest.mark.parametrize(
    ("worker_spec", "own", "pod_s", "worker_s"),
    [
        ({"taskTimeoutSeconds": 86_400}, {}, 86_430, 86_400),
        ({"terminationGracePeriodSeconds": 90_000}, {}, 90_000, 86_400),
        ({"terminationGracePeriodSeconds": 3}, {}, 3, 1),
        ({}, {"terminationGracePeriodSeconds": 40}, 40, 35),
    ],
)
def test_a_worker_starts_and_is_done_before_its_pod_is_killed(
    worker_spec: Json, own: Json, pod_s: int, worker_s: int
) -> None:
    """Whatever the CRD allows, and whoever says how long it has: the pool, or its template."""
    made = pod_template(pool({"spec": {"containers": [{"image": "shop:1.4"}], **own}}, worker=worker_spec))
    assert made["spec"]["terminationGracePeriodSeconds"] == pod_s
    plain = {each["name"]: each["value"] for each in worker(made)["env"] if "value" in each}
    assert WorkerSettings.from_env(plain).grace_s == worker_s


def test_the_shortest_task_time_out_is_one_that_a_worker_takes() -> None:
    made = {each["name"]: each.get("value", "") for each in environment(pool(worker={"taskTimeoutSeconds": 0.01}))}
    assert WorkerSettings.from_env({"HEADRACE_SOFT_TIMEOUT_S": made["HEADRACE_SOFT_TIMEOUT_S"]}).soft_timeout_s == 0.01
    with pytest.raises(InvalidSpec, match="taskTimeoutSeconds"):
        pool(worker={"taskTimeoutSeconds": 0.009})


def test_the_metrics_port_takes_no_name_that_the_template_has() -> None:
    """Two ports of one name are refused, and nobody wrote the second one."""
    own = {"name": "metrics", "containerPort": 9000}
    made = pod_template(pool({"spec": {"containers": [{"image": "shop:1.4", "ports": [own]}]}}))
    assert worker(made)["ports"] == [own, {"name": "headrace", "containerPort": 9464, "protocol": "TCP"}]
    assert worker(pod_template(pool()))["ports"][0]["name"] == "metrics"
    bare = {"spec": {"containers": [{"image": "shop:1.4", "ports": [{"containerPort": 9464}]}]}}
    assert worker(pod_template(pool(bare)))["ports"] == [{"name": "metrics", "containerPort": 9464}]


def test_a_worker_of_another_name_is_named_to_the_operator() -> None:
    """And only such a one, or the pods of all pools would be made anew for it."""
    made = pod_template(pool({"spec": {"containers": [{"name": "mail", "image": "shop:1.4"}, {"name": "envoy"}]}}))
    assert made["metadata"]["annotations"][CONTAINER] == "mail"
    assert CONTAINER not in pod_template(pool())["metadata"]["annotations"]


def test_what_is_null_is_not_said() -> None:
    """As an empty key of YAML is in a Deployment; a server keeps it in a template, unless kubectl drops it before."""
    container = {"image": "shop:1.4", "env": None, "ports": None, "securityContext": None, "resources": None}
    spec = {"containers": [container], "restartPolicy": None, "securityContext": None, "initContainers": None}
    made = pod_template(pool({"metadata": None, "spec": spec}, drain=None, worker={"concurrency": None}))
    plain = pod_template(pool({"spec": {"containers": [{"image": "shop:1.4"}]}}))
    assert made == plain
    with pytest.raises(InvalidSpec, match="queues"):
        pool(queues=None)


def test_what_the_template_says_wins() -> None:
    own: Json = {
        "metadata": {"labels": {"team": "shop"}, "annotations": {"note": "x"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": False},
            "topologySpreadConstraints": [],
            "initContainers": [{"name": "migrate", "image": "shop:1.4"}],
            "containers": [
                {"name": "proxy", "image": "envoy"},
                {
                    "name": "worker",
                    "image": "shop",
                    "env": [{"name": "HEADRACE_CONCURRENCY", "value": "1"}],
                    "ports": [{"containerPort": 9464, "name": "prom"}],
                    "livenessProbe": {"exec": {"command": ["true"]}},
                },
            ],
        },
    }
    given = copy.deepcopy(own)
    made = pod_template(pool(own))
    assert own == given, "the pool's own template is left alone"
    proxy, mine = made["spec"]["containers"]
    assert "env" not in proxy
    assert named(mine["env"])["HEADRACE_CONCURRENCY"]["value"] == "1"
    assert mine["ports"] == [{"containerPort": 9464, "name": "prom"}]
    assert mine["livenessProbe"] == {"exec": {"command": ["true"]}}
    assert made["spec"]["terminationGracePeriodSeconds"] == 5
    assert made["spec"]["topologySpreadConstraints"] == []
    assert made["spec"]["securityContext"]["runAsNonRoot"] is False
    assert made["spec"]["initContainers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert made["metadata"]["labels"]["team"] == "shop"


def test_another_template_has_another_fingerprint() -> None:
    def mark(image: str) -> str:
        made = pod_template(pool({"spec": {"containers": [{"image": image}]}}))
        found: str = made["metadata"]["annotations"][TEMPLATE]
        return found

    assert mark("shop:1") == mark("shop:1") != mark("shop:2")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({}, "spec.template.spec.containers needs at least one container"),
        ({"spec": {"containers": []}}, "spec.template.spec.containers needs at least one container"),
        ({"spec": {"containers": [{"name": "worker"}]}}, "containers[worker] needs an image"),
        ({"spec": {"containers": ["shop"]}}, "needs at least one container"),
        ({"spec": {"containers": [{"image": "a", "env": {"A": "b"}}]}}, "containers[worker].env must be a list"),
        ({"spec": {"containers": [{"image": "a", "env": [{"value": "b"}]}]}}, "containers[worker].env[0].name must be"),
        ({"spec": {"containers": [{"image": "a", "env": [{"name": {}}]}]}}, "containers[worker].env[0].name must be"),
        ({"spec": []}, "spec.template.spec must be an object, not list"),
        ({"spec": {"restartPolicy": "Never", "containers": [{"image": "a"}]}}, "restartPolicy must be Always"),
        ({"spec": {"serviceAccountName": "admin", "containers": [{"image": "a"}]}}, "'admin' is refused"),
    ],
)
def test_a_template_that_makes_no_worker_is_refused(template: Json, words: str) -> None:
    with pytest.raises(InvalidTemplate) as error:
        deployment(pool(template))
    assert words in str(error.value)


def test_service_accounts_are_a_choice_of_the_operator() -> None:
    spec = {"serviceAccountName": "s3-reader", "containers": [{"image": "a"}]}
    made = deployment(pool({"spec": spec}), allow_service_accounts=True)
    assert made["spec"]["template"]["spec"]["serviceAccountName"] == "s3-reader"
