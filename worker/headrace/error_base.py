"""What every error is made of. The errors themselves are in `headrace.errors`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

PAGES: Final = "https://github.com/headrace/headrace/blob/main/docs/errors"


def page_of(code: str) -> str:
    """Where the page about a code is: what it means, when it is met, what to do."""
    return f"{PAGES}/{code}.md"


def ended(sentence: str) -> str:
    """The sentence with a full stop, which texts of others may or may not have."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word a person most likely meant by `word`, or None when nothing is close."""
    from difflib import get_close_matches

    by_fold = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong in a submission."""

    pointer: str
    """JSON pointer (RFC 6901) to the wrong value; empty for the whole document."""
    detail: str
    """What is wrong there, without a full stop."""
    hint: str | None = None
    """What to do about it, where that can be said, e.g. "did you mean 'recipient'?"."""

    def __str__(self) -> str:
        place = f"{self.pointer}: " if self.pointer else ""
        return f"{place}{self.detail}" + (f" ({self.hint})" if self.hint else "")


class HeadraceError(Exception):
    """Base of every error that headrace raises on purpose."""

    code: ClassVar[str] = "error"
