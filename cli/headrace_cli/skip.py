"""`--skip`: lines of a file that are done with, the first so many and some behind them, as `500,503,507-509`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import click

__all__ = ["Skip", "parse"]

_TEXT: Final = re.compile(r"\d{1,18}(?:,\d{1,18}(?:-\d{1,18})?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Skip:
    """Lines to leave out; the first line is number 1."""

    first: int = 0
    """So many at the beginning."""
    behind: tuple[range, ...] = ()
    """And these, in order, with others between."""

    def has(self, number: int) -> bool:
        """Whether this line is one of them."""
        return number <= self.first or any(number in some for some in self.behind)

    def up_to(self, number: int) -> Skip:
        """All lines to this one, too."""
        return Skip(number, self.behind).and_these(())

    def and_these(self, numbers: Iterable[int]) -> Skip:
        """These lines, too."""
        first, behind = self.first, list[range]()
        for some in sorted((*self.behind, *(range(each, each + 1) for each in numbers)), key=lambda some: some.start):
            if some.start <= first + 1:
                first = max(first, some.stop - 1)
            elif behind and some.start <= behind[-1].stop:
                behind[-1] = range(behind[-1].start, max(behind[-1].stop, some.stop))
            else:
                behind.append(some)
        return Skip(first, tuple(behind))

    def __str__(self) -> str:
        spans = (f"{some.start}-{some.stop - 1}" if len(some) > 1 else str(some.start) for some in self.behind)
        return ",".join((str(self.first), *spans))


def parse(ctx: click.Context, param: click.Parameter, text: str) -> Skip:
    """The option's callback: reads its text, as `Skip` gives it."""
    spans = [each.partition("-") for each in text.split(",")[1:]]
    if not _TEXT.fullmatch(text) or any(end and int(end) < int(start) for start, _, end in spans):
        said = "say how many lines are left out at the beginning and which behind them, as 500 or 500,503,507-509."
        raise click.BadParameter(f"{text!r} names no lines: {said}", ctx, param)
    behind = tuple(range(int(start), int(end or start) + 1) for start, _, end in spans)
    return Skip(int(text.split(",", maxsplit=1)[0]), behind).and_these(())
