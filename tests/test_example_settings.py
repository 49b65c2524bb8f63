"""The settings of the example tasks: defaults that work, and a sentence for each mistake."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from examples.settings import Settings
from examples.ssrf import HostRule
from headrace import ConfigError

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def test_defaults() -> None:
    settings = Settings.from_env({"PATH": "/bin", "HEADRACE_CONCURRENCY": "10"})
    assert (settings.mail.host, settings.mail.port, settings.mail.tls) == ("localhost", 1025, "auto")
    assert settings.images.hosts == (HostRule("*", 443),)
    assert settings.webhooks.hosts == ()
    assert (settings.secrets, settings.images.loopback) == ((), frozenset())
    assert settings.output == Path(".headrace/output").absolute()


def test_lists_are_split_at_commas_and_blanks() -> None:
    settings = Settings.from_env(
        {
            "EXAMPLES_WEBHOOK_HOSTS": "Hooks.Example.org, *.example.net:8443 [2606:4700::1]",
            "EXAMPLES_LOOPBACK": "127.0.0.1:8025,[::1]:8026 localhost:80",
            "EXAMPLES_DENY": "203.0.113.0/24",
            "EXAMPLES_WEBHOOK_SECRETS": f"{SECRET} {SECRET}",
        }
    )
    assert settings.webhooks.hosts == (
        HostRule("hooks.example.org"),
        HostRule("*.example.net", 8443),
        HostRule("2606:4700::1"),
    )
    assert settings.webhooks.loopback == {("127.0.0.1", 8025), ("::1", 8026), ("localhost", 80)}
    assert settings.images.loopback == settings.webhooks.loopback
    assert [str(network) for network in settings.webhooks.denied] == ["203.0.113.0/24"]
    assert settings.secrets == (bytes(range(32)), bytes(range(32)))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SMTP_PORT", "0", "a port from 1 to 65535"),
        ("SMTP_PORT", "smtp", "a port from 1 to 65535"),
        ("SMTP_PORT", "99999999999999", "a port from 1 to 65535"),
        ("SMTP_PORT", "²", "a port from 1 to 65535"),
        ("SMTP_TLS", "yes", "auto, starttls, tls or off"),
        ("MAIL_FROM", "nobody", "one address such as queue@example.org"),
        ("MAIL_FROM", "a@x\r\nBcc: b@y", "one address"),
        ("EXAMPLES_WEBHOOK_HOSTS", "https://example.org", "host names such as api.example.org"),
        ("EXAMPLES_WEBHOOK_HOSTS", "a.*.example.org", "host names such as api.example.org"),
        ("EXAMPLES_WEBHOOK_HOSTS", "example.org:http", "a port from 1 to 65535"),
        ("EXAMPLES_LOOPBACK", "127.0.0.1", "pairs of host and port"),
        ("EXAMPLES_LOOPBACK", "10.0.0.1:80", "pairs on this machine"),
        ("EXAMPLES_LOOPBACK", "metadata.internal:80", "pairs on this machine"),
        ("EXAMPLES_DENY", "cluster", "networks such as"),
        ("EXAMPLES_OUTPUTS", "/tmp/x", "Did you mean EXAMPLES_OUTPUT"),
        ("EXAMPLES_COLOUR", "red", "is not a setting of the example tasks"),
    ],
)
def test_a_bad_value_stops_the_start_with_a_sentence(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Settings.from_env({name: value})
    assert name in str(caught.value)


@pytest.mark.parametrize("secret", ["topsecret", "whsec_topsecret", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_bad_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="24 to 64 random bytes") as caught:
        Settings.from_env({"EXAMPLES_WEBHOOK_SECRETS": secret})
    assert secret.removeprefix("whsec_") not in str(caught.value)


def test_secrets_are_not_in_the_text_of_the_settings() -> None:
    settings = Settings.from_env({"EXAMPLES_WEBHOOK_SECRETS": SECRET, "SMTP_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert repr(settings.secrets[0]) not in repr(settings)


@pytest.mark.parametrize(
    ("host", "tls", "used"),
    [
        ("mail.example.org", "", "starttls"),
        ("mail.example.org", "auto", "starttls"),
        ("mail.example.org", "tls", "tls"),
        ("localhost", "off", "off"),
        ("127.0.0.1", "auto", "auto"),
    ],
)
def test_a_password_crosses_a_network_encrypted_only(host: str, tls: str, used: str) -> None:
    """With `auto` somebody in between could strip the offer of STARTTLS and read the password."""
    settings = Settings.from_env({"SMTP_HOST": host, "SMTP_TLS": tls, "SMTP_USERNAME": "u", "SMTP_PASSWORD": "p"})
    assert settings.mail.tls == used


def test_a_password_without_encryption_is_refused_beyond_loopback() -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        Settings.from_env({"SMTP_HOST": "mail.example.org", "SMTP_TLS": "off", "SMTP_USERNAME": "u"})
