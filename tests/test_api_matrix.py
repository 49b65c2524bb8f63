"""Who may do what: every route against every role, against a token of other queues, and one of another namespace.

A new route fails here until somebody says, in `EXPECTED`, who may use it and what it names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import pytest

from api_kit import EMAIL, Answer, Api, running
from headrace.redis_settings import RedisSettings
from headrace.settings import ApiSettings
from headrace_api.app import ROUTES, create_app

Least = Literal["open", "read", "submit", "operate", "admin"]
Names = Literal["id", "queue", "body", "bodies", "filter", "job", "type", "nothing"]


@dataclass(frozen=True)
class Row:
    """What is expected of one route."""

    least: Least
    """The narrowest scope that may use it."""
    names: Names
    """How a request names a queue: by the id or the queue in its path, by `queue` in its body or in each of its
    `tasks`, by a filter; by a job that acts on it or a type that goes there (here none
    that exists); or not at all."""
    body: Any = None
    """A body that is in order."""
    query: str = ""
    """So that a stream ends."""


EXPECTED: Final[Mapping[str, Row]] = {
    "POST /api/v1/tasks": Row("submit", "body", EMAIL),
    "POST /api/v1/tasks:batch": Row("submit", "bodies", {"tasks": [EMAIL]}),
    "GET /api/v1/tasks": Row("read", "nothing"),
    "GET /api/v1/errors": Row("read", "nothing"),
    "GET /api/v1/workers": Row("read", "nothing"),
    "GET /api/v1/tasks/{id}": Row("read", "id"),
    "GET /api/v1/tasks/{id}/events": Row("read", "id", query="?seconds=0.05"),
    "GET /api/v1/events": Row("read", "nothing", query="?seconds=0.05"),
    "DELETE /api/v1/tasks/{id}": Row("submit", "id"),
    "POST /api/v1/tasks/{id}:cancel": Row("submit", "id"),
    "POST /api/v1/tasks/{id}:retry": Row("submit", "id"),
    "GET /api/v1/queues": Row("read", "nothing"),
    "GET /api/v1/queues/{queue}": Row("read", "queue"),
    "PATCH /api/v1/queues/{queue}": Row("operate", "queue", {"max_depth": 1_000}),
    "POST /api/v1/queues/{queue}:pause": Row("operate", "queue"),
    "POST /api/v1/queues/{queue}:resume": Row("operate", "queue"),
    "POST /api/v1/queues/{queue}:purge": Row("operate", "queue", {"tasks": "dead", "dry_run": True}),
    "POST /api/v1/bulk": Row("operate", "filter", {"action": "cancel", "dry_run": True}),
    "GET /api/v1/bulk": Row("operate", "nothing"),
    "GET /api/v1/bulk/{job}": Row("operate", "job"),
    "DELETE /api/v1/bulk/{job}": Row("operate", "job"),
    "GET /api/v1/audit": Row("admin", "nothing"),
    "GET /api/v1/types": Row("read", "nothing"),
    "GET /api/v1/types/{type}": Row("read", "type"),
    "GET /api/v1/stats": Row("read", "nothing"),
    "GET /health": Row("open", "nothing"),
    "GET /readyz": Row("open", "nothing"),
    "GET /livez": Row("open", "nothing"),
    "GET /metrics": Row("open", "nothing"),
    "GET /openapi.json": Row("open", "nothing"),
    "GET /docs": Row("open", "nothing"),
}
REFUSED: Final = {"job": "unknown_bulk", "type": "unknown_type"}
"""Codes for what is in a queue that the token does not cover, where it is not `forbidden_queue`."""
MAY: Final[Mapping[Least, set[str]]] = {
    "open": {"", "read", "submit", "operate", "admin"},
    "read": {"read", "operate", "admin"},
    "submit": {"submit", "operate", "admin"},
    "operate": {"operate", "admin"},
    "admin": {"admin"},
}
"""Least scope → roles; "" has no token."""

HIDDEN: Final = "hidden-7f3a"
"""A queue whose name and tasks must not be seen."""
CANARY: Final = EMAIL | {"queue": HIDDEN, "payload": {"recipient": "canary-7f3a"}}
NO_JOB: Final = "0" * 20
NOBODYS: Final = "550e8400-e29b-41d4-a716-446655440000"


def secret_of(name: str) -> str:
    return f"the-secret-of-{name}-0123456789"


TOKENS: Final = ", ".join(
    f"{name}{at}:{secret_of(name)} {options}"
    for name, at, options in [
        ("read", "", "scope=read"),
        ("submit", "", "scope=submit"),
        ("operate", "", "scope=operate"),
        ("admin", "", "scope=admin"),
        ("mine", "", "scope=admin queue=mine-* queue=mine"),
        ("bank", "@bank", "scope=admin"),
    ]
)


@asynccontextmanager
async def with_a_hidden_task(redis_url: str) -> AsyncIterator[tuple[Api, str]]:
    async with running(redis_url, tokens=TOKENS) as api:
        yield api, await api.submitted(CANARY, Authorization=f"Bearer {secret_of('admin')}")


async def ask(api: Api, route: str, role: str, queue: str, task_id: str) -> Answer:
    """A request to this route that names this queue, or a task of it."""
    method, _, path = route.partition(" ")
    row = EXPECTED[route]
    body = row.body
    if row.names == "body":
        body = row.body | {"queue": queue}
    elif row.names == "bodies":
        body = {"tasks": [task | {"queue": queue} for task in row.body["tasks"]]}
    elif row.names == "filter":
        body = row.body | {"filter": f"queue:{queue}"}
    headers = {"Authorization": f"Bearer {secret_of(role)}"} if role else {}
    path = path.replace("{id}", task_id).replace("{queue}", queue).replace("{job}", NO_JOB).replace("{type}", "none")
    return await api.ask(method, path + row.query, json=body, headers=headers)


def test_every_route_is_expected_and_says_so_itself() -> None:
    """The table of routes and this one, written by different hands, agree."""
    told = {f"{route.method} {route.path}": "open" if route.open else route.scope for route in ROUTES}
    assert told == {route: row.least for route, row in EXPECTED.items()}


def test_the_application_serves_these_routes_and_no_others() -> None:
    """Each GET also as a HEAD; so nothing is reachable that these tables do not know."""
    app = create_app(ApiSettings.from_env({}), RedisSettings.parse("redis://127.0.0.1:1", "the test"))
    served = [f"{each.method} {each.resource.canonical}" for each in app.router.routes() if each.resource]
    heads = [route.replace("GET", "HEAD") for route in EXPECTED if route.startswith("GET ")]
    assert sorted(served) == sorted([*EXPECTED, *heads])


async def test_roles_and_routes(redis_url: str) -> None:
    """Each role on each route: 401 without a token, 403 `missing_scope` with a narrower one, else let in."""
    wrong = []
    async with with_a_hidden_task(redis_url) as (api, _):
        for route, row in EXPECTED.items():
            for role in MAY["open"]:
                answer = await ask(api, route, role, "default", NOBODYS)
                code = answer.json["code"] if answer.status in {401, 403} else "in"
                expected = "in" if role in MAY[row.least] else "missing_scope" if role else "missing_token"
                if code != expected:
                    wrong.append((route, role, code, expected))
    assert wrong == []


async def test_a_refusal_says_what_is_needed_and_what_there_is(redis_url: str) -> None:
    """So that one knows what to ask for."""
    async with running(redis_url, tokens=TOKENS) as api:
        answer = await api.submit(EMAIL, Authorization=f"Bearer {secret_of('read')}")
        other = await api.submit(CANARY, Authorization=f"Bearer {secret_of('mine')}")
        keys = await api.worker.keys()
    assert answer.code == "missing_scope"
    assert answer.json["detail"] == "This needs the scope 'submit'; the token 'read' has read."
    assert other.code == "forbidden_queue"
    assert other.json["detail"] == f"The token 'mine' does not cover the queue '{HIDDEN}', only mine-*, mine."
    assert keys == []


async def test_a_token_of_other_queues(redis_url: str) -> None:
    """What names a queue outside its patterns is 403, the same whether it exists or not; lists leave it out."""
    wrong = []
    async with with_a_hidden_task(redis_url) as (api, task_id):
        before = await dump(api, "hr:{default/")
        for route, row in EXPECTED.items():
            answer = await ask(api, route, "mine", HIDDEN, task_id)
            nothing = await ask(api, route, "mine", "nothing-there", f"nothing-there.{NOBODYS}")
            if row.names == "nothing":
                if answer.status != 200 or HIDDEN in answer.text or "canary" in answer.text:
                    wrong.append((route, answer.status, answer.text[:500]))
            elif {answer.code, nothing.code} != {REFUSED.get(row.names, "forbidden_queue")}:
                wrong.append((route, answer.status, answer.text[:500]))
        after = await dump(api, "hr:{default/")
        covered = [await ask(api, route, "mine", "mine-1", f"mine-1.{NOBODYS}") for route in EXPECTED]
    assert wrong == []
    assert before == after
    assert {answer.status for answer in covered} <= {200, 201, 404}


async def test_a_token_of_another_namespace(redis_url: str) -> None:
    """For it nothing of this namespace exists, on no route, and it changes nothing here."""
    wrong = []
    async with with_a_hidden_task(redis_url) as (api, task_id):
        before = await dump(api, "hr:{default")
        # Those that name nothing come first: later on bank's own audit log holds the names it has tried.
        for route, row in sorted(EXPECTED.items(), key=lambda each: each[1].names != "nothing"):
            own = row.names in {"body", "bodies"}  # what it submits goes to a queue of its own
            answer = await ask(api, route, "bank", "vault" if own else HIDDEN, task_id)
            allowed = {"id": {404}, "queue": {404}, "job": {404}, "type": {404}}.get(row.names, {200, 201})
            seen = "canary" in answer.text or (row.names == "nothing" and HIDDEN in answer.text)
            if answer.status not in allowed or seen:
                wrong.append((route, answer.status, answer.text[:500]))
        after = await dump(api, "hr:{default")
    assert wrong == []
    assert before == after


async def dump(api: Api, prefix: str) -> dict[str, bytes]:
    """Every key of Redis that starts so, with what is in it."""
    keys = [key for key in await api.worker.keys() if key.startswith(prefix)]
    return {key: await api.worker.client.command("DUMP", key) for key in keys}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_no_route_lets_foreign_pages_in(redis_url: str, origin: str) -> None:
    """No answer has an Access-Control header, and a browser's question beforehand is 405."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with running(redis_url) as api:
        for route, row in EXPECTED.items():
            method, _, path = route.partition(" ")
            path = path.replace("{id}", NOBODYS).replace("{queue}", "default").replace("{job}", NO_JOB)
            path = path.replace("{type}", "none")
            before = await api.ask("OPTIONS", path, headers=headers)
            answer = await api.ask(method, path + row.query, headers=headers)
            assert before.code == "wrong_method", route
            for each in (before, answer):
                assert not [name for name in each.headers if name.lower().startswith("access-control")], route


