"""Rules, runbooks and dashboards: whole, of metrics that exist, and what the chart makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from chart_render import refusal, rendered, template
from charts import dashboards
from charts.grafana import promql
from cluster import helm
from headrace_cli.metrics_page import api_registry, operator_registry, worker_registry
from headrace_operator.manifests import MANAGED
from monitoring_kit import ROOT, Json, alerts, names, program, promtool, rules

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
BOARDS: Final[dict[str, Json]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(dashboards.FOLDER.glob("*.json"))
}
SUFFIXES: Final = {"counter": ("_total",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}


# -- metrics


@cache
def known() -> set[str]:
    """Every name that a query may ask for: what our processes show, what our rules record, and Prometheus' own."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    registries = (api_registry(), worker_registry(), operator_registry())
    return recorded.union({"up", "ALERTS"}, *map(samples, registries))


def samples(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        yield from (family.name + suffix for suffix in SUFFIXES.get(family.type, ("",)))


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("sum by (namespace) (rate(a_total{x=\"y\"}[5m])) > 0.5 # b", {"a_total"}),
        ('count({__name__=~"a|b"}) or 0 * c:d:sum', {"a", "b", "c:d:sum"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[1h]))) / 1e9 and on (job) up == 0", {"a_bucket", "up"}),
    ],
)  # fmt: skip
def test_names_of_a_query(query: str, asked: set[str]) -> None:
    assert names(query) == asked


def test_rules_ask_for_metrics_that_exist() -> None:
    for rule in rules():
        assert names(rule["expr"]), rule
        assert names(rule["expr"]) <= known(), rule


@pytest.mark.parametrize("name", BOARDS)
def test_dashboards_ask_for_metrics_that_exist(name: str) -> None:
    asked = [names(query) for query in queries(BOARDS[name])]
    assert len(asked) > 10 and all(asked)
    assert set().union(*asked) <= known()


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    """By a dashboard or a rule: what nobody looks at need not be measured."""
    asked = [*(query for board in BOARDS.values() for query in queries(board)), *(rule["expr"] for rule in rules())]
    seen = set().union(*map(names, asked))
    for registry in (api_registry(), worker_registry(), operator_registry()):
        for family in registry.collect():
            if not family.name.startswith(("process_", "python_")):
                assert {family.name + suffix for suffix in SUFFIXES.get(family.type, ("",))} & seen, family.name


# -- alerts and their pages


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert {path.name for path in RUNBOOKS.iterdir()} == {f"{name}.md" for name in alerts()}
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}


@pytest.mark.parametrize("name", alerts())
def test_the_runbook_says_what_the_rule_says(name: str) -> None:
    page, alert = (RUNBOOKS / f"{name}.md").read_text(), alerts()[name]
    assert page.startswith(f"# {name}\n\nSeverity {alert['labels']['severity']}. It fires when ")
    assert re.findall("^## (.+)$", page, re.MULTILINE) == ["What it means", "How to look", "What to do"]


def test_the_page_lists_the_alerts() -> None:
    page = (ROOT / "docs/how-to/monitoring.md").read_text()
    listed = dict(re.findall(r"^\| \[(\w+)\]\(\.\./runbooks/\1\.md\) \| (\w+) \|", page, re.MULTILINE))
    assert listed == {name: alert["labels"]["severity"] for name, alert in alerts().items()}


