"""What single values of the Helm chart make of it, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from chart_render import CASES, CHART, ROOT, Json, env_of, kinds, one, pods, refusal, rendered, run, template
from cluster import helm
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_operator.defaults import filled
from headrace_operator.manifests import MANAGED
from headrace_operator.settings import OperatorSettings, connections
from headrace_operator.spec import read_spec

pytestmark = [
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.timeout(900, func_only=False),  # the first run builds Helm
]

CRD = "CustomResourceDefinition", "workerpools.headrace.dev"
MONITORS = "podMonitor", "serviceMonitor", "prometheusRule", "dashboards"


def rights(roles: list[Json]) -> set[tuple[str, str, str, tuple[str, ...]]]:
    """(group, resource, verb, names of objects) of them all."""
    return {
        (group, resource, verb, tuple(rule.get("resourceNames", ())))
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def deployed(file: str, kind: str, namespace: str | None = None) -> list[Json]:
    """Roles of a file of deploy/."""
    objects = yaml.safe_load_all((ROOT / "deploy" / file).read_text())
    return [each for each in kinds(list(objects), kind) if each["metadata"].get("namespace") == namespace]


def test_the_operator_has_the_rights_of_the_files_in_deploy() -> None:
    """Those are what a test on a real API server found to be needed."""
    [everywhere] = [each for each in kinds(rendered("default"), "ClusterRole") if "aggregate" not in json.dumps(each)]
    assert rights([everywhere]) == rights(deployed("rbac.yaml", "ClusterRole"))
    for role in kinds(rendered("namespaced"), "Role"):
        assert rights([role]) == rights(deployed("rbac-namespace.yaml", "Role", "shop"))
    lease = one(rendered("ha"), "Role", "headrace-operator-lease")
    assert rights([lease]) == rights(deployed("rbac-namespace.yaml", "Role", "headrace"))
    assert len(rights([lease])) == 3


def test_named_namespaces_get_roles_and_the_cluster_none() -> None:
    objects = rendered("namespaced")
    assert not kinds(objects, "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    assert [each["metadata"]["namespace"] for each in kinds(objects, "Role")] == ["shop", "mail"]
    for binding in kinds(objects, "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "headrace-operator", "namespace": "tasks"}]
    spec = one(objects, "Deployment", "headrace-operator")["spec"]["template"]["spec"]
    assert env_of(spec)["HEADRACE_OPERATOR_NAMESPACES"] == "shop,mail"


def test_no_two_releases_share_a_name_in_the_cluster_as_a_whole() -> None:
    """Helm would refuse the second; what renders and applies would take the first one's rights away."""
    names: list[set[str]] = []
    for namespace, release in (("a-b", "c"), ("a", "b-c")):
        done = run("template", release, str(CHART), "--namespace", namespace)
        objects = [each for each in yaml.safe_load_all(done.stdout) if each]
        names.append({each["metadata"]["name"] for each in kinds(objects, "ClusterRole", "ClusterRoleBinding")})
    assert all(len(each) == 3 for each in names), names
    assert not names[0] & names[1]


