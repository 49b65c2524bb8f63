"""The Helm chart: its files, and what holds for each set of values in its ci/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from chart_render import CASES, CHART, ROOT, Json, kinds, one, pods, rendered, run, template
from charts import values_page
from cluster import helm

pytestmark = [
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.timeout(900, func_only=False),  # the first run builds Helm
]

CRD = "CustomResourceDefinition", "workerpools.headrace.dev"
MONITORS = "podMonitor", "serviceMonitor", "prometheusRule", "dashboards"

# -- the files themselves


def test_readme_and_schema_are_those_of_the_values() -> None:
    for file, content in values_page.pages().items():
        assert file.read_text() == content, f"{file.name} is old: python charts/values_page.py"


def test_upgrades_keep_values_and_take_the_new_charts_defaults() -> None:
    """`--reuse-values` keeps the old chart's defaults too, so a template that reads a new value fails."""
    pages = [ROOT / "README.md", ROOT / "UPGRADING.md", CHART / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [page.name for page in pages if " --reuse-values" in page.read_text()] == []
    assert any(" --reset-then-reuse-values" in page.read_text() for page in pages)


def test_every_value_is_described() -> None:
    described = {each.path for each in values_page.values((CHART / "values.yaml").read_text())}

    def check(node: Any, path: tuple[str, ...]) -> None:
        if path not in described:
            assert isinstance(node, dict) and node, f"{'.'.join(path)} has no comment"
            for name, child in node.items():
                check(child, (*path, name))

    check(yaml.safe_load((CHART / "values.yaml").read_text()), ())


def test_the_crds_are_copies() -> None:
    copies = {path.name: path.read_bytes() for path in (CHART / "files" / "crds").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (ROOT / "crds").iterdir()}


def test_the_version_is_that_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in project


def test_what_the_catalogue_shows_is_what_there_is() -> None:
    """The annotations that Artifact Hub reads."""
    about = {
        key.partition("/")[2]: text
        for key, text in yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"].items()
    }
    images = {each["image"] for each in yaml.safe_load(about["images"])}
    used = {
        container["image"]
        for case in ("default", "embedded-redis")
        for _, _, spec in pods(rendered(case))
        for container in spec["containers"]
    }
    assert images == used
    [crd] = yaml.safe_load(about["crds"])
    definition = one(rendered("default"), "CustomResourceDefinition", crd["name"])["spec"]
    assert (crd["kind"], crd["version"]) == (definition["names"]["kind"], definition["versions"][0]["name"])
    schema = definition["versions"][0]["schema"]["openAPIV3Schema"]
    for example in yaml.safe_load(about["crdsExamples"]):
        assert jsonschema_rs.Draft4Validator(schema).is_valid(example)
        assert example["spec"].keys() <= schema["properties"]["spec"]["properties"].keys()


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(case: str) -> None:
    done = run("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{case}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_fits_its_secret(tmp_path: Path) -> None:
    """Helm stores chart and manifest in a Secret of at most 1 MiB."""
    done = run("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.glob("*.tgz")
    assert package.stat().st_size < 100 * 1024


def test_the_crd_stays_and_is_that_of_the_tree() -> None:
    crd = one(rendered("default"), "CustomResourceDefinition", "workerpools.headrace.dev")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert crd["spec"] == yaml.safe_load((ROOT / "crds" / "workerpools.yaml").read_text())["spec"]
    let_go = one(template("--set", "crds.keep=false"), "CustomResourceDefinition", "workerpools.headrace.dev")
    assert "annotations" not in let_go["metadata"]


def test_the_schema_is_one() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema_rs.meta.validate(schema)


def test_it_is_a_part_of_another_chart(tmp_path: Path) -> None:
    """Umbrella charts hand over `global` and `enabled`, and both with keys of their own."""
    umbrella = tmp_path / "umbrella"
    (umbrella / "charts").mkdir(parents=True)
    (umbrella / "charts" / "headrace").symlink_to(CHART)
    dependency = {"name": "headrace", "version": "0.1.0", "condition": "headrace.enabled"}
    about = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": [dependency]}
    (umbrella / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = {"global": {"other": {"a": 1}}, "headrace": {"enabled": True, "api": {"replicas": 3}}}
    (umbrella / "values.yaml").write_text(yaml.safe_dump(values))
    done = run("template", "headrace", str(umbrella), "--namespace", "tasks")
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert one(objects, "Deployment", "headrace-api")["spec"]["replicas"] == 3
    off = run("template", "headrace", str(umbrella), "--set", "headrace.enabled=false")
    assert not [each for each in yaml.safe_load_all(off.stdout) if each]


# -- every case


@pytest.mark.parametrize("case", CASES)
def test_pods_satisfy_restricted(case: str) -> None:
    found = list(pods(rendered(case)))
    assert found
    for name, _, spec in found:
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in spec.items() if value}, name
        for volume in spec.get("volumes", ()):
            assert volume.keys() & {"emptyDir", "secret", "configMap", "projected", "persistentVolumeClaim"}, name
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.parametrize("case", CASES)
def test_our_containers_have_a_read_only_root_and_bounds(case: str) -> None:
    for name, _, spec in pods(rendered(case)):
        container = spec["containers"][0]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert container["resources"]["limits"].keys() == {"memory"}, f"{name}: a limit of the processor slows it down"


@pytest.mark.parametrize("case", CASES)
def test_only_the_operator_has_a_token(case: str) -> None:
    for account in kinds(rendered(case), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for name, metadata, spec in pods(rendered(case)):
        operator = metadata["labels"]["app.kubernetes.io/component"] == "operator"
        assert spec["automountServiceAccountToken"] is operator, name
        assert spec["enableServiceLinks"] is False, name


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_their_pods_and_no_others(case: str) -> None:
    labels = {name: metadata["labels"] for name, metadata, _ in pods(rendered(case))}
    for each in kinds(rendered(case), "Deployment", "StatefulSet", "Service", "PodDisruptionBudget"):
        selector = each["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        found = [name for name, of in labels.items() if selector.items() <= of.items()]
        assert len(found) == 1, f"{each['kind']} {each['metadata']['name']} finds {found}"


def test_a_label_that_several_values_name_is_there_once() -> None:
    """The nearest one counts, and none of them what selectors find pods by. Flux refuses a key that is there twice."""
    common = {"team": "all", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/component": "all"}
    objects = template("--set-json", f"commonLabels={json.dumps(common)}", "--set", "api.podLabels.team=web")
    deployment = one(objects, "Deployment", "headrace-api")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], deployment["metadata"]["labels"]["team"]) == ("web", "all")
    assert labels["app.kubernetes.io/part-of"] == "shop"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    crd = one(template("--set", "crds.labels.team=infra", "--set", "commonLabels.team=all"), *CRD)
    assert crd["metadata"]["labels"]["team"] == "infra"


def test_a_key_with_nothing_after_it_is_an_empty_one(tmp_path: Path) -> None:
    """`extraEnv:` above lines that are all commented out is null, which removes the chart's own default."""
    everything = ["redis.embedded", "networkPolicy", *(f"metrics.{each}" for each in MONITORS)]
    switches = [part for each in everything for part in ("--set", f"{each}.enabled=true")]
    nothing = emptied(yaml.safe_load((CHART / "values.yaml").read_text()))
    assert nothing["operator"]["extraEnv"] is None
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(nothing))
    assert template(*switches, "--values", str(tmp_path / "values.yaml")) == template(*switches)
    bare = template(*switches, "--set", "podSecurityContext=null,securityContext=null")
    assert one(bare, "Deployment", "headrace-api")["spec"]["template"]["spec"]["securityContext"] == {}


def emptied(values: Json) -> Json:
    """Those that are empty maps or lists, as null."""
    below = {name: emptied(each) for name, each in values.items() if isinstance(each, dict) and each}
    return {name: each for name, each in below.items() if each} | dict.fromkeys(
        name for name, each in values.items() if each in ({}, [])
    )


def test_an_image_without_a_registry_is_one_of_the_node() -> None:
    for given in ("image.registry=,image.tag=dev", "image.registry=null,image.tag=dev"):
        pod = one(template("--set", given), "Deployment", "headrace-api")["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "headrace/headrace:dev"


def test_what_looks_like_a_number_is_a_text_where_kubernetes_wants_one() -> None:
    [redis] = kinds(
        template("--set", "redis.embedded.enabled=true", "--set-string", "redis.embedded.maxmemory=268435456"),
        "StatefulSet",
    )
    assert "268435456" in redis["spec"]["template"]["spec"]["containers"][0]["args"]
    done = run("template", "2026", str(CHART), "--namespace", "tasks", "--set", "fullnameOverride=headrace")
    for each in yaml.safe_load_all(done.stdout):
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "2026"


@pytest.mark.parametrize("case", CASES)
def test_an_upgrade_alone_makes_no_pod_of_redis_anew(case: str) -> None:
    """Its queue may be in memory; a label that names a version would restart it."""
    for each in kinds(rendered(case), "StatefulSet"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


@pytest.mark.parametrize("case", CASES)
def test_objects_have_the_usual_labels_and_a_namespace(case: str) -> None:
    for each in rendered(case):
        if each["metadata"]["name"] in {"headrace-more", "headrace-text"}:
            continue
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/instance"] == "headrace"
        cluster_wide = each["kind"] in {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
        assert ("namespace" in each["metadata"]) is not cluster_wide, each["kind"]
        assert len(each["metadata"]["name"]) <= 63


@pytest.mark.parametrize("case", CASES)
def test_nobody_may_do_everything_or_read_secrets(case: str) -> None:
    for role in kinds(rendered(case), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]


@pytest.mark.parametrize("case", CASES)
def test_the_same_values_make_the_same_objects(case: str) -> None:
    assert template("--values", str(CHART / "ci" / f"{case}-values.yaml")) == rendered(case)
