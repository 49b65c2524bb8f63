"""Rate limits: what the bucket in Redis gives, that processes share it, and what a client is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest
from msgspec import structs

from api_kit import EMAIL, TOKEN, running
from headrace.broker.broker import Call
from headrace.broker.spending import Spent, spend
from headrace.rates import Rate
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiToken
from headrace_api.limits import BLIND_S, KEEP_S, Bucket, Limits
from headrace_api.problems import HttpProblem
from headrace_api.store import Store
from worker_harness import WAIT_S, eventually

R = TypeVar("R")

NOW = 1_800_000_000_000
BATCH = {"tasks": [EMAIL] * 5}


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(RedisSettings.parse(redis_url, "the test"), deadline_s=30.0)  # for a machine that is busy
    yield store
    await store.aclose()


# -- the bucket in Redis


async def take(store: Store, rate: str, needed: int, wanted: int = 0, *, ms: int = 0, credit: bool = False) -> Spent:
    call = spend("default", "t:ci", Rate.parse(rate), needed, wanted, credit=credit, now_ms=NOW + ms)
    return await store.read(call)


async def test_a_bucket_gives_what_it_holds_and_fills_evenly(store: Store) -> None:
    """10/s: ten at once, then one each 100 ms, never more than ten after a rest."""
    taken = [(await take(store, "10/s", 1)).taken for _ in range(12)]
    assert taken == [1] * 10 + [0, 0]
    assert await take(store, "10/s", 1, ms=40) == (0, 0, 60), "60 ms are left until there is one"
    assert (await take(store, "10/s", 1, ms=100)).taken == 1
    assert (await take(store, "10/s", 1, ms=150)).taken == 0
    assert await take(store, "10/s", 1, ms=60_000) == (1, 9, 0)


async def test_more_is_given_than_needed_only_if_it_is_there(store: Store) -> None:
    """For the next requests; at the end what is needed."""
    assert await take(store, "10/s", 1, 8) == (8, 2, 0)
    assert await take(store, "10/s", 1, 8) == (2, 0, 0)
    assert (await take(store, "10/s", 1, 8)).taken == 0


async def test_a_large_batch_is_let_in_on_credit(store: Store) -> None:
    """25 of 10/s: let in once, then 1.6 s pass until there is a permit again."""
    assert await take(store, "10/s", 25) == (25, 0, 0)
    assert await take(store, "10/s", 1) == (0, 0, 1_600)
    assert (await take(store, "10/s", 1, ms=1_600)).taken == 1
    assert (await take(store, "10/s", 5, ms=1_600, credit=True)).taken == 5, "charged, though there is none"
    assert (await take(store, "10/s", 1, ms=1_600)).wait_ms == 600


@pytest.mark.parametrize("rate", ["7/s", "3/min", "999999999/s", "1/h"])
async def test_fractions_lose_no_permit(store: Store, rate: str) -> None:
    """What does not divide evenly is counted all the same: the whole bucket, one by one or at once."""
    count = min(Rate.parse(rate).count, 20)
    assert [(await take(store, rate, 1)).taken for _ in range(count)] == [1] * count


async def test_a_full_bucket_is_no_key(store: Store) -> None:
    """Limits that nobody meets leave nothing behind."""
    call = spend("default", "t:ci", Rate.parse("1000/s"), 1)
    await store.read(call)

    async def gone() -> bool:
        return not await store.command("EXISTS", "hr:{default}:rate:t:ci")

    await eventually(gone)


# -- what processes share; time stands still, in Redis and in them


class StillStore(Store):
    """Redis, where every bucket is asked in the same moment."""

    async def read(self, call: Call[R]) -> R:
        assert call.script.name == "spend"
        return await super().read(structs.replace(call, args=(NOW, *call.args[1:])))

    @property
    def asked(self) -> float:
        """So often a bucket was asked."""
        return self.durations["spend"].cumulative()[-1][1]


@pytest.fixture
async def still(redis_url: str) -> AsyncIterator[StillStore]:
    store = StillStore(RedisSettings.parse(redis_url, "the test"), deadline_s=30.0)
    yield store
    await store.aclose()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def token(rate: str) -> ApiToken:
    return ApiToken("ci", "default", b"x", rate=Rate.parse(rate))


async def spent_of(limits: Limits, token: ApiToken, most: int) -> int:
    """Requests that pass until one is refused."""
    for passed in range(most):
        try:
            await limits.of_token(token)
        except HttpProblem:
            return passed
    return most


@pytest.mark.parametrize("rate", ["1000/h", "1000/s"])
async def test_processes_share_one_bucket(still: StillStore, rate: str) -> None:
    """Three processes, asked in turn, let through what one would; the count is Redis'."""
    three = [Limits(still, Clock()) for _ in range(3)]
    passed = [[await spent_of(limits, token(rate), 1) for limits in three] for _ in range(500)]
    assert sum(map(sum, passed)) == 1_000
    assert passed[0] == [1, 1, 1]
    assert passed[-1] == [0, 0, 0]


