"""The guard against server-side request forgery: no spelling, name, redirect or proxy leads a worker inside."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import BaseTestServer, TestServer

from examples.exchange import Door, Limits, Reply, Request, Unavailable, exchange
from examples.ssrf import ForbiddenTarget, HostRule, Policy, refusal

EVERYWHERE = Policy("EXAMPLES_WEBHOOK_HOSTS", hosts=(HostRule("*"),))

# Each reaches this machine, its network or a metadata service for at least one common parser, resolver or gateway.
SPELLINGS = [
    "127.0.0.1",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "0",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:a9fe:a9fe::1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[100::1]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "168.63.129.16",
    "192.0.0.192",
    "100.100.100.200",
    "10.0.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "localhost",
    "LocalHost",
    "user@127.0.0.1",
    "public.example:443@127.0.0.1",
    "127.0.0.1:443#@public.example",
    "127.0.0.1\\@public.example",
]


class Names(AbstractResolver):
    """Answers each query with the next of its addresses, and counts the queries."""

    def __init__(self, *answers: str | list[str]) -> None:
        self.answers = [answer if isinstance(answer, list) else [answer] for answer in answers]
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers[len(self.asked) % len(self.answers)]
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None: ...


class Canary:
    """A server on loopback that says who came."""

    def __init__(self) -> None:
        self.visits: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.visits.append(request.path)
        return web.Response(text="inside")


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[Canary, BaseTestServer]]:
    """A canary that listens."""
    bird = Canary()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", bird.answer)
    async with TestServer(app) as server:
        yield bird, server


def only(host: str, server: BaseTestServer) -> Policy:
    """A policy that allows one pair on loopback, and any public host."""
    return Policy("EXAMPLES_WEBHOOK_HOSTS", (HostRule("*"),), frozenset({(host, port_of(server))}))


def port_of(server: BaseTestServer) -> int:
    assert server.port is not None
    return server.port


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_an_inner_address_passes_the_guard(spelling: str) -> None:
    """Even where every public host is allowed, each is refused for good, before a socket exists."""
    with pytest.raises(ForbiddenTarget):
        await exchange(Request("GET", f"https://{spelling}/"), Door(EVERYWHERE, Limits(total_s=2)))


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2001:4860:4860::8888"])
def test_public_addresses_are_not_refused(address: str) -> None:
    assert refusal(ipaddress.ip_address(address)) is None


def test_networks_of_the_cluster_can_be_denied_on_top() -> None:
    """A cluster may use public addresses inside, which only its operator knows."""
    cluster = ipaddress.ip_network("93.184.0.0/16")
    assert refusal(ipaddress.ip_address("93.184.216.34"), [cluster]) == "is in a network that the settings deny"
    assert refusal(ipaddress.ip_address("93.185.0.1"), [cluster]) is None


@pytest.mark.parametrize(
    ("rule", "host", "port", "covered"),
    [
        (HostRule("example.org"), "example.org", 443, True),
        (HostRule("example.org"), "api.example.org", 443, False),
        (HostRule("example.org"), "example.org", 8443, False),
        (HostRule("example.org", 8443), "example.org", 8443, True),
        (HostRule("*.example.org"), "api.example.org", 443, True),
        (HostRule("*.example.org"), "example.org", 443, False),
        (HostRule("*.example.org"), "evilexample.org", 443, False),
        (HostRule("*"), "anything.test", 443, True),
        (HostRule("*"), "anything.test", 22, False),
    ],
)
def test_allow_list_rules_cover_exactly_what_they_say(rule: HostRule, host: str, port: int, covered: bool) -> None:
    assert rule.covers(host, port) is covered


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://public.example/", "by https only"),
        ("ftp://public.example/", "must start with https://"),
        ("//public.example/", "must start with https://"),
        ("public.example", "must start with https://"),
        ("file:///etc/passwd", "must start with https://"),
        ("https://public.example:99999/", "cannot be read"),
        ("https:///path", "names no host"),
        ("https://user:secret@public.example/", "credentials do not belong"),
        ("https://public.example/a b", "percent-encode"),
        ("https://public.example/\r\nHost: x", "percent-encode"),
        ("https://public.example:8443/", "public.example:8443 is not on the allow list"),
    ],
)
def test_a_refused_url_is_told_why(url: str, said: str) -> None:
    with pytest.raises(ForbiddenTarget, match=said):
        EVERYWHERE.admit(url)


def test_nothing_is_allowed_until_it_is_named_and_the_refusal_names_the_setting() -> None:
    with pytest.raises(ForbiddenTarget, match="its operator can add it to EXAMPLES_WEBHOOK_HOSTS"):
        Policy("EXAMPLES_WEBHOOK_HOSTS").admit("https://public.example/")


def test_names_are_compared_without_case_and_trailing_dot() -> None:
    policy = Policy("X", (HostRule("hooks.example.org"),))
    assert policy.admit("https://HOOKS.Example.org./a").url.path == "/a"


async def test_a_name_that_leads_inside_is_refused_whatever_else_it_leads_to() -> None:
    """The connector must not go on to the next address of a name, and must not try it first either."""
    names = Names(["169.254.169.254", "93.184.216.34"])
    with pytest.raises(ForbiddenTarget, match=r"leads to 169\.254\.169\.254, which is link-local"):
        await exchange(Request("GET", "https://rebind.example/latest/meta-data"), Door(EVERYWHERE, resolver=names))


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """DNS that flips its answer per query: there is one query, so nothing to flip in between."""
    async with canary() as (bird, server):
        names = Names("127.0.0.1", "169.254.169.254")
        door = Door(only("flip.example", server), Limits(total_s=5), names)
        url = f"http://flip.example:{server.port}/"
        assert (await exchange(Request("GET", url), door)).body == b"inside"
        assert names.asked == ["flip.example"]
        with pytest.raises(ForbiddenTarget, match="allowed on loopback only, but leads to 169"):
            await exchange(Request("GET", url), door)
        assert (names.asked, bird.visits) == (["flip.example"] * 2, ["/"])


async def test_a_public_name_does_not_inherit_the_loopback_of_an_allowed_pair() -> None:
    """An outsider can point a name of his own at 127.0.0.1 and use the port of the development target."""
    async with canary() as (bird, server):
        policy = Policy("X", (HostRule("evil.example", port_of(server)),), frozenset({("127.0.0.1", port_of(server))}))
        with pytest.raises(ForbiddenTarget, match="which is loopback"):
            await exchange(
                Request("GET", f"https://evil.example:{server.port}/"), Door(policy, resolver=Names("127.0.0.1"))
            )
        assert bird.visits == []


async def test_loopback_is_open_for_the_allowed_port_only() -> None:
    async with canary() as (bird, server), canary() as (other, closed):
        door = Door(only("127.0.0.1", server))
        assert (await exchange(Request("GET", f"http://127.0.0.1:{server.port}/"), door)).status == 200
        with pytest.raises(ForbiddenTarget):
            await exchange(Request("GET", f"http://127.0.0.1:{closed.port}/"), door)
        with pytest.raises(ForbiddenTarget):
            await exchange(Request("GET", f"http://localhost:{server.port}/"), door)
        assert (bird.visits, other.visits) == (["/"], [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_the_metadata_service_is_not_followed(status: int) -> None:
    async def away(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://169.254.169.254/latest/meta-data/"})

    app = web.Application()
    app.router.add_get("/", away)
    async with TestServer(app) as server:
        reply = await exchange(Request("GET", f"http://127.0.0.1:{server.port}/"), Door(only("127.0.0.1", server)))
    assert reply.status == status


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect on our behalf, past the guard."""
    async with canary() as (bird, server), canary() as (proxy, elsewhere):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
        reply: Reply = await exchange(
            Request("GET", f"http://127.0.0.1:{server.port}/direct"), Door(only("127.0.0.1", server))
        )
        assert (reply.status, bird.visits, proxy.visits) == (200, ["/direct"], [])


