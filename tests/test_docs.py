"""The pages and the program say the same: what one has, the other has. What readers type: see test_tutorial.py."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import headrace
import headrace.errors
import headrace_api
import headrace_cli
from doc_blocks import ROOT, Block, blocks
from headrace import App, Ctx, Handle, Retry, Task
from headrace.environment import _known
from headrace.errors import HeadraceError
from headrace.inspection import Inspector
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings, WorkerSettings
from headrace.task import ARROWS
from headrace.testing import Enqueued, Testing
from headrace_api.problems import _ROUTER, KINDS, Problem
from headrace_api.submissions import FIELDS
from headrace_api.task_body import TaskBody
from headrace_cli import main, settings_page
from headrace_cli.error_codes import known_codes
from headrace_cli.metrics_page import api_registry, operator_registry, worker_registry
from headrace_cli.pages import PAGES as PAGES_MADE
from headrace_operator.settings import CONNECTION

PAGES = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REFERENCE = (ROOT / "docs/reference.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()


def section(page: str, title: str) -> str:
    """What a page says below this heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows of a text, without their heads."""
    lines = re.findall(r"^\| ?(.+) ?\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines if not line.startswith("-")]


def words(text: str) -> set[str]:
    """What stands between backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


# -- settings


@pytest.mark.parametrize("page", PAGES_MADE)
def test_a_page_that_is_made_from_the_code_is_up_to_date(page: str) -> None:
    """If not: make docs"""
    assert (ROOT / "docs" / page).read_text() == PAGES_MADE[page]()


def test_every_variable_that_is_read_has_its_line() -> None:
    """Also those that are not fields of a settings class; and no line is of a variable that nothing reads."""
    listed = {word for row in rows(settings_page.page()) for word in re.findall(r"^`([A-Z_]+)`$", row[0])}
    assert listed == _known | {"REDIS_ADDR", "REDIS_PASSWORD"}


def test_every_setting_says_what_it_means() -> None:
    for cls, _, _ in settings_page.SECTIONS:
        told = settings_page.docstrings(cls)
        assert [each.name for each in settings_page._own(cls) if not told.get(each.name)] == []


# -- HTTP


def test_the_reference_has_the_fields_of_submissions_and_tasks() -> None:
    http = section(REFERENCE, "HTTP API")
    submission, task = (http.split(title)[1].split("\n**")[0] for title in ("**A submission**", "**A task**"))
    assert {word for row in rows(submission) for word in words(row[0])} == set(FIELDS)
    assert {word for row in rows(task) for word in words(row[0])} == set(TaskBody.__struct_fields__)


def modules() -> Iterator[str]:
    for package in (headrace, headrace_api, headrace_cli):
        yield from (each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))


def error_classes(base: type[HeadraceError] = HeadraceError) -> Iterator[type[HeadraceError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from error_classes(cls)


def codes_in_the_source() -> Iterator[str]:
    """The second argument of `HttpProblem(status, code, …)` and its like, and the table of the router's errors."""
    for file in (ROOT / "api/headrace_api").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="HttpProblem" | "Problem" | "_refuse"), args=[_, ast.Constant(str(code)), *_]
                ):
                    yield code
    yield from (code for code, _ in _ROUTER.values())


def test_the_page_of_errors_has_every_code_of_the_api() -> None:
    told = {code for row in rows(section(ERRORS, "Over HTTP")) if row[0].isdigit() for code in words(row[1])}
    from_classes = {cls.code for kind in KINDS for cls in (kind, *error_classes(kind))}
    of_commands = {"embedded_redis", "app_not_loaded", "trace", "api_unreachable", "invalid_pool_file"}
    elsewhere = {"unknown_setting", "bad_definition"}  # raised before a server listens
    assert told == (from_classes | set(codes_in_the_source())) - of_commands - elsewhere


def test_the_page_of_errors_gives_codes_the_status_that_the_api_gives_them() -> None:
    told = {
        code: int(row[0]) for row in rows(section(ERRORS, "Over HTTP")) if row[0].isdigit() for code in words(row[1])
    }
    assert {cls.code: kind.status for cls, kind in KINDS.items()}.items() <= told.items()


