"""The words of a filter: `name:value` with blanks between, values with blanks in quotes, dots in names escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_TERM: Final = re.compile(r'((?:\\.|[^\\\s:"])+):("(?:\\.|[^\\"])*"|[^\s"]\S*|)(?=\s|$)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_IN_NAME: Final = re.compile(r'([\s.:"\\])')
_PART: Final = re.compile(r"(?:\\.|[^\\.])*", re.DOTALL)


class Term(NamedTuple):
    """One word of a filter."""

    name: str
    """With its escapes: `args.a\\.b` is one key below args."""
    value: str


class NoTermError(ValueError):
    """A piece of the text that is no `name:value`."""

    def __init__(self, piece: str) -> None:
        super().__init__(piece)
        self.piece = piece


def terms_of(text: str) -> Iterator[Term]:
    """The terms of a text, in order. Raises NoTermError."""
    at = 0
    while rest := text[at:].lstrip():
        at = len(text) - len(rest)
        found = _TERM.match(text, at)
        if found is None:
            raise NoTermError(rest.split()[0])
        value = found[2]
        yield Term(found[1], _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value)
        at = found.end()


def term_text(name: str, value: str) -> str:
    """The term as text; `terms_of` gives it back."""
    if not value or re.search(r'[\s"]', value):
        value = '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"{name}:{value}"


def split_path(text: str) -> tuple[str, ...]:
    """`user.id` as ('user', 'id'); a backslash before a dot makes it part of the key."""
    parts, at = [], 0
    while at <= len(text):
        found = _PART.match(text, at)
        assert found is not None  # the pattern matches everywhere, if only the empty text
        if found.end() == at < len(text) and text[at] == "\\":
            return ()
        parts.append(_ESCAPED.sub(r"\1", found[0]))
        at = found.end() + 1
    return tuple(parts)


def join_path(path: Sequence[str]) -> str:
    """The text of a path; `split_path` gives it back."""
    return ".".join(_IN_NAME.sub(r"\\\1", part) for part in path)
