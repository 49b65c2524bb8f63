"""Single tasks over HTTP: waiting for the end, cancelling, retrying, delays, queues, and bytes left as they are."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import aiohttp
import pytest

from api_kit import EMAIL, TOKEN, Api, Worker, running
from headrace.broker.broker import Queue, Reclaim
from headrace.broker.client import AsyncClient
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace.task import Failure
from headrace_api import services
from headrace_api.created import _date
from headrace_api.server import serving


async def test_payload_bytes_reach_worker_and_reader_unchanged(redis_url: str) -> None:
    """Large integers, odd numbers, order, white space, escapes: nobody re-encodes them."""
    payload = (
        b'{ "n": 9007199254740993, "u":18446744073709551615, "e":1.50e3,\n "z": -0.0, "list":[], "map":{},'
        b' "text":"\\u00e9\xc3\xa9\\ud83d\\ude00\\u0000\\/", "b":1,"a":2 }'
    )
    async with running(redis_url) as api:
        task_id = await api.submitted(b'{"type":"t","payload": ' + payload + b" }")
        shown = (await api.get(f"/api/v1/tasks/{task_id}")).text.encode()
        [claim] = await api.worker.claim()
    assert bytes(claim.task.payload) == payload
    assert b'"payload":' + payload in shown


async def test_a_task_that_killed_its_workers_says_so_as_its_error(redis_url: str) -> None:
    """A dead worker reports no error, yet nobody should have to read the log of attempts to learn why it failed."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        await api.worker.claim()
        order = Reclaim("worker-1", "*", "n", "killed by SIGKILL", max_crashes=1)
        await api.worker.client.call(Queue("default").reclaim(order))
        shown = await api.task(task_id)
    assert shown["status"] == "failed"
    assert shown["error"]["type"] == "Crashed"
    assert "killed by SIGKILL" in shown["error"]["message"]
    assert "crash 1" in shown["error"]["message"]


async def test_wait_returns_when_the_task_ends(redis_url: str) -> None:
    """The answer comes with the end of the task, long before the time is over."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        began = time.monotonic()
        waiting = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=30"))
        [claim] = await api.worker.claim()
        await api.worker.somebody_blocks()
        assert not waiting.done()
        await api.worker.report(claim.report("completed", result=[1]))
        answer = await waiting
    assert (answer.json["status"], answer.json["result"]) == ("completed", [1])
    assert time.monotonic() - began < 3


async def test_wait_tells_the_state_when_time_is_over(redis_url: str) -> None:
    """A task that has not ended is no error: 200 with what it is now."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        answer = await api.get(f"/api/v1/tasks/{task_id}?wait=0.05")
    assert (answer.status, answer.json["status"]) == (200, "pending")


async def test_many_waits_are_served_by_one_reader(redis_url: str) -> None:
    """Fifty waiting clients cost Redis one blocked connection of one process."""
    async with running(redis_url) as api:
        ids = [await api.submitted() for _ in range(10)]
        waits = [asyncio.create_task(api.get(f"/api/v1/tasks/{ids[i % 10]}?wait=30")) for i in range(50)]
        await api.worker.somebody_blocks()
        blocked = (await api.worker.client.command("INFO", "clients")).decode()
        assert "blocked_clients:1\r\n" in blocked
        claims = await api.worker.claim()
        await api.worker.report(*(claim.report("completed") for claim in claims))
        answers = await asyncio.gather(*waits)
    assert {answer.json["status"] for answer in answers} == {"completed"}


