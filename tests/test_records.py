"""The short way to the record of a completed task writes what the long one does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.attempt import Ending, Running, report
from headrace.runtime.records import CompletedRecords
from headrace.task import State

EPOCH_S = 1_764_000_000.0


def ms(loop_s: float) -> int:
    return int((loop_s + EPOCH_S) * 1_000)


def ended(place: bytes, envelope: bytes, started_s: float) -> Running:
    run = Running(None, place, envelope, b"")  # type: ignore[arg-type] # nobody asks it for its claims
    run.started = started_s
    return run


# Few different ones of each, so that an attempt often shares something with the one before it.
ATTEMPTS = st.tuples(
    st.sampled_from([b"21764000000000-0", b"01764000000123-17"]),
    st.sampled_from([b"{}", b'{"v":1}', b'{"v":2}', b'{"v":1,"i":"x"}']),
    st.sampled_from([1.0, 1.0004, 2.5]),
    st.sampled_from([0.0, 0.0007, 4.0]),
    st.sampled_from([None, b"", b"1", b'{"a":[1,2]}']),
)


def test_nothing_is_kept_over_a_clock_that_was_set() -> None:
    offset_s = [EPOCH_S]
    records = CompletedRecords("pod-7", lambda loop_s: int((loop_s + offset_s[0]) * 1_000))
    run = ended(b"25-0", b"{}", 1.0)
    before = records.record(run, 2.0, None)
    offset_s[0] += 100
    records.forget()
    assert records.record(run, 2.0, None) == before.replace(b"17640000", b"17640001")


@given(st.lists(ATTEMPTS, max_size=12))
def test_both_ways_write_the_same(attempts: list[tuple[bytes, bytes, float, float, bytes | None]]) -> None:
    records = CompletedRecords("pod-7", ms)
    for place, envelope, started_s, took_s, result in attempts:
        run = ended(place, envelope, started_s)
        ending = Ending(State.COMPLETED, result=result)
        long_way = report(run, ending, "pod-7", ms(started_s), ms(started_s + took_s))
        assert records.record(run, started_s + took_s, result) == long_way.record
