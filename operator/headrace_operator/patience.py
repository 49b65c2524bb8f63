"""A watch of kopf's that is refused begins anew with a list; kopf itself would end the process.

kopf tries a request again when nobody answers, or with 403, 429 and 5xx. Any other refusal ends the process, though
each of them passes: 410 for the next page of a list that took too long, 404 while the definition of WorkerPools is
gone, an error told by a watch whose server has just lost etcd. kopf has no setting for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from kopf._cogs.clients import errors, watching

logger = logging.getLogger("headrace.operator")

PAUSE_S = 2.0
"""Before a watch that was refused begins anew."""
_LEFT: Final = (errors.APIUnauthorizedError, errors.APITooManyRequestsError)
"""What kopf itself copes with: it logs in again, and it waits for as long as it is told."""

Watch = Callable[..., Any]


def patient(watch: Watch) -> Watch:
    """The same watch, which ends when it is refused; who watches for ever begins it anew then."""

    async def watched(**given: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(watch(**given)) as stream:
                async for event in stream:
                    yield event
        except _LEFT:
            raise
        except (errors.APIError, watching.WatchingError) as error:
            logger.warning("the watch of %s begins anew: %s", given["resource"], error)
            await asyncio.sleep(PAUSE_S)

    return watched


def install() -> None:
    """For all watches of this process; a second time changes nothing."""
    if watching.continuous_watch is _THEIRS:
        watching.continuous_watch = patient(_THEIRS)


_THEIRS: Final = watching.continuous_watch
