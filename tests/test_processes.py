"""CPU-bound handlers in child processes that can be killed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from headrace import Permanent, RetryAfter
from headrace.backoff import Retry
from headrace.logs import setup_logging
from headrace.runtime import processes as module
from headrace.runtime.child import ORPHANED
from headrace.runtime.frames import Hello, Unframer, frame
from headrace.runtime.processes import HandlerFailed, ProcessDied, ProcessSlots
from process_harness import APP, LIMIT_S, Child, job, lives, read, run, until_written
from process_tasks import OddError
from redis_server import await_true


@pytest.fixture
async def slots() -> AsyncIterator[ProcessSlots]:
    slots = ProcessSlots(APP, 1)
    yield slots
    await asyncio.wait_for(slots.close(), LIMIT_S)


# -- running


async def test_a_handler_runs_in_another_process_and_its_result_is_json(slots: ProcessSlots) -> None:
    """One process serves one attempt after the other."""
    first = await run(slots, "pid")
    assert first != os.getpid() and await run(slots, "pid") == first
    assert await run(slots, "echo", value={"a": [1, "ü", None]}) == {"a": [1, "ü", None]}
    assert await slots.run(job("echo")) == b"null"


async def test_a_result_larger_than_a_pipe_comes_through_and_an_endless_one_does_not(slots: ProcessSlots) -> None:
    """A megabyte is sent in pieces; beyond the highest possible limit the attempt fails with a sentence."""
    assert await run(slots, "echo", value="x" * 1_000_000) == "x" * 1_000_000
    with pytest.raises(HandlerFailed, match=r"result has \d+ bytes; the limit is 16777216"):
        await run(slots, "echo", value="x" * (16 * 1024**2))


async def test_the_handler_sees_its_attempt_and_its_deps(slots: ProcessSlots) -> None:
    """Ctx is as in the worker: the deps are entered once in each child."""
    seen = json.loads(await slots.run(job("tell_context", attempt=4)))
    assert 50 < seen.pop("left") <= 100
    assert seen == {"id": "an-id", "attempt": 4, "token": [7, 4], "deps": "shared", "queue": "default"}


async def test_what_a_handler_prints_goes_to_standard_error(
    slots: ProcessSlots, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also what a C library writes: no print can spoil a frame. Standard input is empty."""
    assert await run(slots, "chatter") == ""
    assert await run(slots, "echo", value=1) == 1
    out, err = capfd.readouterr()
    assert out == "" and {"printed", "written", "complained"} <= set(err.split())


async def test_log_lines_of_a_child_look_like_the_workers_and_name_the_task(
    slots: ProcessSlots, capfd: pytest.CaptureFixture[str]
) -> None:
    """The child takes over format and level."""
    handler = setup_logging("info", json=True)
    try:
        await run(slots, "tell_context")
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (line,) = (each for each in lines if each["message"] == "seen in a child")
    assert (line["task_id"], line["type"], line["attempt"]) == ("an-id", "tell_context", 1)


async def test_two_slots_run_two_jobs_and_the_third_waits(tmp_path: Path) -> None:
    """Never more processes than slots."""
    slots = ProcessSlots(APP, 2)
    go = tmp_path / "go"
    notes = [tmp_path / f"note{i}" for i in range(3)]
    running = [asyncio.create_task(run(slots, "wait_for", file=str(go), note=str(note))) for note in notes]
    pids = {await until_written(note) for note in notes[:2]}
    assert len(pids) == 2 and not notes[2].exists()
    go.touch()
    assert await asyncio.gather(*running) == ["done"] * 3
    assert notes[2].read_text() in pids
    await slots.close()


