"""Rules about the source itself that no tool of `make lint` checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = ("operator", "api", "worker", "cli")
MODULES = sorted(file for root in SOURCE_ROOTS for file in (ROOT / root).rglob("*.py"))
SCRIPTS = sorted((ROOT / "worker").rglob("*.lua"))
MAX_FUNCTION = 60
MAX_MODULE = 400

# Each of these turns data into code, or into any object its writer wanted.
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.loads", "logging.config.listen"}


def short(file: Path) -> str:
    return str(file.relative_to(ROOT))


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def code(script: Path) -> str:
    """A Lua script without its comments."""
    return re.sub(r"--[^\n]*", "", script.read_text())


@pytest.mark.parametrize("folder", [*SOURCE_ROOTS, "tests"])
def test_a_source_root_is_no_package(folder: str) -> None:
    """An `operator/__init__.py` would shadow the standard library's `operator` for all that runs in the checkout."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_standard_librarys_operator_is_found_from_the_checkout() -> None:
    found = [sys.executable, "-c", "import operator; print(operator.itemgetter.__module__)"]
    assert subprocess.run(found, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "operator\n"


def test_packages_import_in_one_direction_only() -> None:
    """cli → operator | api → headrace, as pyproject.toml says."""
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 kept" in run.stdout


def test_no_function_is_too_long_to_read_at_once() -> None:
    long = [
        f"{short(file)}:{node.lineno} {node.name} has {length} lines"
        for file in MODULES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]
    assert not long, long


def test_no_module_has_more_than_one_subject() -> None:
    long = [f"{short(file)}: {n} lines" for file in MODULES if (n := len(file.read_text().splitlines())) > MAX_MODULE]
    assert not long, long


def unsafe_uses(module: ast.Module) -> Iterator[str]:
    """What of the unsafe things a module imports or calls."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in UNSAFE_MODULES)
            case ast.ImportFrom(module=str(source)) if source.partition(".")[0] in UNSAFE_MODULES:
                yield source
            case ast.Call(func=ast.Name(id=name)) if name in UNSAFE_BUILTINS:
                yield name
            case ast.Call(func=ast.Attribute() as call) if ast.unparse(call) in UNSAFE_CALLS:
                yield ast.unparse(call)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from marshal import loads", ["marshal"]),
        ("eval('1')", ["eval"]),
        ("yaml.load(text)", ["yaml.load"]),
        ("yaml.safe_load(text); client.eval(script)", []),
    ],
)
def test_the_search_for_unsafe_uses_finds_them(source: str, found: list[str]) -> None:
    assert list(unsafe_uses(ast.parse(source))) == found


def test_no_data_becomes_code() -> None:
    """Whoever can write to Redis or call the API can make tasks, and nothing else."""
    found = {short(file): uses for file in MODULES if (uses := list(unsafe_uses(tree(file))))}
    assert not found


def test_there_are_scripts_to_look_at() -> None:
    assert len(SCRIPTS) > 10


def test_no_script_takes_an_entry_over() -> None:
    """The fence rests on it: an attempt owns its own stream entry, and no other ever gets that entry."""
    taken = [short(script) for script in SCRIPTS if re.search(r"X(AUTO)?CLAIM", code(script), re.IGNORECASE)]
    assert not taken


def test_no_script_trims_a_stream_of_work() -> None:
    """Trimming drops tasks silently; only the journal and the audit log, which are history, are capped."""
    trims = [
        f"{short(script)}: {line.strip()}"
        for script in SCRIPTS
        for line in code(script).splitlines()
        if re.search(r"XTRIM|MAXLEN|MINID", line, re.IGNORECASE) and not re.search(r"K\.(journal|audit)", line)
    ]
    assert not trims, trims