def test_the_page_of_errors_has_the_fields_of_a_problem_document() -> None:
    import msgspec

    problem = Problem(503, "x", "x", "x", "x", (headrace.FieldError("", ""),), ("id",))
    shown = msgspec.json.decode(problem.body("/", "id"))
    first = section(ERRORS, "Over HTTP").partition("| status |")[0]
    assert {word for row in rows(first) for word in words(row[0])} == set(shown)


def test_the_page_of_errors_has_every_class_with_its_code() -> None:
    for name in modules():
        if not name.endswith("__main__"):
            importlib.import_module(name)
    told = {(row[0].strip("`"), *words(row[1])) for row in rows(section(ERRORS, "In Python"))}
    public = {cls for cls in error_classes() if getattr(headrace.errors, cls.__name__, None) is cls}
    assert told - {("class",)} == {(cls.__name__, cls.code) for cls in public}
    commands = {cls.code for cls in error_classes() if cls.__module__.startswith("headrace_cli.")}
    assert commands <= words(section(ERRORS, "Of commands"))


def test_every_code_can_be_explained() -> None:
    """`headrace explain CODE` is what commands print below an error, and the list leads to the page of each code."""
    every = {cls.code for cls in error_classes() if cls.__module__.startswith("headrace")}
    # That of the base class, which nothing raises, may be inherited by an error that has its own code elsewhere.
    assert every - {"error"} - set(known_codes()) == set()
    assert list(dict.fromkeys(re.findall(r"\]\(errors/(\w+)\.md\)", ERRORS))) == known_codes()


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for depth, name in re.findall(
        r"^((?:│   |[├└]── )*)([A-Z]\w+)(?:  |$)", inspect.getdoc(headrace.errors) or "", re.M
    ):
        path = [*path[: len(depth) // 4], name]
        drawn[name] = path[-2] if len(path) > 1 else ""
    public = {cls for cls in error_classes() if cls.__name__ in headrace.errors.__all__}
    bases = {cls.__name__: cls.__bases__[0].__name__ for cls in public}
    assert drawn == bases | {"HeadraceError": ""}


# -- states, Python, commands, make


def test_the_reference_has_the_states_and_what_follows_them() -> None:
    told = {row[0].strip("`"): words(row[2]) for row in rows(section(REFERENCE, "Task states")) if "`" in row[0]}
    assert told == {str(state): set(map(str, after)) for state, after in ARROWS.items()}


def test_the_reference_has_the_parameters_of_the_python_api() -> None:
    told = section(REFERENCE, "Python")
    signatures = {
        "App": inspect.signature(App.__init__),
        "@app.task": inspect.signature(App.task),
        "task.using": inspect.signature(Task.using),
        "Retry": inspect.signature(Retry),
    }
    for name, signature in signatures.items():
        [written] = re.findall(rf"`{re.escape(name)}\((.*?)\)`", told)
        assert {each for each in re.split(r"[, *]+", written) if each} == signature.parameters.keys() - {"self"}, name


def test_the_reference_has_every_public_name_and_attribute() -> None:
    told = set(re.findall(r"\w+", section(REFERENCE, "Python") + section(ERRORS, "In Python")))
    for_the_library_alone = {Handle: {"get_name"}, Testing: {"queue", "carry_out", "work_until"}}
    attributes = {
        *(
            name
            for cls in (Ctx, Handle, Inspector, Testing)
            for name in vars(cls).keys() - for_the_library_alone.get(cls, set())
            if not name.startswith("_")
        ),
        *(each.name for cls in (Retry, Enqueued) for each in fields(cls)),
    }
    assert (set(headrace.__all__) - {"__version__"} | attributes) - told == set()


def test_the_figure_of_the_readme_is_the_measured_one() -> None:
    [told] = re.findall(
        r"one worker process drains at ([\d.]+) of what a C client does", (ROOT / "README.md").read_text()
    )
    measured = rows((ROOT / "docs/benchmarks.md").read_text())
    [median] = [row[2] for row in measured if row[0].startswith("drain of no-op async tasks, one process")]
    assert re.match(r"\**([\d.]+)", median)[1] == told  # type: ignore[index] # bold where the goal is reached


def test_every_exit_code_is_told_by_the_help() -> None:
    codes = (main.OK, main.FAILED, main.USAGE, main.UNREACHABLE, main.TIMED_OUT, main.INTERRUPTED)
    assert set(re.findall(r"\d+", main.cli.epilog or "")) == set(map(str, codes))


def test_the_reference_has_the_make_targets() -> None:
    made = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word.removeprefix("make ") for row in rows(section(REFERENCE, "Make")) for word in words(row[0])} == made


# -- metrics


def names_of(registry: CollectorRegistry) -> set[str]:
    """Metrics as a query names them."""
    return {each.name + {"counter": "_total", "info": "_info"}.get(each.type, "") for each in registry.collect()}


def test_every_label_of_a_metric_says_what_it_can_be() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    first, second = page.split("## Labels")
    used = {label for row in rows(first) for label in words(row[1])}
    assert used == {label for row in rows(second) for label in words(row[0])}


def test_queries_on_the_pages_ask_for_metrics_that_exist() -> None:
    known = set().union(*map(names_of, (worker_registry(), api_registry(), operator_registry())))
    asked = [
        name
        for block in all_blocks("promql")
        for name in re.findall(r"\b(?:headrace_|task|queue_|workers_)\w+\b(?!\s*\()", block.text)
        if name not in {"priority"}
    ]
    assert len(asked) > 5
    assert {re.sub("_(sum|count)$", "", name) for name in asked} <= known


# -- every page


def all_blocks(*kinds: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.kind in kinds]


@pytest.mark.parametrize("block", all_blocks("dotenv"), ids=str)
def test_settings_on_the_pages_are_accepted(block: Block) -> None:
    environ = dict(line.split("=", 1) for line in block.text.splitlines())
    WorkerSettings.from_env(environ)
    ApiSettings.from_env(environ)
    RedisSettings.from_env(environ)


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=str)
def test_manifests_on_the_pages_name_settings_that_exist(block: Block) -> None:
    yaml = pytest.importorskip("yaml")
    list(yaml.safe_load_all(block.text))
    assert set(re.findall(r"\b(?:HEADRACE_\w+|WORKER_ID)\b", block.text)) <= _known


