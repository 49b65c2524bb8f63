"""Faults that people make with such queues, seeded one by one, and what notices each: docs/guarantees.md shows them.

    python tests/seeded_faults.py [--write]

seeds all, prints the table (`make mutants`), and with `--write` puts it into the page. Nothing is changed in the tree:
a script is changed on its way into Redis, a function in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pytest

import model_explorer
from headrace.broker.broker import Queue
from headrace.runtime import worker
from headrace.task import Envelope, encode_envelope
from headrace_api import submissions
from headrace_cli.redis_binary import RedisBinary
from model_explorer import PROFILES, STEPS, FailedError, Statistics, explore
from model_mutants import LAPSES, MUTANTS, Lapse, Mutant
from model_redis import Wire
from redis_server import RedisServer, real_servers
from system_model.faults import counts_one_less, into_scripts, judges_by_idle_time

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs/guarantees.md"
BEGIN: Final = "<!-- written by make mutants -->\n"
LIMIT: Final = 100
"""Rounds within which the model must notice; each runs every profile once."""
CONTROL: Final = 3
"""Rounds in which nothing may be noticed when nothing was changed."""
NOT_NOTICED: Final = "NOT NOTICED"
SEED: Final = "SEEDED_FAULT"


@dataclass(frozen=True)
class Patch:
    """Another function in the place of one of ours; `test` (module::name) runs with it, and must fail."""

    name: str
    into: Callable[[pytest.MonkeyPatch], None]
    test: str


@dataclass(frozen=True)
class Seeded:
    """One row of the table."""

    fault: str
    where: str
    changed: str
    change: Mutant | Lapse | Patch
    profile: str = ""
    """Of the model's runs, the kind that comes by soon; empty for all in turn."""

    def __str__(self) -> str:
        return self.change.name

    @property
    def told(self) -> tuple[str, str, str]:
        """What the row says of it beforehand: the fault, what is changed, and what must notice."""
        return self.fault, f"`{self.where}`: {self.changed}", self.noticed_by

    @property
    def noticed_by(self) -> str:
        test = self.change.test if isinstance(self.change, Patch) else "test_model::" + BY_MODEL
        return f"[`{test}`](../tests/{test.partition('::')[0]}.py)"


@dataclass(frozen=True)
class Noticed:
    """How long that took, and what was said."""

    seconds: float
    steps: int
    said: str

    def __str__(self) -> str:
        steps = f"{self.steps:,} steps, " if self.steps else ""
        return f"{steps}{self.seconds:.1f} s"


BY_MODEL: Final = "test_any_order_of_anything_keeps_every_promise"
BY_SYSTEM: Final = "test_system_model::test_no_run_breaks_a_promise"


# -- functions in the place of ours


def _writes_payloads_anew(patch: pytest.MonkeyPatch) -> None:
    def encode(said: Envelope) -> bytes:
        payload = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(said.payload)))
        return encode_envelope(msgspec.structs.replace(said, payload=payload))

    patch.setattr(submissions, "encode_envelope", encode)


