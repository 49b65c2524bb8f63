"""Which addresses a worker may call on behalf of whoever submitted a task.

A URL in a payload is written by somebody else, and a worker stands inside the network, so an unchecked URL
reads the cloud's metadata service or the neighbour's database (server-side request forgery). Two checks, both
needed:

- `Policy.admit` looks at the URL: scheme, host and port against what the operator of the worker has allowed.
- `Admitted.open_socket` looks at the address that is really connected to. A name can resolve to anything, and
  to something else the second time it is asked, and address literals never reach a resolver; the socket is
  the one place that every spelling passes through.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from yarl import URL

from headrace import Permanent

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A list of our own, because `is_global` of the standard library lets several of these rows pass.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(cidr), why)
    for cidr, why in (
        ("0.0.0.0/8", "means this host"),
        ("10.0.0.0/8", "is private"),
        ("100.64.0.0/10", "is shared address space, where some clouds keep their metadata service"),
        ("127.0.0.0/8", "is loopback"),
        ("168.63.129.16/32", "is the platform service of a cloud"),
        ("169.254.0.0/16", "is link-local, where clouds keep their metadata service"),
        ("172.16.0.0/12", "is private"),
        ("192.0.0.0/24", "is reserved for protocols, and some clouds keep their metadata service there"),
        ("192.0.2.0/24", "is for documentation"),
        ("192.88.99.0/24", "is a 6to4 relay"),
        ("192.168.0.0/16", "is private"),
        ("198.18.0.0/15", "is for benchmarks"),
        ("198.51.100.0/24", "is for documentation"),
        ("203.0.113.0/24", "is for documentation"),
        ("224.0.0.0/4", "is multicast"),
        ("240.0.0.0/4", "is reserved"),
        ("::/128", "means this host"),
        ("::1/128", "is loopback"),
        ("::ffff:0:0/96", "hides an IPv4 address"),
        ("64:ff9b::/96", "hides an IPv4 address (NAT64)"),
        ("64:ff9b:1::/48", "hides an IPv4 address (local NAT64)"),
        ("2001::/32", "hides an IPv4 address (Teredo)"),
        ("2001::/23", "is reserved for protocols"),
        ("2001:db8::/32", "is for documentation"),
        ("2002::/16", "hides an IPv4 address (6to4)"),
        ("3fff::/20", "is for documentation"),
        ("fc00::/7", "is private"),
        ("fe80::/10", "is link-local"),
        ("ff00::/8", "is multicast"),
    )
)
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")


class ForbiddenTarget(Permanent):
    """The URL, or the address behind it, is not one this worker may call. No retry can change that."""


def refusal(address: Address, denied: Iterable[Network] = ()) -> str | None:
    """Why nobody may be sent to `address` ("is private"), or None when it is an ordinary public one.

    `denied` are further networks to refuse: those of the cluster, when they use public addresses.
    """
    for network, why in _REFUSED:
        if address in network:
            return why
    if any(address in network for network in denied):
        return "is in a network that the settings deny"
    if address.version == 6 and address not in _PUBLIC_V6:
        return "is outside the public part of IPv6"
    return None if address.is_global else "is not public"


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of an allow list: `example.org`, `*.example.org` (only below it) or `*`, and one port."""

    pattern: str
    port: int = 443

    def covers(self, host: str, port: int) -> bool:
        """Whether a URL with this host (lower case, no trailing dot) and port is meant."""
        if port != self.port:
            return False
        if self.pattern == "*":
            return True
        if self.pattern.startswith("*."):
            return host.endswith(self.pattern[1:])
        return host == self.pattern


@dataclass(frozen=True, slots=True)
class Policy:
    """What tasks of one kind may call. Nothing is allowed until it is named."""

    setting: str
    """The variable that holds the allow list; refusals name it."""
    hosts: tuple[HostRule, ...] = ()
    """Public hosts, by https only."""
    loopback: frozenset[tuple[str, int]] = frozenset()
    """Host and port pairs on this machine that may be called, also by plain http: targets for development."""
    denied: tuple[Network, ...] = ()
    """Networks refused beyond those that are never public."""

    def admit(self, text: str) -> Admitted:
        """The target of a URL that may be called; the address is still to be checked when it is connected to.

        Raises ForbiddenTarget with a sentence for everything else.
        """
        url = _parse(text)
        host, port = _host(url), url.port
        if host is None or port is None:
            raise ForbiddenTarget("The URL names no host or no valid port; write it as https://host/path.")
        if (host, port) in self.loopback:
            return Admitted(url, self, on_loopback=True)
        if url.scheme != "https":
            raise ForbiddenTarget(f"{host} may be called by https only, not by {url.scheme}.")
        if not any(rule.covers(host, port) for rule in self.hosts):
            raise ForbiddenTarget(
                f"{host}:{port} is not on the allow list of this worker; its operator can add it to {self.setting}."
            )
        return Admitted(url, self, on_loopback=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A URL that the policy allows, and the gate for the sockets that are opened for it."""

    url: URL
    policy: Policy
    on_loopback: bool

    @property
    def name(self) -> str:
        """Scheme, host and port for messages: path and query may hold secrets."""
        return str(self.url.origin())

    def check(self, address: str) -> None:
        """Refuse an address that the name of this target must not lead to; raises ForbiddenTarget."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        if self.on_loopback:
            if not ip.is_loopback:
                raise ForbiddenTarget(f"{self.name} is allowed on loopback only, but leads to {ip}.")
        elif why := refusal(ip, self.policy.denied):
            raise ForbiddenTarget(f"{self.name} leads to {ip}, which {why}; nothing was sent.")

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one resolved address (as `getaddrinfo` gives it); for aiohttp's `socket_factory`.

        What it raises is no OSError on purpose: the connector would go on to the next address of the name.
        """
        family, kind, protocol, _, address = info
        self.check(address[0])
        return socket.socket(family, kind, protocol)


def _parse(text: str) -> URL:
    # Parsers disagree about these characters, and a disagreement is how a check is passed by.
    if any(character <= " " or character in "\\\x7f" for character in text):
        raise ForbiddenTarget("The URL has a space, a backslash or a control character; percent-encode it.")
    try:
        url = URL(text)
    except ValueError as error:
        raise ForbiddenTarget(f"The URL cannot be read: {error}.") from error
    if url.scheme not in ("http", "https"):
        raise ForbiddenTarget(f"The URL must start with https://, not with {url.scheme or 'a path'!r}.")
    if url.user is not None or url.password is not None:
        raise ForbiddenTarget("The URL holds a user name or password; credentials do not belong in a task.")
    return url


def _host(url: URL) -> str | None:
    host = (url.raw_host or "").rstrip(".").lower()
    return host if _HOST.fullmatch(host) else None
