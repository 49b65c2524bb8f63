"""What a process of a pool is to run on this machine: the pod template, as far as a process can follow it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .manifests import REDIS, WORKER, InvalidTemplate, Pool, environment, pod_template

_FOLLOWED: Final = frozenset({"name", "image", "imagePullPolicy", "command", "args", "env"})
_POD_FOLLOWED: Final = frozenset({"containers", "restartPolicy", "terminationGracePeriodSeconds"})


@dataclass(frozen=True, slots=True)
class Order:
    """One template of a pool: every process of it is started like that."""

    arguments: tuple[str, ...]
    """After `headrace worker`."""
    environ: Mapping[str, str]
    """Beside what the machine itself says; without WORKER_ID."""
    grace_s: float
    """What tasks have to end after SIGTERM."""
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """What a process cannot follow, a sentence each."""


def order_of(pool: Pool, default_grace_s: float) -> Order:
    """Raises InvalidTemplate, for the same templates as in a cluster.

    `default_grace_s` holds where the pool names no grace: who stops everything on a laptop does not wait for minutes.
    """
    pod_template(pool, allow_service_accounts=True)
    spec = pool.spec.template.get("spec", {})
    container = _worker(spec["containers"])
    arguments, words = _arguments(container)
    given = spec.get("terminationGracePeriodSeconds", pool.spec.worker.termination_grace_period_seconds)
    grace_s = default_grace_s if given is None else float(pool.spec.worker_grace_s)
    environ = {**_plain(environment(pool)), "HEADRACE_GRACE_S": f"{grace_s:g}", **_plain(container.get("env", ()))}
    # Which Redis there is, the machine knows, not a template for a cluster.
    own = {name: value for name, value in environ.items() if name not in REDIS} | {"HEADRACE_METRICS_PORT": "0"}
    return Order((*arguments, "--metrics-port", "0"), own, grace_s, (*words, *_ignored(spec, container)))


def _worker(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    named = [each for each in containers if each.get("name") == WORKER]
    return named[0] if named else containers[0]


def _plain(env: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Those variables that have a value by themselves."""
    return {str(each["name"]): str(each["value"]) for each in env if "value" in each}


def _arguments(container: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """What `headrace worker` is given, and what is said about it."""
    command, args = _texts(container, "command"), _texts(container, "args")
    image = f"the image {container['image']} is not used: processes of this Python run the code of this folder"
    line = [*command, *args] if command else ["headrace", *args]
    if line[:3] == ["python", "-m", "headrace_cli"]:
        line = ["headrace", *line[3:]]
    if line[:2] == ["headrace", "worker"]:
        return tuple(line[2:]), [image]
    if line == ["headrace"]:
        return (), [f"{image}, as `headrace worker`"]
    return (), [image, f"the command {' '.join(line)!r} is not run; `headrace worker` is"]


def _texts(container: Mapping[str, Any], name: str) -> list[str]:
    value = container.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidTemplate(f"spec.template.spec.containers[{container.get('name', WORKER)}].{name} must be texts.")
    return value


def _ignored(spec: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    others = [str(each.get("name", "?")) for each in spec["containers"] if each is not container]
    fields = sorted(({*spec} - _POD_FOLLOWED) | ({*container} - _FOLLOWED))
    if others:
        yield f"other containers are not started: {', '.join(others)}"
    if fields:
        yield f"processes do not follow {', '.join(fields)}"
    redis = [str(each["name"]) for each in container.get("env", ()) if each["name"] in REDIS]
    if redis:
        yield f"{', '.join(redis)}: the Redis of this machine is used"
    shell = [
        str(each["name"]) for each in container.get("env", ()) if "value" not in each and each["name"] not in REDIS
    ]
    if shell:
        yield f"{', '.join(shell)}: taken from your shell's environment"


def app_of(order: Order) -> str:
    """The application that the template names; '' if it names none."""
    arguments = list(order.arguments)
    for at, word in enumerate(arguments):
        if word == "--app" and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith("--app="):
            return word.removeprefix("--app=")
    return order.environ.get("HEADRACE_APP", "")
