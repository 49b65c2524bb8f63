"""Dashboards as Grafana stores them, made of what a person wants to say of them: charts/dashboards.py."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
STANDS_FOR: Final = {
    "NS": 'namespace=~"$namespace"',
    "TYPE": 'type=~"$type"',
    "POOL": 'pool=~"$pool"',
    "RATE": "$__rate_interval",
}
"""What the queries of charts/dashboards.py abbreviate."""
COLUMNS: Final = 24
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: `queries` are legend → PromQL. `unit` is Grafana's word; `about` is shown at the panel's corner."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    width: int = 8

    @property
    def height(self) -> int:
        return 4 if self.kind == "stat" else 8


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page: rows of panels by their heading, and what can be chosen beside the namespace."""

    name: str
    title: str
    rows: dict[str, list[Panel]]
    choices: dict[str, str] = field(default_factory=dict)
    """Label → series that have it."""


WHOSE: Final = '{__name__=~"headrace_build_info|headrace_operator_max_workers|headrace_operator_tick_age_seconds"}'
"""Series whose namespaces are all there are."""


def promql(query: str) -> str:
    """A query as Grafana takes it."""
    return re.sub(r"\b(NS|TYPE|POOL|RATE)\b", lambda found: STANDS_FOR[found[0]], query)


def document(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana stores it."""
    choices = {"namespace": WHOSE, **dashboard.choices}
    return {
        "uid": f"headrace-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["headrace"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source_choice(), *(_choice(*each) for each in choices.items())]},
        "links": [{"type": "dashboards", "title": "headrace", "tags": ["headrace"], "keepTime": True}],
        "panels": _panels(dashboard),
    }


def _source_choice() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _choice(label: str, series: str) -> Json:
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({series}, {label})", "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Of everything, also of what has no such label: outside of Kubernetes there is no namespace.
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(dashboard: Dashboard) -> list[Json]:
    """Rows from above, their panels from the left."""
    made: list[Json] = []
    y = 0
    for heading, panels in dashboard.rows.items():
        made.append({"id": len(made) + 1, "type": "row", "title": heading, "gridPos": _place(0, y, COLUMNS, 1)})
        y, x = y + 1, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                y, x = y + panel.height, 0
            made.append(_panel(len(made) + 1, panel, _place(x, y, panel.width, panel.height)))
            x += panel.width
        y += panels[-1].height
    return made


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(number: int, panel: Panel, place: Json) -> Json:
    heatmap = panel.kind == "heatmap"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": promql(query),
            "legendFormat": "{{le}}" if heatmap else legend,
            "format": "heatmap" if heatmap else "time_series",
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        **({"description": panel.about} if panel.about else {}),
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _options(panel),
    }


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "value"}
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Blues", "steps": 64}}
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
