"""Finding the application by its name, and what is said when it cannot be found or used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import BadDefinition
from headrace_cli.load import AppLoadError, load_app, start_error

APP = 'from headrace import App\napp = App("{0}")\n'
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files into the current folder, which is empty; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def file(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    yield file
    sys.path[:] = path
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None or Path(origin).is_relative_to(tmp_path):
            del sys.modules[name]


def refusal(name: str) -> AppLoadError:
    with pytest.raises(AppLoadError) as raised:
        load_app(name)
    return raised.value


def test_a_module_with_one_app_needs_no_attribute(write: Write) -> None:
    write("shop_a/tasks.py", APP.format("shop"))
    assert load_app("shop_a.tasks").name == "shop"


def test_an_attribute_chooses_among_several_apps(write: Write) -> None:
    write("two_apps.py", APP.format("one") + 'other = App("two")\n')
    assert load_app("two_apps:other").name == "two"


def test_an_attribute_may_lie_inside_another(write: Write) -> None:
    write("nested_app.py", 'from headrace import App\nclass Apps:\n    main = App("inner")\n')
    assert load_app("nested_app:Apps.main").name == "inner"


def test_the_same_app_under_two_names_is_one(write: Write) -> None:
    write("alias_app.py", APP.format("one") + "application = app\n")
    assert load_app("alias_app").name == "one"


def test_several_apps_without_a_choice_are_listed(write: Write) -> None:
    write("many_apps.py", APP.format("one") + 'other = App("two")\n')
    assert str(refusal("many_apps")) == (
        "many_apps.py has 2 Apps. Choose one: --app many_apps:app or --app many_apps:other."
    )


def test_a_misspelt_module_is_named_with_the_nearest_one(write: Write) -> None:
    write("shop_b/tasks.py", APP.format("shop"))
    assert str(refusal("shop_b.taks")) == (
        "There is no module 'shop_b.taks' in shop_b. Did you mean --app shop_b.tasks?"
    )
    assert "no module 'shop_bb' in the current folder. Did you mean --app shop_b?" in str(refusal("shop_bb.tasks"))


def test_a_module_that_is_nowhere_near_says_where_it_looked(write: Write) -> None:
    write("orders.py", "")
    assert str(refusal("zzz")) == (
        "There is no module 'zzz' in the current folder. Start in the folder that holds it; there is orders."
    )


def test_a_module_taken_for_a_package_is_explained(write: Write) -> None:
    write("flat_app.py", APP.format("x"))
    assert "flat_app is a module and not a package" in str(refusal("flat_app.tasks"))


def test_a_path_is_answered_with_the_module_it_means(write: Write) -> None:
    write("shop_c/tasks.py", APP.format("shop"))
    assert str(refusal("shop_c/tasks.py")).endswith("Did you mean --app shop_c.tasks?")


def test_a_text_that_names_no_module_is_refused(write: Write) -> None:
    assert "is no name of a module" in str(refusal("my-app.tasks"))


def test_a_module_without_an_app_says_what_to_write(write: Write) -> None:
    write("no_app.py", "x = 1\n")
    assert str(refusal("no_app")) == 'no_app.py has no App. Write `app = App("no_app")` in it.'


def test_an_attribute_of_a_module_without_an_app_says_what_to_write(write: Write) -> None:
    write("no_app_either.py", "x = 1\n")
    said = "no_app_either.py has no 'app', and no App at all. Write `app = App(\"no_app_either\")` in it."
    assert str(refusal("no_app_either:app")) == said


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("ap", "wrong_attr.py has no 'ap'. Did you mean --app wrong_attr:app?"),
        ("number", "wrong_attr:number is of type int, and no App. Did you mean --app wrong_attr:app?"),
        ("App", "wrong_attr:App is the class App, and no App. Did you mean --app wrong_attr:app?"),
    ],
)
def test_an_attribute_that_is_no_app_names_the_one_that_is(write: Write, attribute: str, said: str) -> None:
    write("wrong_attr.py", APP.format("x") + "number = 1\n")
    assert str(refusal(f"wrong_attr:{attribute}")) == said


def test_a_syntax_error_shows_file_line_and_text(write: Write) -> None:
    write("syntax_app.py", "x = 1\ndef f(:\n    pass\n")
    error = refusal("syntax_app")
    assert error.problem.startswith("syntax_app.py:2: ")
    assert "def f(:" in error.detail


def test_an_exception_inside_shows_only_the_users_own_frames(write: Write) -> None:
    write("raises_app.py", "import helper_of_raises\nhelper_of_raises.go()\n")
    write("helper_of_raises.py", 'def go():\n    raise KeyError("lost")\n')
    error = refusal("raises_app")
    assert error.problem == "helper_of_raises.py:2: importing raises_app raised KeyError: 'lost'"
    assert 'raises_app.py", line 2' in error.detail
    assert "importlib" not in error.detail
    assert "load.py" not in error.detail


def test_a_missing_package_inside_is_not_taken_for_the_app(write: Write) -> None:
    write("needs_app.py", "import package_that_is_not_there\n")
    error = refusal("needs_app")
    assert error.problem.startswith("needs_app.py:1: importing needs_app raised ModuleNotFoundError")
    assert "Install what provides 'package_that_is_not_there'" in error.remedy


def test_a_task_that_cannot_be_declared_is_placed_in_the_users_file(write: Write) -> None:
    write("bad_task.py", APP.format("x") + "@app.task()\ndef f(*args): ...\n")
    error = refusal("bad_task")
    assert error.problem.startswith("bad_task.py:3: Task function bad_task.f")
    assert error.remedy and "Correct it and start again" not in error.remedy
    assert error.detail == ""


def test_a_module_that_ends_the_program_is_told_to_guard_it(write: Write) -> None:
    write("exit_app.py", "raise SystemExit(3)\n")
    assert "ended the program (exit code 3)" in str(refusal("exit_app"))


def test_an_exception_of_the_application_at_its_start_is_placed_and_any_other_is_not_its_own(write: Write) -> None:
    write("late_app.py", APP.format("x") + 'def deps():\n    raise KeyError("lost")\n')
    load_app("late_app")
    with pytest.raises(KeyError) as own:
        sys.modules["late_app"].deps()
    told = start_error("late_app", own.value)
    assert told is not None
    assert told.problem == "late_app.py:4: starting late_app raised KeyError: 'lost'"
    assert 'raise KeyError("lost")' in told.detail
    assert start_error("late_app", BadDefinition("deps", "yields nothing", "Yield")) is None
    assert start_error("late_app", KeyError("raised nowhere")) is None
