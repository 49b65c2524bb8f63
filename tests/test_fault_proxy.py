"""The proxy between our code and Redis leaves nothing behind for the test after its own."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from chaos.proxy import FaultProxy
from redis_server import RedisServer


@pytest.mark.parametrize("turns", range(8))
async def test_a_proxy_that_closes_serves_nobody_any_more(redis_server: RedisServer, turns: int) -> None:
    """However far the loop has come with a connection: accepted, about to be served, on its way to Redis."""
    with socket.socket() as late:
        async with FaultProxy(redis_server.port) as proxy:
            late.connect(("127.0.0.1", proxy.port))  # the kernel takes it at once, the loop later
            for _ in range(turns):
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not proxy._writers
        del proxy
        gc.collect()  # a socket that is left open is a warning, and so an error