async def test_a_busy_limit_costs_few_calls(still: StillStore) -> None:
    """A tenth of a second's worth at once: a thousand requests of 1000/s are ten calls."""
    assert await spent_of(Limits(still, Clock()), token("1000/s"), 1_000) == 1_000
    assert still.asked == 10


async def test_permits_are_given_up_when_they_are_old(store: Store) -> None:
    """What was taken long ago does not come on top of a bucket that is full again."""
    clock = Clock()
    bucket = Bucket(store, "default", "token", "ci", Rate.parse("100/s"), clock)
    await bucket.spend(1)
    assert bucket.permits == 9
    clock.now += KEEP_S + 0.1
    await bucket.spend(1)
    assert bucket.permits == 9, "a new tenth, not eighteen"


async def test_requests_at_the_same_time_ask_once(still: StillStore) -> None:
    """A burst waits for one call, not for one each, and takes no more than there is."""
    limits = Limits(still, Clock())
    answers = await asyncio.gather(*(limits.of_token(token("100/s")) for _ in range(200)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, HttpProblem)]
    assert len(refused) == 100
    assert still.asked == 11, "ten tenths of a second, and that there is no more"


async def test_while_redis_is_away_nobody_is_limited() -> None:
    """A limit is no reason to fail; the store itself refuses what needs it. And Redis is not asked each time."""
    store, clock = Store(RedisSettings.parse("redis://127.0.0.1:1/0", "the test")), Clock()
    limits = Limits(store, clock)
    assert await spent_of(limits, token("1/h"), 50) == 50
    assert sum(store.errors.values()) == 1
    clock.now += BLIND_S
    assert await spent_of(limits, token("1/h"), 50) == 50
    assert sum(store.errors.values()) == 2
    await store.aclose()


# -- over HTTP


async def test_who_is_too_fast_hears_when_to_come_back(redis_url: str) -> None:
    """429 with Retry-After, and the headers of the draft on every answer of a limited token."""
    async with running(redis_url, TOKEN, tokens=f"ci:{TOKEN} rate=3/h") as api:
        answers = [await api.submit() for _ in range(4)]
        other = await api.get("/livez")
    assert [answer.status for answer in answers] == [201, 201, 201, 429]
    assert answers[3].code == "rate_limited"
    assert answers[3].json["detail"] == "The token 'ci' has used up its rate of 3/h; nothing was done."
    assert 1_000 <= int(answers[3].headers["Retry-After"]) <= 1_200, "a third of an hour, less what this test took"
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"token";q=3;w=3600'}
    assert [answer.headers["RateLimit"] for answer in answers[:3]] == [
        '"token";r=2;t=1200', '"token";r=1;t=2400', '"token";r=0;t=3600',
    ]  # fmt: skip
    assert int(answers[3].headers["RateLimit"].removeprefix('"token";r=0;t=')) in range(3_400, 3_601), "the same"
    assert not [name for name in other.headers if name.lower().startswith("ratelimit")]


async def test_both_tokens_of_a_subject_share_its_rate(redis_url: str) -> None:
    """Rotating a token does not double what it may."""
    tokens = f"ci:{TOKEN} rate=2/h, ci:{TOKEN}-2 rate=2/h"
    async with running(redis_url, tokens=tokens) as api:
        statuses = [
            (await api.get("/api/v1/stats", headers={"Authorization": f"Bearer {each}"})).status
            for each in (TOKEN, TOKEN + "-2", TOKEN)
        ]
    assert statuses == [200, 200, 429]