def _always_strict(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(worker, "late_order", lambda oldest_ms, now_ms, bound_s, order: order)


# -- the faults

_OF_MODEL: Final[dict[str, Mutant | Lapse]] = {each.name: each for each in (*MUTANTS, *LAPSES)}


def _in_script(fault: str, name: str, changed: str, profile: str = "") -> Seeded:
    change = _OF_MODEL[name]
    assert isinstance(change, Mutant)
    return Seeded(fault, f"{change.script}.lua", changed, change, profile)


SEEDED: Final = (
    _in_script("XACK is not checked", "no fence", "a report counts whatever XACK answered"),
    Seeded(
        "acknowledged before the record",
        "cycle.lua",
        "in two calls, and the worker dies after XACK",
        _OF_MODEL["acknowledges, then reports"],
    ),
    _in_script("acknowledged before the record", "acknowledged when claimed", "XREADGROUP with NOACK"),
    Seeded(
        "acknowledged before the record",
        "cycle.lua",
        "the same, under whole workers",
        Patch("whole workers acknowledge when they claim", into_scripts("acknowledged when claimed"), BY_SYSTEM),
    ),
    _in_script(
        "consumers are deleted blindly", "consumers deleted unseen", "XGROUP DELCONSUMER before a look at its beat"
    ),
    _in_script(
        "consumers are deleted blindly",
        "consumers deleted blindly",
        "deleted after the first slice of many tasks",
        "deaths",
    ),
    _in_script(
        "consumers are deleted blindly", "signed off with tasks in hand", "signed off although it holds tasks", "stops"
    ),
    _in_script("the group begins at `$`", "a group from now on", "XGROUP CREATE at `$` instead of 0", "server"),
    _in_script("a stream of work has MAXLEN", "submitting trims", "XADD with MAXLEN 3", "piles"),
    _in_script(
        "a stream of work has MAXLEN", "handing back trims", "XADD with MAXLEN 3 of what is handed back", "stops"
    ),
    _in_script("reclaimed by idle time", "reclaimed by idle time", "XAUTOCLAIM with min-idle 2 ms"),
    Seeded(
        "reclaimed by idle time",
        "runtime/reclaimer.py",
        "time counts from the first look, beats or none",
        Patch("the watch does not heed beats", judges_by_idle_time, "test_passes::test_a_live_worker_keeps_its_tasks"),
    ),
    Seeded(
        "reclaimed by idle time",
        "runtime/reclaimer.py",
        "the same, in virtual time",
        Patch("whole workers do not heed beats", judges_by_idle_time, BY_SYSTEM),
    ),
    _in_script("submitted without a look at `loc`", "loc is not looked at", "no HMGET of `loc`"),
    _in_script("submitted without a look at `loc`", "live tasks are not looked up", "what it answers does not count"),
    _in_script("attempts are one off", "a crash is no attempt", "a crash adds no attempt"),
    Seeded(
        "attempts are one off",
        "runtime/attempt.py",
        "a failure adds no attempt",
        Patch("a failure is no attempt", counts_one_less, "test_worker::test_a_failure_is_retried_until_it_works"),
    ),
    Seeded(
        "attempts are one off",
        "runtime/attempt.py",
        "the same, in virtual time",
        Patch("whole workers count no failure", counts_one_less, BY_SYSTEM),
    ),
    _in_script("the payload is encoded anew", "payloads are written anew", "cjson.encode(cjson.decode(payload))"),
    Seeded(
        "the payload is encoded anew",
        "headrace_api/submissions.py",
        "the payload is decoded and encoded",
        Patch(
            "the API writes payloads anew",
            _writes_payloads_anew,
            "test_api_tasks::test_payload_bytes_reach_worker_and_reader_unchanged",
        ),
    ),
    _in_script("`lag` is taken for depth", "lag for depth", "depth by `lag`", "piles"),
    _in_script("`lag` is taken for depth", "lag for demand", "what the operator scales by, by `lag`", "piles"),
    _in_script("`lag` is taken for depth", "lag for what is left", "whether somebody is woken, by `lag`"),
    _in_script("no allow-oom", "refused at full memory", "without the flag: reports and claims are refused", "server"),
    _in_script("no allow-oom", "reclaiming is refused at full memory", "without the flag", "server"),
    _in_script("no allow-oom", "promoting is refused at full memory", "without the flag", "server"),
    Seeded(
        "promotion is not atomic",
        "promote.lua",
        "in two calls, and the promoter dies after ZREM",
        _OF_MODEL["promotes in two calls"],
        "late passes",
    ),
    _in_script("promotion is not atomic", "promoted by each that saw it", "what ZREM answers does not count"),
    _in_script(
        "suspects are not isolated", "two suspects a worker", "a worker claims as many as it has slots", "deaths"
    ),
    _in_script(
        "suspects are not isolated", "the crashed go among the sound", "after a crash back to the plain streams"
    ),
    _in_script(
        "suspects are not isolated", "promoted among the sound", "after the backoff to the plain streams", "pills"
    ),
    _in_script(
        "suspects are not isolated", "suspects go back among the sound", "handed back to the plain streams", "deaths"
    ),
    _in_script("what is recovered is not bounded", "no bound of crashes", "no dead letter after max_crashes", "pills"),
    Seeded(
        "what is recovered is not bounded",
        "runtime/worker.py",
        "strict order, however long others wait",
        Patch(
            "recovered tasks always come first",
            _always_strict,
            "test_age_bound::test_what_comes_back_holds_nobody_up_for_ever",
        ),
    ),
)

QUICK: Final = ("no fence", "acknowledges, then reports", "payloads are written anew", "a failure is no attempt")
"""What every CI seeds; some seconds each."""


# -- whether it is noticed


def noticed(seeded: Seeded, wire: Wire) -> Noticed | None:
    """None if it is not."""
    if isinstance(seeded.change, Patch):
        return by_test(seeded.change)
    began, total = time.monotonic(), Statistics()
    with _seeded_in_model(seeded.change, wire) as queue:
        try:
            walk(wire, LIMIT, total, queue, [seeded.profile] if seeded.profile else PROFILES)
        except FailedError as error:
            return Noticed(time.monotonic() - began, total.steps, str(error).splitlines()[0])
    return None


def walk(
    wire: Wire, rounds: int, total: Statistics, queue: Queue | None = None, profiles: Iterable[str] = PROFILES
) -> None:
    """Every profile in turn. Raises FailedError."""
    for seed in range(rounds):
        for profile in profiles:
            explore(wire, seed, STEPS, profile, total, queue)


@contextmanager
def _seeded_in_model(change: Mutant | Lapse, wire: Wire) -> Iterator[Queue | None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_explorer, "shrink", lambda wire, trace, error, queue: trace)
        if isinstance(change, Mutant):
            yield change.queue(wire)
        else:
            patch.setattr(change.of, change.attribute, change.instead)
            yield None


def by_test(patch: Patch) -> Noticed | None:
    """It fails with the fault: neither does it pass, nor can it not be run."""
    began = time.monotonic()
    code, said = run_tests([patch.test], patch.name)
    failed = code == pytest.ExitCode.TESTS_FAILED and re.search(r"^1 failed in", said, re.MULTILINE)
    why = re.search(r"^E +(.*)$", said, re.MULTILINE)
    return Noticed(time.monotonic() - began, 0, why[1] if why else "") if failed else None


def run_tests(tests: Iterable[str], fault: str = "") -> tuple[int, str]:
    """In a process of its own: exit code, and what it printed."""
    nodes = [f"tests/{module}.py::{name}" for module, _, name in (test.partition("::") for test in tests)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "seeded_plugin", *nodes]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "tests"), SEED: fault}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def seed_into_this_process(name: str) -> None:
    """For good."""
    (change,) = (each.change for each in SEEDED if each.change.name == name)
    assert isinstance(change, Patch), f"{name} is seeded into the model, not into a process"
    change.into(pytest.MonkeyPatch())