async def test_queues_that_nobody_waits_for_keep_few_connections(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait on each of a thousand queues must not leave a thousand connections behind."""
    monkeypatch.setattr(services, "MAX_IDLE_WATCHES", 2)
    async with running(redis_url) as api:
        for i in range(6):
            task_id = await api.submitted({"type": "t", "queue": f"q{i}"})
            await api.get(f"/api/v1/tasks/{task_id}?wait=0.02")
        names = (await api.worker.client.command("CLIENT", "LIST")).decode()
        assert names.count("name=headrace-journal") <= 3
        task_id = await api.submitted({"type": "t", "queue": "q0"})
        assert (await api.get(f"/api/v1/tasks/{task_id}?wait=0.02")).json["status"] == "pending"


async def test_a_stop_answers_those_who_wait(redis_url: str) -> None:
    """A deploy of the API lets no client hang: waits are answered with what is known."""
    redis = RedisSettings.parse(redis_url, "the test")
    async with aiohttp.ClientSession() as session:
        async with serving(ApiSettings.from_env({}, port=0), redis) as url:
            api = Api(url, session, Worker(AsyncClient(redis)))
            task_id = await api.submitted()
            waiting = asyncio.create_task(api.get(f"/api/v1/tasks/{task_id}?wait=60"))
            await api.worker.somebody_blocks()
            began = time.monotonic()
        assert time.monotonic() - began < 2
        assert (await waiting).json["status"] == "pending"
        await api.worker.client.aclose()


async def test_cancelling_a_waiting_task_ends_it(redis_url: str) -> None:
    """DELETE and :cancel end what waits, also what waits for its time; repeated they say the same."""
    async with running(redis_url) as api:
        for body in (EMAIL, EMAIL | {"delay": 60}):
            path = f"/api/v1/tasks/{await api.submitted(body)}"
            first, again = await api.ask("DELETE", path), await api.ask("POST", path + ":cancel")
            assert (first.status, first.json["status"]) == (200, "cancelled")
            assert (again.status, again.json["status"]) == (200, "cancelled")
            assert (await api.get(path)).json["status"] == "cancelled"
        assert await api.worker.claim() == []


async def test_cancelling_a_running_task_asks_its_worker(redis_url: str) -> None:
    """202: the worker is asked; with force=true the task is ended under it."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        await api.worker.claim()
        asked = await api.ask("DELETE", path)
        forced = await api.ask("DELETE", path + "?force=true")
        after = await api.get(path)
    assert (asked.status, asked.json["status"]) == (202, "processing")
    assert (forced.status, forced.json["status"]) == (200, "cancelled")
    assert after.json["status"] == "cancelled"


async def test_what_has_ended_cannot_be_cancelled(redis_url: str) -> None:
    """409 names the state it is in."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("completed"))
        answer = await api.ask("DELETE", path)
    assert (answer.status, answer.code) == (409, "wrong_state")
    assert "is completed" in answer.json["detail"]


async def test_retry_starts_a_failed_task_over(redis_url: str) -> None:
    """From the dead letter to pending, with the history kept; a second request changes nothing more."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("failed", error=Failure("ValueError", "broken")))
        failed = (await api.get(path)).json
        first, again = await api.ask("POST", path + ":retry"), await api.ask("POST", path + ":retry")
        after = (await api.get(path)).json
        claims = await api.worker.claim()
    assert (failed["status"], failed["error"]["message"]) == ("failed", "broken")
    assert (first.status, again.status) == (200, 200)
    assert (after["status"], after["retry_count"], after["attempts"]) == ("pending", 0, 1)
    assert len(claims) == 1


async def test_retry_makes_a_delayed_task_due(redis_url: str) -> None:
    """What waits for its time need not wait any longer."""
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL | {"delay": 3_600})
        assert (await api.task(task_id))["status"] == "scheduled"
        assert (await api.ask("POST", f"/api/v1/tasks/{task_id}:retry")).status == 200
        assert (await api.task(task_id))["status"] == "pending"


async def test_retry_of_a_running_or_completed_task_is_409(redis_url: str) -> None:
    """Only what failed or waits for its time can be retried."""
    async with running(redis_url) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        [claim] = await api.worker.claim()
        while_running = await api.ask("POST", path + ":retry")
        await api.worker.report(claim.report("completed"))
        afterwards = await api.ask("POST", path + ":retry")
    assert (while_running.code, afterwards.code) == ("wrong_state", "wrong_state")


async def test_delay_and_eta_schedule_a_task(redis_url: str) -> None:
    """Seconds from now, or a time of any zone; a time that is past is due at once."""
    at = datetime.now(UTC) + timedelta(hours=2)
    zone = at.astimezone(datetime.now().astimezone().tzinfo).isoformat()
    async with running(redis_url) as api:
        delayed = await api.task(await api.submitted(EMAIL | {"delay": 1.5}))
        by_time = await api.task(await api.submitted(EMAIL | {"eta": zone}))
    assert delayed["status"] == by_time["status"] == "scheduled"
    due = datetime.fromisoformat(by_time["due_at"])
    assert abs(due - at) < timedelta(milliseconds=2)
    late = datetime.fromisoformat(delayed["due_at"]) - datetime.fromisoformat(delayed["created_at"])
    assert timedelta(seconds=1.4) < late < timedelta(seconds=3)