# -- dashboards


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Json) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def test_the_dashboards_are_those_that_the_program_makes() -> None:
    made = dashboards.files()
    assert len(made) == 4
    assert {path: path.read_text() for path in dashboards.FOLDER.iterdir()} == made, "python -m charts.dashboards"


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_works_wherever_it_is_imported(name: str) -> None:
    """Through the sidecar nobody is asked for a data source, so it is a choice of the page."""
    board = BOARDS[name]
    assert "__inputs" not in board and board["uid"] == f"headrace-{name}"
    choices = {each["name"]: each for each in board["templating"]["list"]}
    assert choices["datasource"]["query"] == "prometheus"
    sources = [part["datasource"]["uid"] for panel in panels(board) for part in (panel, *panel["targets"])]
    sources += [each["datasource"]["uid"] for each in choices.values() if each["type"] == "query"]
    assert set(sources) == {"${datasource}"}
    chosen = set(re.findall(r"\$(\w+)", " ".join(queries(board)))) - {"__rate_interval"}
    assert chosen == choices.keys() - {"datasource"}, "every choice is used, and nothing else"


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_names_of_their_own_and_do_not_overlap(name: str) -> None:
    board = BOARDS[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        its = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not its & cells, panel["title"]
        cells |= its


def test_what_queries_abbreviate() -> None:
    assert promql("rate(a{NS,TYPE,b=\"c\"}[RATE])") == (
        'rate(a{namespace=~"$namespace",type=~"$type",b="c"}[$__rate_interval])'
    )  # fmt: skip


# -- the chart

needs_helm = pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {helm.missing()}")


def rule_object(objects: list[Json]) -> Json:
    [found] = [each for each in objects if each["kind"] == "PrometheusRule"]
    return found


def rendered_alerts(objects: list[Json]) -> dict[str, Json]:
    groups = rule_object(objects)["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@needs_helm
def test_the_chart_brings_the_rules_as_they_are() -> None:
    plain = template("--set", "metrics.prometheusRule.enabled=true")
    source = yaml.safe_load((ROOT / "charts/headrace/files/rules.yaml").read_text())
    assert rule_object(plain)["spec"] == source
    assert rule_object(plain)["metadata"]["namespace"] == "tasks"


@needs_helm
def test_values_change_alerts(tmp_path: Path) -> None:
    objects = rendered("monitoring")
    assert rule_object(objects)["metadata"]["labels"]["release"] == "prometheus"
    changed = rendered_alerts(objects)
    assert changed.keys() == alerts().keys() - {"HeadraceTasksParked"}
    oldest = changed["HeadraceOldestTaskTooOld"]
    assert oldest["expr"].endswith("> 900.5\n") and oldest["for"] == "10m"
    assert oldest["labels"] == {"severity": "info", "team": "platform"}
    assert changed["HeadraceNoWorkers"]["labels"] == {"severity": "critical", "team": "platform"}
    assert changed["HeadraceNoWorkers"]["expr"] == alerts()["HeadraceNoWorkers"]["expr"]
    assert oldest["annotations"]["runbook_url"] == "https://runbooks.example.org/headrace/HeadraceOldestTaskTooOld.md"
    burn = [line.split() for line in changed["HeadraceApiErrorBudgetBurn"]["expr"].splitlines()]
    assert [float(line[-1]) for line in burn] == [0.00001, 0.00001], "in both windows"
    spec = rule_object(objects)["spec"]
    assert spec["groups"][-1]["name"] == "ours"
    if program("promtool"):
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
        promtool("check", "rules", str(tmp_path / "rules.yaml"))


@needs_helm
def test_all_alerts_can_be_switched_off() -> None:
    off = [f"metrics.prometheusRule.alerts.{name}.enabled=false" for name in alerts()]
    objects = template("--set", ",".join(["metrics.prometheusRule.enabled=true", *off]))
    assert [group["name"] for group in rule_object(objects)["spec"]["groups"]] == ["headrace.recording"]


@needs_helm
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("HeadraceNoWorker.for=1m", "HeadraceNoWorker: there is no such alert. There are HeadraceApiErrorBudgetBurn, "),
        ("HeadraceNoWorkers.threshold=3", "alerts.HeadraceNoWorkers.threshold: this alert has no threshold"),
        ("HeadraceNoWorkers.for=soon", "/metrics/prometheusRule/alerts/HeadraceNoWorkers/for"),
        ("HeadraceNoWorkers.sev=info", "additional properties 'sev' not allowed"),
    ],
)  # fmt: skip
def test_a_change_of_what_is_not_there_is_refused(given: str, sentence: str) -> None:
    values = f"metrics.prometheusRule.enabled=true,metrics.prometheusRule.alerts.{given}"
    assert sentence in " ".join(refusal("--set", values).split())


@needs_helm
def test_every_dashboard_comes_as_a_config_map_that_the_sidecar_finds() -> None:
    maps = [each for each in rendered("monitoring") if each["kind"] == "ConfigMap"]
    found: dict[str, Any] = {}
    for each in maps:
        assert each["metadata"]["namespace"] == "monitoring"
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "headrace"}
        [(file, text)] = each["data"].items()
        found[file.removeprefix("headrace-").removesuffix(".json")] = json.loads(text)
    assert found == BOARDS


@needs_helm
def test_nothing_of_it_comes_unasked() -> None:
    assert not {"PrometheusRule", "ConfigMap"} & {each["kind"] for each in rendered("default")}


@needs_helm
def test_what_the_operator_tells_of_pools_keeps_their_namespace() -> None:
    """Like what the workers of these pools tell; else a dashboard's choice of a namespace would find one of the two."""
    monitors = [each for each in rendered("monitoring") if each["kind"] == "PodMonitor"]
    honoured = {
        each["spec"]["selector"]["matchLabels"] == MANAGED: each["spec"]["podMetricsEndpoints"][0].get("honorLabels")
        for each in monitors
    }
    assert honoured == {True: None, False: True}
