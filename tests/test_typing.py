"""What type checkers say of user code: right calls pass, wrong ones are refused, results are inferred.

Each line that must be refused is marked with `# error`; every other line must pass, in mypy and in pyright.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

SNIPPET = """
from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar, assert_type

from msgspec import Meta

from headrace import App, Ctx, Handle, Priority, Retry, TaskCall


@dataclass
class Deps:
    cdn: str


async def deps() -> AsyncIterator[Deps]:
    yield Deps("https://cdn")


@asynccontextmanager
async def timed(ctx: Ctx[Any]) -> AsyncGenerator[None, None]:
    yield


app = App("images", deps=deps, middleware=(timed,))
bare = App("bare", queue="orders")
assert_type(app, App[Deps])
assert_type(bare, App[None])


@app.task(priority="high", timeout=30, retry=Retry(5, on=(OSError,)))
async def resize(ctx: Ctx[Deps], url: str, width: Annotated[int, Meta(gt=0)] = 200) -> str:
    assert_type(ctx.deps, Deps)
    ctx.log.info("resizing")
    return f"{ctx.deps.cdn}/{width}"


@app.task()
def crunch(rows: list[int]) -> float:
    return float(sum(rows))


@bare.task("reports.make", priority=Priority.LOW, process=True)
def report(ctx: Ctx[None], year: int, *, draft: bool = False) -> list[str]:
    return [str(year)]


P = ParamSpec("P")
R = TypeVar("R")


