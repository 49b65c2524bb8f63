"""What bad input gets: a 4xx problem document that names the place and the remedy, and nothing is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api_kit import EMAIL, SCHEMA, Answer, running
from test_strict_json import REFUSED

MAIL = json.dumps(EMAIL).encode()


def changed(**fields: Any) -> dict[str, Any]:
    return EMAIL | fields


WRONG_FIELDS: dict[str, tuple[Any, int, str, str, str]] = {
    # name: body, status, code, pointer, a part of detail or hint
    "no object": ([EMAIL], 422, "invalid_task", "", "send an object"),
    "no type": ({"payload": {}}, 422, "invalid_task", "/type", "is required but missing"),
    "an unknown field": (changed(payloads={}), 422, "invalid_task", "/payloads", "did you mean 'payload'?"),
    "state from outside": (changed(state="completed"), 422, "invalid_task", "/state", "is not a field"),
    "an id from outside": (changed(id="x"), 422, "invalid_task", "/id", "known are type, payload"),
    "a type that is a number": (changed(type=5), 422, "invalid_task", "/type", "is a whole number, not text"),
    "a type with spaces": (changed(type="send email"), 422, "invalid_task", "/type", "a letter or '_'"),
    "a type of 129 characters": (changed(type="t" * 129), 422, "invalid_task", "/type", "up to 127"),
    "an empty type": (changed(type=""), 422, "invalid_task", "/type", "a letter or '_'"),
    "a dotted path with a dunder": (changed(type="os.system('x')"), 422, "invalid_task", "/type", "cannot be one"),
    "priority 4": (changed(priority=4), 422, "invalid_task", "/priority", "3 or 'critical'"),
    "priority -1": (changed(priority=-1), 422, "invalid_task", "/priority", "is no priority"),
    "priority as a fraction": (changed(priority=1.5), 422, "invalid_task", "/priority", "not a whole number or text"),
    "priority true": (changed(priority=True), 422, "invalid_task", "/priority", "true or false"),
    "a misspelt priority": (changed(priority="hihg"), 422, "invalid_task", "/priority", "did you mean 'high'?"),
    "payload a list": (changed(payload=[1]), 422, "invalid_task", "/payload", "give the arguments by name"),
    "payload null": (changed(payload=None), 422, "invalid_task", "/payload", "is not an object"),
    "max_retries 101": (changed(max_retries=101), 422, "invalid_task", "/max_retries", "give 0 to 100"),
    "max_retries -1": (changed(max_retries=-1), 422, "invalid_task", "/max_retries", "give 0 to 100"),
    "a queue with a brace": (changed(queue="a}b"), 422, "invalid_task", "/queue", "a letter or digit at both ends"),
    "a queue in capitals": (changed(queue="Mail"), 422, "invalid_task", "/queue", "as in image-resize"),
    "a delay below zero": (changed(delay=-1), 422, "invalid_task", "/delay", "give 0 to"),
    "a delay of two years": (changed(delay=7e7), 422, "invalid_task", "/delay", "give 0 to"),
    "a delay as text": (changed(delay="60"), 422, "invalid_task", "/delay", "is text, not"),
    "delay and eta": (changed(delay=1, eta="2026-01-01T00:00:00Z"), 422, "invalid_task", "/eta", "give one of them"),
    "an eta without zone": (changed(eta="2026-01-01T00:00:00"), 422, "invalid_task", "/eta", "time zone"),
    "an eta that is no time": (changed(eta="tomorrow"), 422, "invalid_task", "/eta", "as in 2026-"),
    "an eta in the year 9999": (changed(eta="9999-12-31T23:59:59Z"), 422, "invalid_task", "/eta", "within a year"),
    "an eta before time began": (changed(eta="0000-00-00T00:00:00Z"), 422, "invalid_task", "/eta", "as in 2026-"),
    "a payload over 64 KiB": (changed(payload={"a": "x" * 65_600}), 413, "too_large", "/payload", "limit is 65536"),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
async def test_a_wrong_field_is_named_with_what_to_do(redis_url: str, name: str) -> None:
    """Status, code, JSON pointer and advice of each field that can be wrong; Redis stays empty."""
    body, status, code, pointer, part = WRONG_FIELDS[name]
    async with running(redis_url) as api:
        answer = await api.submit(body)
        keys = await api.worker.keys()
    assert (answer.status, answer.code) == (status, code), answer.text
    assert part in answer.errors[pointer]
    assert keys == [], "nothing is stored"


async def test_all_wrong_fields_are_named_at_once(redis_url: str) -> None:
    """One answer names every field that is wrong, so nobody mends them one by one."""
    async with running(redis_url) as api:
        answer = await api.submit({"type": "a b", "queue": "Q", "priority": 9, "max_retries": 999, "delay": -1})
    assert set(answer.errors) == {"/type", "/queue", "/priority", "/max_retries", "/delay"}


async def test_a_body_that_is_no_submission_is_not_called_a_task(redis_url: str) -> None:
    """What has no readable type has no name either."""
    async with running(redis_url) as api:
        answer = await api.submit(changed(max_retrys=3))
    assert answer.json["detail"].startswith("The submission is refused: /max_retrys: is not a field")


@pytest.mark.parametrize("name", REFUSED)
async def test_json_with_traps_is_400_and_stores_nothing(redis_url: str, name: str) -> None:
    """Whatever strict_json refuses is a 400, as a body of its own and as a payload."""
    trap, _, _ = REFUSED[name]
    async with running(redis_url) as api:
        whole = await api.submit(trap)
        inside = await api.submit(b'{"type": "send_email", "payload": ' + trap + b"}")
        keys = await api.worker.keys()
    assert (whole.status, whole.code) in {(400, "malformed_json"), (422, "invalid_task")}, whole.text
    assert inside.status == 400 or name == "two documents" or inside.code == "too_large", inside.text
    assert keys == []


async def test_http_that_is_not_json(redis_url: str) -> None:
    """Wrong or missing media type, another charset, compressed bodies: 415 with the remedy."""
    cases: dict[str, dict[str, str]] = {
        "form": {"Content-Type": "application/x-www-form-urlencoded"},
        "text": {"Content-Type": "text/plain; charset=utf-8"},
        "none": {"Content-Type": ""},
        "odd": {"Content-Type": "application/json-patch"},
        "latin": {"Content-Type": "application/json; charset=iso-8859-1"},
        "gzip": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        "identity and gzip": {"Content-Type": "application/json", "Content-Encoding": "identity, gzip"},
    }
    async with running(redis_url) as api:
        answers = {
            name: await api.ask("POST", "/api/v1/tasks", data=MAIL, headers=each) for name, each in cases.items()
        }
        keys = await api.worker.keys()
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(cases, 415)
    assert answers["gzip"].code == "unsupported_encoding"
    assert answers["form"].code == "unsupported_media_type"
    assert answers["form"].json["hint"] == "Send Content-Type: application/json."
    assert keys == []


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.shop+json"],
)
async def test_spellings_of_json_are_accepted(redis_url: str, media_type: str) -> None:
    """Case, charset and +json suffixes make no difference."""
    async with running(redis_url) as api:
        answer = await api.ask("POST", "/api/v1/tasks", data=MAIL, headers={"Content-Type": media_type})
    assert answer.status == 201, answer.text


async def test_a_body_over_its_limit_is_413_with_the_limit_named(redis_url: str) -> None:
    """256 KiB is the limit, whether the length is declared or the body comes in chunks."""

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 20_000

    async with running(redis_url) as api:
        declared = await api.submit(b'{"type": "a", "payload": {}}' + b" " * 262_200)
        headers = {"Content-Type": "application/json"}
        chunked = await api.ask("POST", "/api/v1/tasks", data=chunks(), headers=headers)
        small = await api.submit(b'{"type": "a", "payload": {}}' + b" " * 200_000)
    for answer in (declared, chunked):
        assert (answer.status, answer.code) == (413, "too_large")
        assert "262144" in answer.json["detail"]
    assert small.status == 201


async def test_a_body_that_comes_too_slowly_is_408(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp would wait for ever; ours waits for a deadline, then says so and closes."""
    from headrace_api import body, tasks

    async def impatient(request: Any, limit: int) -> bytes:
        return await body.read_body(request, limit, 0.05)

    monkeypatch.setattr(tasks, "read_body", impatient)
    async with running(redis_url) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = "POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        writer.write(head.encode())
        raw = await reader.read(4_000)
        writer.close()
    assert raw.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in raw


