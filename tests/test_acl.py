"""Users of Redis with the least rights: the page has the lines that are made, and they are enough and not more."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import redis as redis_py

from api_kit import Api, running
from conftest import StartRedis
from doc_blocks import blocks
from headrace import App, Ctx, Retry
from headrace.broker.acl import ROLES, Role, commands_in, commands_of, line, lines
from headrace.broker.broker import Queue, Reclaim
from headrace.broker.client import AsyncClient
from headrace.broker.connection import RedisError
from headrace.broker.scripts import all_scripts
from headrace.errors import TaskFailed
from headrace.redis_settings import RedisSettings
from headrace.task import State
from headrace_cli.redis_binary import RedisBinary
from headrace_operator.looker import Looker, Place
from redis_server import _ADMIN, RedisServer
from worker_harness import Desk, working

SECRETS = {name: f"secret-of-{name}-0123" for name in ROLES}


# -- the lists


def test_the_page_has_the_lines_that_are_made() -> None:
    """Else: python -m headrace.broker.acl"""
    shown = [block.text.strip() for block in blocks("docs/how-to/redis.md") if block.kind == "acl"]
    assert shown == [*lines(), "user default off"]


def test_every_script_belongs_to_a_role_and_every_role_names_real_ones() -> None:
    assert set().union(*(role.scripts for role in ROLES.values())) == set(all_scripts())


@pytest.mark.parametrize("name", sorted(all_scripts()))
def test_the_commands_of_a_script_are_found_however_they_are_written(name: str) -> None:
    """A call whose command is no literal would be missed."""
    source = all_scripts()[name].source
    calls = re.findall(r"\b(?:redis\.)?p?call\(([^,)]*)", source)
    assert [each for each in calls if not re.fullmatch(r"'[A-Z]+'", each.strip())] == []
    assert commands_in(name) or not calls


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_no_role_has_a_right_in_general(role: Role) -> None:
    dangerous = {
        "keys",
        "scan",
        "flushall",
        "flushdb",
        "config|get",
        "config|set",
        "acl",
        "debug",
        "shutdown",
        "publish",
    }
    given = line(role, ">x")
    assert not dangerous & set(commands_of(role))
    assert "+@" not in given and "~*" not in given and "&" not in given and "allkeys" not in given


def test_older_servers_are_not_given_what_they_do_not_know() -> None:
    assert "waitaof" not in commands_of(ROLES["api"], (7, 0)) and "waitaof" in commands_of(ROLES["api"], (7, 2))


# -- on real servers


@pytest.fixture
def guarded(start_redis: StartRedis, redis_binary: RedisBinary) -> RedisServer:
    """A server that lets in the four users and nobody else."""
    made = lines((f">{SECRETS[name]}" for name in ROLES), redis=redis_binary.version[:2])
    return start_redis(acl=["user default off", *made])


def url(server: RedisServer, role: str) -> str:
    return server.url_for(f"headrace-{role}", SECRETS[role])


def refused(server: RedisServer) -> list[str]:
    """What Redis refused. redis-py tells its name and version in a way that is optional, and older servers lack."""
    log: list[dict[str, Any]] = server.redis.acl_log()
    said = [f"{each['username']}: {each['reason']} {each['object']}" for each in log]
    return [each for each in said if "client|setinfo" not in each and "client|maint_notifications" not in each]


class Shop:
    """An application with two types, as one process has it: only the address differs."""

    def __init__(self, address: str) -> None:
        self.app = app = App("shop", url=address)

        @app.task(retry=Retry(1, base_s=0.01, cap_s=0.02))
        async def pack(ctx: Ctx, fail: bool = False, wait: bool = False) -> str:
            await ctx.progress(1, 2, "half")
            if wait:
                await asyncio.sleep(60)
            if fail:
                raise OSError("as asked")
            return "packed"

        @app.task()
        async def order() -> str:
            handle = await pack.aenqueue()
            return str(await handle.aget(timeout=10))

        self.pack, self.order = pack, order


async def test_a_task_goes_its_whole_way_under_the_users_of_the_page(guarded: RedisServer) -> None:
    """Client, API, worker and operator, each with its own rights, through all that they do; Redis refuses nothing."""
    worker_url = url(guarded, "worker")
    served = Shop(worker_url)
    async with served.app, working(served.app, worker_url, concurrency=4):
        await the_client(Shop(url(guarded, "client")))
        await asyncio.to_thread(the_synchronous_client, Shop(url(guarded, "client")))
        admin = guarded.url_for(*_ADMIN)
        async with running(admin, door=url(guarded, "api"), max_depth=100) as api:
            await the_api(api)
        await the_operator(guarded)
    assert refused(guarded) == []


async def the_client(shop: Shop) -> None:
    """Submits, waits, looks, cancels, retries, lists."""
    async with shop.app:
        assert await (await shop.order.aenqueue()).aget(timeout=10) == "packed"
        batch = await shop.app.abatch([shop.pack.call(), shop.pack.using(delay=0.05).call()])
        assert await batch.aresults(timeout=10) == ["packed"] * 2
        keyed = [await shop.pack.using(key="k", unique="u").aenqueue() for _ in range(2)]
        assert keyed[0].id == keyed[1].id
        late = await shop.pack.using(delay=600).aenqueue()
        assert await late.aretry() is State.PENDING
        await late.aget(timeout=10)
        later = await shop.pack.using(delay=600).aenqueue()
        assert await later.acancel() is State.CANCELLED
        failed = await shop.pack.aenqueue(fail=True)
        with pytest.raises(TaskFailed):
            await failed.aget(timeout=10)
        assert await failed.aretry() is State.PENDING
        running_one = await shop.pack.aenqueue(wait=True)
        while await running_one.aprogress() is None:  # noqa: ASYNC110 - another process says it
            await asyncio.sleep(0.02)
        await running_one.acancel()
        inspect = shop.app.inspect
        assert [each async for each in inspect.tasks("state:cancelled")]
        assert await inspect.workers() and await inspect.types()
        await inspect.errors()


def the_synchronous_client(shop: Shop) -> None:
    """The same library over redis-py."""
    assert shop.pack.enqueue().get(timeout=10) == "packed"
    assert shop.app.batch([shop.pack.call()]).results(timeout=10) == ["packed"]
    assert list(shop.app.inspect.tasks_sync()) and shop.app.inspect.types_sync()
    shop.app.close()


ROUTES = (
    ("POST", "/api/v1/tasks", {"type": "pack", "payload": {"fail": True}, "max_retries": 0}),
    ("POST", "/api/v1/tasks:batch", {"tasks": [{"type": "pack"}, {"type": "order"}]}),
    ("GET", "/api/v1/tasks/{id}?wait=10", None),
    ("GET", "/api/v1/tasks/{id}/events?seconds=0.05", None),
    ("GET", "/api/v1/events?seconds=0.05", None),
    ("GET", "/api/v1/tasks?filter=state:failed", None),
    ("GET", "/api/v1/errors", None),
    ("GET", "/api/v1/workers", None),
    ("POST", "/api/v1/tasks/{id}:retry", None),
    ("GET", "/api/v1/tasks/{id}?wait=10", None),
    ("DELETE", "/api/v1/tasks/{id}", None),
    ("GET", "/api/v1/queues", None),
    ("PATCH", "/api/v1/queues/default", {"max_depth": 1_000, "rate": "1000/s"}),
    ("POST", "/api/v1/tasks", {"type": "pack", "payload": {"fail": True}, "max_retries": 0}),
    ("PATCH", "/api/v1/queues/default", {"max_depth": None, "rate": None}),
    ("POST", "/api/v1/queues/default:pause", None),
    ("GET", "/api/v1/queues/default", None),
    ("POST", "/api/v1/queues/default:resume", None),
    ("POST", "/api/v1/bulk", {"action": "retry", "filter": "state:failed"}),
    ("POST", "/api/v1/bulk", {"action": "cancel", "filter": "state:pending"}),
    ("GET", "/api/v1/bulk", None),
    ("GET", "/api/v1/bulk/{job}?wait=5", None),
    ("POST", "/api/v1/queues/default:purge", {"tasks": "dead"}),
    ("DELETE", "/api/v1/bulk/{job}", None),
    ("GET", "/api/v1/audit", None),
    ("GET", "/api/v1/types", None),
    ("GET", "/api/v1/types/pack", None),
    ("GET", "/api/v1/stats", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
)


async def the_api(api: Api) -> None:
    """Every kind of route, until none answers that Redis refused something."""
    task_id = job = ""
    for method, path, body in ROUTES:
        filled = path.replace("{id}", task_id).replace("{job}", job)
        headers = {"Idempotency-Key": "k1"} if path.endswith("tasks") and method == "POST" else {}
        answer = await api.ask(method, filled, json=body, headers=headers)
        assert answer.status < 500, f"{method} {path}: {answer.text}"
        if path == "/api/v1/tasks" and method == "POST":
            task_id = answer.json["task_id"]
        if path == "/api/v1/bulk" and method == "POST":
            job = answer.json["id"]


async def the_operator(server: RedisServer) -> None:
    """Looks at a queue, asks for a drain and takes it back, hands on and hands back, waits for a wake-up."""
    redis = RedisSettings.parse(url(server, "operator"), "the test")
    looker, place = Looker({"default": redis}), Place("default", "default", "default")
    found = (await looker.look([place]))[place]
    assert not isinstance(found, Exception), found
    client, queue = AsyncClient(redis), Queue("default")
    await client.call(queue.ask_to_drain(["nobody"]))
    await client.call(queue.release_from_drain(["nobody"]))
    assert await client.call(queue.workers())
    desk = Desk(server.url_for(*_ADMIN))
    other = Queue("other")
    await desk.client.call(other.init())
    elsewhere = Desk(server.url_for(*_ADMIN), "other")
    for _ in range(2):
        await elsewhere.submit("pack")
        await desk.client.call(other.cycle("dead:1", 1))
        assert (await client.call(other.reclaim(Reclaim("dead:1", "*", "n", cause="OOMKilled")))).taken == 1
    await desk.client.call(other.cycle("dead:2", 1))
    await client.call(other.hand_back("dead:2", leave=True))
    await client.command("XREAD", "COUNT", 1, "BLOCK", 10, "STREAMS", other.keys["3"], "$")
    for each in (desk, elsewhere):
        await each.close()
    await client.aclose()
    await looker.aclose()


async def test_an_application_manages_as_the_user_of_the_api_only(guarded: RedisServer) -> None:
    async with Desk(guarded.url_for(*_ADMIN)) as desk:
        await desk.client.call(Queue("default").enlist())
    async with App("shop", url=url(guarded, "api")) as manager, App("shop", url=url(guarded, "client")) as client:
        assert (await manager.queues.pause("default")).paused
        with pytest.raises(RedisError, match=r"NOPERM|ACL failure|can't run"):
            await client.queues.pause("default")
        assert (await manager.queues.resume("default")).changed


DENIED = (
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "x", "on"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("DEBUG", "SLEEP", "1"),
    ("SHUTDOWN",),
    ("REPLICAOF", "NO", "ONE"),
    ("MODULE", "LIST"),
    ("MONITOR",),
    ("PUBLISH", "c", "m"),
    ("SUBSCRIBE", "c"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SWAPDB", "0", "1"),
    ("RENAME", "hr:a", "hr:b"),
    ("XCLAIM", "hr:s", "g", "w", "0", "1-1"),
    ("GET", "elsewhere"),
    ("SET", "elsewhere", "1"),
)
BEYOND = {
    "client": (("XREADGROUP", "GROUP", "g", "w", "STREAMS", "hr:s", ">"), ("BLPOP", "hr:k", "1"), ("LPOP", "hr:k")),
    "api": (("XREADGROUP", "GROUP", "g", "w", "STREAMS", "hr:s", ">"), ("BLPOP", "hr:k", "1")),
    "worker": (("SREM", "hr:q", "x"), ("XTRIM", "hr:s", "MAXLEN", "0")),
    "operator": (("GETSET", "hr:k", "v"), ("ZREVRANGE", "hr:k", "0", "1"), ("BLPOP", "hr:k", "1")),
}


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_has_no_use_for_is_refused(guarded: RedisServer, role: str) -> None:
    let_in = [
        command
        for command in (*DENIED, *BEYOND[role])
        if guarded.redis.execute_command("ACL", "DRYRUN", f"headrace-{role}", *command) in (b"OK", "OK", True)
    ]
    assert let_in == []


def test_a_script_gives_no_right_that_its_caller_lacks(guarded: RedisServer) -> None:
    client = redis_py.Redis.from_url(url(guarded, "operator"))
    with pytest.raises(redis_py.exceptions.ResponseError, match=r"ACL failure|[Nn]o permissions|can't access"):
        client.eval("return redis.call('GET', KEYS[1])", 1, "elsewhere")
    with pytest.raises(redis_py.exceptions.ResponseError):
        client.eval("return redis.call('FLUSHALL')", 0)
    client.close()


async def test_a_tenant_reaches_its_own_namespace_only(start_redis: StartRedis, redis_binary: RedisBinary) -> None:
    role = ROLES["client"]
    rule = line(role, ">tenant-secret", namespace="shop", redis=redis_binary.version[:2])
    server = start_redis(acl=["user default off", rule])
    client = AsyncClient(RedisSettings.parse(server.url_for("headrace-client", "tenant-secret"), "the test"))
    await client.call(Queue("orders", "shop").init())
    await client.call(Queue("orders", "shop").enlist())
    for foreign in (Queue("orders", "bank"), Queue("orders", "shopping")):
        with pytest.raises(RedisError, match="NOPERM"):
            await client.call(foreign.init())
    await client.aclose()