async def test_a_wider_rate_is_felt_at_once(still: StillStore) -> None:
    """Who was slowed down does not wait until the narrower bucket has filled."""
    limits = Limits(still, Clock())
    assert await spent_of(limits, token("10/h"), 20) == 10
    assert await spent_of(limits, token("50/s"), 60) == 50


async def test_a_batch_counts_for_its_tasks(redis_url: str) -> None:
    """Five tasks of 8/h: two batches pass, the second on credit; then nothing. Each answer tells what it left."""
    async with running(redis_url, TOKEN, tokens=f"ci:{TOKEN} rate=8/h") as api:
        answers = [await api.ask("POST", "/api/v1/tasks:batch", json=BATCH) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=3", "r=0", "r=0"]
    full_s = int(answers[2].headers["RateLimit"].partition("t=")[2])
    assert full_s - int(answers[2].headers["Retry-After"]) == pytest.approx(7 * 450, abs=2), "the debt is paid first"


async def test_a_queue_has_a_rate_of_its_own(redis_url: str) -> None:
    """Whoever submits, and in whichever namespace: the queue's bucket is one; other queues have none."""
    async with running(redis_url) as api:
        await api.worker.client.command("HSET", "hr:{default/mail}:ctl", "rate", "2/h")
        mail = [await api.submit(EMAIL | {"queue": "mail"}) for _ in range(3)]
        other = await api.submit()
        batch = await api.ask("POST", "/api/v1/tasks:batch", json={"tasks": [EMAIL | {"queue": "mail"}]})
        text = (await api.get("/metrics")).text
    assert [answer.status for answer in mail] == [201, 201, 429]
    assert mail[2].json["detail"] == "The queue 'mail' has used up its rate of 2/h; nothing was done."
    assert [answer.headers["RateLimit"][:10] for answer in mail] == ['"queue";r=', '"queue";r=', '"queue";r=']
    assert (other.status, "RateLimit" in other.headers) == (201, False)
    assert batch.code == "rate_limited"
    assert re.search(r'rejected_total\{reason="limited"\} 2\.0', text)


async def test_both_limits_are_told(redis_url: str) -> None:
    """A list in one header or in two lines is the same."""
    async with running(redis_url, TOKEN, tokens=f"ci:{TOKEN} rate=5/h") as api:
        await api.worker.client.command("HSET", "hr:{default/default}:ctl", "rate", "9/h")
        await api.worker.publish("send_email", {})
        async with api.session.post(f"{api.url}/api/v1/tasks", json=EMAIL) as answer:
            assert answer.status == 201
            told = answer.headers.getall("RateLimit-Policy")
    assert sorted(told) == ['"queue";q=9;w=3600', '"token";q=5;w=3600']


async def test_a_new_rate_is_felt_without_a_restart(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read again every two seconds; nonsense counts as none, and the log says so."""
    monkeypatch.setattr("headrace_api.limits.KEEP_S", 0.0)
    async with running(redis_url) as api:
        assert (await api.submit()).status == 201
        await api.worker.client.command("HSET", "hr:{default/default}:ctl", "rate", "1/h")
        async with asyncio.timeout(WAIT_S):
            while (await api.submit()).status != 429:
                pass
        await api.worker.client.command("HSET", "hr:{default/default}:ctl", "rate", "fast")
        async with asyncio.timeout(WAIT_S):
            while (await api.submit()).status != 201:
                pass
    assert {"'fast' is no rate" in record.getMessage() for record in caplog.records} == {True}


async def test_a_rate_that_is_set_here_holds_here_at_once(redis_url: str) -> None:
    """Nobody doubts a button; other processes learn of it within two seconds."""
    async with running(redis_url) as api:
        before = await api.submit()
        await api.ask("PATCH", "/api/v1/queues/default", json={"rate": "1/h"})
        answers = [await api.submit() for _ in range(2)]
    assert "RateLimit" not in before.headers
    assert [each.status for each in answers] == [201, 429]
