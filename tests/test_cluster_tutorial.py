"""The page that leads from a laptop to a cluster, carried out as it is written."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from cluster import programs
from cluster_kit import World, until
from doc_blocks import ROOT, Reader, blocks
from headrace_cli.ports import free_port

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the page uses it"),
]


async def test_the_way_from_a_laptop_to_a_cluster_can_be_gone(world: World, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(world.cluster.kubeconfig, kubeconfig)
    shutil.copy(programs.HERE / "tasks.py", tmp_path)
    namespace = f"--namespace={world.namespace}"
    await world.kubectl("config", "set-context", "--current", namespace, f"--kubeconfig={kubeconfig}")
    await world.kubectl("delete", "secret", "headrace-redis")
    environ = {
        "KUBECONFIG": str(kubeconfig), "HEADRACE_URL": world.redis.near,
        "HEADRACE_OPERATOR_NAMESPACES": world.namespace, "HEADRACE_OPERATOR_METRICS_PORT": "0",
    }  # fmt: skip
    await asyncio.to_thread(_follow, tmp_path, environ, Path(world.cluster.kubectl).parent)


async def test_describe_shows_what_the_page_says_it_shows(world: World) -> None:
    """Its numbers and times differ each time, so the page cannot be compared whole; the names of its fields can."""
    with world.operating():
        await world.pool()
        await world.ended(await world.submit("nap"))
        await until(lambda: _mean(world), bool, "the status tells how long tasks take")
        await world.at(0)
        await until(lambda: world.condition("Ready"), lambda seen: seen.get("reason") == "Idle", "an idle pool")
        shown = await world.kubectl("describe", "wp", "emails")
    [page] = [each for each in blocks("docs/kubernetes.md") if each.kind == "text" and "API Version:" in each.text]
    assert _fields(page.text.partition("Status:")[2]) == _fields(shown.partition("Status:")[2])


async def _mean(world: World) -> str:
    found = await world.get("workerpools")
    return str((found or {}).get("status", {}).get("meanTaskSeconds", ""))


def _fields(described: str) -> list[str]:
    """Names before the first Event, each once, as deep as they stand."""
    status = described.partition("\nEvents:")[0]
    return sorted({found[1] for found in re.finditer(r"^( *(?:[A-Z][a-z]+ ?)+):", status, re.MULTILINE)})


def _follow(folder: Path, environ: dict[str, str], tools: Path) -> None:
    with Reader(folder, free_port(), environ, {"$HOME/headrace": str(ROOT)}) as reader:
        reader.run(f'export PATH="{tools}:$PATH"')
        reader.follow("docs/kubernetes.md")
