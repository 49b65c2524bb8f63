"""Bearer tokens of the API: who may do what, with which queues, how often; and how they are written.

    ci:sha256:9f86d081…        scope=submit queue=emails-* rate=100/s
    ops@team-a:sha256:60303ae2… scope=operate
    shop:fNPlQzUp9wQr2yK7sZq4c3mA

NAME or NAME@NAMESPACE, then the secret or its SHA-256, then options, `scope` and `queue` as often as needed. A variable
holds the same text as a file: tokens have commas, spaces or line breaks between them, and lines that start with # count
for nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from headrace.errors import nearest
from headrace.rates import Rate
from headrace.task import LABEL

__all__ = ["EVERYTHING", "SCOPES", "ApiToken", "Scope", "check_pattern", "digest_of", "parse_tokens", "read_tokens"]

Scope = Literal["read", "submit", "operate", "admin"]
"""read: look; submit: add tasks, cancel and retry single ones; operate: queues, dead letters and bulk; admin: all of it
and the audit log."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_INCLUDED: Final[Mapping[Scope, frozenset[Scope]]] = {
    "read": frozenset({"read"}),
    "submit": frozenset({"submit"}),
    "operate": frozenset({"operate", "submit", "read"}),
    "admin": frozenset(SCOPES),
}
"""`submit` does not include `read`: who only drops work in needs to see nobody's payloads."""
EVERYTHING: Final[tuple[Scope, ...]] = ("admin",)
MIN_SECRET: Final = 16
MAX_FILE: Final = 1 << 20
"""Bytes of a file of tokens; Kubernetes keeps no larger Secret."""


@dataclass(frozen=True)
class ApiToken:
    """One bearer token: who it is, the namespace it is bound to, the SHA-256 of its secret, and what it may do."""

    subject: str
    namespace: str
    digest: bytes = field(repr=False)
    scopes: tuple[Scope, ...] = EVERYTHING
    queues: tuple[str, ...] = ()
    """Patterns of queues, in which * stands for any characters; none = all queues."""
    rate: Rate | None = None
    """Requests, in which a batch counts for as many as it has tasks."""
    grants: frozenset[Scope] = field(init=False, repr=False, compare=False)
    """The scopes and what they include."""
    who: str = field(init=False, repr=False, compare=False)
    """Namespace and subject: what limits are counted under, so that two tokens of one subject share them."""
    _queues: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grants: frozenset[Scope] = frozenset().union(*(_INCLUDED[scope] for scope in self.scopes))
        object.__setattr__(self, "grants", grants)
        object.__setattr__(self, "who", f"{self.namespace}/{self.subject}")
        one_of = "|".join(re.escape(each).replace(r"\*", ".*") for each in self.queues)
        object.__setattr__(self, "_queues", re.compile(one_of) if self.queues else None)

    @property
    def sees_all(self) -> bool:
        """Whether it is limited to no queues."""
        return self._queues is None

    def may(self, queue: str) -> bool:
        """Whether it covers this queue."""
        return self._queues is None or self._queues.fullmatch(queue) is not None


_TOKEN: Final = re.compile(
    rf"(?P<subject>[\w.-]{{1,64}})(@(?P<namespace>{LABEL}))?:(?P<secret>[\x21-\x2b\x2d-\x7e]+)", re.ASCII
)
_OPTION: Final = re.compile(r"(?P<name>[a-z_-]+)=(?P<value>[^:]*)")
_PATTERN: Final = re.compile(r"[a-z0-9*-]{1,63}")
_FORMS: Final = "NAME:SECRET, NAME@NAMESPACE:SECRET or NAME:sha256:HEX"


