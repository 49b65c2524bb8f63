"""The image: linted everywhere; built, looked at and started where buildah and runc are."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import control_plane
import image_kit
from awaited import until
from bench.image import sizes
from conftest import StartRedis
from control_plane import ControlPlane
from headrace_cli.ports import free_port
from image_kit import Container, Image
from operator_process import Shop, account, check_rights, use_every_right

ROOT: Final = Path(__file__).parent.parent
LEAN: Final = ROOT / "deploy" / "lean.py"
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
PAGE: Final = (ROOT / "docs/how-to/image.md").read_text()
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OPENSHIFT: Final = 1_000_650_000
"""A user as OpenShift chooses one: unknown to the image, in group 0."""

built = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(image_kit.missing()), reason=f"No image here without {', '.join(image_kit.missing())}"),
    pytest.mark.timeout(900, func_only=False),  # the first one makes the base and downloads what is locked
]


# -- the Dockerfile


def test_hadolint_finds_nothing() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_base_is_an_argument() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${RUNTIME}"]
    assert re.findall(r"^ARG (BASE|RUNTIME)=(.+)$", DOCKERFILE, re.MULTILINE) == [
        ("BASE", "docker.io/library/python:3.13-slim"), ("RUNTIME", "${BASE}"),
    ]  # fmt: skip


def test_the_stage_that_runs_needs_no_shell() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "\nRUN " not in last
    assert all(line.endswith("]") for line in last.splitlines() if line.startswith(("ENTRYPOINT", "CMD")))


def test_nothing_is_installed_that_is_not_locked() -> None:
    installs = re.findall(r"/pip [^&]*? install ((?:[^&\\]|\\\n)*)|/pip install ((?:[^&\\]|\\\n)*)", DOCKERFILE)
    lines = ["".join(each).replace("\\\n", " ") for each in installs]
    assert len(lines) == 3
    for line in lines:
        assert ("--require-hashes" in line and "--only-binary :all:" in line) or "--no-deps" in line, line


def test_the_context_holds_what_is_copied_and_little_else() -> None:
    kept = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert copied == kept


# -- what is taken out


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """An environment with a package as it is installed here, and the outline of the Kubernetes client."""
    folder = tmp_path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    install("msgspec", folder)
    for part in ("client/api", "client/models", "aio/client/api", "aio/client/models"):
        (folder / "kubernetes" / part).mkdir(parents=True)
        (folder / "kubernetes" / part / "one.py").touch()
    return folder


def install(name: str, folder: Path) -> None:
    """A package of this environment into another."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    source, ignored = Path(spec.origin).parent, shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, folder / name, ignore=ignored, dirs_exist_ok=True)


def lean(environment: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LEAN, environment], capture_output=True, text=True, check=False)


def test_what_nothing_reads_is_taken_out_and_the_rest_works(packages: Path, tmp_path: Path) -> None:
    install("kubernetes", packages)
    before = image_kit.megabytes(packages / "kubernetes"), image_kit.megabytes(packages / "msgspec")
    assert lean(tmp_path).returncode == 0
    assert image_kit.megabytes(packages / "kubernetes") < before[0] / 10
    assert image_kit.megabytes(packages / "msgspec") <= before[1]
    uses = (
        "from kubernetes.aio import client, config; import msgspec\n"
        "assert msgspec.__file__.startswith(sys.path[0]) and client.__file__.startswith(sys.path[0])\n"
        "client.Configuration(), config.load_kube_config, msgspec.json.decode(b'{}')"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(packages)!r})\n{uses}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_what_is_behind_the_last_segment_of_a_library_is_cut_off(packages: Path, tmp_path: Path) -> None:
    [library] = (packages / "msgspec").glob("*.so")
    assert lean(tmp_path).returncode == 0
    once = library.read_bytes()
    with library.open("ab") as file:
        file.write(b"names of variables" * 1000)
    (text := packages / "msgspec" / "script.so").write_text("no library")
    (packages / "msgspec" / "tests" / "of_structs").mkdir(parents=True)
    for folder in packages.glob("kubernetes/**/client/*"):
        (folder / "again.py").touch()
    assert lean(tmp_path).returncode == 0
    assert library.read_bytes() == once
    assert text.read_text() == "no library"
    assert not (packages / "msgspec" / "tests").exists()


