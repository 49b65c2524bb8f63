"""Who asks and what they may: a bearer token names a subject, binds it to one namespace, and has scopes.

Tokens are kept as SHA-256 of their secrets. A secret is random, so a quick hash is enough, and what is compared in
constant time is the hash, which a caller cannot steer. All tokens are looked at, whichever fits. Headers that were let
in are remembered, so that who comes again is known at once; they are found by a hash as well, Python's keyed one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final

from aiohttp import hdrs
from multidict import CIMultiDictProxy

from headrace.settings import ApiSettings, ApiToken
from headrace.tokens import Scope, digest_of

from .problems import HttpProblem
from .token_file import TokenFile

MAX_KNOWN: Final = 1_000
"""Headers that are remembered."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="headrace"'}
_HINT: Final = "Send one header `Authorization: Bearer <token>`."


class Guard:
    """Lets requests in. Without tokens (loopback, or `auth: none`) everyone is `anonymous` in the one namespace."""

    def __init__(self, settings: ApiSettings) -> None:
        self.open_to_all = settings.auth == "none" or not (settings.tokens or settings.tokens_file)
        self._anonymous = ApiToken("anonymous", settings.namespace, b"")
        self._given = settings.tokens
        self._file = TokenFile(settings.tokens_file) if settings.tokens_file and not self.open_to_all else None
        self._tokens = self._all_tokens()
        self._at_once = settings.max_requests_per_token
        self._busy: defaultdict[str, int] = defaultdict(int)  # a Counter's `+=` costs three times as much
        self._known: dict[str, ApiToken] = {}
        """Authorization header → its token."""

    def _all_tokens(self) -> Sequence[ApiToken]:
        return self._given + (self._file.tokens if self._file else ())

    @property
    def stale(self) -> bool:
        """Whether the file of tokens cannot be read, and older ones hold."""
        return self._file is not None and self._file.refused

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace that somebody can reach."""
        if self.open_to_all:
            return (self._anonymous.namespace,)
        return tuple(sorted({token.namespace for token in self._tokens}))

    def admit(self, headers: CIMultiDictProxy[str], scope: Scope) -> ApiToken:
        """Who asks. Each that is let in has to `leave`. Raises HttpProblem: 401, 403, 429."""
        if self.open_to_all:
            return self._anonymous
        caller = self.identify(headers)
        if scope not in caller.grants:
            raise _lacks(caller, scope)
        busy = self._busy[caller.who]
        if busy >= self._at_once:
            raise _too_many(caller, self._at_once)
        self._busy[caller.who] = busy + 1
        return caller

    def leave(self, caller: ApiToken) -> None:
        """The request of this caller was answered."""
        if not self.open_to_all:
            self._busy[caller.who] -= 1

    def identify(self, headers: CIMultiDictProxy[str]) -> ApiToken:
        """Raises HttpProblem (401)."""
        if self.open_to_all:
            return self._anonymous
        if self._file is not None and self._file.changed():
            self._tokens = self._all_tokens()
            self._known.clear()
        given = headers.getall(hdrs.AUTHORIZATION, ())
        if len(given) != 1:
            raise _refuse("missing" if not given else "there more than once", "missing_token")
        found = self._known.get(given[0])
        return self._look_up(given[0]) if found is None else found

    def _look_up(self, header: str) -> ApiToken:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _refuse("not a bearer token", "missing_token")
        digest = digest_of(secret)
        found = None
        for token in self._tokens:
            if compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise _refuse("of no token that is known here", "unknown_token")
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[header] = found
        return found


def require_queue(caller: ApiToken, queue: str) -> str:
    """The queue, if the caller's token covers it. Said before Redis is asked, so it tells nothing of what exists.

    Raises HttpProblem (403).
    """
    if caller.may(queue):
        return queue
    patterns = ", ".join(caller.queues)
    detail = f"The token {caller.subject!r} does not cover the queue {queue[:63]!r}, only {patterns}."
    raise HttpProblem(403, "forbidden_queue", detail, "Use a queue that it covers, or a token that covers this one.")


def _refuse(what: str, code: str) -> HttpProblem:
    return HttpProblem(401, code, f"The Authorization header is {what}.", _HINT, headers=_CHALLENGE)


def _lacks(caller: ApiToken, scope: Scope) -> HttpProblem:
    has = " and ".join(caller.scopes)
    detail = f"This needs the scope {scope!r}; the token {caller.subject!r} has {has}."
    hint = f"Use a token with scope={scope}, or ask whoever runs this service for one."
    return HttpProblem(403, "missing_scope", detail, hint)


def _too_many(caller: ApiToken, limit: int) -> HttpProblem:
    detail = f"The token {caller.subject!r} has {limit} requests on their way already, which is its limit."
    hint = "Wait for answers before you send more."
    return HttpProblem(429, "too_many_at_once", detail, hint, headers={"Retry-After": "1"})
