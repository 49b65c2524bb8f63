"""Redis over TLS that asks clients for a certificate: whole tasks, lost connections, Sentinel, and who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from api_kit import running
from conftest import StartRedis
from headrace import App
from headrace.broker.acl import ROLES, lines
from headrace.broker.broker import Queue
from headrace.broker.client import AsyncClient
from headrace.broker.sync_client import SyncClient
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer, Tls, supports_tls
from worker_harness import working

SECRET = "a-secret-of-the-test"


async def test_a_task_goes_its_whole_way_over_tls_with_certificates_and_users(start_redis: StartRedis) -> None:
    """Client, API and worker each with the certificate and as the user of its role; then Redis dies and comes back."""
    version = (7, 0)
    acl = ["user default off", *lines([f">{SECRET}"] * len(ROLES), redis=version)]
    server = start_redis(tls="mutual", appendfsync="always", acl=acl)
    urls = {role: server.url_for(f"headrace-{role}", SECRET) for role in ROLES}
    app, outside = App("t"), App("t", url=urls["client"])

    @app.task()
    async def work(number: int) -> int:
        return number

    @outside.task(name="work")
    async def order(number: int) -> int:
        raise NotImplementedError

    async with working(app, urls["worker"]), running(server.unix_url, door=urls["api"]) as api, outside:
        assert await (await order.aenqueue(number=1)).aget(timeout=10) == 1
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        answer = await api.submit({"type": "work", "payload": {"number": 2}})
        while answer.status == 503:
            answer = await api.submit({"type": "work", "payload": {"number": 2}})
        seen = await api.get(f"/api/v1/tasks/{answer.json['task_id']}?wait=10")
        assert seen.json["result"] == 2
        assert await asyncio.to_thread(lambda: order.enqueue(number=3).get(timeout=10)) == 3


async def test_who_shows_no_certificate_or_trusts_another_authority_is_told_why(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(tls="mutual")
    assert server.tls is not None
    without = f"rediss://{server.address}/0?{urlencode({'ssl_ca_certs': str(server.tls.ca)})}"
    stranger = Tls.issue(tmp_path)
    other = f"rediss://{server.address}/0?{urlencode({'ssl_ca_certs': str(stranger.ca)})}"
    for url, said in ((without, "certificate"), (other, "certificate verify failed|CERTIFICATE_VERIFY_FAILED")):
        client = AsyncClient(RedisSettings.parse(url, "the test"))
        with pytest.raises(StoreUnavailable, match=said):
            await client.command("PING")
        await client.aclose()


async def test_plain_text_to_tls_and_tls_to_plain_text_are_told_apart(start_redis: StartRedis) -> None:
    plain, secret = start_redis(), start_redis(tls="server")
    for url, said in (
        (f"redis://{secret.address}/0", "the address begins with rediss://"),
        (f"rediss://{plain.address}/0", "the address begins with redis://"),
    ):
        client = AsyncClient(RedisSettings.parse(url, "the test"))
        with pytest.raises(StoreUnavailable, match=said):
            await client.command("PING")
        await client.aclose()


class TlsSentinel(RedisServer):
    """Watches one master; speaks TLS only, and asks for a certificate."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__(master.binary)
        self.options["acl"] = []  # what the tests' own client logs in as
        assert master.tls is not None
        files = {"ca-cert-file": master.tls.ca, "cert-file": master.tls.cert, "key-file": master.tls.key}
        text = [
            "port 0",
            f"tls-port {self.port}",
            "tls-auth-clients yes",
            "tls-replication yes",
            *(f"tls-{name} {file}" for name, file in files.items()),
            "bind 127.0.0.1",
            f"unixsocket {self.socket}",
            f"dir {self.folder}",
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(text) + "\n")

    def _command(self) -> list[str]:
        return [str(self.binary.path), str(self.folder / "sentinel.conf"), "--sentinel"]


@pytest.fixture
def behind_sentinel(redis_binary: RedisBinary, start_redis: StartRedis) -> Iterator[str]:
    if not supports_tls(redis_binary):
        pytest.skip(f"{redis_binary} was built without TLS")
    master = start_redis(tls="mutual")
    with TlsSentinel(master) as sentinel:
        query = master.url.partition("?")[2]
        yield f"rediss+sentinel://{sentinel.address}/mymaster/0?{query}"


async def test_sentinels_are_asked_over_tls_with_the_certificate(behind_sentinel: str) -> None:
    """By both clients: who needs a certificate for Redis needs it for the sentinels."""
    settings = RedisSettings.parse(behind_sentinel, "the test")
    client, sync = AsyncClient(settings), SyncClient(settings)
    try:
        await client.call(Queue("default").init())
        assert (await asyncio.to_thread(sync.call, Queue("default").depth())).live == 0
    finally:
        await client.aclose()
        sync.close()