def test_a_client_that_is_built_otherwise_stops_the_build(packages: Path, tmp_path: Path) -> None:
    """Else a new version of it would bring back a hundred megabytes, and nobody would know."""
    (packages / "kubernetes/aio/client/models/one.py").rename(packages / "kubernetes/aio/client/models/__init__.py")
    run = lean(tmp_path)
    assert run.returncode != 0
    assert "kubernetes/aio/client/models has no modules" in run.stderr


# -- the image


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    image_kit.build(VERSION=VERSION, REVISION="0" * 40)
    with image_kit.opened() as made:
        yield made


def output(process: Container) -> str:
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text


def of_image(test: Any) -> Any:
    """A test that needs the image."""
    for mark in built:
        test = mark(test)
    return test


@of_image
def test_it_says_what_it_is_and_runs_as_a_number(image: Image) -> None:
    config = image.config
    assert (config["Entrypoint"], config["Cmd"]) == (["headrace"], ["--help"])
    assert (config["User"], config["WorkingDir"]) == ("65532:65532", "/app")
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["version"] == VERSION and labels["revision"] == "0" * 40
    assert labels["licenses"] == "MIT"
    assert {"title", "description", "source"} <= labels.keys()


@of_image
@pytest.mark.parametrize("user", [65532, OPENSHIFT])
@pytest.mark.parametrize("command", ["api", "worker", "operator", "submit"])
def test_each_command_starts_for_any_user_without_a_shell_on_a_read_only_root(
    image: Image, command: str, user: int
) -> None:
    assert output(image.run(command, "--help", user=user)).startswith(f"Usage: headrace {command}")


@of_image
def test_its_version_is_that_of_the_sources(image: Image) -> None:
    assert output(image.run("--version")) == f"headrace {VERSION}\n"


@of_image
def test_nothing_that_builds_is_left_in_it(image: Image) -> None:
    names = {path.name for path in (image.root / "opt/headrace").rglob("*")}
    assert not {"pip", "hatchling", "setuptools", "pip.conf"} & names
    for folder in ("opt/build", "src", "dist", "own", "wheels"):
        assert not (image.root / folder).exists(), folder


@of_image
def test_it_is_small(image: Image) -> None:
    """What the Dockerfile adds to its base, in all and of what its page tells apart."""
    seen = sizes(image.root)
    page = re.findall(r"^\| (?:what the Dockerfile|of it) .+ \| (\d+) MB \|$", PAGE, re.MULTILINE)
    assert [int(each) for each in page] == pytest.approx([*seen.values()], abs=2)
    assert seen["all that is added"] < 90


@of_image
def test_every_library_of_it_loads(image: Image) -> None:
    """They were cut, and nothing else would tell of one that is rarely used."""
    paths = [path.relative_to(image.root) for path in (image.root / "opt/headrace").rglob("*.so*")]
    assert len(paths) > 20
    loads = f"import ctypes\nfor path in {[f'/{path}' for path in paths]!r}: ctypes.CDLL(path)"
    assert output(image.python(loads)) == ""


@of_image
def test_all_of_it_is_compiled_and_readable_and_nobody_may_change_it(image: Image) -> None:
    for folder in ("opt/headrace", "app"):
        for path in (image.root / folder).rglob("*"):
            mode = path.lstat().st_mode
            if path.suffix == ".py" and path.stat().st_size:
                assert list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")), path
            if not stat.S_ISLNK(mode):
                assert mode & 0o444 == 0o444 and not mode & 0o022, path


