"""Tests of an application without a server: the `headrace` fixture of pytest, or `with Testing() as headrace:`.

    async def test_resize(headrace: Testing) -> None:
        await view_under_test()
        headrace.assert_enqueued(resize, url="s3://cat")
        await headrace.awork()

What a real worker does is real: the Lua scripts (on fakeredis, in this process), validation, lifespan, middleware,
`ctx`, retries, timeouts. Only the clock stands still, and work is done when the test says so.
"""

from headrace.testing.enqueued import Enqueued
from headrace.testing.fixture import Testing

__all__ = ["Enqueued", "Testing"]
