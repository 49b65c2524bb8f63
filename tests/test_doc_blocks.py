"""Every block of every page is carried out by a test, or says why it is not; so a new block cannot be forgotten."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from jsonschema_rs import validator_for

from api_kit import running
from doc_blocks import QUIET, ROOT, Block, blocks
from headrace_cli.redis_binary import RedisBinary
from headrace_operator.pool_file import read_files
from monitoring_kit import program, promtool

PAGES: Final = sorted(
    str(page.relative_to(ROOT))
    for page in ROOT.glob("**/*.md")
    if not {".venv", ".git", "node_modules"} & set(page.relative_to(ROOT).parts)
)
FOLLOWED: Final[Mapping[str, str]] = {
    "README.md": "test_readme.py::test_the_page_can_be_followed",
    "examples/README.md": "test_readme.py::test_the_page_can_be_followed",
    "docs/tutorial.md": "test_tutorial.py::test_the_tutorial_can_be_followed",
    "docs/how-to.md": "test_tutorial.py::test_the_how_to_pages_commands_and_programs_work",
    "docs/how-to/*.md": "test_how_to.py::test_the_page_can_be_followed",
    "docs/runbooks/*.md": "test_runbooks.py::test_the_commands_of_the_page_work",
    "docs/kubernetes.md": "test_cluster_tutorial.py::test_the_way_from_a_laptop_to_a_cluster_can_be_gone",
    "docs/install.md": "test_cluster_chart_page.py::test_the_page_can_be_followed",
}
"""Pages → what does all that they say to type."""
MADE: Final[Mapping[str, tuple[str, ...]]] = {
    "docs/commands.md": (
        "test_docs.py::test_a_page_that_is_made_from_the_code_is_up_to_date",
        "test_command_forms.py::test_an_example_of_a_help_is_a_command_line_that_is_understood",
    ),
    "docs/http.md": ("test_doc_blocks.py::test_an_example_of_a_body_is_taken",),
    "docs/errors/*.md": ("test_docs.py::test_a_page_that_is_made_from_the_code_is_up_to_date",),
}
"""Pages that are made from the code → what shows that their blocks are true."""
LOOKED_AT: Final[Mapping[tuple[str, str], str]] = {
    ("dotenv", "*"): "test_docs.py::test_settings_on_the_pages_are_accepted",
    ("yaml", "*"): "test_doc_blocks.py::test_a_manifest_is_one",
    ("promql", "*"): "test_monitoring_live.py::test_the_queries_of_the_pages_run",
    ("acl", "docs/how-to.md"): "test_tutorial.py::test_the_acl_user_of_the_how_to_page_may_do_all_that_headrace_does",
    ("acl", "docs/how-to/redis.md"): "test_acl.py::test_the_page_has_the_lines_that_are_made",
    ("ini", "docs/how-to/redis.md"): "test_doc_blocks.py::test_redis_starts_with_the_settings_of_the_page",
    ("ini", "docs/how-to/without-kubernetes.md"): (
        "test_how_to.py::test_the_unit_of_the_page_starts_a_worker_and_waits_longer_than_its_grace"
    ),
    ("ini", "docs/*.md"): "test_doc_blocks.py::test_a_dockerfile_is_one",
}
"""Blocks that nobody types, by kind and page → what looks at them."""


def carried_out_by(block: Block) -> tuple[str, ...]:
    """What carries a block out; () if nothing does."""
    for page, named in MADE.items():
        if fnmatch(block.page, page):
            return named
    if block.kind in QUIET:
        looked = ((page, test) for (kind, page), test in LOOKED_AT.items() if kind == block.kind)
        return next(((test,) for page, test in looked if fnmatch(block.page, page)), ())
    return next(((test,) for page, test in FOLLOWED.items() if fnmatch(block.page, page)), ())


def is_excused(block: Block) -> bool:
    """It says in some words why it is not carried out."""
    return block.what == "skip" and len(block.value.split()) >= 2


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_carried_out_or_says_why_not(page: str) -> None:
    """Else: add the page to the table of a test that follows it, or put a mark above the block (see doc_blocks.py)."""
    forgotten = [str(each) for each in blocks(page) if not is_excused(each) and not carried_out_by(each)]
    assert forgotten == []


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_that_of_a_block(page: str) -> None:
    """A fence without a kind, or one within a list, would be seen by nobody."""
    fences = re.findall(r"^[ \t>]*(?:```|~~~)", (ROOT / page).read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(list(blocks(page)))


def test_a_block_that_nobody_knows_is_found() -> None:
    new = Block("docs/new.md", 1, "sh", "headrace dev\n", "", "")
    assert carried_out_by(new) == ()
    assert not is_excused(Block("docs/new.md", 1, "sh", "headrace dev\n", "skip", ""))


@pytest.mark.parametrize(
    "named", sorted({*FOLLOWED.values(), *LOOKED_AT.values(), *(x for y in MADE.values() for x in y)})
)
def test_what_carries_blocks_out_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("page", [page for page in FOLLOWED if "*" not in page])
def test_what_follows_a_page_names_it(page: str) -> None:
    assert page in (ROOT / "tests" / FOLLOWED[page].partition("::")[0]).read_text()


# -- blocks that nobody types


def of_kind(kind: str, pages: str = "*") -> list[Block]:
    return [each for page in PAGES if fnmatch(page, pages) for each in blocks(page) if each.kind == kind]


SCHEMA: Final = json.loads((ROOT / "charts/headrace/values.schema.json").read_text())


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_a_manifest_is_one(block: Block, tmp_path: Path) -> None:
    """Of Kubernetes, values of the chart, or settings of Prometheus, without a field that it does not know."""
    first, *_ = yaml.safe_load_all(block.text)
    match first:
        case {"apiVersion": "headrace.dev/v1alpha1"}:
            (tmp_path / "pool.yaml").write_text(block.text)
            found = read_files([tmp_path / "pool.yaml"], "default")
            assert found.notes == []
        case {"kind": _} as whole:
            kubernetes_validate.validate(whole, "1.34", strict=True)
        case {"template": {"spec": spec}} | {"spec": spec}:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
            kubernetes_validate.validate(pod, "1.34", strict=True)
        case {"scrape_configs": _}:
            if program("promtool") is None:
                pytest.skip("promtool is not on PATH (Debian: prometheus)")
            (tmp_path / "prometheus.yml").write_text(block.text.replace("headrace/charts", f"{ROOT}/charts"))
            promtool("check", "config", str(tmp_path / "prometheus.yml"))
        case values:
            validator_for(SCHEMA).validate(values)


@pytest.mark.parametrize("block", [each for each in of_kind("ini") if each.text.startswith("FROM ")], ids=str)
def test_a_dockerfile_is_one(block: Block, tmp_path: Path) -> None:
    """DL3006 wants a tag, which the image that the reader has just built does not need."""
    (tmp_path / "Dockerfile").write_text(block.text)
    command = [str(Path(sys.executable).with_name("hadolint")), "--ignore", "DL3006", str(tmp_path / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_redis_starts_with_the_settings_of_the_page(redis_binary: RedisBinary, tmp_path: Path) -> None:
    """Checked by Redis itself: it says `ready` with them."""
    [block] = of_kind("ini", "docs/how-to/redis.md")
    (tmp_path / "redis.conf").write_text(f"{block.text}port 0\nunixsocket {tmp_path}/s\ndir {tmp_path}\n")
    with subprocess.Popen(
        [str(redis_binary.path), str(tmp_path / "redis.conf")], stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        try:
            assert any("ready to accept connections" in line.lower() for line in it.stdout)
        finally:
            it.terminate()


# -- requests


def bodies() -> list[Any]:
    """Each example of docs/http.md, and the request that it is the body of."""
    text = (ROOT / "docs/http.md").read_text()
    found = []
    for block in blocks("docs/http.md"):
        before = "\n".join(text.splitlines()[: block.line])
        method, path = re.findall(r"^## ([A-Z]+) (\S+)$", before, re.MULTILINE)[-1]
        media = "application/x-ndjson" if block.text.count("\n") > 1 else "application/json"
        found.append(pytest.param(method, path, media, block.text, id=str(block)))
    return found


@pytest.mark.parametrize(("method", "path", "media", "body"), bodies())
async def test_an_example_of_a_body_is_taken(
    method: str, path: str, media: str, body: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)  # for a machine that is busy
    async with running(redis_url) as api:
        await api.submitted({"type": "resize", "payload": {}})
        where = path.replace("{queue}", "default")
        answer = await api.ask(method, where, data=body.encode(), headers={"Content-Type": media})
        assert answer.status in {200, 201, 202}, answer.text
