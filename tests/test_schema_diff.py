"""`headrace schema diff`: what is called compatible is so, and what breaks is named by its place."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import pytest
from msgspec import Meta

from command_line import run
from headrace import App
from headrace_cli import main
from headrace_cli.schema_compare import compare


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Point3:
    x: int
    y: int
    z: int = 0


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    x: int


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class TextTree(msgspec.Struct):
    value: str | int
    children: list[TextTree] = []


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


KINDS: Final[list[Any]] = [
    int,
    float,
    str,
    bool,
    None,
    int | None,
    int | str,
    float | str | None,
    Any,
    Literal["a", "b"],
    Literal["a", "b", "c"],
    Literal["a"] | None,
    Literal[1, 2],
    Annotated[int, Meta(ge=0)],
    Annotated[int, Meta(gt=0)],
    Annotated[int, Meta(ge=0, le=10)],
    Annotated[int, Meta(multiple_of=2)],
    Annotated[float, Meta(lt=5.5)],
    Annotated[str, Meta(max_length=2)],
    Annotated[str, Meta(min_length=2)],
    Annotated[str, Meta(pattern="^a")],
    Annotated[datetime, Meta(tz=True)],
    bytes,
    list[int],
    list[int | None],
    list[Any],
    Annotated[list[int], Meta(min_length=1)],
    tuple[int, str],
    tuple[int, ...],
    dict[str, int],
    dict[str, Any],
    dict[str, int | str],
    Point,
    Point3,
    Closed,
    Tree,
    TextTree,
    Cat | Dog,
    Cat,
    Point | None,
]
VALUES: Final[list[Any]] = [
    *(None, True, 0, 1, 2, 3, 11, -1, 1.5, 6.5, "", "a", "b", "c", "abc", "bc", "1", "aGk=", "2026-01-15T10:30:00Z"),
    *([], [1], [None], ["a"], [1, "a"], [1, 2]),
    *({}, {"x": 1}, {"x": "a"}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "z": 3}, {"x": 1, "q": 1}, {"q": None}),
    *({"value": 1}, {"value": "a"}, {"value": 1, "children": [{"value": "a"}]}, {"value": 1, "children": [{}]}),
    *({"type": "Cat", "lives": 9}, {"type": "Dog", "name": "Rex"}, {"type": "Cat"}),
]


def schema(kind: Any) -> dict[str, Any]:
    """As a task publishes it that takes one argument of this type."""
    return {"schema": msgspec.json.schema(msgspec.defstruct("Payload", [("a", kind)], forbid_unknown_fields=True))}


def takes(kind: Any, value: Any) -> bool:
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
    except msgspec.ValidationError:
        return False
    return True


def breaks(old: Any, new: Any) -> list[str]:
    return [f"{each.pointer} {each.what}" for each in compare({"t": old}, {"t": new}) if each.kind == "breaking"]


def test_what_is_not_called_breaking_takes_what_was_taken() -> None:
    """Every pair of a catalogue of types, with every value of another.

    As far as schemas tell: that of a datetime which may lack its zone is any text.
    """
    missed = [
        (old, new, value)
        for old, new in itertools.product(KINDS, KINDS)
        if not breaks(schema(old), schema(new))
        for value in VALUES
        if takes(old, value) and not takes(new, value)
    ]
    assert missed == []


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_type_that_did_not_change_has_no_changes(kind: Any) -> None:
    assert compare({"t": schema(kind)}, {"t": schema(kind)}) == []


WIDER: Final[list[tuple[Any, Any]]] = [
    (int, float),
    (int, int | None),
    (int, int | str),
    (int, Any),
    (Literal["a", "b"], Literal["a", "b", "c"]),
    (Literal["a", "b"], str),
    (Literal["a"] | None, str | None),
    (Annotated[int, Meta(gt=0)], int),
    (Annotated[int, Meta(ge=0, le=10)], Annotated[int, Meta(ge=0)]),
    (Annotated[str, Meta(max_length=2)], Annotated[str, Meta(max_length=3)]),
    (Annotated[str, Meta(pattern="^a")], str),
    (Annotated[datetime, Meta(tz=True)], str),
    (list[int], list[int | None]),
    (dict[str, int], dict[str, int | str]),
    (Point, Point | None),
    (Tree, TextTree),
    (Cat, Cat | Dog),
]


@pytest.mark.parametrize(("old", "new"), WIDER, ids=str)
def test_what_takes_more_is_not_breaking(old: Any, new: Any) -> None:
    assert breaks(schema(old), schema(new)) == []


def described(fn: Callable[..., Any]) -> dict[str, Any]:
    app = App("shop")
    app.task(name="t")(fn)
    return app.registry["t"].describe()


ORIGIN, ORIGIN_3 = Point(0), Point3(0, 0)


def v1(url: str, width: int, size: Annotated[int, Meta(le=9)] = 1, colour: str = "", where: Point = ORIGIN) -> None: ...


def v2(
    url: str,
    height: int,
    width: Literal[1, 2],
    size: Annotated[int, Meta(le=8)] = 1,
    where: Point3 = ORIGIN_3,
    new: str = "",
) -> None: ...


def test_the_words_name_place_and_change() -> None:
    assert breaks(described(v1), described(v2)) == [
        "/height is required now",
        "/colour is gone, and unknown fields are refused",
        "/size has maximum 8, it was 9",
        "/where/y is required now",
        "/width takes only 1, 2, where it took an integer",
    ]


def test_types_that_come_and_go_and_defaults_that_change() -> None:
    found = compare({"a": schema(int), "b": schema(int) | {"queue": "x"}}, {"b": schema(int) | {"queue": "y"}, "c": {}})
    assert [(each.type, each.kind, each.what) for each in found] == [
        ("a", "breaking", "is gone: its tasks wait for a worker that knows it"),
        ("b", "compatible", 'has queue "y", it had "x"'),
        ("c", "compatible", "is new"),
    ]


def test_something_that_is_no_schema_of_ours_ends_the_walk() -> None:
    """References in a circle, or to nowhere."""
    odd = {"schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}}
    assert compare({"t": odd}, {"t": odd}) == []
    assert compare({"t": {"schema": {"$ref": "#/$defs/none"}}}, {"t": {}}) == []


# -- as a command

OLD: Final = """
from headrace import App
print("an application that talks")
app = App("shop")

