"""The lines of `headrace dev`: what is held back until its first screen, and what is never shown."""

from __future__ import annotations

import io
import json

import pytest

from headrace_cli.dev_lines import Screen


def line(message: str, level: str = "info", logger: str = "headrace.worker") -> str:
    """A line of a worker's log."""
    return json.dumps({"time": "2026-11-30T16:00:00.000Z", "level": level, "logger": logger, "message": message})


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_what_is_held_comes_after_the_screen_and_in_its_order(out: io.StringIO) -> None:
    screen = Screen(out)
    screen.hold()
    for message in ("first", "second"):
        screen.child("w1")(line(message))
    screen.plain("the screen")
    screen.let_go()
    screen.child("w1")(line("third"))
    assert [each.split()[-1] for each in out.getvalue().splitlines()] == ["screen", "first", "second", "third"]


def test_a_warning_waits_for_nothing(out: io.StringIO) -> None:
    screen = Screen(out)
    screen.hold()
    screen.child("w1")(line("done"))
    screen.child("w1")(line("broken", "error"))
    assert [each.split()[-1] for each in out.getvalue().splitlines()] == ["broken"]


def test_how_a_worker_announces_itself_is_left_to_the_screen(out: io.StringIO) -> None:
    Screen(out).child("w1")(line("The worker serves", logger="headrace.worker.start"))
    assert out.getvalue() == ""
