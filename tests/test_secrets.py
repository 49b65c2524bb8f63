"""Secrets stay where they belong: a canary payload, a token and Redis' password are looked for in all that is said."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import pytest

from chaos.system import Program
from command_line import run
from conftest import StartRedis
from control_plane import ControlPlane
from headrace_cli.ports import free_port
from operator_yard import Yard, operating, seconds_until, yard
from redis_server import RedisServer

PASSWORD: Final = "pass/word-canary-51c7@x"
TOKEN: Final = "token-canary-8d02-0123456789abcdef"
PAYLOAD: Final = "payload-canary-3e9a"
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE: Final = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
TASKS: Final = """
import asyncio, os
from headrace import App, Permanent

app = App("t")

@app.task()
async def keep(secret: str) -> str:
    return secret

@app.task(max_retries=1)
async def fail(secret: str) -> None:
    raise ValueError("no luck")

@app.task(max_retries=0)
def in_a_thread(secret: str) -> None:
    raise Permanent("never")

@app.task(timeout=0.1, max_retries=0)
async def late(secret: str) -> None:
    await asyncio.sleep(60)

@app.task(process=True, max_retries=0)
def in_a_process(secret: str) -> None:
    os._exit(7)

@app.task(max_retries=0)
async def large(secret: str) -> str:
    return secret * 10_000
"""


def spellings(secret: str) -> set[str]:
    """As it is, in an address, in base64, as JSON writes it."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret), quote(secret, safe=""), encoded, json.dumps(secret)[1:-1]}


def told(secret: str, places: dict[str, str]) -> list[str]:
    """Where it can be read."""
    return [name for name, text in places.items() if any(each in text for each in spellings(secret))]


_SHOWN: Final = re.compile(r"GET /api/v1/tasks|(GET|POST) /api/v1/bulk")
"""Whoever may read a task sees its payload, in lists and in its own events too; a bulk job shows the filter that it was
given. In the audit log and in the events of all tasks neither is to be found."""


@dataclass
class Said:
    """All that was answered, by the request: what may show a payload, and what may not."""

    tasks: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


class Shop:
    """Redis, an API and a worker as processes, all of which log all that they have to say."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.api_port, self.worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.said = Said()
        common = {
            "HEADRACE_URL": redis.url,
            "HEADRACE_LOG_LEVEL": "debug",
            "HEADRACE_LOG_FORMAT": "json",
            "PYTHONPATH": str(folder),
        }
        hashed = hashlib.sha256(TOKEN.encode()).hexdigest()
        tokens = {"PORT": str(self.api_port), "HEADRACE_TOKENS": f"shop:{TOKEN}, other:sha256:{hashed[::-1]}"}
        worker = {"HEADRACE_METRICS_PORT": str(self.worker_port), "HEADRACE_BACKOFF_BASE_S": "0.01"}
        self.programs = [
            Program("api", ["api"], common | tokens, folder),
            Program("worker", ["worker", "--app", "secret_tasks"], common | worker, folder),
        ]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = TOKEN,
        raw: bytes | None = None,
        trace: str = TRACE,
    ) -> tuple[int, Any]:
        """One request, whose answer is kept."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "traceparent": trace}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data, headers=headers) as answer,
        ):
            text = await answer.text()
            everything = f"{answer.status} {dict(answer.headers)} {text}"
            place = self.said.tasks if answer.status < 300 and _SHOWN.match(f"{method} {path}") else self.said.others
            place[f"{method} {path} #{len(self.said.others)}"] = everything
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def until_up(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if len((await self.ask("GET", "/api/v1/types"))[1]["types"]) == 6:
                        return
                except (aiohttp.ClientError, KeyError):
                    pass
                await asyncio.sleep(0.1)


@pytest.fixture
def shop(start_redis: StartRedis, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "secret_tasks.py").write_text(TASKS)
    shop = Shop(start_redis(password=PASSWORD), tmp_path)
    for program in shop.programs:
        program.start()
    yield shop
    for program in shop.programs:
        program.kill()


BAD_BODIES: Final = (
    {"type": "keep", "payload": {"secret": [PAYLOAD]}},
    {"type": "keep", "payload": PAYLOAD},
    {"type": "keep", "payload": {"secret": PAYLOAD}, "priority": 99},
    {"type": "keep", "payload": {"secret": PAYLOAD}, "tags": 5},
)


async def everything_happens(shop: Shop) -> None:
    """Success, every kind of failure, refusals, lists and streams, and a Redis that goes away."""
    ids = []
    for type_ in ("keep", "fail", "in_a_thread", "late", "in_a_process", "large"):
        status, made = await shop.ask("POST", "/api/v1/tasks", {"type": type_, "payload": {"secret": PAYLOAD}})
        assert status == 201, made
        ids.append(made["task_id"])
    for task_id in ids:
        status, seen = await shop.ask("GET", f"/api/v1/tasks/{task_id}?wait=20")
        assert seen["status"] in {"completed", "failed"}, seen
    for body in BAD_BODIES:
        assert (await shop.ask("POST", "/api/v1/tasks", body))[0] in {400, 422}
    assert (await shop.ask("POST", "/api/v1/tasks", raw=f'{{"type": "keep", {PAYLOAD}'.encode()))[0] == 400
    assert (await shop.ask("GET", "/api/v1/stats", token=TOKEN[:-1]))[0] == 401
    await shop.ask("GET", f"/api/v1/stats?token={TOKEN}", token="")
    for misplaced in (TOKEN, f"00-{PAYLOAD}-00f067aa0ba902b7-01"):
        body = {"type": "keep", "payload": {"secret": "none"}}
        assert (await shop.ask("POST", "/api/v1/tasks", body, trace=misplaced))[0] == 201
    for path in (
        f"/api/v1/tasks/{ids[0]}/events?seconds=0.1",
        "/api/v1/events?seconds=0.1",
        "/api/v1/tasks",
        "/api/v1/errors",
        "/api/v1/workers",
        "/api/v1/queues/default",
        "/api/v1/stats",
        "/metrics",
        "/health",
        "/openapi.json",
    ):
        await shop.ask("GET", path)
    await shop.ask("POST", "/api/v1/bulk", {"action": "cancel", "filter": f"args.secret:{PAYLOAD}"})
    for path in ("/api/v1/audit", "/api/v1/bulk"):
        await shop.ask("GET", path)
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/livez", "/readyz", "/health"):
            async with session.get(f"http://127.0.0.1:{shop.worker_port}{path}") as answer:
                shop.said.others[f"worker {path}"] = await answer.text()


async def redis_goes_away(shop: Shop) -> None:
    await asyncio.to_thread(shop.redis.kill)
    body = {"type": "keep", "payload": {"secret": PAYLOAD}}
    status, _ = await shop.ask("POST", "/api/v1/tasks", body)
    assert status == 503
    assert (await shop.ask("GET", "/readyz"))[0] == 503
    async with asyncio.timeout(20):
        while "redis://" not in shop.programs[1].log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.1)
    await asyncio.to_thread(shop.redis.start)


