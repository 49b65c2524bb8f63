"""What a newcomer gets: lock files, make targets, wheel, containers."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace.error_base import PAGES

ROOT = Path(__file__).parent.parent
LOCKS = sorted(ROOT.glob("requirements*.lock"))
TOLD: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = TOLD["project"]
BUILD: list[str] = TOLD["build-system"]["requires"]
EXTRAS = {
    "requirements.lock": [],
    "requirements-dev.lock": ["dev", "examples"],
    "requirements-image.lock": ["operator", "examples"],
    "requirements-build.lock": [],
    "requirements-test.lock": ["dev", "operator", "examples", "test"],
}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==(\S+)( ; .+)? \\$", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Package → version of a lock file."""
    return {canonicalize_name(found[1]): found[2] for found in PINNED.finditer((ROOT / lock).read_text())}


def test_each_lock_file_has_its_extras() -> None:
    assert {lock.name for lock in LOCKS} == EXTRAS.keys()


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: str) -> None:
    """No index, no address, no path: whoever installs decides where packages come from."""
    text = (ROOT / lock).read_text()
    rest = [
        line
        for line in text.splitlines()
        if not PINNED.match(line) and not re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?|    #[^:/]*", line)
    ]
    assert not rest
    assert all("--hash" in block for block in re.split(r"(?m)^(?=\S)", text)[1:])


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_fits_the_dependencies(lock: str) -> None:
    """Else somebody changed pyproject.toml and forgot `make lock`."""
    wanted = BUILD if lock == "requirements-build.lock" else PROJECT["dependencies"]
    wanted = wanted + [line for extra in EXTRAS[lock] for line in PROJECT["optional-dependencies"][extra]]
    locked = pins(lock)
    requirements = [Requirement(line) for line in wanted if not line.startswith("headrace[")]
    unmet = [str(r) for r in requirements if not r.specifier.contains(locked.get(canonicalize_name(r.name), "0.dev0"))]
    assert not unmet, f"{unmet} do not fit {lock}; run make lock"


def test_what_builds_the_wheel_is_what_is_locked_for_it() -> None:
    assert TOLD["dependency-groups"]["build"] == BUILD


@pytest.mark.parametrize("lock", EXTRAS)
def test_all_locks_agree(lock: str) -> None:
    assert pins(lock).items() <= pins("requirements-test.lock").items()


@pytest.mark.parametrize(
    "target",
    [
        *("docker-up", "docker-logs", "docker-down", "deps", "test", "test-coverage", "build"),
        *("run-server", "run-worker", "dev", "quick", "lint", "model", "bench", "lock", "clean"),
    ],
)
def test_make_knows_the_target_and_explains_it(target: str) -> None:
    known = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert known.returncode == 0, known.stderr
    explained = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target} +\S", explained, re.MULTILINE)


def test_make_says_what_to_do_without_a_python_in_range(tmp_path: Path) -> None:
    asked = ["make", "deps", f"VENV={tmp_path / 'venv'}", "PYTHON=/nowhere/python3.9"]
    run = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "No Python from 3.11 to 3.14 with venv was found (tried: /nowhere/python3.9)" in run.stderr
    assert "make deps PYTHON=" in run.stderr


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    """Scripts in Lua and the markers of typing too, and nothing that lies around."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = [ROOT / folder for folder in ("operator", "api", "worker", "cli")]
    there = {
        str(file.relative_to(folder))
        for folder in packages
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == there
    assert sum(name.endswith(".lua") for name in held) > 10
    assert sum(name.endswith("/py.typed") for name in held) == 4


def test_the_package_links_to_where_the_image_and_the_errors_do() -> None:
    """An index shows the README alone, whose links lead nowhere there."""
    urls: dict[str, str] = PROJECT["urls"]
    [source] = re.findall(r'image\.source="(.+)"', (ROOT / "Dockerfile").read_text())
    assert urls["Source"] == source
    assert PAGES.startswith(f"{source}/blob/main/docs/")
    linked = [url.removeprefix(f"{source}/blob/main/") for url in urls.values() if url != source]
    assert len(linked) > 1 and all((ROOT / path).is_file() for path in linked)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    """Kubernetes cannot tell whether a name is root."""
    users = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["65532"]