@pytest.mark.parametrize(
    "target",
    [
        b"tasks?error=\xff", b"tasks?q=error:\xff", b"tasks?\xff=1", b"tasks?error=%FF", b"tasks?error=%ED%B3%BF",
        b"errors?error=\xff", b"tasks/\xff", b"tasks/%ff", b"queues/\xff", b"events?type=\xff",
    ],
)  # fmt: skip
async def test_bytes_of_an_address_that_are_no_text_harm_nobody(redis_url: str, target: bytes) -> None:
    """They are refused, or taken for what they can stand for; and no later request gets an answer of theirs."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET /api/v1/" + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        raw = await reader.read(4_000)
        writer.close()
        assert (await api.task(task_id))["status"] == "pending"
    assert int(raw.split()[1]) in {200, 400, 404}, raw


async def test_unknown_paths_and_methods_are_problem_documents(redis_url: str) -> None:
    """404 and 405 of the router, and an Expect nobody understands."""
    async with running(redis_url) as api:
        nowhere = await api.get("/api/v1/taskz")
        method = await api.ask("PUT", "/api/v1/tasks")
        action = await api.ask("POST", "/api/v1/tasks/4e1d42c2-0b52-4b52-9b3c-000000000000:explode")
        expect = await api.submit(EMAIL, Expect="200-maybe")
    assert (nowhere.status, nowhere.code) == (404, "unknown_route")
    assert "/docs" in nowhere.json["hint"]
    assert (method.status, method.code) == (405, "wrong_method")
    assert method.headers["Allow"] == "GET,HEAD,POST"
    assert action.code == "unknown_route"
    assert (expect.status, expect.code) == (417, "expectation_failed")
    assert expect.json["hint"] == "Leave the header out."


@pytest.mark.parametrize(
    "task_id",
    [
        "1",
        "550E8400-E29B-41D4-A716-446655440000",
        "550e8400e29b41d4a716446655440000",
        "default.550e8400-e29b-41d4-a716-446655440000",
        "Mail.550e8400-e29b-41d4-a716-446655440000",
        "a%7Db.550e8400-e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-446655440000%0A",
        "550e8400-e29b-41d4-a716-446655440000",
        "mail.550e8400-e29b-41d4-a716-446655440000",
        "%00",
        "x" * 3_000,
    ],
)
async def test_an_id_of_no_task_is_404_on_every_route(redis_url: str, task_id: str) -> None:
    """Malformed or unknown, all routes answer alike, and none makes anything in Redis but the audit log of changes."""
    path = f"/api/v1/tasks/{task_id}"
    async with running(redis_url) as api:
        answers: list[Answer] = [
            await api.get(path),
            await api.get(path + "?wait=1"),
            await api.ask("DELETE", path),
            await api.ask("POST", path + ":cancel"),
            await api.ask("POST", path + ":retry"),
        ]
        keys = await api.worker.keys()
    assert {(answer.status, answer.code) for answer in answers} == {(404, "unknown_task")}
    assert all(len(answer.text) < 2_000 for answer in answers)
    assert keys == ["hr:{default}:audit"]


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=61", "wait=nan", "wait=inf", "wiat=5", "wait="])
async def test_a_query_that_makes_no_sense_is_400(redis_url: str, query: str) -> None:
    """Parameters are refused with the limit or the right name."""
    async with running(redis_url) as api:
        task_id = await api.submitted()
        answer = await api.get(f"/api/v1/tasks/{task_id}?{query}")
        force = await api.ask("DELETE", f"/api/v1/tasks/{task_id}?force=perhaps")
    assert (answer.status, answer.code) == (400, "bad_query")
    assert (force.status, force.code) == (400, "bad_query")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit: has to be at least 1."),
        ("limit=201", "limit: has to be at most 200."),
        ("limit=many", "limit: is text, not a whole number."),
    ],
)
async def test_a_parameter_out_of_bounds_is_told_in_words(redis_url: str, query: str, said: str) -> None:
    async with running(redis_url) as api:
        answer = await api.get(f"/api/v1/tasks?{query}")
    assert (answer.code, answer.json["detail"]) == ("bad_query", said)


async def test_a_field_out_of_bounds_is_told_in_words(redis_url: str) -> None:
    async with running(redis_url) as api:
        few = await api.ask("POST", "/api/v1/bulk", json={"action": "cancel", "filter": "", "expected_count": -1})
        many = await api.ask("POST", "/api/v1/bulk", json={"action": "cancel", "ids": [""] * 1_001})
    assert few.errors == {"/expected_count": "has to be at least 0 (None)"}
    assert many.errors == {"/ids": "has to have at most 1000 items (None)"}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/api/v1/tasks?wait=5", "GET /api/v1/tasks/{id}?wait=30"),
        ("/api/v1/tasks:batch?delay=60", "known are partial"),
    ],
)
async def test_a_submission_with_a_query_is_400_and_says_what_to_do(redis_url: str, path: str, hint: str) -> None:
    """What a client asks for in the address is not ignored in silence, and nothing is stored."""
    async with running(redis_url) as api:
        answer = await api.ask("POST", path, json=EMAIL)
        keys = await api.worker.keys()
    assert (answer.status, answer.code) == (400, "bad_query")
    assert hint in answer.json["hint"]
    assert keys == []


async def test_wrong_arguments_of_a_known_type_are_named(redis_url: str) -> None:
    """The field is named and the nearest name offered, all errors at once, nothing stored."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        before = await api.worker.keys()
        answer = await api.submit(EMAIL | {"payload": {"recipent": "x", "subject": 5}})
        after = await api.worker.keys()
    assert (answer.status, answer.code) == (422, "invalid_payload")
    assert answer.errors == {
        "/payload/recipent": "is not a field of this type (did you mean 'recipient'?)",
        "/payload/subject": "is a whole number, not text (None)",
        "/payload/recipient": "is required but missing (None)",
        "/payload/body": "is required but missing (None)",
    }
    assert before == after


