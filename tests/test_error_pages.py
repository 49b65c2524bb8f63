"""The pages of docs/errors: one for each code, with answers that the API really gives and sentences of real errors.

`SNAPSHOTS=write pytest tests/test_error_pages.py` records the answers anew; then `make docs`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from api_kit import EMAIL, SCHEMA, Answer, Api, running
from doc_blocks import ROOT
from headrace.broker.connection import RedisError
from headrace.error_base import PAGES, page_of
from headrace.errors import HeadraceError
from headrace.tokens import ApiToken
from headrace_api import auth, body, connections, tasks
from headrace_api.body import read_body
from headrace_api.problems import HttpProblem, Problem, problem_of, unexpected
from headrace_cli.error_codes import COMMANDS, HTTP, PYTHON, known_codes
from headrace_cli.error_examples import ANSWERS, OF_COMMANDS, OF_PYTHON, answers
from headrace_cli.error_page import INSTANCE, REQUEST_ID
from headrace_cli.replay_trace import read_trace
from headrace_operator.pool_file import InvalidPoolFile, read_files

ID: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
SECRETS: Final = {name: f"{name}-has-a-secret-of-16-characters" for name in ("all", "reader", "mail", "slow")}
TOKENS: Final = (
    f"all:{SECRETS['all']} scope=admin\nreader:{SECRETS['reader']} scope=read\n"
    f"mail:{SECRETS['mail']} scope=submit queue=emails\nslow:{SECRETS['slow']} scope=submit rate=1/h"
)
AS_JSON: Final = {"Content-Type": "application/json"}
WRONG: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("malformed_json", "POST /api/v1/tasks", {"data": b'{"type": "send_email", "type": "hello"}', "headers": AS_JSON}),
    ("bad_query", "GET /api/v1/tasks?limti=10", {}),
    ("invalid_filter", "GET /api/v1/tasks?q=stat:failed", {}),
    ("bad_cursor", "GET /api/v1/tasks?cursor=abc", {}),
    ("bad_idempotency_key", "POST /api/v1/tasks", {"json": EMAIL, "headers": {"Idempotency-Key": "a b"}}),
    ("missing_token", "GET /api/v1/tasks", {"headers": {"Authorization": ""}}),
    ("unknown_token", "GET /api/v1/tasks", {"headers": {"Authorization": "Bearer none-that-this-api-has"}}),
    (
        "missing_scope",
        "POST /api/v1/tasks",
        {"json": EMAIL, "headers": {"Authorization": f"Bearer {SECRETS['reader']}"}},
    ),
    (
        "forbidden_queue",
        "POST /api/v1/tasks",
        {"json": EMAIL, "headers": {"Authorization": f"Bearer {SECRETS['mail']}"}},
    ),
    ("unknown_task", f"GET /api/v1/tasks/{ID}", {}),
    ("unknown_queue", "GET /api/v1/queues/defualt", {}),
    ("unknown_type", "GET /api/v1/types/send_mail", {}),
    ("unknown_bulk", f"GET /api/v1/bulk/{ID}", {}),
    ("unknown_route", "GET /api/v1/taks", {}),
    ("wrong_method", "PUT /api/v1/tasks", {}),
    (
        "wrong_count",
        "POST /api/v1/bulk",
        {"json": {"action": "cancel", "filter": "state:pending", "expected_count": 7}},
    ),
    ("too_large", "POST /api/v1/tasks", {"json": EMAIL | {"payload": {"body": "x" * 70_000}}}),
    ("unsupported_media_type", "POST /api/v1/tasks", {"data": b"{}", "headers": {"Content-Type": "text/plain"}}),
    ("unsupported_encoding", "POST /api/v1/tasks", {"json": EMAIL, "headers": {"Content-Encoding": "br"}}),
    ("expectation_failed", "POST /api/v1/tasks", {"json": EMAIL, "headers": {"Expect": "200-maybe"}}),
    ("invalid_request", "PATCH /api/v1/queues/default", {"json": {"rate": "fast"}}),
    ("invalid_task", "POST /api/v1/tasks", {"json": EMAIL | {"priority": "urgent", "dealy": 5}}),
    ("invalid_payload", "POST /api/v1/tasks", {"json": {"type": "send_email", "payload": {"to": "user@example.com"}}}),
]
"""Code, request, and what is wrong with it."""


def neutral(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is another one each time."""
    text = json.dumps(document | {"request_id": REQUEST_ID}, ensure_ascii=False)
    text = text.replace("within 0.3 s", f"within {body.DEADLINE_S:g} s")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", ID, text)
    return dict(json.loads(re.sub(r"in \d{3,4} s", "in 3600 s", text)))


