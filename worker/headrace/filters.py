"""Which tasks are meant: one text, the same in the library, the commands, the HTTP API and the dashboard's address.

    state:failed type:resize error:Timeout tag:acme since:2h args.user.id:42

Several states, types, queues, exceptions and places are alternatives; tags, error texts and arguments must all hold.
A Filter is a value: its text, read at the same time, gives an equal one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import msgspec

from headrace.blame import last_failure, place_of
from headrace.broker.replies import TaskView
from headrace.errors import FieldError, InvalidFilter, nearest
from headrace.filter_text import NoTermError, Term, join_path, split_path, term_text, terms_of
from headrace.moments import WORDS, Moment
from headrace.task import Failure, State, check_queue, check_tag, check_type

__all__ = [
    "EVERY_TASK",
    "MAX_CHARS",
    "MAX_TERMS",
    "NAMES",
    "Argument",
    "Filter",
    "InvalidFilter",
    "has_argument",
    "said",
]

NAMES: Final = ("state", "type", "queue", "tag", "error", "exception", "place", "since", "until", "args")
MAX_TERMS: Final = 50
MAX_CHARS: Final = 4_096
_NO_TEXT: Final = "it is no valid Unicode"


class Argument(NamedTuple):
    """What one argument of a task must be."""

    path: tuple[str, ...]
    """Keys from the outside in; a number finds its way into a list, too."""
    value: str
    """A text, or anything else as it is written in JSON: 42, 1.5, true, null. In a list: one of its items."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a task must be like. Without any condition it matches every task."""

    states: tuple[State, ...] = ()
    types: tuple[str, ...] = ()
    """A `*` at the end stands for any rest."""
    queues: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    """Parts of `type: message` of the last error; case does not count."""
    exceptions: tuple[str, ...] = ()
    """The class of the last error, with its module (`httpx.ReadTimeout`) or without."""
    places: tuple[str, ...] = ()
    """Where it was raised, `folder/file.py:function`, or without the folder."""
    args: tuple[Argument, ...] = ()
    since: Moment | None = None
    """Of ended tasks the end counts, of all others the submission."""
    until: Moment | None = None

    @classmethod
    def parse(cls, text: str, now_ms: int | None = None) -> Self:
        """Read a filter's text; `now_ms` is what `2h` counts back from. Raises InvalidFilter."""
        if len(text) > MAX_CHARS:
            raise InvalidFilter([FieldError("", f"it has {len(text)} characters, the limit is {MAX_CHARS}")])
        if not _is_unicode(text):
            raise InvalidFilter([FieldError("", _NO_TEXT)])
        try:
            return cls(**_read(terms_of(text), now_ms))
        except NoTermError as error:
            hint = f"write name:value, as in error:{error.piece[:40]}; names are {', '.join(NAMES[:-1])} and args.PATH"
            raise InvalidFilter([FieldError("", f"{error.piece[:40]!r} has no name", hint)]) from None

    @classmethod
    def from_query(cls, query: Mapping[str, str], now_ms: int | None = None) -> Self:
        """Read parameters of an address, each name with its value; `q` takes a filter's text. Raises InvalidFilter."""
        terms: list[Term] = []
        for name, value in query.items():
            if name == "q":
                terms += cls.parse(value, now_ms).terms()
            else:
                terms.append(Term(name, value))
        return cls(**_read(terms, now_ms))

    def terms(self) -> Iterator[Term]:
        """Its words, in a fixed order."""
        for name, values in (
            ("state", self.states),
            ("type", self.types),
            ("queue", self.queues),
            ("tag", self.tags),
            ("error", self.errors),
            ("exception", self.exceptions),
            ("place", self.places),
        ):
            yield from (Term(name, str(value)) for value in values)
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment:
                yield Term(name, moment.text)
        yield from (Term(f"args.{join_path(each.path)}", each.value) for each in self.args)

    def text(self) -> str:
        """The filter as text; `parse` gives it back."""
        return " ".join(term_text(*term) for term in self.terms())

    __str__ = text

    def at(self, now_ms: int) -> Self:
        """The same words, read at another time."""
        return type(self).parse(self.text(), now_ms)

    def matches(self, seen: TaskView) -> bool:
        """Whether the task is like that. Its payload must be there if the filter has arguments."""
        return (
            (not self.states or seen.state in self.states)
            and (not self.queues or seen.queue in self.queues)
            and self._fits_envelope(seen)
            and self._fits_time(seen)
            and self._fits_failure(seen)
        )

    def _fits_envelope(self, seen: TaskView) -> bool:
        envelope = seen.envelope
        if envelope is None:
            return not (self.types or self.tags or self.args)
        return (
            (not self.types or any(_is_named(envelope.type, each) for each in self.types))
            and all(tag in envelope.tags for tag in self.tags)
            and all(has_argument(envelope.payload, each) for each in self.args)
        )

    def _fits_time(self, seen: TaskView) -> bool:
        if not (self.since or self.until):
            return True
        moment = seen.ended_ms or (seen.envelope.created_ms if seen.envelope else 0)
        return (not self.since or moment >= self.since.ms) and (not self.until or moment <= self.until.ms)

    def _fits_failure(self, seen: TaskView) -> bool:
        if not (self.errors or self.exceptions or self.places):
            return True
        failure = last_failure(seen)
        return failure is not None and (
            all(_folded(each) in _folded(said(failure)) for each in self.errors)
            and (not self.exceptions or any(_is_class(failure.type, each) for each in self.exceptions))
            and (not self.places or any(_is_at(place_of(failure), each) for each in self.places))
        )


