"""Thousands of senseless requests: no 5xx, no error in the log, and good ones beside them are served."""

from __future__ import annotations

import logging
from itertools import islice

import pytest

from api_kit import running
from bench.fuzz import requests, send, told

COUNT = 1_500


def test_the_same_seed_makes_the_same_requests() -> None:
    """So that what failed can be sent again."""
    assert list(islice(requests(7), 200)) == list(islice(requests(7), 200))
    assert list(islice(requests(7), 200)) != list(islice(requests(8), 200))


async def test_no_request_gets_a_5xx(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """`make hostile` sends 100,000 of them, and test_hostile_small.py some more, to an API process of its own."""
    async with running(redis_url) as api:
        tally = await send(api.port, COUNT, seed=1)
        assert (await api.submit()).status == 201
    assert tally.failures == []
    assert tally.total == COUNT
    assert {200, 201, 400, 404, 405, 415, 422} <= tally.statuses.keys(), told(tally)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
