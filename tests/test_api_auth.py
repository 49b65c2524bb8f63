"""Tokens: who is let in, into which namespace, and what everyone else is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from api_kit import EMAIL, TOKEN, running
from headrace.errors import BadSetting
from headrace.settings import ApiSettings
from headrace_api.app import ROUTES

OTHER = "another-token-of-16-characters"
TOKENS = f"shop:{TOKEN},bank@bank:{OTHER}"
ID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN} ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer é",
        f"Bearer {'x' * 7_000}",
    ],
)
async def test_a_missing_or_foreign_token_is_401(redis_url: str, header: str) -> None:
    """Whatever is not exactly one known token is turned away with a challenge, before its body is read."""
    async with running(redis_url, tokens=TOKENS) as api:
        answer = await api.submit(b"not even JSON", Authorization=header)
        keys = await api.worker.keys()
    # aiohttp's client strips the outer spaces of a header's value, as HTTP says.
    if header == f"Bearer {TOKEN} ":
        assert answer.status == 400
        return
    assert (answer.status, answer.code) in {(401, "missing_token"), (401, "unknown_token")}
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="headrace"'
    assert keys == []


async def test_two_authorization_headers_are_401(redis_url: str) -> None:
    """Proxy and server might each take another one of them, so neither counts."""
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {OTHER}")]
    async with running(redis_url, tokens=TOKENS) as api:
        answer = await api.get("/api/v1/stats", headers=headers)
    assert (answer.status, answer.code) == (401, "missing_token")


async def test_a_token_in_the_address_is_no_token(redis_url: str) -> None:
    """Addresses end up in logs."""
    async with running(redis_url, tokens=TOKENS) as api:
        answer = await api.get(f"/api/v1/stats?access_token={TOKEN}&token={TOKEN}")
    assert answer.code == "missing_token"
    assert TOKEN not in answer.text


async def test_several_tokens_work_at_once_in_any_case_of_bearer(redis_url: str) -> None:
    """Two live tokens of one subject are how a token is rotated."""
    async with running(redis_url, tokens=f"shop:{TOKEN},shop:{OTHER}") as api:
        for header in (f"Bearer {TOKEN}", f"bearer {OTHER}"):
            assert (await api.submit(EMAIL, Authorization=header)).status == 201
        assert (await api.get("/api/v1/stats", headers={"Authorization": f"BEARER {TOKEN}"})).json["pending"] == 2


async def test_tokens_come_from_a_file_and_may_be_hashes(redis_url: str, tmp_path: Path) -> None:
    """As a mounted Secret has them; who reads the file learns no token."""
    file = tmp_path / "tokens"
    file.write_text(f"shop:sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    async with running(redis_url, TOKEN, tokens_file=str(file)) as api:
        assert (await api.submit(EMAIL)).status == 201


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.open], ids=lambda route: route.path)
async def test_every_route_asks_for_a_token(redis_url: str, route: Any) -> None:
    """Generated from the route table: a new route is guarded, or says that it is open."""
    path = route.path.replace("{id}", ID)
    async with running(redis_url, tokens=TOKENS) as api:
        answer = await api.ask(route.method, path)
    assert answer.code == "missing_token"


async def test_the_open_routes_are_these(redis_url: str) -> None:
    """Probes and Prometheus have no token, and the API's own description is public; nothing else is open."""
    described = {"/openapi.json", "/docs"}
    assert {route.path for route in ROUTES if route.open} == {"/health", "/readyz", "/livez", "/metrics"} | described
    async with running(redis_url, tokens=TOKENS) as api:
        assert {(await api.get(path)).status for path in ("/health", "/readyz", "/livez", "/metrics")} == {200}


async def test_another_namespaces_task_does_not_exist(redis_url: str) -> None:
    """Ids of one namespace are 404 in another, on every route of tasks, and its counts are its own."""
    bank = {"Authorization": f"Bearer {OTHER}"}
    async with running(redis_url, TOKEN, tokens=TOKENS) as api:
        path = f"/api/v1/tasks/{await api.submitted(EMAIL)}"
        answers = [
            await api.get(path, headers=bank),
            await api.ask("DELETE", path, headers=bank),
            await api.ask("POST", path + ":cancel", headers=bank),
            await api.ask("POST", path + ":retry", headers=bank),
        ]
        stats = await api.get("/api/v1/stats", headers=bank)
        own = await api.get(path)
    assert {(answer.status, answer.code) for answer in answers} == {(404, "unknown_task")}
    assert (stats.json["pending"], stats.json["queues"]) == (0, {})
    assert own.json["status"] == "pending"


async def test_the_same_key_in_two_namespaces_makes_two_tasks(redis_url: str) -> None:
    """An idempotency key of one tenant says nothing about another's."""
    async with running(redis_url, tokens=TOKENS) as api:
        ids = [
            await api.submitted(EMAIL, Authorization=f"Bearer {each}", Idempotency_Key="k-1") for each in (TOKEN, OTHER)
        ]
    assert ids[0] != ids[1]


async def test_loopback_without_tokens_is_open(redis_url: str) -> None:
    """`headrace dev` needs no token."""
    async with running(redis_url) as api:
        assert (await api.submit(EMAIL)).status == 201


def test_beyond_loopback_tokens_are_needed_or_auth_none_said() -> None:
    """An API that lets everyone in has to be wanted."""
    with pytest.raises(BadSetting, match="HEADRACE_TOKENS"):
        ApiSettings.from_env({}, host="0.0.0.0")
    assert ApiSettings.from_env({"HEADRACE_AUTH": "none"}, host="0.0.0.0").auth == "none"
    assert ApiSettings.from_env({"HEADRACE_TOKENS": TOKENS}, host="0.0.0.0").tokens
