"""What commands are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Word = bytes | str | int
Column = list[bytes] | list[str]
"""Words of one kind, one of each thing that a call tells of: arguments like any other, but written at once."""
Command = tuple[Word, ...]


def flat(args: Iterable[Word | Column]) -> Iterator[Word]:
    """The words, those of columns one by one."""
    for arg in args:
        if isinstance(arg, list):
            yield from arg
        else:
            yield arg