def logged(fn: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return await fn(*args, **kwargs)

    return wrapper


@app.task()
@logged
async def wrapped(ctx: Ctx[Deps], url: str) -> int:
    return len(url)


@app.task()
@logged
async def counted(url: str) -> int:
    return len(url)


@bare.task()
async def nothing() -> None:
    return None


@bare.task()
def loose(ctx: Ctx, url: str) -> Deps:
    assert_type(ctx.deps, object)
    return Deps(url)


async def asynchronous() -> None:
    handle = await resize.using(key="cat-1", delay=5).aenqueue("s3://cat", width=300)
    assert_type(handle, Handle[str])
    assert_type(await handle.aget(timeout=5), str)
    assert_type(await resize.run("s3://cat"), str)
    assert_type(await crunch.run([1, 2]), float)
    assert_type(await loose.run(url="x"), Deps)
    assert_type(resize.call(url="s3://cat"), TaskCall[str])
    assert_type(resize.handle("id"), Handle[str])
    await nothing.aenqueue()
    assert_type(await wrapped.run("s3://cat"), int)
    assert_type(await counted.aenqueue("s3://cat"), Handle[int])
    await wrapped.run(3)  # error
    await resize.aenqueue(3)  # error
    await resize.aenqueue("s3://cat", widht=300)  # error
    await resize.aenqueue()  # error
    await resize.aenqueue("s3://cat", 300, 1)  # error
    await resize.aenqueue("s3://cat", width="wide")  # error
    await nothing.aenqueue("too much")  # error
    await resize.run(width=3)  # error


def synchronous() -> None:
    assert_type(crunch.enqueue([1, 2]).get(timeout=5), float)
    assert_type(report.enqueue(2026, draft=True).get(), list[str])
    crunch.enqueue(["a"])  # error
    crunch.enqueue(1)  # error
    report.enqueue(2026, True)  # error
    report.enqueue(2026, final=True)  # error
    crunch([1, 2])  # error
    resize("s3://cat")  # error
    resize.using(delai=5)  # error
    resize.using(max_retries="3")  # error
    wrong: Handle[int] = crunch.enqueue([1])  # error
    print(wrong)


App("x", dependencies=deps)  # error
App("x", middleware=(deps,))  # error
app.task(prio="high")  # error
"""

WRONG = """
from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_type

from examples.thirty_lines import app, crunch, resize
from headrace import Batch, Handle, HeadraceError, Retry, Unique
from headrace.testing import Enqueued, Testing


async def batches() -> None:
    batch = await app.abatch(resize.call(url) for url in ["s3://cat"])
    assert_type(batch, Batch[str])
    assert_type(batch[0], Handle[str])
    assert_type(batch[1:], tuple[Handle[str], ...])
    assert_type(await batch.aresults(timeout=5), list[str])
    assert_type(await batch.aoutcomes(), list[str | HeadraceError])
    mixed: Batch[str | float] = await app.abatch([resize.call("s3://cat"), crunch.call([1])])
    assert_type(await mixed.aresults(), list[str | float])
    assert_type(app.batch([crunch.call([1])]).results(), list[float])
    await app.abatch(resize.call(3) for _ in range(3))  # error
    await app.abatch([resize("s3://cat")])  # error
    await app.abatch(resize.aenqueue("s3://cat") for _ in range(3))  # error
    await app.abatch(resize.call("s3://cat"))  # error
    await app.abatch(url for url in ["s3://cat"])  # error
    numbers: Batch[int] = await app.abatch([crunch.call([1])])  # error
    words: list[str] = await mixed.aresults()  # error
    print(numbers, words)


def options() -> None:
    resize.using(delay=timedelta(hours=1), tags=("acme",), expires=60, unique=Unique("k", until=60))
    resize.using(delay="5")  # error
    resize.using(eta=5)  # error
    resize.using(tags=3)  # error
    resize.using(unique=3)  # error
    resize.using(expires="soon")  # error
    resize.using(queue=datetime.now())  # error
    Retry("5")  # error
    Retry(5, on=OSError())  # error
    app.task(timeout="30")  # error
    app.task(process="yes")  # error


async def results() -> None:
    handle = await resize.aenqueue("s3://cat")
    width: int = await handle.aget()  # error
    handle.get(timeout="5")  # error
    total: str = crunch.enqueue([1]).get()  # error
    missing: None = await resize.run("s3://cat")  # error
    print(width, total, missing)


def tests(headrace: Testing) -> None:
    assert_type(headrace.assert_enqueued(resize, url="s3://cat"), Enqueued)
    assert_type(headrace.work(raises=False, delayed=True), int)
    headrace.advance(timedelta(hours=1))
    headrace.assert_enqueued("resize")  # error
    headrace.work(True)  # error
    headrace.advance("1 h")  # error
    headrace.enqueud  # error
"""

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {
    "snippet.py": SNIPPET,
    "wrong.py": WRONG,
    "example.py": (ROOT / "examples/thirty_lines.py").read_text(),
}
MARKED = {
    (name, number)
    for name, text in TEXTS.items()
    for number, line in enumerate(text.splitlines(), 1)
    if line.endswith("# error")
}
"""The lines that must be refused."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All of them in one: a checker needs most of its time to start."""
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Neither checker may fetch anything, and no program of the system helps: node comes with pyright[nodejs]."""
    yield os.environ | {
        "MYPYPATH": f"{ROOT / 'worker'}:{ROOT}",
        "PATH": str(tmp_path / "no-programs"),
        "npm_config_offline": "true",
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }


def test_mypy_agrees_with_the_marks(folder: Path, environment: dict[str, str]) -> None:
    """mypy --strict refuses exactly the marked lines."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={folder / 'cache'}"]
    run = subprocess.run([*command, *TEXTS], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    found = re.findall(r"^(\w+\.py):(\d+): error", run.stdout, re.MULTILINE)
    assert {(name, int(number)) for name, number in found} == MARKED, run.stdout + run.stderr


def test_pyright_agrees_with_the_marks(folder: Path, environment: dict[str, str]) -> None:
    """pyright refuses exactly the marked lines."""
    config = {
        "extraPaths": [str(ROOT / "worker"), str(ROOT)], "typeCheckingMode": "strict", "reportUnusedFunction": False,
    }  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    report = run_pyright(folder, environment)
    errors = [each for each in report.generalDiagnostics if each.severity == "error"]
    text = "\n".join(f"{each.file}:{each.range.start.line + 1}: {each.message}" for each in errors)
    assert {(Path(each.file).name, each.range.start.line + 1) for each in errors} == MARKED, text


class Position(msgspec.Struct):
    line: int


class Range(msgspec.Struct):
    start: Position


class Diagnostic(msgspec.Struct):
    file: str
    severity: str
    message: str
    range: Range


class Report(msgspec.Struct):
    """What of pyright's report is looked at."""

    generalDiagnostics: list[Diagnostic]  # noqa: N815 - pyright's name


def run_pyright(folder: Path, environment: dict[str, str]) -> Report:
    """pyright's report."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert run.stdout.lstrip().startswith("{"), run.stderr or run.stdout
    return msgspec.json.decode(run.stdout, type=Report)
