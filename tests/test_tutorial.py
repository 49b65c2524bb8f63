"""The pages that tell a reader what to type, carried out as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from doc_blocks import Reader
from headrace_cli.ports import free_port


@pytest.mark.slow
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    """From an empty folder to a finished task, with every output as the page shows it."""
    with Reader(tmp_path, free_port()) as reader:
        reader.follow("docs/tutorial.md")
