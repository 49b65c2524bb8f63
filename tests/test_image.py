"""The image: linted everywhere; built, looked at and started where buildah and runc are."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import image_kit
from conftest import StartRedis
from headrace_cli.ports import free_port
from image_kit import Image

ROOT: Final = Path(__file__).parent.parent
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
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


# -- the image


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    image_kit.build(VERSION=VERSION, REVISION="0" * 40)
    with image_kit.opened() as made:
        yield made


def output(process: subprocess.Popen[str]) -> str:
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
