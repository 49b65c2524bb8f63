"""Calls that are written in pieces are what hiredis writes of all their words."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.broker.broker import Call, NewTask, Queue, Report
from headrace.broker.packing import packed, packed_call
from headrace.broker.scripts import script
from headrace.broker.words import Column, Word
from headrace.task import new_id

# Short ones are often of one length, and a text may have fewer letters than bytes.
texts = st.text(st.characters(codec="utf-8"), max_size=3)
binaries = st.binary(max_size=3)
words = st.one_of(texts, binaries, st.integers())
columns = st.one_of(st.lists(texts), st.lists(binaries))


def call_of(args: list[Word | Column]) -> Call[object]:
    return Call(script("get").head("hr:{default/q}:"), args, lambda reply: reply)


@given(st.lists(st.one_of(words, columns)))
def test_columns_are_written_as_their_words(args: list[Word | Column]) -> None:
    call = call_of(args)
    assert packed_call(call) == packed(call.words)


@given(st.lists(words))
def test_words_are_written_as_hiredis_does(args: list[Word | Column]) -> None:
    call = call_of(args)
    assert packed_call(call) == packed(call.words)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_submissions_and_reports_are_written_as_their_words(count: int) -> None:
    queue = Queue("emails")
    new = [NewTask(new_id("emails"), b"{}" + b" " * (at % 3), at % 2) for at in range(count)]
    told = [
        Report(b"1176400000000-%d" % at, each.id, "completed", "", "t", each.envelope) for at, each in enumerate(new)
    ]
    for call in (queue.submit(new), queue.cycle("w", 5, told)):
        assert packed_call(call) == packed(call.words)
        assert len(call.words) >= 4 + 2 * count


def test_a_word_of_another_kind_is_refused() -> None:
    call = call_of([None])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        packed_call(call)


def test_a_reader_finds_the_words_again() -> None:
    call = Queue("emails").submit([NewTask(new_id("emails"), b"{}", 1) for _ in range(3)])
    reader = hiredis.Reader()
    reader.feed(packed_call(call))
    assert reader.gets() == [word if isinstance(word, bytes) else str(word).encode() for word in call.words]
