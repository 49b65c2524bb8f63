"""The servers that other tests stand on do what they say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from conftest import StartRedis
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer, SentinelSet, await_true

TAKEN = "Address already in use"


def client(url: str) -> redis.Redis:
    """A client of redis-py, as anyone would make it."""
    return redis.Redis.from_url(url)


def test_the_shared_server_is_empty_and_answers_on_both_addresses(redis_server: RedisServer, redis_url: str) -> None:
    assert redis_server.redis.dbsize() == 0
    with client(redis_url) as tcp, client(redis_server.unix_url) as unix:
        tcp.set("a", "b")
        assert unix.get("a") == b"b"
    assert redis_server.redis.info("server")["process_id"] == redis_server.pid


def test_it_keeps_port_folder_and_data_over_a_kill(start_redis: StartRedis) -> None:
    server = start_redis(appendfsync="always")
    server.redis.set("a", "b")
    url = server.url
    server.kill()
    with pytest.raises(redis.ConnectionError):
        client(url).ping()
    server.start()
    assert server.url == url
    assert server.redis.get("a") == b"b"


def test_it_waits_for_a_port_that_another_holds_a_moment(start_redis: StartRedis) -> None:
    server = start_redis()
    server.stop()
    other = socket.create_server(("127.0.0.1", server.port))

    def leave() -> None:
        with other:
            await_true(lambda: TAKEN in server.log())

    leaving = threading.Thread(target=leave)
    leaving.start()
    server.start()
    leaving.join()
    assert server.redis.ping() and TAKEN in server.log()


def test_a_frozen_server_accepts_and_does_not_answer(start_redis: StartRedis) -> None:
    server = start_redis()
    server.freeze()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as raw:
        raw.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            raw.recv(64)
        server.thaw()
        raw.settimeout(5)
        assert raw.recv(64) == b"+PONG\r\n"


def test_the_shared_server_comes_back_after_a_test_killed_or_froze_it(redis_server: RedisServer) -> None:
    redis_server.kill()
    redis_server.ensure()
    redis_server.freeze()
    redis_server.ensure()
    assert redis_server.redis.ping()


def test_a_password_is_part_of_the_url(start_redis: StartRedis) -> None:
    server = start_redis(password="p@ss/word")
    with client(server.url) as tcp, client(server.unix_url) as unix:
        assert tcp.ping()
        assert unix.ping()
    with pytest.raises(redis.AuthenticationError), client(f"redis://{server.address}") as nobody:
        nobody.ping()


def test_users_of_an_acl_file_have_their_rights_and_the_test_has_all(start_redis: StartRedis) -> None:
    server = start_redis(acl=["user default off", "user app on >secret ~hr:* +set"])
    with client(server.url_for("app", "secret")) as app:
        app.set("hr:a", "b")
        with pytest.raises(redis.exceptions.NoPermissionError):
            app.set("other", "b")
    assert server.redis.get("hr:a") == b"b"


@pytest.mark.parametrize("tls", ["server", "mutual"])
def test_tls_with_and_without_a_certificate_of_the_client(start_redis: StartRedis, tls: str) -> None:
    server = start_redis(tls="mutual") if tls == "mutual" else start_redis(tls="server")
    with client(server.url) as secure:
        assert secure.ping()
    with pytest.raises(redis.ConnectionError), client(f"redis://{server.address}") as plain:
        plain.ping()


def test_full_memory_refuses_writes(start_redis: StartRedis) -> None:
    server = start_redis(maxmemory="1mb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        server.redis.set("a", bytes(1 << 20))
        server.redis.set("b", "c")


def test_a_replica_follows_and_counts_as_a_good_one(start_redis: StartRedis) -> None:
    master = start_redis(min_replicas=1)
    replica = start_redis(replica_of=master)
    await_true(lambda: master.redis.info("replication").get("min_slaves_good_slaves") == 1)
    master.redis.set("a", "b")
    assert master.redis.wait(1, 5000) == 1
    assert replica.redis.get("a") == b"b"


@pytest.mark.slow
def test_sentinels_agree_on_another_master_when_one_dies(redis_binary: RedisBinary) -> None:
    with SentinelSet(redis_binary) as group:
        assert group.master_port() == group.master.port
        group.master.kill()
        await_true(lambda: group.master_port() == group.replica.port)
        await_true(lambda: group.replica.redis.info("replication")["role"] == "master")


@pytest.mark.parametrize(
    ("ci", "code", "said"),
    [
        ("", 0, "skipped: no Redis 7.0 on this machine; Debian 12's package redis-server has it"),
        ("true", 1, "no Redis 7.0 on this machine; Debian 12's package redis-server has it; CI tests on every"),
    ],
)
def test_a_missing_server_is_a_skip_that_is_said_and_in_ci_a_failure(
    tmp_path: Path, ci: str, code: int, said: str
) -> None:
    alone = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "shared_server_is_empty"]
    environment = os.environ | {"PATH": str(tmp_path), "CI": ci}
    run = subprocess.run(alone, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert said in run.stdout
