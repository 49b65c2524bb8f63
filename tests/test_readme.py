"""The README and the page of the examples, carried out as they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from doc_blocks import ROOT, Reader
from headrace_cli.embedded import choose
from headrace_cli.ports import free_port

RECIPE = "headrace dev --app examples.tasks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the pages use it"),
    pytest.mark.skipif(not choose().durable, reason="no real Redis server was found, and the pages start one"),
]


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_the_page_can_be_followed(page: str, tmp_path: Path) -> None:
    """In an empty folder, so what `make dev` would install is here already: its last line is typed instead."""
    with Reader(tmp_path, free_port(), {"PYTHONPATH": str(ROOT)}, {"make dev": RECIPE}) as reader:
        reader.follow(page)


def test_make_dev_does_what_was_typed_in_its_place() -> None:
    # By itself, where a make that runs the tests would have its options and its level in the environment.
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", "dev"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[-1].endswith(f"/bin/{RECIPE}")
