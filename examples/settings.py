"""The settings of the example tasks: read once from the environment, when a worker starts."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from examples.ssrf import HostRule, Network, Policy
from headrace import BadSetting, ConfigError
from headrace.errors import nearest

Tls = Literal["auto", "starttls", "tls", "off"]

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_NAMES: Final = (
    "EXAMPLES_OUTPUT",
    "EXAMPLES_IMAGE_HOSTS",
    "EXAMPLES_WEBHOOK_HOSTS",
    "EXAMPLES_WEBHOOK_SECRETS",
    "EXAMPLES_LOOPBACK",
    "EXAMPLES_DENY",
)


@dataclass(frozen=True, slots=True)
class MailSettings:
    """The mail server that `send_email` hands its messages to."""

    host: str = "localhost"
    """SMTP_HOST."""
    port: int = 1025
    """SMTP_PORT, 1 to 65535."""
    tls: Tls = "auto"
    """SMTP_TLS: `auto` (STARTTLS when offered), `starttls` (or fail), `tls` (from the first byte), `off`."""
    username: str | None = None
    """SMTP_USERNAME; empty means no login."""
    password: str | None = field(default=None, repr=False)
    """SMTP_PASSWORD."""
    sender: str = "headrace@localhost"
    """MAIL_FROM: the address in From; its domain ends the Message-ID."""
    timeout_s: float = 10.0
    """For each step of the conversation, in seconds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the example tasks are told from outside."""

    mail: MailSettings
    images: Policy
    """EXAMPLES_IMAGE_HOSTS, default `*`: any public host. A fetch gives away nothing but that it happens."""
    webhooks: Policy
    """EXAMPLES_WEBHOOK_HOSTS, default none: a webhook carries data of the submitter's choice outside."""
    secrets: tuple[bytes, ...] = field(repr=False)
    """EXAMPLES_WEBHOOK_SECRETS: `whsec_…`; two of them while one is being replaced by the other."""
    output: Path
    """EXAMPLES_OUTPUT, default `.headrace/output`: where images and exports are written."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read all variables; raises ConfigError that names the variable, what is wrong and the remedy."""
        _refuse_unknown(environ)
        return cls(
            mail=_mail(environ),
            images=_policy(environ, "EXAMPLES_IMAGE_HOSTS", default="*"),
            webhooks=_policy(environ, "EXAMPLES_WEBHOOK_HOSTS", default=""),
            secrets=_secrets(environ.get("EXAMPLES_WEBHOOK_SECRETS", "")),
            output=Path(environ.get("EXAMPLES_OUTPUT") or ".headrace/output").absolute(),
        )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in environ:
        if name.startswith("EXAMPLES_") and name not in _NAMES:
            meant = nearest(name, _NAMES)
            remedy = f"Did you mean {meant}" if meant else f"Remove it; there are {', '.join(_NAMES)}"
            raise ConfigError(f"{name} (from the environment) is not a setting of the example tasks", remedy)


def _bad(name: str, value: str | None, allowed: str, remedy: str = "") -> BadSetting:
    return BadSetting(name, value, "the environment", allowed, remedy)


def _mail(environ: Mapping[str, str]) -> MailSettings:
    host = environ.get("SMTP_HOST") or "localhost"
    username = environ.get("SMTP_USERNAME") or None
    return MailSettings(
        host=host,
        port=_port("SMTP_PORT", environ.get("SMTP_PORT") or "1025"),
        tls=_tls(environ.get("SMTP_TLS") or "auto", host, logs_in=username is not None),
        username=username,
        password=environ.get("SMTP_PASSWORD") or None,
        sender=_sender(environ.get("MAIL_FROM") or "headrace@localhost"),
    )


def _tls(text: str, host: str, *, logs_in: bool) -> Tls:
    for mode in get_args(Tls):
        if mode == text:
            break
    else:
        raise _bad("SMTP_TLS", text, "auto, starttls, tls or off")
    if not logs_in or host in _LOOPBACK_NAMES or mode in ("starttls", "tls"):
        return mode  # type: ignore[no-any-return]
    if mode == "off":
        raise _bad(
            "SMTP_TLS",
            text,
            "starttls or tls when SMTP_USERNAME is set",
            "Set SMTP_TLS=starttls; without it the password would cross the network in the clear",
        )
    # Whoever sits in between could strip the offer of STARTTLS and be shown the password.
    return "starttls"


def _sender(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not local or not domain or not text.isascii() or any(c.isspace() or c in ",<>" for c in text):
        raise _bad("MAIL_FROM", text, "one address such as queue@example.org")
    return text


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise _bad(name, text, "a port from 1 to 65535")
    return int(text)


def _policy(environ: Mapping[str, str], name: str, default: str) -> Policy:
    return Policy(
        setting=name,
        hosts=tuple(_host_rule(name, word) for word in _words(environ.get(name, default))),
        loopback=frozenset(_pair(word) for word in _words(environ.get("EXAMPLES_LOOPBACK", ""))),
        denied=tuple(_network(word) for word in _words(environ.get("EXAMPLES_DENY", ""))),
    )


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _split_port(name: str, word: str, default: str | None) -> tuple[str, int]:
    head, colon, tail = word.rpartition(":")
    if not colon or tail.endswith("]"):
        head, tail = word, default or ""
    host = head.removeprefix("[").removesuffix("]").rstrip(".").lower()
    return host, _port(name, tail)


def _host_rule(name: str, word: str) -> HostRule:
    host, port = ("", 0) if "/" in word else _split_port(name, word, "443")
    if not host or "*" in host.removeprefix("*"):
        raise _bad(name, word, "host names such as api.example.org, *.example.org, example.org:8443 or *")
    return HostRule(host, port)


def _pair(word: str) -> tuple[str, int]:
    if ":" not in word:
        raise _bad("EXAMPLES_LOOPBACK", word, "pairs of host and port such as 127.0.0.1:8025")
    host, port = _split_port("EXAMPLES_LOOPBACK", word, None)
    if host != "localhost" and not _is_loopback(host):
        raise _bad("EXAMPLES_LOOPBACK", word, "pairs on this machine: localhost, 127.0.0.1 or [::1], and a port")
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise _bad("EXAMPLES_DENY", word, "networks such as 203.0.113.0/24") from None


def _secrets(text: str) -> tuple[bytes, ...]:
    return tuple(_secret(word) for word in _words(text))


def _secret(word: str) -> bytes:
    allowed = "`whsec_` and 24 to 64 random bytes in base64"
    try:
        key = base64.b64decode(word.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise _bad("EXAMPLES_WEBHOOK_SECRETS", None, allowed) from None
    if not word.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise _bad("EXAMPLES_WEBHOOK_SECRETS", None, allowed)
    return key