@pytest.mark.parametrize("page", PAGES)
def test_programs_on_the_pages_compile(page: str) -> None:
    for block in blocks(page):
        if block.kind == "python" and block.what != "replace":
            compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = page.read_text()
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return set(re.findall(r'<a id="(\w+)">', text)) | {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:tests|docs|examples|bench|deploy|worker|api|cli|operator)/[\w./-]*\w)`", text)
    # This one must not exist, and the architecture says why.
    assert [name for name in named if not (ROOT / name).exists()] in ([], ["operator/__init__.py"])


@pytest.mark.parametrize("page", PAGES)
def test_variables_and_targets_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    slip = {"HEADRACE_CONCURENCY"} if page == "docs/errors/unknown_setting.md" else set()  # what that page is about
    variables = set(re.findall(r"\bHEADRACE_[A-Z_]*[A-Z]\b", text)) - slip
    of_tests = set(re.findall(r"\bHEADRACE_TEST_[A-Z]+\b", (ROOT / "tests/cluster/choice.py").read_text()))
    known = _known | of_tests
    assert {each for each in variables - known if not each.startswith(CONNECTION[:-1])} == set()
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = itertools.chain(re.findall(r"`make ([a-z-]+)`", text), re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert set(shown) <= made


def test_the_how_to_page_stays_short() -> None:
    """At most 25 entries (longer ones are pages of docs/how-to); and its list of contents has them all."""
    page = (ROOT / "docs/how-to.md").read_text()
    entries = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert len(entries) <= 25
    contents = [f"{number} {title}" for number, title in re.findall(r"(\d+\.) \[(.+?)\]\(#", page)]
    assert contents == [entry.replace("`", "") for entry in entries]
    longer = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs/how-to").glob("*.md")}
    assert longer <= set(re.findall(r"\]\((how-to/[\w-]+\.md)\)", page.partition("\n## ")[0]))
