"""GitHub's workflows, as far as a machine can judge them that is not GitHub's; and the script that a release asks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster.go_program import ACTIONLINT

ROOT: Final = Path(__file__).parent.parent
GITHUB: Final = ROOT / ".github"
FILES: Final = {file.stem: file for file in sorted((GITHUB / "workflows").glob("*.yml"))}
WORKFLOWS: Final[dict[str, dict[Any, Any]]] = {name: yaml.safe_load(file.read_text()) for name, file in FILES.items()}
JOBS: Final = {f"{name}.{job}": told for name, each in WORKFLOWS.items() for job, told in each["jobs"].items()}
WRITES: Final = {
    "release.pypi": {"id-token"},
    "release.image": {"packages", "id-token", "attestations"},
    "release.chart": {"packages", "id-token", "attestations"},
    "release.release": {"contents"},
}
"""Job → what it may write. Every other job may read the sources, and nothing else."""


def checked(*command: str | Path) -> None:
    run = subprocess.run([str(each) for each in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", tuple(FILES.values())), ("dependabot", (GITHUB / "dependabot.yml",))],
)
def test_the_files_follow_githubs_schemas(schema: str, files: tuple[Path, ...]) -> None:
    checked(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


@pytest.mark.skipif(bool(ACTIONLINT.missing()), reason="actionlint cannot be built: the program go is missing")
@pytest.mark.timeout(600)
def test_actionlint_finds_nothing() -> None:
    checked(ACTIONLINT.build(), *FILES.values())


def test_zizmor_finds_nothing() -> None:
    """All its rules, offline; what is left out is in .github/zizmor.yml with the reason."""
    zizmor = Path(sys.executable).with_name("zizmor")
    checked(zizmor, "--offline", "--no-progress", "--persona=pedantic", "--config", GITHUB / "zizmor.yml", GITHUB)


def used() -> Iterator[tuple[str, str, str]]:
    """Action, its commit or tag, and the version in the comment."""
    for file in FILES.values():
        for line in file.read_text().splitlines():
            if found := re.match(r"\s*(?:- )?uses: ([^@\s]+)@(\S+)(?: # (\S+))?$", line):
                yield found[1], found[2], found[3] or ""


def test_actions_are_pinned_by_commit_and_say_which_version_that_is() -> None:
    wrong = [each for each in used() if not re.fullmatch("[0-9a-f]{40}", each[1]) or not each[2].startswith("v")]
    assert not wrong
    every = [
        line for file in FILES.values() for line in file.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)
    ]
    assert len(list(used())) == len([line for line in every if "uses: ./" not in line]) > 10


def test_an_action_has_one_version_everywhere() -> None:
    versions = defaultdict(set)
    for action, commit, version in used():
        versions[action].add((commit, version))
    assert {action: found for action, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_nothing_is_permitted_in_general(workflow: str) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_do_what_it_needs(job: str) -> None:
    permissions = JOBS[job]["permissions"]
    assert {name for name, may in permissions.items() if may == "write"} == WRITES.get(job, set())
    assert {name for name, may in permissions.items() if may != "write"} <= {"contents"}
    assert "uses" in JOBS[job] or JOBS[job]["timeout-minutes"] <= 120


def test_no_foreign_code_runs_with_rights() -> None:
    triggers = {trigger for each in WORKFLOWS.values() for trigger in each[True]}  # YAML reads `on` so
    assert triggers == {"push", "pull_request", "workflow_call", "workflow_dispatch", "schedule"}
    secrets = {name for file in FILES.values() for name in re.findall(r"secrets\.(\w+)", file.read_text())}
    assert secrets == {"GITHUB_TOKEN"}


def test_nothing_is_published_before_all_tests_pass() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"

    def before(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        return set(needs).union(*(before(each) for each in needs))

    for job in ("wheel", "pypi", "image", "chart", "release"):
        assert {"ci", "versions"} <= before(job), job
    assert {"image", "chart"} <= before("pypi"), "a version on PyPI cannot be taken back"


def scripts() -> Iterator[str]:
    for told in JOBS.values():
        yield from (step["run"] for step in told.get("steps", ()) if "run" in step)


def test_what_the_steps_name_is_there() -> None:
    text = "\n".join(scripts())
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = set(re.findall(r"\bmake ([a-z-]+)", text))
    files = set(re.findall(r"(?:\.github|\.ci|charts|tests)/[\w./-]*\w", text)) | set(
        re.findall(r"\b[\w-]+\.lock", text)
    )
    assert targets and targets <= made
    assert files and [name for name in files if not (ROOT / name).exists()] == []


def test_programs_are_those_that_ci_installs_elsewhere() -> None:
    """The runner brings the rest: git, make, gcc, Docker, kind, kubectl, helm."""
    script = (ROOT / ".ci/run").read_text()
    packages = WORKFLOWS["ci"]["env"]["PACKAGES"].split()
    assert [name for name in packages if f"echo {name}" not in script] == []


def test_what_ci_runs_as_the_users_of_redis_is_a_part_of_make_acl() -> None:
    """Files that are there; a change of the list in one place only shows here."""
    run = re.search(r"^AS_USERS=\((.*?)\)", (ROOT / ".ci/run").read_text(), re.MULTILINE | re.DOTALL)
    every = subprocess.run(["make", "-n", "acl"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert run
    part = run[1].split()
    assert part and [name for name in part if not (ROOT / name).exists()] == []
    assert {name for name in part if not name.startswith("tests/test_api_")} <= set(every.split())


# -- .github/release.py

CHANGELOG: Final = """# Changelog

