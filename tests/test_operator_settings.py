"""The operator's settings: what it reads, refuses and leaves alone."""

from __future__ import annotations

import pytest

from headrace.errors import UnknownSetting
from headrace.settings import ApiSettings, WorkerSettings
from headrace_operator.settings import OperatorSettings, connections

LINKS = {
    "HEADRACE_OPERATOR_SERVICE_HOST": "10.0.0.1",
    "HEADRACE_OPERATOR_SERVICE_PORT": "9464",
    "HEADRACE_OPERATOR_SERVICE_PORT_METRICS": "9464",
    "HEADRACE_OPERATOR_PORT": "tcp://10.0.0.1:9464",
    "HEADRACE_OPERATOR_PORT_9464_TCP": "tcp://10.0.0.1:9464",
    "HEADRACE_OPERATOR_PORT_9464_TCP_PROTO": "tcp",
    "HEADRACE_OPERATOR_PORT_9464_TCP_PORT": "9464",
    "HEADRACE_OPERATOR_PORT_9464_TCP_ADDR": "10.0.0.1",
    "HEADRACE_OPERATOR_METRICS_SERVICE_HOST": "10.0.0.2",
    "HEADRACE_OPERATOR_METRICS_PORT": "tcp://[fd00::2]:9464",
    "HEADRACE_OPERATOR_CONNECTION_SHOP_SERVICE_HOST": "10.0.0.3",
    "HEADRACE_OPERATOR_CONNECTION_SHOP_PORT": "tcp://10.0.0.3:6379",
    "HEADRACE_OPERATOR_CONNECTION_SHOP_PORT_6379_TCP": "tcp://10.0.0.3:6379",
    "HEADRACE_WORKER_PORT": "udp://10.0.0.4:1",
}
"""Of Services called headrace-operator, -operator-metrics, -operator-connection-shop and -worker."""


def test_what_kubernetes_says_of_services_is_no_setting() -> None:
    assert OperatorSettings.from_env(LINKS) == OperatorSettings.from_env({})
    assert connections({"HEADRACE_URL": "redis://here", **LINKS}).keys() == {"default"}
    for cls in (WorkerSettings, ApiSettings):
        assert cls.from_env(LINKS) == cls.from_env({})


def test_a_connection_may_be_called_like_a_part_of_a_service() -> None:
    given = {"HEADRACE_URL": "redis://here", "HEADRACE_OPERATOR_CONNECTION_SERVICE_HOST": "redis://there"}
    assert connections(given).keys() == {"default", "service-host"}


@pytest.mark.parametrize("name", ["HEADRACE_OPERATOR_TICKS", "HEADRACE_OPERATOR_PORT"])
def test_a_slip_of_the_pen_is_refused_all_the_same(name: str) -> None:
    with pytest.raises(UnknownSetting):
        OperatorSettings.from_env({name: "1"})
