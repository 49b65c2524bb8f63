"""Faults that people make with such queues are noticed when they are seeded; some here, all by `make mutants`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import seeded_faults
from model_mutants import MUTANTS, Mutant
from model_redis import Wire
from redis_server import RedisServer
from seeded_faults import NOT_NOTICED, QUICK, SEEDED, Noticed, Patch, Seeded, noticed, rows, run_tests, table, write

FAULTS = (
    "XACK is not checked",
    "acknowledged before the record",
    "consumers are deleted blindly",
    "the group begins at `$`",
    "a stream of work has MAXLEN",
    "reclaimed by idle time",
    "submitted without a look at `loc`",
    "attempts are one off",
    "the payload is encoded anew",
    "`lag` is taken for depth",
    "no allow-oom",
    "promotion is not atomic",
    "suspects are not isolated",
    "what is recovered is not bounded",
)
PATCH = next(each.change for each in SEEDED if isinstance(each.change, Patch))


@pytest.fixture
def wire(redis_server: RedisServer, redis_url: str) -> Iterator[Wire]:
    with Wire(redis_server.socket) as wire:
        yield wire


@pytest.mark.slow
@pytest.mark.parametrize("seeded", [each for each in SEEDED if each.change.name in QUICK], ids=str)
def test_a_seeded_fault_is_noticed(wire: Wire, seeded: Seeded) -> None:
    assert noticed(seeded, wire)


@pytest.mark.slow
def test_a_fault_that_is_none_is_not_noticed(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the check: a script that is only written otherwise, and a test that runs as it stands."""
    monkeypatch.setattr(seeded_faults, "LIMIT", 1)
    same = Mutant("nothing", "promote", "moved = moved + 1", "moved = 1 + moved")
    assert noticed(Seeded("none", "promote.lua", "nothing", same), wire) is None
    assert run_tests([PATCH.test])[0] == 0


@pytest.mark.slow
def test_a_test_that_cannot_be_run_has_noticed_nothing(wire: Wire) -> None:
    unknown = Patch(PATCH.name, PATCH.into, "test_passes::test_that_does_not_exist")
    assert noticed(Seeded("none", "", "", unknown), wire) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_fault_of_the_model_still_finds_its_place(mutant: Mutant) -> None:
    """A script that was written anew would else be tried as it is, or not at all until `make model`."""
    assert mutant.source() != mutant.sound().source


def test_every_fault_is_seeded_and_shown() -> None:
    assert tuple(dict.fromkeys(each.fault for each in SEEDED)) == FAULTS
    assert {*QUICK} <= {each.change.name for each in SEEDED}
    assert [row[:3] for row in rows()] == [each.told for each in SEEDED], "make mutants MUTANTS_ARGS=--write"
    assert [row for row in rows() if row[3] == NOT_NOTICED] == []


def test_what_the_page_names_of_the_model_is_there() -> None:
    named = re.findall(r"\[`(model_\w+)::(\w+)`\]\(\.\./tests/(model_\w+)\.py\)", seeded_faults.PAGE.read_text())
    assert len({name for _, name, _ in named}) > 15
    folder = seeded_faults.ROOT / "tests"
    missing = [name for module, name, _ in named if f"def {name}(" not in (folder / f"{module}.py").read_text()]
    assert missing == [] and [module for module, _, file in named if module != file] == []


def test_what_was_not_noticed_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{seeded_faults.BEGIN}old\n\nafter\n")
    first, second = SEEDED[0], SEEDED[1]
    write(table({first.change.name: Noticed(1.25, 1_234, ""), second.change.name: None}), page)
    assert rows(page) == [(*first.told, "1,234 steps, 1.2 s"), (*second.told, NOT_NOTICED)]
    assert page.read_text().startswith("before\n\n") and page.read_text().endswith("\n\nafter\n")