EVERY_TASK: Final = Filter()


def said(failure: Failure) -> str:
    """An error in one line, as filters search it."""
    return f"{failure.type}: {failure.message}"


def _folded(text: str) -> bytes:
    """Without the case of ASCII letters; the script that searches in Redis knows no others."""
    return text.encode("utf-8", "surrogatepass").lower()


def _is_at(place: str, wanted: str) -> bool:
    """Whether a place is meant, with its folder or without."""
    return place == wanted or place.endswith(f"/{wanted}")


def _is_class(name: str, wanted: str) -> bool:
    """Whether a class is meant, with its modules or without."""
    return name == wanted or name.endswith(f".{wanted}")


def _is_named(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode


def has_argument(payload: msgspec.Raw, argument: Argument) -> bool:
    """Whether a payload, or what lies in it at this path, is so. False for what is no JSON."""
    try:
        found = payload
        for key in argument.path:
            found = _item(found, key)
        items = _list(found) if bytes(found).lstrip()[:1] == b"[" else [found]
    except (msgspec.DecodeError, LookupError, ValueError):
        return False
    return any(_is(item, argument.value) for item in items)


def _item(value: msgspec.Raw, key: str) -> msgspec.Raw:
    if bytes(value).lstrip()[:1] == b"[":
        return _list(value)[int(key)]
    return _object(value)[key]


def _is(value: msgspec.Raw, wanted: str) -> bool:
    text = bytes(value).strip()
    try:
        return _text(text) == wanted if text[:1] == b'"' else text == wanted.encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False


@dataclass(slots=True)
class _Reading:
    """What was read of a filter so far."""

    now_ms: int
    found: dict[str, list[Any]] = field(default_factory=dict)
    errors: list[FieldError] = field(default_factory=list)

    def take(self, term: Term) -> None:
        name, _, path = term.name.partition(".")
        if not _is_unicode(term.name + term.value):
            self._refuse(name.encode(errors="backslashreplace").decode(), _NO_TEXT)
        elif not term.value:
            self._refuse(term.name, "it has no value", f'write {term.name}:VALUE, with "…" around what has blanks')
        elif name == "args":
            self._argument(term, path)
        elif path or name not in NAMES:
            self._refuse(term.name, "no filter is called so", _meant(term.name))
        elif name in {"since", "until"}:
            self._moment(name, term.value)
        else:
            self._words(name, term.value)

    def _refuse(self, name: str, detail: str, hint: str | None = None) -> None:
        self.errors.append(FieldError(f"/{name[:80]}", detail, hint))

    def _argument(self, term: Term, path: str) -> None:
        parts = split_path(path)
        if not parts or not all(parts):
            self._refuse(term.name, "it names no argument", "write args.NAME:VALUE or args.NAME.NAME:VALUE")
        else:
            self.found.setdefault("args", []).append(Argument(parts, term.value))

    def _moment(self, name: str, value: str) -> None:
        try:
            self.found.setdefault(name, []).append(Moment.parse(value, self.now_ms))
        except (ValueError, OverflowError):
            self._refuse(name, f"{value[:40]!r} is no moment", f"write {WORDS}")
        if len(self.found.get(name, ())) > 1:
            self._refuse(name, "it is there more than once", "say it once")

    def _words(self, name: str, value: str) -> None:
        read = _READ.get(name)
        for word in value.split(",") if name in {"state", "type", "queue"} else [value]:
            try:
                self.found.setdefault(name, []).append(read(word) if read else word)
            except ValueError as error:
                self._refuse(name, str(error).rstrip("."), _meant_state(word) if name == "state" else None)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _state(word: str) -> State:
    try:
        return State(word.lower())
    except ValueError:
        raise ValueError(f"{word[:40]!r} is no state") from None


def _type(word: str) -> str:
    if word != "*":
        check_type(word.removesuffix("*"))
    return word


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "state": _state,
    "type": _type,
    "queue": check_queue,
    "tag": check_tag,
}


def _meant(name: str) -> str:
    meant = nearest(name[:40], NAMES)
    if meant:
        return f"did you mean {'args.NAME' if meant == 'args' else meant!r}?"
    return f"there are {', '.join(NAMES[:-1])} and args.NAME; did you mean args.{name[:40]}?"


def _meant_state(word: str) -> str:
    meant = nearest(word[:40], list(State))
    return f"did you mean {str(meant)!r}?" if meant else f"there are {', '.join(State)}"


def _read(terms: Iterable[Term], now_ms: int | None) -> dict[str, Any]:
    """The fields of the filter that these words make. Raises InvalidFilter with all that is wrong."""
    reading = _Reading(time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    for count, term in enumerate(terms):
        if count == MAX_TERMS:
            reading.errors.append(FieldError("", f"it has more than {MAX_TERMS} conditions"))
            break
        reading.take(term)
    if reading.errors:
        raise InvalidFilter(reading.errors)
    found = {name: tuple(dict.fromkeys(values)) for name, values in reading.found.items()}
    moments = {name: found.pop(name)[0] for name in ("since", "until") if name in found}
    arguments = {"args": found.pop("args")} if "args" in found else {}
    return {f"{name}s": values for name, values in found.items()} | moments | arguments