def test_it_works_in_uvloop(tmp_path: Path) -> None:
    """The worker's loop where it is installed: run, fail, kill, restart, close."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        slots = ProcessSlots(APP, 1)
        first = await run(slots, "pid")
        with pytest.raises(ProcessDied, match="exit code 3"):
            await run(slots, "die", how="exit")
        hanging = job("hang", note=str(tmp_path / "note"))
        attempt = asyncio.create_task(slots.run(hanging))
        await until_written(tmp_path / "note")
        slots.kill(hanging)
        with pytest.raises(ProcessDied):
            await attempt
        assert await run(slots, "pid") != first
        await slots.close()

    uvloop.run(scenario())


# -- failing


async def test_a_failure_carries_type_message_and_the_handlers_own_trace(slots: ProcessSlots) -> None:
    """Without the frames of headrace around it; the process lives on."""
    before = await run(slots, "pid")
    with pytest.raises(HandlerFailed) as caught:
        await run(slots, "fail", how="value")
    failure = caught.value.failure
    assert (failure.type, failure.message, str(caught.value)) == ("ValueError", "not good", "not good")
    assert "in fail" in failure.trace and "headrace/runtime" not in failure.trace
    assert await run(slots, "pid") == before


@pytest.mark.parametrize(
    ("how", "kind"),
    [("value", ValueError), ("odd", OddError), ("odd", LookupError), ("permanent", Permanent), ("local", ValueError)],
)
async def test_retry_rules_see_the_class_that_was_raised(
    slots: ProcessSlots, how: str, kind: type[BaseException]
) -> None:
    """As far as the worker knows it, else the nearest class that it knows."""
    with pytest.raises(kind) as caught:
        await run(slots, "fail", how=how)
    assert isinstance(caught.value, HandlerFailed)
    rule = Retry(3, per={kind: Retry(9)})
    assert rule.rule_for(caught.value).max == 9


async def test_retry_after_keeps_its_seconds(slots: ProcessSlots) -> None:
    """Whoever asked for 12.5 s gets 12.5 s."""
    with pytest.raises(RetryAfter) as caught:
        await run(slots, "fail", how="later")
    assert caught.value.seconds == 12.5 and str(caught.value) == "busy"


async def test_a_retry_after_without_its_seconds_is_retried_as_other_errors_are(slots: ProcessSlots) -> None:
    """As where a handler of the event loop raises it; and the process lives on."""
    before = await run(slots, "pid")
    with pytest.raises(RetryAfter, match="soon") as caught:
        await run(slots, "fail", how="bare")
    assert (Retry(3, base_s=5.0).decide(caught.value, 1, Random(0)) or 0.0) > 0.0
    assert await run(slots, "pid") == before


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("exit", "SystemExit"),
        ("stop", "StopIteration"),
        ("group", "ExceptionGroup"),
        ("unique", "process_tasks.UniqueError"),
    ],
)
async def test_what_cannot_be_imitated_is_a_plain_failure(slots: ProcessSlots, how: str, name: str) -> None:
    """Such as sys.exit(): it ends the attempt, and must not end a coroutine of the worker."""
    before = await run(slots, "pid")
    with pytest.raises(HandlerFailed) as caught:
        await run(slots, "fail", how=how)
    assert caught.value.failure.type == name and isinstance(caught.value, Exception)
    assert not isinstance(caught.value, SystemExit | StopIteration)
    assert await run(slots, "pid") == before


async def test_a_type_that_the_child_does_not_know_fails_the_attempt(slots: ProcessSlots) -> None:
    """The code on disk may have changed since the worker started."""
    with pytest.raises(HandlerFailed, match="gone"):
        await run(slots, "gone")


# -- dying


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "ended with exit code 3"),
        ("SIGKILL", "ended with SIGKILL: out of memory, or killed by hand"),
        ("SIGSEGV", "ended with SIGSEGV: a fault in native code"),
        ("SIGABRT", "ended with SIGABRT"),
        ("pipe", "closed its pipe"),
    ],
)
async def test_a_process_that_dies_is_told_in_words_and_replaced(
    slots: ProcessSlots, how: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt fails with the cause, the next one has a new process."""
    monkeypatch.setattr(module, "PIPE_S", 0.2)
    before = await run(slots, "pid")
    with pytest.raises(ProcessDied, match=words):
        await run(slots, "die", how=how)
    after = await run(slots, "pid")
    assert after != before and not lives(before)


async def test_the_replacement_is_there_before_it_is_asked_for(slots: ProcessSlots) -> None:
    """The next job must not pay for the start of a process."""
    with pytest.raises(ProcessDied):
        await run(slots, "die", how="exit")
    async with asyncio.timeout(LIMIT_S):
        while not slots._idle:  # noqa: ASYNC110 - a foreign process gets ready
            await asyncio.sleep(0.005)


async def test_an_idle_process_that_dies_costs_nothing(slots: ProcessSlots) -> None:
    """Killed from outside between two jobs: the next job does not notice."""
    before = await run(slots, "pid")
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        while any(child.served for child in slots._children):  # noqa: ASYNC110 - the loop reaps it
            await asyncio.sleep(0.005)
    assert await run(slots, "pid") != before