def digest_of(secret: str) -> bytes:
    """Secrets are random, so a quick hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def check_pattern(given: str) -> str:
    """A pattern of queues. Raises ValueError."""
    if not _PATTERN.fullmatch(given):
        raise ValueError(f"{given[:80]!r} is no pattern of queues; use a-z, 0-9, '-' and *, as in emails-*")
    return given


def parse_tokens(given: str) -> tuple[ApiToken, ...]:
    """Raises ValueError, whose words show no secret."""
    return _distinct([_parse_token(words[0], words[1:]) for words in _groups(given)])


def _groups(given: str) -> Iterator[list[str]]:
    """Each token with its options."""
    lines = (line for line in given.splitlines() if not line.lstrip().startswith("#"))
    group: list[str] = []
    for word in re.split(r"[\s,]+", "\n".join(lines)):
        if _OPTION.fullmatch(word):
            if not group:
                raise ValueError(f"An option stands before any token; write {_FORMS}, then its options")
            group.append(word)
        elif word:
            if group:
                yield group
            group = [word]
    if group:
        yield group


def _distinct(tokens: Iterable[ApiToken]) -> tuple[ApiToken, ...]:
    """Raises ValueError for one secret with two meanings."""
    seen: dict[bytes, ApiToken] = {}
    for token in tokens:
        if seen.setdefault(token.digest, token) != token:
            other = seen[token.digest].subject
            raise ValueError(f"Tokens {other!r} and {token.subject!r} have the same secret; make one for each")
    return tuple(seen.values())


def _parse_token(given: str, options: list[str]) -> ApiToken:
    match = _TOKEN.fullmatch(given)
    if not match:
        raise ValueError(f"Write each token as {_FORMS}, then options such as scope=submit")
    subject, secret = match["subject"], match["secret"]
    if hashed := re.fullmatch(r"sha256:([0-9a-f]{64})", secret):
        digest = bytes.fromhex(hashed[1])
    elif secret.startswith("sha256:"):
        raise ValueError(f"The hash of token {subject!r} is not 64 of 0-9 and a-f")
    elif len(secret) < MIN_SECRET:
        raise ValueError(f"The secret of token {subject!r} is shorter than {MIN_SECRET} characters; make a random one")
    else:
        digest = digest_of(secret)
    try:
        scopes, queues, rate = _read_options(options)
    except ValueError as error:
        raise ValueError(f"Token {subject!r}: {error}") from None
    return ApiToken(subject, match["namespace"] or "default", digest, scopes or EVERYTHING, queues, rate)


def _read_options(options: list[str]) -> tuple[tuple[Scope, ...], tuple[str, ...], Rate | None]:
    scopes: list[Scope] = []
    queues: list[str] = []
    rates: list[Rate] = []
    for option in options:
        name, _, value = option.partition("=")
        match name:
            case "scope":
                scopes.append(_scope(value))
            case "queue":
                queues.append(check_pattern(value))
            case "rate" if not rates:
                rates.append(Rate.parse(value))
            case "rate":
                raise ValueError("the rate stands there twice; give one")
            case _:
                # What resembles none may be a secret, so it is not shown.
                meant = nearest(name, ["scope", "queue", "rate"])
                said = f"{name!r} is no option; did you mean {meant!r}?" if meant else "there is an unknown option;"
                raise ValueError(f"{said} known are scope=, queue= and rate=")
    return tuple(dict.fromkeys(scopes)), tuple(dict.fromkeys(queues)), rates[0] if rates else None


def _scope(given: str) -> Scope:
    for scope in SCOPES:
        if given == scope:
            return scope
    meant = nearest(given[:40], SCOPES)
    hint = f"did you mean {meant!r}?" if meant else f"there are {', '.join(SCOPES)}"
    raise ValueError(f"{given[:40]!r} is no scope; {hint}")


def read_tokens(path: str) -> tuple[ApiToken, ...]:
    """The tokens of a file, or of all files of a folder (a mounted Secret) whose names do not start with a dot.

    Raises OSError, and ValueError if there are none or one is wrong.
    """
    tokens = [token for file in files_of(path) for token in _tokens_of(file)]
    if not tokens:
        raise ValueError("there is no token in it")
    return _distinct(tokens)


def files_of(path: str) -> list[Path]:
    """Raises OSError."""
    given = Path(path)
    if not given.is_dir():
        return [given]
    return sorted(each for each in given.iterdir() if not each.name.startswith(".") and each.is_file())


def _tokens_of(file: Path) -> tuple[ApiToken, ...]:
    try:
        return parse_tokens(_text(file))
    except ValueError as error:
        raise ValueError(f"{error} (in {file.name})") from None


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        read = opened.read(MAX_FILE + 1)
    if len(read) > MAX_FILE:
        raise ValueError("it is larger than 1 MiB")
    return read.decode("utf-8")
