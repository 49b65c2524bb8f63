"""The longer how-to pages, each carried out in an empty folder as it is written."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
from pathlib import Path

import pytest

from doc_blocks import ROOT, Reader, blocks
from headrace.environment import _known
from headrace_cli.embedded import choose
from headrace_cli.ports import free_port

PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/how-to").glob("*.md"))
RUN = {"PYTEST_ADDOPTS": "-p no:cacheprovider -p no:schemathesis -p no:hypothesispytest"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not choose().durable, reason="no real Redis server was found, and the pages start one"),
]


def reader(folder: Path) -> Reader:
    return Reader(folder, free_port(), RUN, {"8000": str(free_port())})


@pytest.mark.parametrize("page", [page for page in PAGES if "without" not in page])
def test_the_page_can_be_followed(page: str, tmp_path: Path) -> None:
    """Programs, servers and tests, with every output as the page shows it."""
    for needed, module in {"fastapi": "fastapi", "django": "django"}.items():
        if needed in page:
            pytest.importorskip(module)
    with reader(tmp_path) as following:
        following.follow(page)


def test_the_supervisor_of_the_page_starts_workers_again_and_stops_gracefully(tmp_path: Path) -> None:
    page = "docs/how-to/without-kubernetes.md"
    with reader(tmp_path) as following:
        following.follow(page)
        supervisor = following._jobs["supervise"]
        children = Path(f"/proc/{supervisor.process.pid}/task/{supervisor.process.pid}/children")
        [worker] = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        supervisor.expect("the worker ended with 137; starting another one\n")
        following.run("""headrace submit hello '{"name": "again"}' --wait""")
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.process.wait(20) == 0


def test_the_supervisor_does_not_repeat_what_cannot_work(tmp_path: Path) -> None:
    with reader(tmp_path) as following:
        following.write_files_of("docs/how-to/without-kubernetes.md")
        following.run("sh supervise.sh --app no_such_module", 2)


def test_the_unit_of_the_page_starts_a_worker_and_waits_longer_than_its_grace() -> None:
    [unit] = [block for block in blocks("docs/how-to/without-kubernetes.md") if block.kind == "ini"]
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(unit.text)
    service = parsed["Service"]
    assert shlex.split(service["ExecStart"])[1:] == ["worker"]
    assert service["Environment"].partition("=")[0] in _known
    [settings] = [block.text for block in blocks(unit.page) if block.kind == "dotenv"]
    grace = dict(line.split("=", 1) for line in settings.splitlines())["HEADRACE_GRACE_S"]
    assert int(service["TimeoutStopSec"]) >= int(grace) + 5