async def provoked(api: Api) -> AsyncIterator[tuple[str, str, Answer]]:
    """(code, request, answer) of each problem that a client can make happen."""
    for code, asked, options in WRONG:
        method, path = asked.split()
        yield code, asked, await api.ask(method, path, **options)
    task = await api.submitted(EMAIL | {"unique": {"key": "order-17"}})
    yield "unique_held", "POST /api/v1/tasks", await api.submit(EMAIL | {"unique": {"key": "order-17"}})
    await api.ask("DELETE", f"/api/v1/tasks/{task}")
    yield "wrong_state", f"POST /api/v1/tasks/{ID}:retry", await api.ask("POST", f"/api/v1/tasks/{task}:retry")
    await api.submitted(EMAIL, Idempotency_Key="order-17")
    yield "task_conflict", "POST /api/v1/tasks", await api.submit(EMAIL | {"priority": 0}, Idempotency_Key="order-17")
    await api.ask("PATCH", "/api/v1/queues/default", json={"max_depth": 1})
    yield "queue_full", "POST /api/v1/tasks", await api.submit(EMAIL)
    slow = {"Authorization": f"Bearer {SECRETS['slow']}"}
    answer = await api.submit(EMAIL, **slow)
    while answer.status != 429 or answer.json["code"] == "queue_full":
        answer = await api.submit(EMAIL, **slow)
    yield "rate_limited", "POST /api/v1/tasks", answer


HEAD: Final = b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BYTES: Final = {
    "bad_http": ("GET /api/v1/tasks HTTP/one", b"GET /api/v1/tasks HTTP/one\r\n\r\n", b""),
    "body_timeout": (f"POST {INSTANCE}", HEAD + b"Content-Length: 50\r\n\r\n", b"{"),
    "bad_body": (f"POST {INSTANCE}", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"0x2\r\n"),
}
"""What no HTTP library sends: at once, and when the body is waited for."""