async def test_an_application_that_cannot_be_imported_is_told_and_not_tried_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each job is refused with the reason, one start a job."""
    slots = ProcessSlots("no_such_module_at_all", 2)
    for _ in range(2):
        with pytest.raises(ProcessDied, match=r"ModuleNotFoundError: No module named 'no_such_module_at_all'"):
            await asyncio.wait_for(slots.run(job("pid")), LIMIT_S)
    assert len([entry for entry in caplog.records if "could not start" in entry.getMessage()]) == 2
    await slots.close()


async def test_all_waiting_jobs_are_refused_if_no_process_can_start() -> None:
    """Nobody waits for ever."""
    slots = ProcessSlots("no_such_module_at_all", 1)
    jobs = [slots.run(job("pid")) for _ in range(3)]
    ends = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), LIMIT_S)
    assert [type(end) for end in ends] == [ProcessDied] * 3
    await slots.close()


# -- killing


async def test_the_hard_timeout_kills_the_handler_and_the_programs_it_started(
    slots: ProcessSlots, tmp_path: Path
) -> None:
    """An endless loop ends at once; its child process too; the slot works on."""
    hanging = job("hang", note=str(tmp_path / "note"))
    attempt = asyncio.create_task(slots.run(hanging))
    pids = [int(pid) for pid in (await until_written(tmp_path / "note")).split()]
    assert all(map(lives, pids))
    slots.kill(hanging)
    with pytest.raises(ProcessDied, match="killed at the hard timeout") as caught:
        await asyncio.wait_for(attempt, LIMIT_S)
    assert caught.value.failure.reason == caught.value.reason == "timeout"
    assert (caught.value.failure.type, caught.value.failure.trace) == ("ProcessDied", "")
    await_true(lambda: not any(map(lives, pids)))
    assert await run(slots, "pid") not in pids


async def test_a_job_that_waits_for_a_process_can_be_killed_too(slots: ProcessSlots, tmp_path: Path) -> None:
    """It ends at once; the one that runs is not touched."""
    go, note = tmp_path / "go", tmp_path / "note"
    running = asyncio.create_task(run(slots, "wait_for", file=str(go), note=str(note)))
    await until_written(note)
    second = job("pid")
    waiting = asyncio.create_task(slots.run(second))
    await asyncio.sleep(0)
    slots.kill(second, "cancelled", "cancelled")
    with pytest.raises(ProcessDied, match="cancelled before it had a process"):
        await waiting
    go.touch()
    assert await running == "done"


async def test_killing_a_job_that_has_ended_does_nothing(slots: ProcessSlots) -> None:
    """A deadline that comes a moment late harms nobody."""
    done = job("pid")
    first = json.loads(await slots.run(done))
    slots.kill(done)
    assert await run(slots, "pid") == first


async def test_a_cancelled_call_kills_its_process(slots: ProcessSlots, tmp_path: Path) -> None:
    """Nothing runs on unseen."""
    attempt = asyncio.create_task(slots.run(job("hang", note=str(tmp_path / "note"))))
    pids = [int(pid) for pid in (await until_written(tmp_path / "note")).split()]
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await_true(lambda: not any(map(lives, pids)))


async def test_a_call_cancelled_while_it_waits_loses_no_process(
    slots: ProcessSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that became free in the same moment goes to the next."""
    go, note = tmp_path / "go", tmp_path / "note"
    running = asyncio.create_task(run(slots, "wait_for", file=str(go), note=str(note)))
    pid = int(await until_written(note))
    waiting = asyncio.create_task(slots.run(job("pid")))
    await asyncio.sleep(0)
    offer = slots._offer
    monkeypatch.setattr(slots, "_offer", lambda child: (offer(child), waiting.cancel()))
    go.touch()
    await running
    monkeypatch.undo()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await run(slots, "pid") == pid


async def test_ctrl_c_and_sigterm_are_the_workers_affair(slots: ProcessSlots, tmp_path: Path) -> None:
    """A job runs on; what a handler starts takes both as ever."""
    go, note = tmp_path / "go", tmp_path / "note"
    running = asyncio.create_task(run(slots, "wait_for", file=str(go), note=str(note)))
    pid = int(await until_written(note))
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    go.touch()
    assert await running == "done"
    assert await run(slots, "signals_of_programs") == "True True"


# -- the end