## [Unreleased]

- Something to come.

## [1.2.3] - 2026-11-30

### Added

- A thing.

## [1.2.2] - 2026-11-01

- An older thing.
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A tree that can be released as 1.2.3."""
    written = {
        "pyproject.toml": '[project]\nversion = "1.2.3"\n',
        "worker/headrace/__init__.py": '__version__ = "1.2.3"\n',
        "charts/headrace/Chart.yaml": "version: 0.9.0\nappVersion: 1.2.3\n",
        "CHANGELOG.md": CHANGELOG,
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def release(action: str, tag: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GITHUB / "release.py"), action, tag, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_release_whose_parts_agree_gets_the_changelogs_words(sources: Path) -> None:
    assert release("check", "v1.2.3", sources).returncode == 0
    assert release("notes", "v1.2.3", sources).stdout == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("file", "before", "after", "says"),
    [
        ("pyproject.toml", "1.2.3", "1.2.4", "pyproject.toml says 1.2.4, and the tag v1.2.3."),
        ("worker/headrace/__init__.py", "1.2.3", "1.2", "worker/headrace/__init__.py says 1.2, and the tag v1.2.3."),
        ("charts/headrace/Chart.yaml", "appVersion: 1.2.3\n", "", "(appVersion) says nothing, and the tag v1.2.3."),
        ("CHANGELOG.md", "[1.2.3] - 2026-11-30", "[1.2.3]", "CHANGELOG.md has no section `## [1.2.3] - YYYY-MM-DD`"),
        ("CHANGELOG.md", "### Added\n\n- A thing.\n", "", "CHANGELOG.md has no section `## [1.2.3] - YYYY-MM-DD`"),
    ],
)
def test_a_release_whose_parts_differ_is_refused(sources: Path, file: str, before: str, after: str, says: str) -> None:
    path = sources / file
    path.write_text(path.read_text().replace(before, after))
    run = release("notes", "v1.2.3", sources)
    assert run.returncode == 1 and says in run.stderr and not run.stdout


def test_the_sources_have_one_version() -> None:
    """The changelog's section is written when a release is made."""
    run = release("check", f"v{project_version()}", ROOT)
    assert [line for line in run.stderr.splitlines() if "CHANGELOG" not in line] == []


def project_version() -> str:
    [version] = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return str(version)


def test_the_wheel_is_built_as_the_workflow_builds_it(tmp_path: Path) -> None:
    """The same bytes from the same commit, wherever and whenever."""
    [step] = [each for each in scripts() if "hatchling" in each]
    assert "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) build-env/bin/python -m hatchling build -d dist" in step
    digests = []
    for folder in ("one", "two"):
        copy = tmp_path / folder
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "bench", "tests", "dist"))
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
        subprocess.run(build, cwd=copy, env={"SOURCE_DATE_EPOCH": "1700000000"}, capture_output=True, check=True)
        [wheel] = (copy / "dist").glob("*.whl")
        digests.append(wheel.read_bytes())
    assert digests[0] == digests[1]
