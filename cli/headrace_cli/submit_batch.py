"""`headrace submit --batch`: a task a line, stored some hundred at a time; what is refused stops no other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import click

from headrace.errors import HeadraceError, InvalidTask, QueueFull, StoreFull
from headrace_api.strict_json import MalformedJson
from headrace_api.submissions import Accepted, Origin

from .output import complain, note, print_json, print_yaml
from .progress import Bar
from .session import Session, opened
from .skip import Skip
from .submit import body_of, said_in
from .waiting import ends_of

__all__ = ["submit_batch"]

AT_ONCE: Final = 500
"""Lines that are stored together."""
MAX_COMPLAINTS: Final = 20

Line = tuple[int, bytes]
"""Its number, from 1, and its text."""


@dataclass(slots=True)
class _Tally:
    settled: Skip
    """Lines of which it is known what became of them, and that are not to be sent again."""
    stored: dict[str, str] = field(default_factory=dict)
    """Id → its status, in the order of the lines."""
    ahead: dict[int, str] = field(default_factory=dict)
    """Line → id, of those that are stored while others before them may not be."""
    refused: int = 0


def submit_batch(options: dict[str, Any]) -> int:
    """Submit every line; returns the exit code: 1 if any was refused, or (with --wait) did not complete."""
    _check(options)
    tally = _Tally(options["skip"])
    with opened() as (session, runner):
        try:
            _send_all(session, runner, options, tally)
        except (KeyboardInterrupt, HeadraceError) as error:
            _broken_off(error, tally, options["output"])
            raise
        bad = runner.run(_follow(session, tally, options["timeout"])) if options["wait"] and tally.stored else 0
    _report(tally, options["output"])
    return 1 if tally.refused or bad else 0


def _broken_off(error: BaseException, tally: _Tally, form: str) -> None:
    settled = tally.settled.and_these(tally.ahead)
    _print(tally, form)
    note(f"{len(tally.stored):,} tasks were stored. Go on with the same command and --skip {settled}")
    if not isinstance(error, _NOTHING_STORED):
        note(f"Of the {AT_ONCE} lines behind line {settled.first}, more may be stored: their answer did not come.")


_NOTHING_STORED: Final = (QueueFull, StoreFull, InvalidTask)
"""Errors with which it is certain that the lines without an id were not stored."""


def _check(options: dict[str, Any]) -> None:
    if any(options[name] is not None for name in ("payload", "task_id", "key")):
        raise click.UsageError("With --batch the lines are the payloads, so there is no other, and no --id or --key.")
    said = said_in(options)
    if said and options["type"] is None:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in said).replace("--tags", "--tag")
        raise click.UsageError(f"Without TYPE the lines say all of a task, so {flags} says nothing.")


def _send_all(session: Session, runner: asyncio.Runner, options: dict[str, Any], tally: _Tally) -> None:
    lines = _lines(options["batch"], options["skip"])
    beside_data = options["output"] not in {"json", "yaml"}
    with Bar("submitted", None, beside_data=beside_data) as bar:
        while some := list(islice(lines, AT_ONCE)):
            try:
                runner.run(_send(session, some, options, tally))
            finally:
                _tell(tally, options["output"])
            tally.settled = tally.settled.up_to(some[-1][0])
            tally.ahead.clear()
            bar.to(len(tally.stored), f"{tally.refused} refused" if tally.refused else "")


def _tell(tally: _Tally, form: str) -> None:
    ids = [name for _, name in sorted(tally.ahead.items())]
    tally.stored |= dict.fromkeys(ids, "submitted")
    if form not in {"json", "yaml"}:
        click.echo("".join(f"{name}\n" for name in ids), nl=False)


def _lines(file: Iterable[bytes], skip: Skip) -> Iterator[Line]:
    numbered = islice(enumerate(file, 1), skip.first, None)
    return ((number, text) for number, text in numbered if text.strip() and not skip.has(number))


async def _send(session: Session, lines: list[Line], options: dict[str, Any], tally: _Tally) -> None:
    """Store them, queue by queue; those that are stored are in `tally.ahead`, also if it raises then."""
    by_queue: dict[str, list[tuple[int, Accepted]]] = defaultdict(list)
    for line in lines:
        if (each := await _read(session, line, options, tally)) is not None:
            by_queue[each.queue].append((line[0], each))
    for queue, some in by_queue.items():
        answers = await session.door(queue).submit([each.new for _, each in some])
        full = next((answer for answer in answers if answer.status == "full"), None)
        if full is not None:
            raise QueueFull(queue, full.limit)
        # The task that holds a unique key stands for the one that was not stored.
        told = zip(some, answers, strict=True)
        tally.ahead |= {number: answer.holder or answer.id for (number, _), answer in told}


async def _read(session: Session, line: Line, options: dict[str, Any], tally: _Tally) -> Accepted | None:
    number, text = line
    try:
        body = text if options["type"] is None else body_of(options, text)
        return await session.desk.read(body, Origin())
    except (MalformedJson, InvalidTask) as error:
        tally.refused += 1
        _complain(number, error, tally.refused)
        return None


def _complain(number: int, error: HeadraceError, nth: int) -> None:
    if nth <= MAX_COMPLAINTS:
        complain(f"Line {number}: {error}")
    if nth == MAX_COMPLAINTS:
        note("Further lines that are refused are only counted.")


async def _follow(session: Session, tally: _Tally, timeout_s: float) -> int:
    """Wait for them; returns how many did not complete."""
    from headrace.errors import ResultTimeout

    counts: dict[str, int] = defaultdict(int)

    with Bar("ended", len(tally.stored)) as bar:

        def told(name: str, seen: Any) -> None:
            tally.stored[name] = str(seen.state) if seen is not None else "unknown"
            counts[tally.stored[name]] += 1
            bar.to(bar.done + 1, f"{counts['failed']} failed" if "failed" in counts else "")

        try:
            left = await ends_of(session, list(tally.stored), timeout_s, told, bar)
        except asyncio.CancelledError:  # Ctrl-C
            note("Detached; the tasks go on. With their ids in a file, wait again: headrace task get - --wait < FILE")
            raise
    if left:
        raise ResultTimeout(left[0], timeout_s, (await session.look(left[0])).state)
    note(", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    return sum(counts.values()) - counts.get("completed", 0)


def _report(tally: _Tally, form: str) -> None:
    _print(tally, form)
    if tally.refused:
        note(f"{len(tally.stored):,} tasks were stored, {tally.refused:,} lines were refused.")


def _print(tally: _Tally, form: str) -> None:
    """The records; the ids alone are printed as they come."""
    if form in {"json", "yaml"}:
        records = [{"task_id": name, "status": status} for name, status in tally.stored.items()]
        (print_json if form == "json" else print_yaml)(records)
