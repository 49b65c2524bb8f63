"""Who asks: a bearer token names a subject and binds it to one namespace.

Tokens are kept as SHA-256 of their secrets. A secret is random, so a quick hash is enough, and what is compared in
constant time is the hash, which a caller cannot steer. All tokens are looked at, whichever fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final

from multidict import CIMultiDictProxy

from headrace.settings import ApiSettings, ApiToken

from .problems import HttpProblem

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="headrace"'}
_HINT: Final = "Send one header `Authorization: Bearer <token>`."


class Guard:
    """Lets requests in. Without tokens (loopback, or `auth: none`) everyone is `anonymous` in the one namespace."""

    def __init__(self, settings: ApiSettings) -> None:
        self.open_to_all = settings.auth == "none" or not settings.tokens
        self._anonymous = ApiToken("anonymous", settings.namespace, b"")
        self._tokens: Sequence[ApiToken] = settings.tokens

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace that somebody can reach."""
        if self.open_to_all:
            return (self._anonymous.namespace,)
        return tuple(sorted({token.namespace for token in self._tokens}))

    def identify(self, headers: CIMultiDictProxy[str]) -> ApiToken:
        """Raises HttpProblem (401)."""
        if self.open_to_all:
            return self._anonymous
        given = headers.getall("Authorization", ())
        if len(given) != 1:
            raise _refuse("missing" if not given else "there more than once", "missing_token")
        scheme, _, secret = given[0].partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _refuse("not a bearer token", "missing_token")
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for token in self._tokens:
            if compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise _refuse("of no token that is known here", "unknown_token")
        return found


def _refuse(what: str, code: str) -> HttpProblem:
    return HttpProblem(401, code, f"The Authorization header is {what}.", _HINT, headers=_CHALLENGE)