@pytest.mark.parametrize("role", ["mine", "bank"])
async def test_jobs_on_foreign_queues_are_neither_seen_nor_aborted(redis_url: str, role: str) -> None:
    """A job of the whole namespace, of one other queue, of single tasks, of no queue: none is this token's affair."""
    own = {"Authorization": f"Bearer {secret_of('admin')}"}
    foreign = {"Authorization": f"Bearer {secret_of(role)}"}
    async with with_a_hidden_task(redis_url) as (api, task_id):
        bodies = [
            {"action": "cancel", "filter": "type:nothing"},
            {"action": "cancel", "filter": f"queue:{HIDDEN} type:nothing"},
            {"action": "retry", "ids": [task_id]},
            {"action": "cancel", "filter": "queue:nowhere args.email:somebody"},
            {"action": "retry", "ids": ["no-id"]},
        ]
        jobs = [(await api.ask("POST", "/api/v1/bulk", json=body, headers=own)).json["id"] for body in bodies]
        listed = await api.get("/api/v1/bulk", headers=foreign)
        asked = [
            await api.ask(method, f"/api/v1/bulk/{job}", headers=foreign)
            for job in jobs
            for method in ("GET", "DELETE")
        ]
        mine = await api.get("/api/v1/bulk", headers=own)
    assert listed.json == {"jobs": []}
    assert {answer.code for answer in asked} == {"unknown_bulk"}
    assert {job["id"] for job in mine.json["jobs"]} == set(jobs)


async def test_a_job_about_no_queue_is_seen_by_who_ordered_it(redis_url: str) -> None:
    """The token covers no queue that there is."""
    own = {"Authorization": f"Bearer {secret_of('mine')}"}
    async with running(redis_url, tokens=TOKENS) as api:
        job = (await api.ask("POST", "/api/v1/bulk", json={"action": "retry", "filter": "type:t"}, headers=own)).json
        shown = await api.get(f"/api/v1/bulk/{job['id']}", headers=own)
        listed = await api.get("/api/v1/bulk", headers=own)
    assert job["queues"] == []
    assert shown.json["id"] == job["id"] == listed.json["jobs"][0]["id"]