def with_a_wrong_one(url: str) -> str:
    """The address with another password, which holds the right one."""
    return url.replace(quote(PASSWORD, safe=""), quote(f"{PASSWORD}-wrong", safe=""))


def commands(shop: Shop) -> dict[str, str]:
    """What people's commands print, with the right password and with a wrong one."""
    found = {}
    for url in (shop.redis.url, with_a_wrong_one(shop.redis.url)):
        for arguments in (("queue", "ls"), ("worker", "--app", "secret_tasks:nothing"), ("types",)):
            done = run(*arguments, cwd=shop.folder, HEADRACE_URL=url)
            found[f"{arguments} {done.returncode}"] = done.stdout + done.stderr
    return found


@pytest.mark.slow
async def test_secrets_are_found_nowhere(shop: Shop) -> None:
    """Payload: only where a task is shown. Token and password: nowhere at all."""
    await shop.until_up()
    await everything_happens(shop)
    await redis_goes_away(shop)
    printed = await asyncio.to_thread(commands, shop)
    for program in shop.programs:
        await asyncio.to_thread(program.stop)
    logs = {program.name: program.log.read_text() for program in shop.programs}
    assert '"level"' in logs["worker"] and "no luck" in logs["worker"], "there is something to look at"
    assert TRACE_ID in logs["worker"], "what is traced is said, and looked through too"
    assert told(PAYLOAD, shop.said.tasks), "the canary was there"
    everywhere = shop.said.others | logs | printed
    assert told(PAYLOAD, everywhere) == []
    assert told(TOKEN, everywhere | shop.said.tasks) == []
    assert told(PASSWORD, everywhere | shop.said.tasks) == []


# the operator


async def seen_in(at: Yard) -> dict[str, str]:
    """All that people see of the pool: its status, its Events, what was made for it."""
    kinds = ("workerpools", "events", "deployments", "pods", "poddisruptionbudgets")
    return {kind: json.dumps(await at.all(kind)) for kind in kinds}


async def reachable(at: Yard, status: str) -> None:
    """Until the pool's condition says so, and an Event has told of something."""

    async def told_so() -> bool:
        return (await at.condition("QueueReachable")).get("status") == status and bool(await at.all("events"))

    await seconds_until(told_so, f"QueueReachable {status}")


async def metrics_of(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


@pytest.mark.slow
async def test_the_operator_tells_no_password(plane: ControlPlane, start_redis: StartRedis, tmp_path: Path) -> None:
    """Neither a wrong one, nor the right one at work, nor when Redis goes away: in its log, metrics and pools."""
    redis, log, port = start_redis(password=PASSWORD), tmp_path / "log", free_port()
    everywhere: dict[str, str] = {}

    async with yard(plane, redis.url) as at:
        await at.submit(60)
        for name, url in (("wrong", with_a_wrong_one(redis.url)), ("right", redis.url)):
            at.redis = url
            async with operating(plane.kubeconfig(), at, log, log_level="debug", metrics_port=str(port)):
                await at.pool()
                await reachable(at, "False" if name == "wrong" else "True")
                everywhere |= {f"{name} {kind}": text for kind, text in (await seen_in(at)).items()}
                everywhere[f"{name} metrics"] = await metrics_of(port)
                if name == "right":
                    await asyncio.to_thread(redis.kill)
                    await reachable(at, "False")
                    everywhere |= {f"away {kind}": text for kind, text in (await seen_in(at)).items()}
                    await asyncio.to_thread(redis.start)
    everywhere["log"] = log.read_text()
    assert '"level"' in everywhere["log"] and "redis://" in everywhere["log"], "there is something to look at"
    assert "QueueReachable" in everywhere["wrong workerpools"]
    assert told(PASSWORD, everywhere) == []


def test_the_search_finds_every_spelling() -> None:
    for spelling in (PASSWORD, quote(PASSWORD, safe=""), base64.b64encode(PASSWORD.encode()).decode()):
        assert told(PASSWORD, {"here": f"x{spelling}y", "not here": "pass/word"}) == ["here"]
