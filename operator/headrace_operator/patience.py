"""A watch of kopf's that is refused begins anew with a list; kopf itself would end the process.

kopf tries a request again when nobody answers, or with 403, 429 and 5xx. Whatever else comes back ends the process,
though it passes: 410 for the next page of a list that took too long, 404 while the definition of WorkerPools is gone,
an error told by a watch whose server has just lost etcd, a proxy's page of HTML, half a line from a connection that was
cut. Nor does it ask again before a Retry-After is over, be it of an hour; a date there ends it. And an object that is
nested deeper than Python reads ends it, at each start. kopf has no setting for any of that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Protocol

import aiohttp
from kopf._cogs.clients import api, errors, watching

from . import shallow
from .holdoff import wished_s

logger = logging.getLogger("headrace.operator")

PAUSE_S = 2.0
"""Before a watch that was refused begins anew."""
_LEFT: Final = (errors.APIUnauthorizedError, errors.APITooManyRequestsError)
"""What kopf itself copes with: it logs in again, and it waits for as long as it is told."""
_PASSES: Final = (errors.APIError, watching.WatchingError, aiohttp.ClientError, TimeoutError, ValueError, LookupError)
"""The last two are what reading an answer raises that is none of Kubernetes'."""

Watch = Callable[..., Any]


class Check(Protocol):
    """Raises where an answer is a refusal."""

    def __call__(self, response: Any) -> Coroutine[Any, Any, None]: ...


restarts: Counter[str] = Counter()
"""Resource → watches of this process that began anew, because they were refused, cut or silent, or had lasted."""
_began: set[tuple[str, str]] = set()


def patient(watch: Watch) -> Watch:
    """The same watch, which ends when it is refused; who watches for ever begins it anew then."""

    async def watched(**given: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(watch(**given)) as stream:
                async for event in stream:
                    yield event
        except _LEFT:
            raise
        except _PASSES as error:
            logger.warning("the watch of %s begins anew: %s", given["resource"], error)
            await asyncio.sleep(PAUSE_S)

    return watched


def counted(watch: Watch) -> Watch:
    """The same request for a watch; all but the first for the same objects are restarts."""

    def begun(**given: Any) -> AsyncIterator[Any]:
        resource, of = given["resource"].plural, str(given["namespace"] or "")
        restarts[resource] += (resource, of) in _began  # 0 is told too: only then does Prometheus see the first one
        _began.add((resource, of))
        stream: AsyncIterator[Any] = watch(**given)
        return stream

    return begun


def bounded(check: Check) -> Check:
    """The same look at an answer, which is read however deep it is.

    Who is busy wants to be left alone for some seconds, whatever it says.
    """

    async def checked(response: Any) -> None:
        response.json = partial(response.json, loads=shallow.loads)
        try:
            await check(response)
        except errors.APITooManyRequestsError as error:
            error._headers = {"Retry-After": str(wished_s(error.headers))}
            raise

    return checked


def install() -> None:
    """For all watches of this process; a second time changes nothing."""
    if watching.continuous_watch is _THEIRS:
        watching.continuous_watch = patient(_THEIRS)
        watching.watch_objs = counted(watching.watch_objs)
        errors.check_response = bounded(errors.check_response)
        vars(api)["json"] = shallow  # for the lines of watches


_THEIRS: Final = watching.continuous_watch