# -- the page


def rows(page: Path = PAGE) -> list[tuple[str, ...]]:
    """The table as it stands there, without its last column, and that column."""
    _, _, after = page.read_text().partition(BEGIN)
    lines = [line for line in after.partition("\n\n")[0].splitlines() if line.startswith("| ")][1:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def table(seen: dict[str, Noticed | None]) -> str:
    """Of those that were seeded."""
    lines = ["| fault | what is changed | noticed by | after |", "|---|---|---|---|"]
    found = [(seeded.told, seen[seeded.change.name]) for seeded in SEEDED if seeded.change.name in seen]
    lines += ["| " + " | ".join([*told, str(after or NOT_NOTICED)]) + " |" for told, after in found]
    return "\n".join(lines) + "\n"


def write(text: str, page: Path = PAGE) -> None:
    """Put the table into the page."""
    before, begin, after = page.read_text().partition(BEGIN)
    assert begin, f"{page} has no line {BEGIN!r}"
    page.write_text(before + begin + text + "\n" + after.partition("\n\n")[2])


def main(arguments: list[str]) -> int:
    """1 if a fault was not noticed, or something was without one."""
    binary = next(each for each in real_servers().values() if isinstance(each, RedisBinary))
    seen: dict[str, Noticed | None] = {}
    with RedisServer(binary) as server, Wire(server.socket) as wire:
        control = Statistics()
        walk(wire, CONTROL, control)
        code, said = run_tests([each.change.test for each in SEEDED if isinstance(each.change, Patch)])
        assert code == 0, said
        _say(f"nothing seeded: nothing noticed in {control.steps:,} steps, {control.seconds:.1f} s, nor by the tests")
        for seeded in SEEDED:
            found = seen[seeded.change.name] = noticed(seeded, wire)
            _say(f"{seeded.fault}, {seeded.changed}: {found or NOT_NOTICED} {found.said if found else ''}")
    text = table(seen)
    _say("\n" + text)
    if "--write" in arguments:
        write(text)
    return int(None in seen.values())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