async def test_a_name_without_an_address_is_worth_another_try() -> None:
    """DNS fails for a moment more often than names disappear."""

    class Silent(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            raise OSError(socket.EAI_AGAIN, "temporary failure")

    with pytest.raises(Unavailable, match=r"https://gone\.example could not be reached: its name has no address"):
        await exchange(Request("GET", "https://gone.example/?token=secret"), Door(EVERYWHERE, resolver=Silent("")))


async def test_a_closed_port_is_worth_another_try() -> None:
    async with canary() as (_, server):
        door, url = Door(only("127.0.0.1", server)), f"http://127.0.0.1:{server.port}/"
    with pytest.raises(Unavailable, match="could not be reached"):
        await asyncio.wait_for(exchange(Request("GET", url), door), 5)


def test_the_guard_holds_under_uvloop() -> None:
    """Workers run on uvloop, which opens connections in its own way."""
    uvloop = pytest.importorskip("uvloop")

    async def inside_and_allowed() -> bytes:
        for url in ("https://127.0.0.1/", "https://[64:ff9b::a9fe:a9fe]/", "https://0x7f.1/"):
            with pytest.raises(ForbiddenTarget):
                await exchange(Request("GET", url), Door(EVERYWHERE))
        async with canary() as (_, server):
            door = Door(only("127.0.0.1", server))
            return (await exchange(Request("GET", f"http://127.0.0.1:{server.port}/"), door)).body

    assert uvloop.run(inside_and_allowed()) == b"inside"
