"""compose.yaml without a Docker engine: its schema, its commands, variables and health checks, its Prometheus."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from command_line import Command, http
from conftest import StartRedis
from examples.settings import Settings as ExampleSettings
from headrace.environment import _known
from headrace.errors import ConfigError
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings, WorkerSettings
from headrace_cli.main import cli
from headrace_cli.ports import free_port
from redis_server import RedisServer, await_true

ROOT: Final = Path(__file__).parent.parent
COMPOSE: Final = ROOT / "compose.yaml"
PROMETHEUS: Final = ROOT / "deploy" / "prometheus.yml"
TOLD: Final = yaml.safe_load(COMPOSE.read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = TOLD["services"]
OURS: Final = {name: each for name, each in SERVICES.items() if "build" in each}
READS: Final[dict[str, Callable[[Mapping[str, str]], object]]] = {
    "api": ApiSettings.from_env,
    "worker": WorkerSettings.from_env,
}
"""Command → what reads its variables."""


def test_it_follows_the_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    run = subprocess.run(check, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_there_is_what_the_quick_start_promises() -> None:
    assert set(SERVICES) == {"redis", "api", "worker", "prometheus", "grafana"}
    assert set(OURS) == {"api", "worker"}
    assert SERVICES["worker"]["deploy"]["replicas"] == 3


def accepted(arguments: list[str]) -> click.Context:
    """What the command line makes of them, without running it. Raises UsageError for what it does not take."""
    group = cli.make_context("headrace", list(arguments))
    rest = [*group._protected_args, *group.args]
    name, command, rest = cli.resolve_command(group, rest)
    assert command is not None
    return command.make_context(name, rest, parent=group)


@pytest.mark.parametrize("service", OURS)
def test_its_command_lines_are_ones_that_we_take(service: str) -> None:
    accepted(OURS[service]["command"])


def test_a_command_line_that_we_do_not_take_would_be_seen() -> None:
    with pytest.raises(click.UsageError):
        accepted(["worker", "--application", "examples.tasks"])


@pytest.mark.parametrize("service", OURS)
def test_its_variables_are_ones_that_we_read(service: str) -> None:
    environ = OURS[service]["environment"]
    READS[OURS[service]["command"][0]](environ)
    RedisSettings.from_env(environ)
    ExampleSettings.from_env(environ)
    assert {name for name in environ if not name.startswith("EXAMPLES_")} <= _known


def test_a_variable_that_we_do_not_read_would_be_seen() -> None:
    with pytest.raises(ConfigError):
        ApiSettings.from_env({"HEADRACE_HOSTS": "0.0.0.0"})


def test_everything_is_published_on_loopback_only() -> None:
    published = {port for each in SERVICES.values() for port in each.get("ports", ())}
    assert published == {"127.0.0.1:${PORT:-8080}:8080", "127.0.0.1:9090:9090", "127.0.0.1:3000:3000"}
    assert not [name for name, each in SERVICES.items() if each.get("network_mode") or each.get("privileged")]


def test_that_nobody_needs_a_token_is_said_outright() -> None:
    assert OURS["api"]["environment"]["HEADRACE_AUTH"] == "none"
    with pytest.raises(ConfigError):
        ApiSettings.from_env({k: v for k, v in OURS["api"]["environment"].items() if k != "HEADRACE_AUTH"})


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_no_more_than_it_must(service: str) -> None:
    told = SERVICES[service]
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", sorted(SERVICES.keys() - OURS.keys()))
def test_images_of_others_have_a_registry_and_a_version(service: str) -> None:
    """Podman asks which registry a bare name means."""
    assert re.fullmatch(r"[a-z]+\.[a-z]+/[\w./-]+:v?\d[\w.-]+", SERVICES[service]["image"])


def test_redis_is_the_one_of_the_chart() -> None:
    values = yaml.safe_load((ROOT / "charts/headrace/values.yaml").read_text())
    image = values["redis"]["embedded"]["image"]
    assert SERVICES["redis"]["image"] == f"{image['registry']}/{image['repository']}:{image['tag']}"


def test_files_and_volumes_that_it_mounts_are_there() -> None:
    mounted = [mount.split(":")[0] for each in SERVICES.values() for mount in each.get("volumes", ())]
    named = {name for name in mounted if not name.startswith(".")}
    assert named == set(TOLD["volumes"])
    assert [name for name in mounted if name.startswith(".") and not (ROOT / name).exists()] == []


def test_a_worker_is_given_its_whole_grace() -> None:
    grace = WorkerSettings.from_env(OURS["worker"]["environment"]).grace_s
    assert float(OURS["worker"]["stop_grace_period"].removesuffix("s")) > grace


@pytest.mark.parametrize(
    ("target", "says"),
    [("docker-up", "up --detach --build"), ("docker-logs", "logs --follow"), ("docker-down", "down")],
)
def test_make_drives_it_by_docker_or_podman(target: str, says: str) -> None:
    for given, engine in (((), "docker compose"), (("COMPOSE=podman compose",), "podman compose")):
        run = subprocess.run(
            ["make", "--no-print-directory", "-n", target, *given], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == f"{engine} {says}"


# -- Grafana


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in SERVICES["grafana"]["volumes"])
    sources = yaml.safe_load((ROOT / "deploy/grafana/datasources.yaml").read_text())["datasources"]
    assert [(each["url"], each["isDefault"]) for each in sources] == [("http://prometheus:9090", True)]
    [provider] = yaml.safe_load((ROOT / "deploy/grafana/dashboards.yaml").read_text())["providers"]
    assert mounts["./charts/headrace/files/dashboards"] == provider["options"]["path"]
    assert len(list((ROOT / "charts/headrace/files/dashboards").glob("*.json"))) >= 4


# -- the same with real processes


@pytest.fixture
def as_mounted(tmp_path: Path) -> Path:
    """The folder /etc/prometheus of its container."""
    for mount in SERVICES["prometheus"]["volumes"]:
        source, target = mount.split(":")[:2]
        if source.startswith("."):
            shutil.copy(ROOT / source, tmp_path / Path(target).name)
    return tmp_path


def test_prometheus_takes_its_configuration_and_the_rules(as_mounted: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: apt install prometheus)")
    check = [promtool, "check", "config", str(as_mounted / "prometheus.yml")]
    run = subprocess.run(check, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert re.search(r"[1-9]\d* rule", run.stdout), run.stdout


def environ_of(service: str, redis: RedisServer, **more: str) -> Any:
    told = {name: str(value) for name, value in OURS[service]["environment"].items()}
    assert told["HEADRACE_URL"] == "redis://redis:6379/0"
    return told | {"HEADRACE_URL": redis.url} | more


@pytest.mark.slow
def test_its_processes_run_tasks_and_are_seen(start_redis: StartRedis, as_mounted: Path, tmp_path: Path) -> None:
    """API and worker as compose.yaml starts them, its health check, and its Prometheus with its rules."""
    redis = start_redis(args=SERVICES["redis"]["command"][1:])
    port, metrics = free_port(), free_port()
    api_environ = environ_of("api", redis, PORT=str(port))
    worker_environ = environ_of(
        "worker", redis, HEADRACE_METRICS_PORT=str(metrics), EXAMPLES_OUTPUT=str(tmp_path / "output")
    )
    with (
        Command(*OURS["api"]["command"], cwd=ROOT, **api_environ),
        Command(*OURS["worker"]["command"], cwd=ROOT, **worker_environ),
    ):
        await_true(lambda: healthy(port))
        tasks = f"http://127.0.0.1:{port}/api/v1/tasks"
        task = http("POST", tasks, {"type": "export_data", "payload": {"format": "csv", "filters": {}}})
        assert http("GET", f"{tasks}/{task['task_id']}?wait=30")["status"] == "completed"
        see_by_prometheus(as_mounted, {"headrace-api": port, "headrace-worker": metrics})
    assert not healthy(port)


def healthy(port: int) -> bool:
    """By the health check of the service, word for word but for the port and the interpreter's place."""
    kind, python, *arguments = OURS["api"]["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    check = [sys.executable, *(each.replace(":8080", f":{port}") for each in arguments)]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def see_by_prometheus(folder: Path, ports: dict[str, int]) -> None:
    """Its configuration, with one address for each DNS name, in a real Prometheus; asked as CI asks that of compose."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH (Debian: apt install prometheus)")
    told = yaml.safe_load((folder / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in told["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    (folder / "here.yml").write_text(yaml.safe_dump(told))
    port = free_port()
    arguments = [f"--config.file={folder}/here.yml", f"--storage.tsdb.path={folder}/data"]
    process = subprocess.Popen(
        [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"],
        env=os.environ | {"TZ": "UTC"},
        stderr=subprocess.DEVNULL,
    )
    try:
        ask = [sys.executable, str(ROOT / ".github/monitoring.py"), "--prometheus", f"http://127.0.0.1:{port}"]
        jobs = [f"{job}=1" for job in ports]
        found = subprocess.run([*ask, "--grafana", "", *jobs], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        missed = [*ask, "--grafana", "", "--patience", "0", "headrace-worker=2"]
        assert (
            "1 of 2 targets of headrace-worker are up"
            in subprocess.run(missed, capture_output=True, text=True, check=False).stderr
        )
    finally:
        process.terminate()
        process.wait(10)