async def test_unexpected_failures_are_500_without_their_inside(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours shows a request id and nothing else; the log has the trace under that id."""
    from headrace_api import submissions

    def broken(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(submissions, "_accept", broken)
    async with running(redis_url) as api:
        answer = await api.submit(EMAIL, X_Request_Id="my-request-7")
    assert (answer.status, answer.code) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["X-Request-Id"] == "my-request-7"
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.exc_info and "secret inside" in str(record.exc_info[1])
    assert record.__dict__["fields"] == {"request_id": "my-request-7"}


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é", '"'])
async def test_a_request_id_that_could_do_harm_is_replaced(redis_url: str, given: str) -> None:
    """Only harmless characters come back in headers and logs."""
    async with running(redis_url) as api:
        answer = await api.get("/livez", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] != given


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=1&limit=2", "limit stands there 2 times."),
        ("fields=null", "fields is no text."),
        ("fields=payload&fields=payload", "fields stands there 2 times."),
    ],
)
async def test_a_parameter_that_two_readers_could_read_differently_is_400(
    redis_url: str, query: str, words: str
) -> None:
    """Twice, or the word `null`, with which a client meant to say nothing."""
    async with running(redis_url) as api:
        answer = await api.get(f"/api/v1/tasks?{query}")
        twice = await api.get("/api/v1/tasks?tag=a&tag=b&error=null")
    assert (answer.status, answer.code, answer.json["detail"]) == (400, "bad_query", words)
    assert twice.status == 200, "conditions of a filter may stand there twice, and search for any text"