async def test_close_lets_idle_children_leave_their_deps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lifespan does after its yield is done, and no process is left."""
    monkeypatch.setenv("LEFT_FILE", str(tmp_path / "left"))
    monkeypatch.setattr(module, "CLOSE_S", LIMIT_S)  # it need not be quick here
    monkeypatch.setattr(module, "PIPE_S", 0.0)  # nor does it end for a pipe that its worker closed
    slots = ProcessSlots(APP, 1)
    pid = await run(slots, "pid")
    await slots.close()
    assert (tmp_path / "left").read_text() == "left" and not lives(pid)


async def test_close_kills_what_runs_and_what_starts(tmp_path: Path) -> None:
    """A worker that ends leaves nothing behind."""
    slots = ProcessSlots(APP, 2)
    attempt = asyncio.create_task(slots.run(job("hang", note=str(tmp_path / "note"))))
    pids = [int(pid) for pid in (await until_written(tmp_path / "note")).split()]
    second = asyncio.create_task(slots.run(job("pid")))
    await asyncio.sleep(0)
    await asyncio.wait_for(slots.close(), LIMIT_S)
    assert slots._children == set() and not lives(pids[0])
    await_true(lambda: not any(map(lives, pids)))
    ends = await asyncio.gather(attempt, second, slots.run(job("pid")), return_exceptions=True)
    assert [type(end) for end in ends] == [ProcessDied] * 3


PARENT = """
import asyncio, sys
from process_harness import ProcessSlots, APP, job
asyncio.run(ProcessSlots(APP, 1).run(job(sys.argv[1], note=sys.argv[2])))
"""


def start_worker(type_: str, note: Path) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", PARENT, type_, str(note)], env=environ)


@pytest.mark.parametrize("type_", ["hang", "hold_the_gil"])
async def test_a_child_does_not_outlive_a_worker_that_was_killed(tmp_path: Path, type_: str) -> None:
    """SIGKILL of the worker, in the middle of an endless loop of the child, or of a call that lets no thread run."""
    if type_ == "hold_the_gil" and sys.platform != "linux":
        pytest.skip("only Linux tells a process in a C call that its parent died")
    note = tmp_path / "note"
    parent = start_worker(type_, note)
    child, program = (int(pid) for pid in (await until_written(note)).split())
    parent.kill()
    parent.wait(LIMIT_S)
    await_true(lambda: not lives(child))
    os.kill(program, signal.SIGKILL)  # a handler's own program is not tied to anything


async def test_the_end_of_the_pipe_ends_a_busy_child(tmp_path: Path) -> None:
    """The way out where the kernel does not tell of a parent's death."""
    with Child() as child:
        child.say(job("wait_for", file="/nowhere", note=str(tmp_path / "note")))
        await until_written(tmp_path / "note")
        assert child.dismissed() == ORPHANED


SLOW_TO_SEND = """
import time
from headrace.runtime import child

send = child._Pipes.send

def send_and_linger(pipes, answer):
    send(pipes, answer)
    while bytes(answer.result) == b'"linger"' and pipes.jobs.empty():
        time.sleep(0.001)

child._Pipes.send = send_and_linger
child.main()
"""
"""A child that has sent its answer to `echo("linger")`, and is not a line further until something else comes."""


async def test_a_job_right_behind_an_answer_is_a_job_too(tmp_path: Path) -> None:
    """What the child notes of its last job does not hide the next one from it, when its worker ends."""
    with Child(("-c", SLOW_TO_SEND)) as child:
        child.say(job("echo", value="linger"))
        assert bytes(child.hear().result) == b'"linger"'
        child.say(job("wait_for", file="/nowhere", note=str(tmp_path / "note")))
        await until_written(tmp_path / "note")
        assert child.dismissed() == ORPHANED


def test_a_dismissal_right_behind_an_answer_lets_the_child_leave_its_deps(tmp_path: Path) -> None:
    """It has answered, so it is no orphan in the middle of a job."""
    left = tmp_path / "left"
    with Child(("-c", SLOW_TO_SEND), LEFT_FILE=str(left)) as child:
        child.say(job("echo", value="linger"))
        assert bytes(child.hear().result) == b'"linger"'
        assert (child.dismissed(), read(left)) == (0, "left")


def test_a_child_that_finds_another_parent_ends_at_once() -> None:
    """Its worker died while it started."""
    hello = frame(Hello(APP, sys.path, 1, 30, None))
    done = subprocess.run([sys.executable, "-m", "headrace.runtime.child"], input=hello, timeout=LIMIT_S, check=False)
    assert done.returncode == ORPHANED


# -- frames


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_frames_are_cut_right_however_they_arrive(size: int) -> None:
    """Byte by byte or all at once, empty bodies and large ones."""
    hellos = [Hello("a" * n, [], n, 0, None) for n in (0, 1, 300)]
    stream = b"".join(map(frame, hellos))
    unframer = Unframer()
    bodies = [body for at in range(0, len(stream), size) for body in unframer.feed(stream[at : at + size])]
    assert [msgspec.json.decode(body, type=Hello) for body in bodies] == hellos