async def test_the_queue_is_the_bodys_else_the_types_else_default(redis_url: str) -> None:
    """And the id alone finds it again."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"queue": "mail", "priority": 3, "max_retries": 7})
        said = await api.task(await api.submitted({"type": "send_email", "queue": "other", "max_retries": 1}))
        typed = await api.task(await api.submitted({"type": "send_email"}))
        default = await api.task(await api.submitted({"type": "unheard_of"}))
    assert (said["queue"], said["id"].split(".")[0], said["max_retries"]) == ("other", "other", 1)
    assert (typed["queue"], typed["id"].split(".")[0]) == ("mail", "mail")
    assert (typed["priority"], typed["max_retries"]) == (3, 7)
    assert (default["queue"], default["priority"], default["max_retries"]) == ("default", 1, 3)


async def test_more_queues_than_allowed_are_refused(redis_url: str) -> None:
    """Queues are named by clients, so their number is bounded; those that exist go on."""
    async with running(redis_url, max_queues=2) as api:
        for queue in ("a", "b"):
            await api.submitted({"type": "t", "queue": queue})
        answer = await api.submit({"type": "t", "queue": "c"})
        await api.submitted({"type": "t", "queue": "a"})
        keys = await api.worker.keys()
    assert (answer.status, answer.code) == (422, "invalid_task")
    assert "HEADRACE_MAX_QUEUES" in answer.errors["/queue"]
    assert not [key for key in keys if "/c}" in key]


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (TRACE, True),
        ("nonsense", False),
        ("", False),
        (TRACE.upper(), False),
        ("ff" + TRACE[2:], False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", False),
    ],
)
async def test_traceparent_goes_into_the_envelope_if_it_is_one(redis_url: str, given: str, taken: bool) -> None:
    """A worker's spans hang on the client's, whom the answer tells that; what is no traceparent is left out."""
    async with running(redis_url) as api:
        answer = await api.submit(EMAIL, traceparent=given)
        [claim] = await api.worker.claim()
    assert claim.task.trace == answer.headers.get("traceparent") == (given if taken else None)
    assert "traceresponse" not in answer.headers, "it would name a span, and the API makes none"


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k"}, {"Prefer": "wait=0"}])
async def test_a_traceparent_comes_back_with_every_kind_of_answer(redis_url: str, headers: dict[str, str]) -> None:
    """The quick one and the others, and with a rate beside it; none without one."""
    async with running(redis_url, TOKEN, tokens=f"t:{TOKEN} rate=100/s") as api:
        with_one = [await api.submit(EMAIL, traceparent=TRACE, **headers) for _ in range(2)]
        without = await api.submit(EMAIL | {"payload": {}}, **(headers | {"Idempotency_Key": "other"}))
    assert [each.headers["traceparent"] for each in with_one] == [TRACE] * 2
    assert all("RateLimit" in each.headers for each in with_one)
    assert "traceparent" not in without.headers


async def test_head_answers_like_get_without_a_body(redis_url: str) -> None:
    """Load balancers ask with HEAD."""
    async with running(redis_url) as api:
        answer = await api.ask("HEAD", "/health")
    assert (answer.status, answer.text) == (200, "")


async def test_http_1_0_and_close_are_answered_too(redis_url: str) -> None:
    """The quick answer is for connections that stay; the others get the same words."""
    body = b'{"type": "t"}'
    head = b"POST /api/v1/tasks HTTP/%b\r\nHost: x\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with running(redis_url) as api:
        await api.worker.publish("t", {})
        for version, close in ((b"1.0", b""), (b"1.1", b"Connection: close\r\n")):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(head % (version, close, len(body)) + body)
            raw = await reader.read()
            writer.close()
            assert raw.startswith(b"HTTP/%b 201 Created\r\n" % version)
            assert raw.endswith(b'","status":"submitted"}')


def test_the_date_of_a_quick_answer_is_the_second_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once a second, by a clock that does not know where seconds begin."""
    clock = Mock()
    monkeypatch.setattr("headrace_api.created.time", clock)
    monkeypatch.setattr("headrace_api.created._Clock.until_s", 0.0)
    for second, monotonic_s, said in ((0.25, 50.0, b"00:00:00"), (0.75, 50.5, b"00:00:00"), (1.0, 50.75, b"00:00:01")):
        clock.time.return_value, clock.monotonic.return_value = second, monotonic_s
        assert _date() == b"Thu, 01 Jan 1970 %b GMT" % said