@app.task()
def resize(url: str, width: int) -> None: ...
"""


def test_two_applications_and_what_was_saved(tmp_path: Path) -> None:
    """Exit code 0 if nothing is breaking, 1 if something is; applications are seen each in a process of its own."""
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "wide.py").write_text(OLD.replace("width: int", "width: float, height: int = 0"))
    (tmp_path / "less.py").write_text(OLD.replace(", width: int", ""))
    saved = run("schema", "dump", "old", cwd=tmp_path)
    assert saved.returncode == main.OK, saved.stderr
    assert json.loads(saved.stdout)["types"]["resize"]["queue"] == "default"
    (tmp_path / "types.json").write_text(saved.stdout)

    same = run("schema", "diff", "types.json", "old", cwd=tmp_path)
    assert (same.returncode, same.stdout) == (main.OK, "Nothing changed.\n")
    wider = run("schema", "diff", "old", "wide:app", cwd=tmp_path)
    assert wider.returncode == main.OK
    assert "compatible: resize /height is new and may be left out\n" in wider.stdout
    assert wider.stdout.endswith("Nothing is breaking.\n")
    less = run("schema", "diff", "-", "less", cwd=tmp_path, stdin=saved.stdout)
    assert less.returncode == main.FAILED
    assert less.stdout.startswith("breaking:   resize /width is gone, and unknown fields are refused\n1 breaking: let")
    data = run("schema", "diff", "old", "less", "-o", "json", cwd=tmp_path)
    assert data.returncode == main.FAILED
    assert json.loads(data.stdout) == [
        {
            "type": "resize",
            "pointer": "/width",
            "kind": "breaking",
            "what": "is gone, and unknown fields are refused",
        }
    ]
    as_yaml = run("schema", "diff", "old", "less", "-o", "yaml", cwd=tmp_path)
    assert msgspec.yaml.decode(as_yaml.stdout) == json.loads(data.stdout)
    names = [run("schema", "diff", "old", new, "-o", "name", cwd=tmp_path).stdout for new in ("less", "old")]
    assert names == ["resize\n", ""]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none.json", "none.json cannot be read: No such file"),
        ("broken.json", "broken.json has no types"),
        ("other.json", "other.json has no types"),
        ("absent_module", "There is no module 'absent_module' in the current folder. Start in the folder"),
    ],
)
def test_what_cannot_be_compared_is_told(tmp_path: Path, given: str, words: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"types": {}}')
    (tmp_path / "old.py").write_text(OLD)
    done = run("schema", "diff", "old", given, cwd=tmp_path)
    assert done.returncode == main.USAGE
    assert words in done.stderr and "Traceback" not in done.stderr