def test_no_replicas_stand_under_an_autoscaler() -> None:
    objects = rendered("ha")
    assert kinds(objects, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"]["name"] == "headrace-api"
    assert "replicas" not in one(objects, "Deployment", "headrace-api")["spec"]
    assert one(rendered("default"), "Deployment", "headrace-api")["spec"]["replicas"] == 2


def test_several_operators_share_a_lease() -> None:
    objects = rendered("ha")
    operator = one(objects, "Deployment", "headrace-operator")["spec"]
    assert (operator["replicas"], operator["strategy"]["type"]) == (2, "RollingUpdate")
    assert env_of(operator["template"]["spec"])["HEADRACE_OPERATOR_LEASE"] == "true"
    assert one(objects, "Role", "headrace-operator-lease")["metadata"]["namespace"] == "tasks"
    assert one(rendered("default"), "Deployment", "headrace-operator")["spec"]["strategy"] == {"type": "Recreate"}


def test_budgets_stand_only_where_a_pod_can_go() -> None:
    assert [each["metadata"]["name"] for each in kinds(rendered("default"), "PodDisruptionBudget")] == ["headrace-api"]
    ha = {each["metadata"]["name"]: each["spec"] for each in kinds(rendered("ha"), "PodDisruptionBudget")}
    assert ha["headrace-api"]["minAvailable"] == "50%"
    assert ha["headrace-operator"]["maxUnavailable"] == 1
    assert not kinds(template("--set", "api.replicas=1"), "PodDisruptionBudget")


def test_redis_comes_from_the_secret_unless_the_values_say_it() -> None:
    spec = one(rendered("default"), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    reference = {"secretKeyRef": {"name": "headrace-redis", "key": "url", "optional": False}}
    assert env_of(spec)["HEADRACE_URL"] == reference
    spec = one(template("--set", "redis.keys.url="), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    assert env_of(spec)["REDIS_ADDR"]["secretKeyRef"] == {"name": "headrace-redis", "key": "addr", "optional": False}
    assert "HEADRACE_URL" not in env_of(spec)


@pytest.mark.parametrize("case", CASES)
def test_what_headrace_cannot_do_without_is_not_optional(case: str) -> None:
    """A pod without it waits with the reason CreateContainerConfigError, and an Event names Secret and key."""
    for name, metadata, spec in pods(rendered(case)):
        if metadata["labels"]["app.kubernetes.io/component"] not in {"api", "operator"}:
            continue
        environ = env_of(spec)
        fixed = isinstance(environ["HEADRACE_URL"], str)
        wanted = "HEADRACE_REDIS_PASSWORD" if fixed else "HEADRACE_URL"
        if case == "gateway":  # a Redis without a password
            assert not [value for value in environ.values() if "headrace-redis" in str(value)], name
        else:
            assert environ[wanted]["secretKeyRef"]["optional"] is False, name


def test_sentinels_with_tls() -> None:
    for name in ("headrace-api", "headrace-operator"):
        spec = one(rendered("external-redis-tls"), "Deployment", name)["spec"]["template"]["spec"]
        environ = env_of(spec)
        nodes = "sentinel-0.example.org:26379,sentinel-1.example.org:26379"
        assert environ["HEADRACE_URL"] == f"rediss+sentinel://{nodes}/main/3"
        assert environ["HEADRACE_REDIS_USERNAME"] == "headrace"
        mounts = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
        for variable in ("HEADRACE_REDIS_CA", "HEADRACE_REDIS_CERT", "HEADRACE_REDIS_KEY"):
            assert str(Path(environ[variable]).parent) in mounts
    assert environ["HEADRACE_REDIS_PASSWORD"]["secretKeyRef"]["name"] == "shared-redis"
    assert environ["HEADRACE_REDIS_SENTINEL_PASSWORD"]["secretKeyRef"]["key"] == "sentinel-password"
    assert {"name": "redis-ca", "secret": {"secretName": "redis-ca"}} in spec["volumes"]
    assert {"name": "redis-client", "secret": {"secretName": "redis-client"}} in spec["volumes"]
    assert environ["HEADRACE_OPERATOR_CONNECTION_BIG_SHOP"] == {"secretKeyRef": {"name": "shop-redis", "key": "url"}}


def test_every_address_is_one_that_headrace_reads() -> None:
    for case in CASES:
        for _, _, spec in pods(rendered(case)):
            url = env_of(spec).get("HEADRACE_URL")
            if isinstance(url, str):
                assert RedisSettings.parse(url, "the chart").url == url
    unchecked = ("--set", "redis.external.host=a,redis.tls.enabled=true,redis.tls.checkHostname=false")
    spec = one(template(*unchecked), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    tls = RedisSettings.parse(env_of(spec)["HEADRACE_URL"], "the chart").tls
    assert tls is not None and not tls.check_hostname
    host = ("--set", "redis.external.host=fd00::1")
    spec = one(template(*host), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    assert env_of(spec)["HEADRACE_URL"] == "redis://[fd00::1]:6379/0"


def test_the_settings_of_the_pods_are_those_of_headrace(tmp_path: Path) -> None:
    """An unknown HEADRACE_… would stop the start."""
    tokens = tmp_path / "tokens"
    tokens.write_text("admin:a-secret-of-sixteen")
    for case in CASES:
        for name, _, spec in pods(rendered(case)):
            plain = {key: value if isinstance(value, str) else "" for key, value in env_of(spec).items()}
            if name.endswith("-api"):
                plain["HEADRACE_TOKENS_FILE"] = str(tokens)
                assert ApiSettings.from_env(plain).host == "0.0.0.0"
            elif name.endswith("-operator"):
                assert OperatorSettings.from_env(plain).tick_s == 1
                assert "default" in connections(plain)


def test_only_the_key_with_tokens_is_mounted() -> None:
    spec = one(rendered("default"), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    [volume] = [each for each in spec["volumes"] if each["name"] == "tokens"]
    assert volume["secret"] == {"secretName": "headrace-redis", "items": [{"key": "tokens", "path": "tokens"}]}
    open_to_all = one(template("--set", "api.auth.mode=none"), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    assert not [each for each in open_to_all["volumes"] if each["name"] == "tokens"]


def test_embedded_redis_keeps_what_it_was_given() -> None:
    spec = one(rendered("embedded-redis"), "StatefulSet", "headrace-redis")["spec"]
    arguments = spec["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--appendonly") + 1] == "yes"
    assert arguments[arguments.index("--maxmemory-policy") + 1] == "noeviction"
    assert arguments[arguments.index("--requirepass") + 1] == "$(REDISCLI_AUTH)"
    assert spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"] == {"storage": "1Gi"}


def test_no_user_is_fixed_but_for_redis_and_there_it_can_be_taken_away() -> None:
    for name, _, spec in pods(rendered("default")):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys(), name
    for name, _, spec in pods(rendered("openshift")):
        assert not {key for key in ("runAsUser", "fsGroup") if spec["securityContext"].get(key)}, name


def allowed(policy: Json, direction: str) -> set[int | str]:
    return {port["port"] for rule in policy["spec"][direction] for port in rule.get("ports", ())}


def test_network_policies_let_through_what_is_needed() -> None:
    embedded = rendered("embedded-redis")
    assert allowed(one(embedded, "NetworkPolicy", "headrace-operator"), "egress") == {53, 6379, 443, 6443}
    assert allowed(one(embedded, "NetworkPolicy", "headrace-api"), "egress") == {53, 6379}
    assert allowed(one(embedded, "NetworkPolicy", "headrace-api"), "ingress") == {"http"}
    [rule] = one(embedded, "NetworkPolicy", "headrace-redis")["spec"]["ingress"]
    peers = json.dumps(rule["from"])
    assert all(name in peers for name in ('"api"', '"operator"', '"worker"', '"shop"'))
    tls = rendered("external-redis-tls")
    assert allowed(one(tls, "NetworkPolicy", "headrace-api"), "egress") == {53, 6379, 26379}
    gateway = rendered("gateway")
    assert allowed(one(gateway, "NetworkPolicy", "headrace-api"), "egress") == {53, 6390}
    assert allowed(one(gateway, "NetworkPolicy", "headrace-api"), "ingress") == {"http", "https"}
    assert one(gateway, "NetworkPolicy", "headrace-operator")["spec"]["egress"][-1]["to"] == [
        {"ipBlock": {"cidr": "10.0.0.1/32"}}
    ]
    [rule] = one(rendered("namespaced"), "NetworkPolicy", "headrace-api")["spec"]["ingress"]
    assert all(name in json.dumps(rule["from"]) for name in ("shop", "smoke", "monitoring"))
    assert not kinds(rendered("default"), "NetworkPolicy")


@pytest.mark.parametrize("case", CASES)
def test_a_policy_finds_pods_and_names_both_directions(case: str) -> None:
    """One without a direction in `policyTypes` would leave that one open."""
    labels = [metadata["labels"] for _, metadata, _ in pods(rendered(case))] + [dict(MANAGED)]
    for policy in kinds(rendered(case), "NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"], name
        assert {"ingress", "egress"} <= spec.keys(), name
        assert len([each for each in labels if spec["podSelector"]["matchLabels"].items() <= each.items()]) == 1, name
        for rule in [*spec["ingress"], *spec["egress"]]:
            assert rule.get("ports") != [], f"{name}: no port at all is every port"


def test_workers_get_a_policy_where_they_run() -> None:
    policies = [
        each for each in kinds(rendered("gateway"), "NetworkPolicy") if each["metadata"]["name"].endswith("worker")
    ]
    assert [each["metadata"]["namespace"] for each in policies] == ["shop", "mail"]
    for policy in policies:
        assert allowed(policy, "ingress") == {"metrics"}
        assert allowed(policy, "egress") == {53, 6390, 443}
    on = ("--set", "networkPolicy.enabled=true,networkPolicy.workers.enabled=true,redis.embedded.enabled=true")
    worker = one(template(*on), "NetworkPolicy", "headrace-worker")
    assert worker["metadata"]["namespace"] == "tasks"
    assert worker["spec"]["egress"][-1] == {}, "handlers may reach everything"
    [redis] = [rule for rule in worker["spec"]["egress"] if {"port": 6379, "protocol": "TCP"} in rule.get("ports", ())]
    assert redis["to"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "tasks"}}


def test_a_route_leads_to_the_service() -> None:
    objects = rendered("gateway")
    route = one(objects, "HTTPRoute", "headrace-api")["spec"]
    service = one(objects, "Service", "headrace-api")
    assert route["parentRefs"][0]["name"] == "public" and route["hostnames"] == ["tasks.example.org"]
    [backend] = route["rules"][0]["backendRefs"]
    assert backend == {"name": "headrace-api", "port": service["spec"]["ports"][0]["port"]}
    [rule] = one(rendered("knobs"), "Ingress", "tasks-api")["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "tasks-api", "port": {"name": "http"}}


def test_a_container_beside_the_api_can_end_tls() -> None:
    objects = rendered("gateway")
    ports = {each["name"]: each["targetPort"] for each in one(objects, "Service", "headrace-api")["spec"]["ports"]}
    spec = one(objects, "Deployment", "headrace-api")["spec"]["template"]["spec"]
    offered = {port["name"] for container in spec["containers"] for port in container["ports"]}
    assert ports == {"http": "http", "https": "https"} and offered == {"http", "https"}


def test_monitors_find_services_and_workers() -> None:
    objects = rendered("monitoring")
    monitor = one(objects, "ServiceMonitor", "headrace-api")
    service = one(objects, "Service", "headrace-api")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {each["name"] for each in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    workers = one(objects, "PodMonitor", "headrace-worker")
    assert workers["spec"]["selector"]["matchLabels"] == MANAGED
    assert workers["metadata"]["namespace"] == "monitoring"


def test_every_knob_reaches_every_pod() -> None:
    objects = rendered("knobs")
    for name in ("tasks-api", "tasks-operator"):
        template_of = one(objects, "Deployment", name)["spec"]["template"]
        spec, container = template_of["spec"], template_of["spec"]["containers"][0]
        assert container["image"].startswith("registry.example.org/headrace/headrace@sha256:")
        assert [each["name"] for each in spec["imagePullSecrets"]] == ["one", "two"]
        assert template_of["metadata"]["labels"] | {"a": "b", "team": "platform"} == template_of["metadata"]["labels"]
        assert template_of["metadata"]["annotations"] == {"c": "d", "example.org/owner": "platform"}
        assert spec["serviceAccountName"] == "mine"
        assert spec["nodeSelector"] and spec["tolerations"] and spec["dnsConfig"]
        [spread] = spec["topologySpreadConstraints"]
        assert spread["topologyKey"] == "rack"
        assert spread["labelSelector"]["matchLabels"] == {"app.kubernetes.io/instance": "headrace"}
        assert (spec["priorityClassName"], spec["runtimeClassName"], spec["hostUsers"]) == ("high", "gvisor", False)
        assert "text" in (env_of(spec).get("HEADRACE_LOG_FORMAT"), env_of(spec).get("HEADRACE_OPERATOR_LOG_FORMAT"))
        assert env_of(spec)["HEADRACE_DURABILITY"] == "fsync"
        assert container["envFrom"] and container["args"][-2:] == ["--log-level", "debug"]
        assert spec["volumes"][-1]["name"] == "tokens" or spec["volumes"][-1]["configMap"]["name"] == "headrace-more"
        assert "/more" in {each["mountPath"] for each in container["volumeMounts"]}
        assert spec["initContainers"][0]["name"] == "first" and spec["containers"][1]["name"] == "beside"
        assert container["livenessProbe"]["failureThreshold"] == 9
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert spec["securityContext"]["supplementalGroups"] == [7]
        assert container["securityContext"]["runAsUser"] == 12345
    assert {each["metadata"]["name"] for each in kinds(objects, "ConfigMap")} == {"headrace-more", "headrace-text"}
    smoke = one(objects, "Pod", "tasks-smoke")["spec"]
    assert (smoke["priorityClassName"], smoke["securityContext"]["supplementalGroups"]) == ("high", [7])
    assert smoke["hostUsers"] is False
    assert smoke["containers"][0]["securityContext"]["runAsUser"] == 12345
    assert smoke["nodeSelector"] and smoke["tolerations"] and len(smoke["imagePullSecrets"]) == 2
    assert not kinds(objects, "ServiceAccount")
    assert one(objects, "Ingress", "tasks-api")["spec"]["rules"][0]["host"] == "tasks.example.org"


def test_a_variable_of_the_values_stands_there_once_and_wins() -> None:
    """Helm applies on the server's side, and the server refuses two of one name."""
    given = 'api.extraEnv=[{"name": "HEADRACE_HOST", "value": "::"}, {"name": "HEADRACE_DURABILITY", "value": "fsync"}]'
    spec = one(template("--set-json", given), "Deployment", "headrace-api")["spec"]["template"]["spec"]
    names = [each["name"] for each in spec["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert (env_of(spec)["HEADRACE_HOST"], env_of(spec)["HEADRACE_DURABILITY"]) == ("::", "fsync")
    assert env_of(spec)["PORT"] == "8080", "the rest is as it was, and text stays text"


def test_user_namespaces_are_asked_for_in_both_directions_and_by_default_in_none() -> None:
    given = ("--set", "redis.embedded.enabled=true,redis.embedded.hostUsers=true,api.hostUsers=false")
    found = {name: spec.get("hostUsers") for name, _, spec in pods(template(*given))}
    assert found == {"headrace-api": False, "headrace-operator": None, "headrace-redis": True, "headrace-smoke": False}
    assert all("hostUsers" not in spec for _, _, spec in pods(rendered("default")))


def test_what_all_workers_should_have_reaches_the_operator_as_it_reads_it() -> None:
    environ = env_of(one(rendered("knobs"), "Deployment", "tasks-operator")["spec"]["template"]["spec"])
    name = "HEADRACE_OPERATOR_POD_DEFAULTS"
    own = {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}}
    spec = read_spec({"queues": [{"name": "default"}], "scaling": {"maxReplicas": 5}, "template": own})
    made = filled(spec, OperatorSettings.from_env({name: environ[name]}).pod_defaults).template
    assert (made["metadata"]["labels"], made["metadata"]["annotations"]) == ({"a": "b"}, {"c": "d"})
    assert (made["spec"]["hostUsers"], made["spec"]["securityContext"]) == (False, {"supplementalGroups": [7]})
    [worker] = made["spec"]["containers"]
    assert worker["resources"]["requests"]["cpu"] == "250m" and worker["securityContext"]["readOnlyRootFilesystem"]
    assert name not in env_of(one(rendered("default"), "Deployment", "headrace-operator")["spec"]["template"]["spec"])


def test_parts_can_be_left_out() -> None:
    without = template("--set", "rbac.create=false,tests.enabled=false,operator.serviceAccount.create=false")
    assert not kinds(without, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Pod")
    assert [each["metadata"]["name"] for each in kinds(without, "ServiceAccount")] == ["headrace-api"]
    assert not kinds(template("--set", "operator.enabled=false"), "ClusterRoleBinding")
    assert {each["metadata"]["name"] for each in kinds(rendered("minimal"), "Deployment")} == {"headrace-operator"}
    assert not kinds(rendered("minimal"), "CustomResourceDefinition", "Pod", "Service")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("operator.replicas=2", "Set operator.leaderElection.enabled=true, or operator.replicas=1."),
        ("redis.embedded.enabled=true,redis.external.host=a", "redis says more than one address"),
        ("redis.external.sentinel.masterName=main", "needs redis.external.sentinel.nodes"),
        ("api.podDisruptionBudget.minAvailable=1", "needs one of maxUnavailable and minAvailable"),
        ("api.autoscaling.enabled=true,api.autoscaling.minReplicas=20", "is above api.autoscaling.maxReplicas (10)"),
        ("api.lifecycle.preStop.sleep.seconds=60", "must be longer than the sleep of api.lifecycle (60)"),
        ("api.ingress.enabled=true", "needs api.ingress.hosts"),
        ("api.httpRoute.enabled=true", "needs api.httpRoute.parentRefs"),
        ("redis.existingSecret=", "redis.existingSecret is empty, and nothing else says where Redis is"),
        (
            "redis.existingSecret=,redis.embedded.enabled=true",
            "needs redis.existingSecret: the Secret with its password",
        ),
        ("redis.embedded.enabled=true,redis.tls.caSecret=ca", "redis.embedded.enabled speaks no TLS"),
        ("redis.external.url=redis://a:1/0,redis.tls.enabled=true", "begins with redis: write rediss"),
        ("redis.existingSecret=,redis.external.host=a", "neither api.auth.existingSecret nor redis.existingSecret"),
        (
            "worker.defaults.podSpec.serviceAccountName=boss",
            "worker.defaults.podSpec.serviceAccountName cannot be the same",
        ),
        ("worker.defaults.podSpec.containers={}", "or the worker's resources in worker.defaults.resources"),
        ("operator.strategy.type=RollingUpdate", "leave operator.strategy empty"),
        ("redis.external.sentinel.nodes={a:1}", "needs redis.external.sentinel.masterName"),
        ("redis.tls.enabled=true", "write rediss:// there"),
        ("redis.external.host=a,redis.tls.caSecret=ca", "Set redis.tls.enabled=true."),
        ("api.autoscaling.enabled=true,api.resources=null", "api.resources.requests.cpu is not set"),
        ("networkPolicy.workers.enabled=true", "needs networkPolicy.enabled=true"),
        ("redis.external.host=a:6379", "/redis/external/host"),
        ("image.digest=abc", "/image/digest"),
        ("redis.keys.password=", "/redis/keys/password"),
        ("fullnameOverride=Tasks", "/fullnameOverride"),
        (
            "operator.connections.Big_Shop.secret=shop",
            "connections.Big_Shop: pools name a connection by small",
        ),
        ("api.auth.mode=basic", "/api/auth/mode"),
        ("api.hostUsers=maybe", "/api/hostUsers"),
        ("networkPolicy.apiServerCidrs={10.0.0.1}", "/networkPolicy/apiServerCidrs/0"),
        ("api.replica=3", "additional properties 'replica' not allowed"),
        ("api.replicas=two", "/api/replicas"),
        ("redis.external.url=redis://:secret@host:6379/0", "/redis/external/url"),
        ("operator.logLevel=loud", "/operator/logLevel"),
        ("watchNamespaces={Shop}", "/watchNamespaces/0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_value_and_the_remedy(given: str, sentence: str) -> None:
    assert sentence in " ".join(refusal("--set", given).split())
