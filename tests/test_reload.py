"""Reload on save: what is noticed where the kernel gives no watches, and beside the files that were imported."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import watchfiles.main
from watchfiles._rust_notify import WatchfilesRustInternalError

from headrace_cli.reload import Watch, stamp


async def next_burst(watch: Watch) -> list[str]:
    async with asyncio.timeout(30):
        async for changed in watch.bursts():
            return changed
    raise AssertionError


async def test_a_folder_that_has_gone_does_not_end_the_watch(tmp_path: Path) -> None:
    file, gone = tmp_path / "tasks.py", tmp_path / "shop" / "gone.py"
    file.write_text("")
    watch = Watch({str(file): stamp(str(file)), str(gone): "as imported"})
    file.write_text("1")
    assert await next_burst(watch) == [str(file)]


async def test_without_watches_of_the_kernel_the_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise WatchfilesRustInternalError("Error creating recommended watcher: Too many open files (os error 24)")

    monkeypatch.setattr(watchfiles.main, "RustNotify", refuse)
    file, other = tmp_path / "tasks.py", tmp_path / "shop" / "orders.py"
    other.parent.mkdir()
    for each in (file, other):
        each.write_text("")
    watch = Watch({str(file): stamp(str(file))})
    file.write_text("1")
    assert await next_burst(watch) == [str(file)]
    watch.watch({str(other): stamp(str(other))})
    other.write_text("1")
    assert await next_burst(watch) == [str(other)]


async def test_what_is_saved_while_a_broken_application_is_looked_at_is_not_missed(tmp_path: Path) -> None:
    file, helpers, foreign = tmp_path / "tasks.py", tmp_path / "shop" / "helpers.py", tmp_path / ".venv" / "pip.py"
    file.write_text("")
    for each in (helpers, foreign):
        each.parent.mkdir()
    watch = Watch({str(file): stamp(str(file))})
    file.write_text("import shop.helpers")
    assert await next_burst(watch) == [str(file)]
    for each in (foreign, helpers):
        each.write_text("VERSION = 1")
    watch.widen()
    assert await next_burst(watch) == [str(helpers)]
    watch.watch({str(file): stamp(str(file))})
    helpers.write_text("VERSION = 2")
    file.write_text("import shop")
    assert await next_burst(watch) == [str(file)]
