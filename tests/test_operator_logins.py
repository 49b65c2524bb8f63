"""Credentials that were refused are tried again, as kopf takes them; new ones at once, and none are waited for."""

from __future__ import annotations

import logging

import kopf
import pytest

from headrace_operator import kopf_logs, logins
from headrace_operator.logins import Logins


def of_token(token: str) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(server="https://api", token=token)


async def test_the_same_ones_are_others_for_kopf_after_a_pause_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    of_term = Logins(pause)
    made = [await of_term.next(lambda: of_token("a")) for _ in range(6)]
    assert len({each.priority for each in made}) == 6
    assert {each.token for each in made} == {"a"}
    assert pauses == [logins.PAUSE_S] * 5
    assert caplog.text.count("(401)") == 1


async def test_a_new_token_is_taken_at_once() -> None:
    async def pause(_: float) -> None:
        raise AssertionError("nothing to wait for")

    of_term = Logins(pause)
    assert (await of_term.next(lambda: of_token("a"))).token == "a"
    assert (await of_term.next(lambda: of_token("b"))).token == "b"


async def test_a_file_that_is_not_there_yet_is_tried_again() -> None:
    with pytest.raises(kopf.TemporaryError, match="no credentials") as told:
        await Logins().next(lambda: None)
    assert told.value.delay == logins.PAUSE_S


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Request attempt #1/100006 failed; will retry: GET /x -> E()", True),
        ("Request attempt #3/100006 failed; will retry: GET /x -> E()", False),
        ("Request attempt #64/100006 failed; will retry: GET /x -> E()", True),
        ("Request attempt #75/100006 failed; will retry: GET /x -> E()", False),
        ("Request attempt #3/100006 failed; escalating: GET /x -> E()", True),
        ("Unresolved resources cannot be served", True),
    ],
)
def test_the_tries_of_an_outage_are_told_ever_more_rarely(words: str, said: bool) -> None:
    record = logging.LogRecord("kopf._cogs.clients.watching", logging.ERROR, "", 0, words, None, None)
    assert kopf_logs.rare(record) is said


def test_who_tries_again_is_listened_to_rarely() -> None:
    """Their names are kopf's, and may change."""
    kopf_logs.calm()
    from kopf._cogs.clients import watching
    from kopf._core.reactor import observation

    for logger in (watching.logger, observation.logger):
        assert kopf_logs.rare in logger.filters
