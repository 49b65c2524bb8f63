"""What may be imported is what the pages list, and each of it says what it does, in which units, and what it raises."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from enum import EnumType
from typing import Any

import pytest

import headrace
import headrace.errors
import headrace.testing
from doc_blocks import ROOT
from headrace.bulk_control import BulkControl
from headrace.inspection import FailureGroup, Failures, Inspector, Page, TaskView, TypeView, WorkerInfo
from headrace.queue_control import QueueControl

REFERENCE = (ROOT / "docs/reference.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()
SECONDS = {"timeout", "delay", "seconds", "base_s", "cap_s", "by", "until"}
"""Parameters that are a time."""


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def listed() -> set[str]:
    """Names of classes that the pages list."""
    text = re.sub(r"headrace\.\w+\.[A-Z]\w+", "by its module", section(REFERENCE, "Python"))
    codes = re.findall(r"`([^`]+)`", text)
    named = {word for code in codes for word in re.findall(r"\b[A-Z][A-Za-z]+\b", code)}
    in_errors = set(re.findall(r"^\| `(\w+)` \|", section(ERRORS, "In Python"), re.MULTILINE))
    return named | in_errors


def test_the_list_of_public_names_is_sorted_and_all_are_there() -> None:
    assert headrace.__all__ == sorted(headrace.__all__)
    assert all(hasattr(headrace, name) for name in headrace.__all__)


def test_the_pages_list_what_may_be_imported_and_nothing_else() -> None:
    public = {*headrace.__all__, *headrace.testing.__all__} - {"__version__"}
    said = {name for name in listed() if not hasattr(builtins, name)}
    assert public - said == set(), "not on the pages"
    of_the_api = set(headrace.errors.__all__)  # what only queues, bulk jobs and the API raise
    assert said - public - of_the_api - {"Deps"} == set(), "on the pages, and not to be imported"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(headrace\.\w+\.[A-Z]\w+)`", REFERENCE))))
def test_a_name_that_the_page_gives_with_its_module_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def public_classes() -> list[type[Any]]:
    found = [getattr(headrace, name) for name in headrace.__all__]
    found += [getattr(headrace.testing, name) for name in headrace.testing.__all__]
    return [each for each in found if isinstance(each, type)]


def methods(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Those that a user calls, and properties."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield name, member.fget
        elif isinstance(member, types.FunctionType | classmethod):
            yield name, inspect.unwrap(member.__func__ if isinstance(member, classmethod) else member)


THROUGH_APP = {"inspect": Inspector, "queues": QueueControl, "bulk": BulkControl}
"""Attribute of an App → what it gives, which nobody has to import."""

OWN = [
    pytest.param(cls, name, method, id=f"{cls.__name__}.{name}")
    for cls in [*public_classes(), *THROUGH_APP.values()]
    if not issubclass(cls, Exception) and not isinstance(cls, EnumType)
    for name, method in methods(cls)
]


@pytest.mark.parametrize(("attribute", "cls"), THROUGH_APP.items())
def test_the_page_lists_each_word_of_what_an_app_gives(attribute: str, cls: type[Any]) -> None:
    row = re.search(rf"^\| `app\.{attribute}`: (.*?) \|", section(REFERENCE, "Python"), re.MULTILINE)
    assert row
    listed = set(re.findall(r"`(\w+)\(", row[1]))
    assert listed == {name for name, _ in methods(cls) if not name.endswith("_sync")}


@pytest.mark.parametrize("cls", [TaskView, Page, Failures, FailureGroup, WorkerInfo, TypeView])
def test_the_page_lists_each_field_of_what_inspection_gives(cls: type[Any]) -> None:
    rows = [row for row in section(REFERENCE, "Python").splitlines() if f"`headrace.inspection.{cls.__name__}`" in row]
    assert len(rows) == 1
    assert set(cls.__annotations__) <= set(re.findall(r"`(\w+)`", rows[0]))


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__name__)
def test_every_public_class_says_what_it_is(cls: type[Any]) -> None:
    assert len((vars(cls).get("__doc__") or "").split()) >= 4


def told(cls: type[Any], doc: str) -> str:
    """A docstring with that of the method that it refers to, as in "As `get`, from asyncio"."""
    found = re.match(r"As `(?:(\w+)\.)?(\w+)`", doc)
    if found is None:
        return doc
    other = getattr(getattr(headrace, found[1]) if found[1] else cls, found[2])
    return f"{doc}\n{told(cls, inspect.getdoc(other) or '')}"


@pytest.mark.parametrize(("cls", "name", "method"), OWN)
def test_every_public_method_says_what_it_does_in_which_units_and_what_it_raises(
    cls: type[Any], name: str, method: types.FunctionType
) -> None:
    doc = told(cls, inspect.getdoc(method) or "")
    assert doc, "no docstring"
    if SECONDS & inspect.signature(method).parameters.keys():
        assert re.search(r"\bseconds?\b|Options", doc), "a time without its unit"
    source = inspect.getsource(method)
    if re.search(r"^\s+raise \w|forbid_running_loop\(|\.run\(|\.arun\(", source, re.MULTILINE):
        assert re.search(r"\braises?\b", doc, re.IGNORECASE), "it raises, and does not say what"
