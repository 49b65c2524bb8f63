"""Finding tasks over HTTP: lists page by page, errors by their cause, workers and what they run."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from api_kit import EMAIL, Api, running
from headrace.listing import Position
from headrace.settings import ApiSettings
from headrace.task import Failure

ORDERS = EMAIL | {"queue": "orders"}
TRACE = 'Traceback (most recent call last):\n  File "/srv/shop/mail.py", line 7, in send\n    raise\n'


async def get(api: Api, path: str, **options: Any) -> Any:
    """The document of an answer that must be 200."""
    answer = await api.get(f"/api/v1{path}", **options)
    assert answer.status == 200, answer.text
    return answer.json


async def fail(api: Api, count: int, message: str = "no answer", trace: str = TRACE) -> list[str]:
    """So many tasks end in the dead letter."""
    made = [await api.submitted() for _ in range(count)]
    failure = Failure("SMTPError", message, trace)
    await api.worker.report(*(claim.report("failed", error=failure) for claim in await api.worker.claim(count)))
    return made


async def test_pages_follow_their_links_to_the_end(redis_url: str) -> None:
    """`next` and the Link header lead through the list: every task once, then no further link."""
    async with running(redis_url) as api:
        made = [await api.submitted(EMAIL | {"priority": n % 4}) for n in range(7)]
        seen, path = [], "?limit=3&state=pending&type=send_email"
        while path:
            answer = await api.get(f"/api/v1/tasks{path}")
            seen += [task["id"] for task in answer.json["tasks"]]
            link = answer.headers.get("Link")
            assert (link is None) is (answer.json["next"] is None)
            assert len(answer.json["tasks"]) <= 3
            path = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
            assert answer.json["next"] is None or f"cursor={answer.json['next']}" in path
    assert sorted(seen) == sorted(made)


async def test_a_listed_task_shows_what_it_is_and_no_payload_unless_asked(redis_url: str) -> None:
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL | {"tags": ["acme"], "delay": 60})
        [task] = (await get(api, "/tasks"))["tasks"]
        [whole] = (await get(api, "/tasks?fields=payload"))["tasks"]
        alone = await api.task(task_id)
    shown = [task[name] for name in ("id", "type", "queue", "status", "priority", "tags", "attempts", "error")]
    assert shown == [task_id, "send_email", "default", "scheduled", 2, ["acme"], 0, None]
    assert task["due_at"] == alone["due_at"]
    assert task["payload"] is None
    assert whole["payload"] == alone["payload"] == EMAIL["payload"]


async def test_dead_letters_are_a_list_by_state(redis_url: str) -> None:
    async with running(redis_url) as api:
        failed = await fail(api, 2)
        await api.submitted()
        found = await get(api, "/tasks?state=failed")
    assert {task["id"] for task in found["tasks"]} == set(failed)
    assert found["tasks"][0]["error"] == {
        "type": "SMTPError", "message": "no answer", "reason": None, "place": "shop/mail.py:send",
    }  # fmt: skip
    assert (found["next"], found["truncated"], found["scanned"]) == (None, False, 2)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=args.recipient:user@example.com", 3),
        ("args.recipient=user@example.com", 3),
        ("args.recipient=nobody", 0),
        ("q=queue:orders&type=send_email", 1),
        ("queue=orders,default", 3),
        ("queue=nowhere", 0),
        ("state=failed&state=pending", 3),
        ("state=failed&error=NO%20ANSWER", 1),
        ("since=1h", 3),
        ("until=1h", 0),
    ],
)
async def test_parameters_and_text_are_the_same_filter(redis_url: str, query: str, expected: int) -> None:
    async with running(redis_url) as api:
        await fail(api, 1)
        await api.submitted()
        await api.submitted(ORDERS)
        found = await get(api, f"/tasks?{query}")
    assert len(found["tasks"]) == expected


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("state=faild", "invalid_filter", "did you mean 'failed'?"),
        ("q=Timeout", "invalid_filter", "error:Timeout"),
        ("since=yesterday", "invalid_filter", "2026-01-15"),
        ("args.=1", "invalid_filter", "args.NAME"),
        ("stat=failed", "bad_query", "did you mean 'state'?"),
        ("limit=0", "bad_query", "limit"),
        ("limit=201", "bad_query", "limit"),
        ("fields=all", "bad_query", "fields"),
        ("cursor=", "bad_cursor", "begin without a cursor"),
        ("cursor=%21", "bad_cursor", "begin without a cursor"),
        ("cursor=%C3%A9.%C3%A9", "bad_cursor", "begin without a cursor"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_to_write(
    redis_url: str, query: str, code: str, said: str
) -> None:
    async with running(redis_url) as api:
        answer = await api.get(f"/api/v1/tasks?{query}")
    assert (answer.status, answer.code) == (400, code)
    assert said in answer.text


async def test_a_cursor_goes_on_with_its_own_list_only(redis_url: str) -> None:
    """Changed, cut, made up, of another filter or of another namespace: refused, and nothing is looked at."""
    tokens = "ours:the-secret-of-ours-0123456789, theirs@bank:the-secret-of-bank-0123456789"
    ours, theirs = ({"Authorization": f"Bearer the-secret-of-{name}-0123456789"} for name in ("ours", "bank"))
    async with running(redis_url, tokens=tokens) as api:
        for _ in range(3):
            await api.submitted(EMAIL, **ours)
        cursor = (await get(api, "/tasks?limit=1&state=pending", headers=ours))["next"]
        text, _, mac = cursor.partition(".")
        position = Position.parse(text)
        forged = Position("hidden", position.source, position.at, position.as_of_ms, position.now_ms).text()
        wrong = [
            f"{forged}.{mac}",
            f"{text}.",
            text,
            cursor[:-1],
            f"x{cursor}",
            base64.b64encode(b"x" * 30).decode()[:30],
        ]
        answers = [await api.get(f"/api/v1/tasks?limit=1&state=pending&cursor={each}", headers=ours) for each in wrong]
        answers += [
            await api.get(f"/api/v1/tasks?limit=1&cursor={cursor}", headers=ours),
            await api.get(f"/api/v1/tasks?limit=1&state=pending&cursor={cursor}", headers=theirs),
        ]
        good = await get(api, f"/tasks?limit=2&state=pending&cursor={cursor}", headers=ours)
        spelled = await get(api, f"/tasks?limit=2&q=state:pending&cursor={cursor}", headers=ours)
    assert {(answer.status, answer.code) for answer in answers} == {(400, "bad_cursor")}
    assert len(good["tasks"]) == 2
    assert good["tasks"] == spelled["tasks"], "the same filter in other words"


async def test_a_token_of_some_queues_finds_only_theirs(redis_url: str) -> None:
    tokens = "all:the-secret-of-all-0123456789, some:the-secret-of-some-0123456789 queue=ord*"
    every, some = ({"Authorization": f"Bearer the-secret-of-{name}-0123456789"} for name in ("all", "some"))
    async with running(redis_url, tokens=tokens) as api:
        await api.submitted(EMAIL, **every)
        mine = await api.submitted(ORDERS, **every)
        found = await get(api, "/tasks", headers=some)
        refused = await api.get("/api/v1/tasks?queue=default", headers=some)
        errors = await api.get("/api/v1/errors?q=queue:default", headers=some)
    assert [task["id"] for task in found["tasks"]] == [mine]
    assert refused.code == errors.code == "forbidden_queue"


async def test_a_page_that_looked_at_enough_says_so(redis_url: str) -> None:
    async with running(redis_url, scan_budget=100) as api:
        for _ in range(2):
            await api.ask("POST", "/api/v1/tasks:batch", json={"tasks": [EMAIL] * 90})
        first = await get(api, "/tasks?args.recipient=nobody")
        second = await get(api, f"/tasks?args.recipient=nobody&cursor={first['next']}")
    assert (first["tasks"], first["scanned"], first["truncated"]) == ([], 100, True)
    assert (second["tasks"], second["scanned"], second["truncated"], second["next"]) == ([], 80, False, None)


async def test_a_page_that_took_long_enough_says_so(redis_url: str) -> None:
    """With no time a page is a single call to Redis; the default leaves room for the rest of 50 ms."""
    async with running(redis_url, scan_s=0) as api:
        for _ in range(3):
            await api.ask("POST", "/api/v1/tasks:batch", json={"tasks": [EMAIL] * 900})
        await api.submitted(EMAIL | {"tags": ["rare"], "priority": 0})
        page = await get(api, "/tasks?tag=rare")
        pages = [page]
        while page["next"]:
            page = await get(api, f"/tasks?tag=rare&cursor={page['next']}")
            pages.append(page)
    assert [each["scanned"] for each in pages] == [1_000, 1_000, 701]
    assert [each["truncated"] for each in pages] == [True, True, False]
    assert [len(each["tasks"]) for each in pages] == [0, 0, 1]
    assert ApiSettings.from_env({}).scan_s < 0.05


async def test_errors_are_grouped_and_name_the_filter_that_finds_them(redis_url: str) -> None:
    async with running(redis_url) as api:
        often = await fail(api, 3, "no answer " + "x" * 500)
        [once] = await fail(api, 1, trace="")
        answer = await get(api, "/errors")
        found = [await get(api, "/tasks", params={"q": group["filter"]}) for group in answer["errors"]]
        none = await get(api, "/errors?type=other")
    first, second = answer["errors"]
    shown = [first[name] for name in ("type", "exception", "place", "count")]
    assert shown == ["send_email", "SMTPError", "shop/mail.py:send", 3]
    assert first["sample_id"] in often
    assert len(first["message"]) == 200
    assert first["first_at"] <= first["last_at"]
    assert (second["place"], second["count"], second["sample_id"]) == ("-", 1, once)
    assert [{task["id"] for task in each["tasks"]} for each in found] == [set(often), {once}]
    assert (answer["scanned"], answer["truncated"]) == (4, False)
    assert none["errors"] == []


async def test_workers_show_what_they_run(redis_url: str) -> None:
    async with running(redis_url) as api:
        await api.submitted()
        held = await api.submitted(ORDERS)
        await api.worker.claim(1, "orders")
        [worker] = (await get(api, "/workers"))["workers"]
        unknown = await api.get("/api/v1/workers?alive=true")
    assert (worker["worker"], worker["alive"], worker["queues"], worker["held"]) == ("worker-1", True, ["orders"], 1)
    [task] = worker["running"]
    assert (task["id"], task["type"], task["queue"]) == (held, "send_email", "orders")
    assert task["started_at"].endswith("Z")
    assert unknown.code == "bad_query"


async def test_a_list_has_a_head(redis_url: str) -> None:
    async with running(redis_url) as api:
        answer = await api.ask("HEAD", "/api/v1/tasks")
    assert (answer.status, answer.text) == (200, "")