async def answer_to(api: Api, head: bytes, body: bytes, waited_for: asyncio.Event) -> dict[str, Any]:
    """The document that a server sends before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head)
    if body:
        await waited_for.wait()
        writer.write(body)
    raw = await reader.read()
    writer.close()
    return dict(json.loads(raw.partition(b"\r\n\r\n")[2]))


async def provoked_by_bytes(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    waited_for = asyncio.Event()

    async def impatient(request: Any, limit: int) -> bytes:
        waited_for.set()
        return await read_body(request, limit, 0.3)

    monkeypatch.setattr(tasks, "read_body", impatient)
    async with running(redis_url) as api:
        for code, (asked, head, rest) in BYTES.items():
            waited_for.clear()
            yield code, asked, await answer_to(api, head, rest, waited_for)


def told_by_the_code() -> dict[str, Problem]:
    """Those that take thousands of connections, seconds of silence, or a bug: as the code itself has them."""
    caller = ApiToken("ci", "default", b"", scopes=("submit",))
    return {
        "too_many_connections": connections.TOO_MANY,
        "too_many_of_address": connections.TOO_MANY_OF_YOURS,
        "headers_timeout": connections.TOO_SLOW,
        "too_many_at_once": problem_of(auth._too_many(caller, 50)),
        "internal": unexpected(),
        "store_refused": problem_of(RedisError("NOPERM this user has no permissions to run the 'xadd' command")),
    }


async def test_the_answers_on_the_pages_are_those_that_the_api_gives(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)  # for a machine that is busy
    seen = {}
    async with running(redis_url, SECRETS["all"], tokens=TOKENS) as api:
        await api.worker.publish(
            "send_email", {"schema": SCHEMA, "hash": "x", "queue": "default", "priority": 2, "max_retries": 3}
        )
        await api.submitted(EMAIL)
        async for code, asked, answer in provoked(api):
            assert answer.code == code, answer.text
            seen[code] = {"asked": asked, "answer": neutral(answer.json)}
    async for code, asked, document in provoked_by_bytes(redis_url, monkeypatch):
        assert document["code"] == code
        seen[code] = {"asked": asked, "answer": neutral(document)}
    for code, problem in told_by_the_code().items():
        seen[code] = {"asked": f"POST {INSTANCE}", "answer": json.loads(problem.body(INSTANCE, REQUEST_ID))}
    if os.environ.get("SNAPSHOTS") == "write":
        ANSWERS.write_text(json.dumps(seen, ensure_ascii=False, indent=1) + "\n")
    assert answers() == seen, "SNAPSHOTS=write writes them anew"


def test_every_code_of_http_has_an_answer() -> None:
    """Of a request, or made of an error of its class as the API does it."""
    shown = answers().keys() | {each.code for each in OF_PYTHON}
    assert {each.code for each in HTTP} <= shown


@pytest.mark.parametrize("code", sorted(answers()))
def test_an_answer_has_the_status_and_the_page_of_its_code(code: str) -> None:
    answer = answers()[code]["answer"]
    assert answer["status"] in {each.status for each in HTTP if each.code == code}
    assert answer["type"] == page_of(code)


def test_every_class_and_every_error_of_commands_has_an_example() -> None:
    assert {(type(each).__name__, each.code) for each in OF_PYTHON} == {(each.name, each.code) for each in PYTHON}
    assert {each.code for each in OF_COMMANDS} == {each.code for each in COMMANDS}


def test_there_is_a_page_for_each_code_and_no_other() -> None:
    assert {file.stem for file in (ROOT / "docs/errors").iterdir()} == set(known_codes())


def test_the_address_that_errors_tell_is_that_of_the_page() -> None:
    """As the chart has it for the repository."""
    home = yaml.safe_load((ROOT / "charts/headrace/Chart.yaml").read_text())["home"]
    assert f"{home}/blob/main/docs/errors" == PAGES
    problem = problem_of(HttpProblem(400, "bad_query", "x"))
    file = problem.document().type.removeprefix(f"{home}/blob/main/")
    assert (ROOT / file).is_file()


# -- examples of commands: what they say when it happens (the rest is in test_sentences.py)


def example(code: str) -> str:
    return next(str(each) for each in OF_COMMANDS if each.code == code)


@pytest.mark.parametrize(("code", "kept"), [("app_not_loaded", "no-module"), ("embedded_redis", "no-extra")])
def test_an_example_is_what_was_really_printed(code: str, kept: str) -> None:
    assert f"Error: {example(code)}\n" in (ROOT / f"tests/snapshots/{kept}-pipe.txt").read_text()


def test_the_examples_of_files_are_what_such_files_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.csv").write_text("time,ContextTokens,GeneratedTokens\n1,2,3\n")
    with pytest.raises(HeadraceError, match=re.escape(example("trace"))):
        read_trace(Path("trace.csv"))
    pool = {
        "apiVersion": "headrace.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "emails"},
        "spec": {"queues": [{"name": "emails"}], "scaling": {"maxReplicas": 0},
                 "template": {"spec": {"containers": []}}},
    }  # fmt: skip
    Path("pool.yaml").write_text(yaml.safe_dump(pool))
    with pytest.raises(InvalidPoolFile, match=re.escape(example("invalid_pool_file"))):
        read_files([Path("pool.yaml")], "default")
