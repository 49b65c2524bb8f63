"""The pages that tell a reader what to type, carried out as they are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import StartRedis
from doc_blocks import Reader, blocks
from headrace_cli.embedded import choose
from headrace_cli.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the pages use it"),
    pytest.mark.skipif(not choose().durable, reason="no real Redis server was found, and the pages restart one"),
]


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    """From an empty folder to a finished task, with every output as the page shows it."""
    with Reader(tmp_path, free_port()) as reader:
        reader.follow("docs/tutorial.md")


def test_the_how_to_pages_commands_and_programs_work(tmp_path: Path) -> None:
    """With the tasks.py of the tutorial, as the page says; and the test file that it shows passes."""
    with Reader(tmp_path, free_port()) as reader:
        reader.write_files_of("docs/tutorial.md")
        reader.start("dev", "headrace dev --no-sample").expect("Watching…\n")
        reader.follow("docs/how-to.md")
        reader.run("python -m pytest -q -p no:cacheprovider test_tasks.py")


def test_the_acl_user_of_the_how_to_page_may_do_all_that_headrace_does(tmp_path: Path, start_redis: StartRedis) -> None:
    """Submit, run, look, wait, pause: with no other rights than the line on the page gives."""
    [line] = [block.text for block in blocks("docs/how-to.md") if block.kind == "acl"]
    server = start_redis(acl=[line.strip(), "user default off"], appendfsync="always")
    environ = {"HEADRACE_URL": server.url_for("headrace", "secret"), "HEADRACE_DURABILITY": "fsync"}
    with Reader(tmp_path, free_port(), environ) as reader:
        reader.start("dev", "headrace dev --init").expect("… dev  sample hello completed…\n")
        reader.run("""headrace submit hello '{"name": "you"}' --wait && headrace queue pause default""")
        reader.run("""test "$(headrace queue ls | awk 'NR == 2 { print $NF }')" = yes""")