@of_image
def test_a_traceback_names_the_files_where_they_are(image: Image) -> None:
    """They were compiled in another folder."""
    process = image.run("worker", "--app", "examples.nothing")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "examples.nothing" in text
    traced = image.run("--debug", "worker", "--app", "examples.nothing").communicate(timeout=60)[0]
    assert "/opt/headrace/lib/python3" in traced and "/own" not in traced


@of_image
def test_its_worker_runs_a_task_and_ends_gracefully(image: Image, start_redis: StartRedis) -> None:
    redis = start_redis()
    environ = {"HEADRACE_URL": redis.url, "HEADRACE_METRICS_PORT": str(free_port()), "EXAMPLES_OUTPUT": "/tmp/output"}
    worker = image.run("worker", "--app", "examples.tasks", env=environ)
    try:
        done = image.run("submit", "export_data", '{"format": "csv", "filters": {}}', "--wait", env=environ)
        said = output(done)
    finally:
        worker.terminate()
    output(worker)
    assert json.loads(said[said.index("{") :])["rows"] == 200, said


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane.running(tmp_path_factory.mktemp("plane")) as made:
        for name in ("headrace", "shop"):
            made.kubectl("create", "namespace", name)
        yield made


LEASE: Final = {"HEADRACE_OPERATOR_LEASE": "true", "HEADRACE_OPERATOR_LEASE_NAMESPACE": "headrace"}


@pytest.fixture
def folder(tmp_path: Path, plane: ControlPlane) -> Iterator[Path]:
    """With what an account of a pod needs, as Kubernetes mounts it. The next test finds nothing of this one."""
    (made := tmp_path / "account").mkdir()
    (made / "token").write_text(account(plane, "rbac.yaml"))
    (made / "namespace").write_text("headrace")
    shutil.copy(plane.folder / "pki/ca.crt", made)
    yield made
    plane.kubectl("-n", "shop", "delete", "workerpool,deployment,pdb", "--all")
    plane.kubectl("-n", "headrace", "delete", "lease", "--all")


@of_image
async def test_its_operator_does_all_that_it_may(
    image: Image, plane: ControlPlane, folder: Path, start_redis: StartRedis
) -> None:
    """Every request that it can make: nothing that it needs of the Kubernetes client was taken out."""
    before = len(list(plane.requests()))
    config = plane.kubeconfig((folder / "token").read_text(), "operator").read_text()
    (folder / "config").write_text(config.replace(str(plane.folder / "pki"), "/given"))
    redis = start_redis()
    environ = LEASE | {"HEADRACE_URL": redis.url, "HEADRACE_OPERATOR_METRICS_PORT": str(free_port())}
    operator = image.run("operator", "--kubeconfig", "/given/config", env=environ, folders={"/given": folder})
    shop = Shop(plane, redis.url)
    try:
        await use_every_right(shop, operator, before)
    finally:
        operator.terminate()
        said = operator.communicate(timeout=30)[0]
        await shop.client.aclose()
    assert operator.returncode == 0 and "Traceback" not in said, said
    check_rights(plane, before, everywhere=True)


@of_image
def test_its_operator_is_let_in_by_the_account_of_its_pod(
    image: Image, plane: ControlPlane, folder: Path, start_redis: StartRedis
) -> None:
    """As far as it gets without the name kubernetes.default.svc, which only a cluster knows: it takes the Lease."""
    environ = LEASE | {
        "HEADRACE_URL": start_redis().url, "HEADRACE_OPERATOR_METRICS_PORT": str(free_port()),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(plane.port),
    }  # fmt: skip
    operator = image.run("operator", env=environ, folders={"/var/run/secrets/kubernetes.io/serviceaccount": folder})
    holder = ("-n", "headrace", "get", "lease", "headrace-operator", "-o", "jsonpath={.spec.holderIdentity}")
    try:
        until(lambda: plane.kubectl(*holder, check=False), bool, "it holds the Lease")
    finally:
        operator.terminate()
        said = operator.communicate(timeout=30)[0]
    assert operator.returncode == 0, said
