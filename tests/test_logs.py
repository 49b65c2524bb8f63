"""Log lines: complete, bounded, and not to be forged by what a client sends."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.context import Ctx, current_ctx
from headrace.logs import MAX_FIELD, MAX_MESSAGE, MAX_TRACE, clean, setup_logging, trace_id

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    """Logging is global, so what a test sets up is taken back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def make_ctx(task_id: str = "42") -> Ctx[None]:
    return Ctx(id=task_id, type="send_email", queue="default", attempt=2, epoch=7, deadline=0, deps=None, trace=TRACE)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_its_fields() -> None:
    """Time in RFC 3339, level, logger, message, and the facts that were added."""
    stream = io.StringIO()
    setup_logging(stream=stream)
    logging.getLogger("headrace.x").info("sent to %s", "Ada", extra={"fields": {"took_s": 0.5, "ok": True}})
    [line] = lines_of(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "logger": "headrace.x", "message": "sent to Ada", "took_s": 0.5, "ok": True}


def test_line_inside_a_handler_carries_its_task() -> None:
    """Any logger's line does, by context; ctx.log's does also from elsewhere."""
    stream = io.StringIO()
    setup_logging(stream=stream)
    token = current_ctx.set(make_ctx())
    logging.getLogger("somebody.elses").warning("odd")
    current_ctx.reset(token)
    make_ctx("43").log.info("fine")
    logging.getLogger("a").info("outside")
    task = {"type": "send_email", "attempt": 2, "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    inside, logged, outside = lines_of(stream)
    assert inside | task | {"task_id": "42"} == inside
    assert logged | task | {"task_id": "43", "logger": "headrace.task.send_email"} == logged
    assert "task_id" not in outside


def test_facts_do_not_replace_the_task() -> None:
    """What is added cannot overwrite what a line is found by."""
    stream = io.StringIO()
    setup_logging(stream=stream)
    logging.getLogger("a").info("x", extra={"ctx": make_ctx(), "fields": {"task_id": "other", "level": "debug"}})
    [line] = lines_of(stream)
    assert (line["task_id"], line["level"]) == ("42", "info")


class Loss(float):
    """A number as numpy's are."""


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ({"ctx": {"request": 1}}, {}),
        ({"fields": "all of them"}, {}),
        ({"fields": None}, {}),
        ({"fields": {7: "seven"}}, {"7": "seven"}),
        ({"fields": {"loss": Loss(0.5)}}, {"loss": 0.5}),
    ],
)
def test_a_line_of_somebody_elses_is_written(as_json: bool, extra: dict[str, Any], shown: dict[str, Any]) -> None:
    """All of a worker's lines come here; one that means something else by our words was lost, with a traceback."""
    stream = io.StringIO()
    setup_logging(json=as_json, stream=stream)
    logging.getLogger("a.library").info("fine", extra=extra)
    text = stream.getvalue()
    assert "fine" in text
    if as_json:
        [line] = lines_of(stream)
        assert {name: line[name] for name in line.keys() - {"time", "level", "logger", "message"}} == shown


HOSTILE = "a\r\nb\x1b[2J\x00\x7f\x9b\u202egpj.exe\u2066\u200f\u2028\ufeff\ud800"


@pytest.mark.parametrize("as_json", [True, False])
def test_no_text_can_forge_a_line(as_json: bool) -> None:
    """Wherever control and bidi characters come from, one call makes one line without any of them."""
    stream = io.StringIO()
    setup_logging(json=as_json, stream=stream)
    ctx = make_ctx(HOSTILE)
    logging.getLogger(HOSTILE).info("%s", HOSTILE, extra={"ctx": ctx, "fields": {HOSTILE: HOSTILE}})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    shown = json.dumps(json.loads(text), ensure_ascii=False) if as_json else text.rstrip("\n")
    assert not set(shown) & set(HOSTILE.replace("a", "").replace("b", "").replace("[2J", "").replace("gpj.exe", ""))
    assert r"\x1b" in shown


@pytest.mark.parametrize("as_json", [True, False])
def test_traceback_is_kept_and_cleaned(as_json: bool) -> None:
    """An error's own text cannot pass for a line of the log either."""
    stream = io.StringIO()
    setup_logging(json=as_json, stream=stream)
    try:
        raise ValueError("bad\n12:00:00 INFO     all is well\x1b[0m")
    except ValueError:
        logging.getLogger("a").exception("failed")
    text = stream.getvalue()
    if as_json:
        [line] = lines_of(stream)
        assert "ValueError: bad" in line["exception"]
        assert "\x1b" not in line["exception"]
    else:
        assert "ValueError: bad" in text
        assert all(line.startswith("    ") for line in text.splitlines()[1:])
        assert "\x1b" not in text


def test_lengths_are_bounded() -> None:
    """Message, fields and traceback each have a limit."""
    stream = io.StringIO()
    setup_logging(json=True, stream=stream)
    long = "x" * 100_000
    try:
        raise ValueError(long)
    except ValueError:
        logging.getLogger(long).exception("%s", long, extra={"fields": {long: long}})
    [line] = lines_of(stream)
    assert len(line["message"]) < MAX_MESSAGE + 30
    assert len(line["logger"]) < MAX_FIELD + 30
    assert len(line["exception"]) < MAX_TRACE + 50
    assert len(stream.getvalue()) < MAX_MESSAGE + MAX_TRACE + 1_000


def test_cut_text_says_so() -> None:
    """A reader sees that something is missing, and how much."""
    assert clean("x" * 12, 10) == "x" * 10 + "…[2 more]"
    assert clean("x" * 10, 10) == "x" * 10


def test_terminal_gets_text_and_pipe_gets_json() -> None:
    """JSON when nobody looks on; readable lines in a terminal; either can be asked for."""
    terminal, pipe = Terminal(), io.StringIO()
    setup_logging(stream=terminal, environ={})
    logging.getLogger("a").info("hello")
    assert "hello" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    setup_logging(json=False, stream=pipe, environ={})
    logging.getLogger("a").info("hello")
    assert not pipe.getvalue().startswith("{")
    setup_logging(json=True, stream=terminal, environ={})
    logging.getLogger("a").info("hello")
    assert json.loads(terminal.getvalue().splitlines()[-1])["message"] == "hello"


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_only_where_wanted(environ: dict[str, str], coloured: bool) -> None:
    """NO_COLOR and a dumb terminal are honoured."""
    terminal = Terminal()
    setup_logging(stream=terminal, environ=environ)
    logging.getLogger("a").error("hello")
    assert ("\x1b[31m" in terminal.getvalue()) is coloured


def test_text_line_shows_the_task() -> None:
    """In a terminal, too, a line says which task it belongs to."""
    stream = io.StringIO()
    setup_logging(json=False, stream=stream)
    make_ctx().log.info("sent")
    assert "task_id=42  type=send_email  attempt=2" in stream.getvalue()


def test_second_setup_replaces_the_first() -> None:
    """A line is written once, at the level last asked for, and other handlers stay."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    setup_logging("debug", stream=first)
    setup_logging("warning", stream=second)
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    assert first.getvalue() == ""
    assert [line["message"] for line in lines_of(second)] == ["loud"]
    assert other in logging.getLogger().handlers


@pytest.mark.parametrize("given", [None, "", "garbage", TRACE + "\n", TRACE.upper()])
def test_trace_id_of_what_is_no_traceparent(given: str | None) -> None:
    """What a client sends as traceparent is believed only in its exact form."""
    assert trace_id(given) is None
