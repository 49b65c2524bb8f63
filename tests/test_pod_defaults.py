"""What all pods of pools have by the operator's setting, where the pool's own template says nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.errors import BadSetting
from headrace.redis_settings import RedisSettings
from headrace_operator.caps import Caps
from headrace_operator.defaults import House, filled
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import InvalidTemplate, Pool, fingerprint, pod_template
from headrace_operator.settings import OperatorSettings
from headrace_operator.spec import read_spec
from operator_kit import MemoryCluster, resource

Json = dict[str, Any]
NAME = "HEADRACE_OPERATOR_POD_DEFAULTS"


def settings(given: Any) -> OperatorSettings:
    return OperatorSettings.from_env({NAME: given if isinstance(given, str) else json.dumps(given)})


def pods(defaults: Json, **own: Any) -> Json:
    """The template of a pool's pods. `own` is its spec's."""
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1"}], **own}}
    spec = read_spec({"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5}, "template": template})
    return pod_template(Pool("emails", "shop", "uid", filled(spec, settings(defaults).pod_defaults)))


def test_they_come_where_the_pool_says_nothing() -> None:
    made = pods({
        "metadata": {"labels": {"team": "platform"}, "annotations": {"a": "b"}},
        "spec": {"nodeSelector": {"pool": "spot"}, "hostUsers": False, "securityContext": {"runAsUser": 1000},
                 "containers": [{"resources": {"limits": {"memory": "1Gi"}}}]},
    })  # fmt: skip
    assert made["metadata"]["labels"]["team"] == "platform" and made["metadata"]["annotations"]["a"] == "b"
    spec, [worker] = made["spec"], made["spec"]["containers"]
    assert (spec["nodeSelector"], spec["hostUsers"]) == ({"pool": "spot"}, False)
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (1000, True)
    assert (worker["image"], worker["resources"]) == ("shop:1", {"limits": {"memory": "1Gi"}})


def test_what_is_null_in_them_is_not_said() -> None:
    """An empty key of the chart's values arrives as null: it takes away no bound of ours, and refuses no pool."""
    nothing = {"securityContext": None, "automountServiceAccountToken": None, "containers": [{"env": None}]}
    assert pods({"metadata": None, "spec": nothing}) == pods({})


def test_what_the_pool_says_wins() -> None:
    defaults = {"spec": {
        "nodeSelector": {"pool": "spot", "os": "linux"}, "priorityClassName": "low", "tolerations": [{"key": "spot"}],
        "containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}, "image": "other:1"}],
    }}  # fmt: skip
    beside = {"name": "beside", "image": "proxy:1"}
    worker = {"name": "worker", "image": "shop:1", "resources": {"requests": {"cpu": "2"}}}
    spec = pods(
        defaults, nodeSelector={"pool": "own"}, priorityClassName="high", tolerations=[], containers=[beside, worker]
    )["spec"]
    assert spec["nodeSelector"] == {"pool": "own", "os": "linux"}
    assert (spec["priorityClassName"], spec["tolerations"]) == ("high", [])
    assert "resources" not in spec["containers"][0], "only the worker's container has them"
    assert spec["containers"][1]["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}
    assert spec["containers"][1]["image"] == "shop:1"


@pytest.mark.parametrize("own", [{"containers": "none"}, {"containers": ["none"]}, {"containers": []}])
def test_a_template_that_no_worker_can_be_made_of_is_refused_as_before(own: Json) -> None:
    with pytest.raises(InvalidTemplate):
        pods({"spec": {"containers": [{"resources": {}}]}}, **own)


def test_none_changes_nothing() -> None:
    template = {"spec": {"containers": [{"image": "shop:1"}]}}
    spec = read_spec({"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5}, "template": template})
    for given in ("", "{}", '{"spec": {"containers": []}}'):
        assert filled(spec, settings(given).pod_defaults).template == template


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("[]", "it is no object of metadata and spec"),
        ("{", "a pod template in JSON"),
        ({"template": {}}, "it is no object of metadata and spec"),
        ({"spec": []}, "metadata and spec must be objects"),
        ({"spec": {"containers": [{}, {}]}}, "spec.containers has more than one object"),
        ({"spec": {"serviceAccountName": "boss"}}, "it would be the account of whoever may make pools"),
        ({"spec": {"terminationGracePeriodSeconds": 5}}, "a pool's own timeouts make it"),
    ],
)
def test_what_they_cannot_be_is_said_at_the_start(given: Any, sentence: str) -> None:
    with pytest.raises(BadSetting) as caught:
        settings(given)
    assert NAME in str(caught.value) and sentence in str(caught.value)


async def test_other_defaults_are_another_template() -> None:
    """So pods are replaced as after a change of the pool, and what waits for a new image has its chance."""
    found: set[str] = set()
    for defaults in ({}, {"spec": {"nodeSelector": {"pool": "spot"}}}):
        looker = Looker({"default": RedisSettings.parse("redis://127.0.0.1:1/0", "the test")})
        loop = ControlLoop(MemoryCluster(), looker, tick_s=1, caps=Caps(), house=House(pod_defaults=defaults))
        loop.saw_pool(resource())
        found.update(fingerprint(each.pool.spec.template) for each in loop.pools.values())
        await looker.aclose()
    assert len(found) == 2
