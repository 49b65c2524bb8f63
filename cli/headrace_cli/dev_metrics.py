"""The metrics of the worker processes of `headrace dev`, summed as Prometheus would: one address shows all.

What a process that ended had counted stays in the sums, so no counter ever falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

_OF_ALL_TIME: Final = {"counter", "histogram", "summary"}
Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class _Family:
    documentation: str
    type: str
    values: dict[Series, float] = field(default_factory=dict)

    def add(self, other: _Family) -> None:
        for series, value in other.values.items():
            if _is_moment(series[0]):
                self.values[series] = max(value, self.values.get(series, value))
            else:
                self.values[series] = self.values.get(series, 0.0) + value


def _is_moment(name: str) -> bool:
    """Unix times are compared, not added; and a fact (`_info`) is true once."""
    return name.endswith(("_timestamp_seconds", "_start_time_seconds", "_info"))


class Sums:
    """What was last heard from each process, and what those that ended had counted."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, _Family]] = {}
        self._past: dict[str, _Family] = {}

    def heard(self, process: str, text: str) -> None:
        """The text of this process' /metrics."""
        self._last[process] = _parse(text)

    def ended(self, process: str) -> None:
        """This process is gone; what it had counted stays."""
        lasting = {name: each for name, each in self._last.pop(process, {}).items() if each.type in _OF_ALL_TIME}
        _add(self._past, lasting)

    def families(self, skip: Iterable[str] = ()) -> list[Metric]:
        """The sums, as prometheus-client has them, without the families in `skip`."""
        sums: dict[str, _Family] = {}
        for each in (self._past, *self._last.values()):
            _add(sums, each)
        left_out = set(skip)
        return [_metric(name, family) for name, family in sums.items() if name not in left_out]


def _parse(text: str) -> dict[str, _Family]:
    found: dict[str, _Family] = {}
    for metric in text_string_to_metric_families(text):
        family = found[metric.name] = _Family(metric.documentation, metric.type)
        for sample in metric.samples:
            family.values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def _add(sums: dict[str, _Family], more: Mapping[str, _Family]) -> None:
    for name, family in more.items():
        sums.setdefault(name, _Family(family.documentation, family.type)).add(family)


def _metric(name: str, family: _Family) -> Metric:
    metric = Metric(name, family.documentation, family.type)
    for (sample, labels), value in family.values.items():
        metric.add_sample(sample, dict(labels), value)
    return metric
