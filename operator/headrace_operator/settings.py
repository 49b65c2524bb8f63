"""The operator's settings: HEADRACE_OPERATOR_… variables, read once, and its Redis connections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from headrace.environment import Rule, Settings, choice, computed_setting, is_service_link, number, setting, text, whole
from headrace.errors import UnknownSetting, nearest
from headrace.redis_settings import RedisSettings
from headrace.task import LABEL, LABEL_WORDS

from . import defaults

PREFIX: Final = "HEADRACE_OPERATOR_"
CONNECTION: Final = PREFIX + "CONNECTION_"
"""…_CONNECTION_SHOP=redis://… names a connection `shop` that pools may ask for."""


def _names(given: str) -> tuple[str, ...]:
    names = tuple(name for name in (part.strip() for part in given.split(",")) if name)
    for name in names:
        if not re.fullmatch(LABEL, name):
            raise ValueError(f"{name!r} is no name of a namespace: use {LABEL_WORDS}")
    return names


def _flag(given: str) -> bool:
    if given.lower() not in {"true", "false"}:
        raise ValueError("it is neither true nor false")
    return given.lower() == "true"


_NAMESPACES: Final = Rule("names with commas between them, as in shop,mail", _names)
_FLAG: Final = Rule("true or false", _flag)
_PODS: Final = Rule('a pod template in JSON, as {} or {"spec": {"nodeSelector": {…}}}', defaults.read)


@dataclass(frozen=True, kw_only=True)
class OperatorSettings(Settings):
    """An operator process."""

    namespaces: tuple[str, ...] = setting((), _NAMESPACES, env=PREFIX + "NAMESPACES")
    """Kubernetes namespaces to watch; none means all of them."""
    tick_s: float = setting(1.0, number(0.1, 60), env=PREFIX + "TICK_S")
    """Seconds between two looks at all queues."""
    tenants: bool = setting(False, _FLAG, env=PREFIX + "TENANTS")
    """Whether each Kubernetes namespace is a namespace of headrace of the same name; else all are `default`."""
    allow_service_accounts: bool = setting(False, _FLAG, env=PREFIX + "ALLOW_SERVICE_ACCOUNTS")
    """Whether a pool's template may name a service account: whoever may make pools could then run as it."""
    pod_defaults: defaults.Template = computed_setting(dict, _PODS, env=PREFIX + "POD_DEFAULTS")  # noqa: RUF009 - a field
    """What pods of pools have where the pool's own template says nothing; of `spec.containers` one, the worker's."""
    max_replicas: int = setting(0, whole(0, 1_000_000, "replicas"), env=PREFIX + "MAX_REPLICAS")
    """Replicas of all pools together; 0 is no cap."""
    max_replicas_per_namespace: int = setting(
        0, whole(0, 1_000_000, "replicas"), env=PREFIX + "MAX_REPLICAS_PER_NAMESPACE"
    )
    """Replicas of all pools of one namespace; 0 is no cap."""
    lease: bool = setting(False, _FLAG, env=PREFIX + "LEASE")
    """Whether several operators run, of which one works: the holder of a Lease."""
    lease_namespace: str = setting("default", text(LABEL, "a namespace"), env=PREFIX + "LEASE_NAMESPACE")
    """Where that Lease is."""
    identity: str = setting("", text(r"[A-Za-z0-9._-]{0,253}", "a name"), env=PREFIX + "IDENTITY")
    """Name of this process on the Lease; by default the host's name."""
    host: str = setting(
        "0.0.0.0",  # noqa: S104 - probes and Prometheus come from outside
        text(r"[A-Za-z0-9.:-]{1,253}", "an address or host name"),
        env=PREFIX + "METRICS_HOST",
    )
    """Address to listen on for health and metrics."""
    metrics_port: int = setting(9464, whole(0, 65_535), env=PREFIX + "METRICS_PORT")
    """Port for health and metrics; 0 takes a free one."""
    log_level: str = setting("info", choice("debug", "info", "warning", "error"), env=PREFIX + "LOG_LEVEL")
    """The least that is logged."""
    log_format: str = setting("auto", choice("auto", "json", "text"), env=PREFIX + "LOG_FORMAT")
    """`auto` is text in a terminal and JSON elsewhere."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: object) -> Self:
        """Read the settings. Raises BadSetting, and UnknownSetting for a HEADRACE_OPERATOR_… that nothing reads."""
        known = {field.metadata["env"] for field in cls.__dataclass_fields__.values()}
        for name, value in environ.items():
            ours = name.startswith(PREFIX) and not name.startswith(CONNECTION)
            if ours and name not in known and not is_service_link(name, value):
                raise UnknownSetting(name, "the environment", nearest(name, sorted(known)))
        return super().from_env(environ, **overrides)


def connections(environ: Mapping[str, str]) -> dict[str, RedisSettings]:
    """Every Redis that pools may name: `default`, where the environment says, and the named ones."""
    found = {"default": RedisSettings.from_env(environ)}
    for name, url in environ.items():
        if name.startswith(CONNECTION) and url and not _is_other_service(name, url):
            label = name.removeprefix(CONNECTION).lower().replace("_", "-")
            found[label] = RedisSettings.parse(url, name)
    return found


def _is_other_service(name: str, value: str) -> bool:
    """A Service called headrace-operator-connection-… is no Redis; a connection called `service-host` is one."""
    return is_service_link(name, value) and not value.startswith(("redis", "unix"))
