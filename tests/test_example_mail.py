"""`send_email`: against a real SMTP server on loopback, with everything such a server may answer."""
# ruff: noqa: N802 - aiosmtpd finds its handlers by these names

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from examples.exchange import Unavailable
from examples.mailer import Mail, compose, send
from examples.settings import MailSettings
from headrace import Permanent

MAIL = Mail("550e8400-e29b-41d4-a716-446655440000", "user@example.com", "Hello World", "This is a test email")


@dataclass
class Server:
    """A mail server whose answers a test sets. `taken` are the envelopes it accepted."""

    answers: dict[str, str] = field(default_factory=dict)
    taken: list[Any] = field(default_factory=list)
    silent: asyncio.Event | None = None

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.silent:
            await self.silent.wait()
        if "DATA" not in self.answers:
            self.taken.append(envelope)
        return self.answers.get("DATA", "250 taken")

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        return self.answers.get("QUIT", "221 Bye")

    def message(self) -> EmailMessage:
        """The one message that was taken."""
        [envelope] = self.taken
        parsed = message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@asynccontextmanager
async def mail_server(server: Server, **options: Any) -> AsyncIterator[MailSettings]:
    """Starts `server` on a free port; yields the settings that lead there."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: SMTP(server, hostname="mail.test", loop=loop, **options), "127.0.0.1", 0
    )
    async with listener:
        yield MailSettings(host="127.0.0.1", port=listener.sockets[0].getsockname()[1], timeout_s=5)


async def test_the_contracts_example_arrives() -> None:
    server = Server()
    async with mail_server(server) as settings:
        sent = await send(MAIL, settings)
    [envelope] = server.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("headrace@localhost", ["user@example.com"])
    message = server.message()
    assert (message["To"], message["Subject"]) == ("user@example.com", "Hello World")
    assert message.get_content() == "This is a test email\n"
    assert sent.answer == "taken"


async def test_a_second_copy_carries_the_same_message_id() -> None:
    server = Server()
    async with mail_server(server) as settings:
        first, second = await send(MAIL, settings), await send(MAIL, settings)
        other = await send(replace(MAIL, task_id="5b0ae9f2-0000-4000-8000-000000000000"), settings)
    ids = [message_from_bytes(envelope.content)["Message-ID"] for envelope in server.taken]
    assert ids == [first.message_id, second.message_id, other.message_id]
    assert first.message_id == second.message_id == f"<{MAIL.task_id}@localhost>" != other.message_id


async def test_text_of_every_script_arrives_unchanged() -> None:
    server = Server()
    body = "Grüße, 水車 \U0001f30a\n" + "long " * 500 + "\n.\n..\nFrom here on\n"
    async with mail_server(server) as settings:
        await send(replace(MAIL, subject="Grüße 水車 " * 20, body=body), settings)
    assert str(server.message()["Subject"]).strip() == ("Grüße 水車 " * 20).strip()
    assert max(map(len, server.taken[0].content.splitlines())) < 100, "no line is near the limit of 998"
    assert server.message().get_content() == body


async def test_a_server_that_takes_ascii_only_is_served_too() -> None:
    server = Server()
    async with mail_server(server) as settings:
        await send(replace(MAIL, subject="Grüße", body="short, but 水車"), settings)
    [envelope] = server.taken
    assert envelope.content.isascii()
    assert server.message().get_content() == "short, but 水車\n"


@pytest.mark.parametrize("end", ["\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\r", "\r\n\x00.\r\n"])
async def test_the_body_cannot_end_the_message_and_begin_another(end: str) -> None:
    """SMTP smuggling: a lone dot ends a message, and servers differ in which line ends they take."""
    wire = bytearray()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each line well, and keep what comes after DATA up to the end that the standard names."""
        writer.write(b"220 mail.test\r\n")
        while (line := await reader.readline()) and not line.startswith(b"DATA"):
            writer.write(b"250 OK\r\n")
        writer.write(b"354 go on\r\n")
        wire.extend(await reader.readuntil(b"\r\n.\r\n"))
        writer.write(b"250 taken\r\n")
        wire.extend(await reader.readline())
        writer.write(b"221 Bye\r\n")
        writer.close()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as server:
        settings = MailSettings(host="127.0.0.1", port=server.sockets[0].getsockname()[1], timeout_s=5)
        await send(replace(MAIL, body=f"hello{end}MAIL FROM:<evil@x>\r\n"), settings)
    content = bytes(wire)
    assert content.endswith(b"\r\n.\r\nQUIT\r\n"), "nothing follows the message"
    message = content.removesuffix(b"\r\n.\r\nQUIT\r\n")
    assert b"MAIL FROM:<evil@x>" in message
    assert not re.search(rb"[\r\n]\.[\r\n]", message), "no line is a lone dot, by any reading of a line"
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message), "every line ends as the standard says"


@pytest.mark.parametrize("field", ["recipient", "subject"])
@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028"])
def test_a_line_break_in_a_header_is_refused(field: str, break_: str) -> None:
    """It would add headers of the submitter's choice, such as a Bcc."""
    text = f"user@example.com{break_}Bcc: victim@example.org"
    with pytest.raises(Permanent, match=f"The {field} holds a line break"):
        compose(replace(MAIL, **{field: text}), "headrace@localhost")


@pytest.mark.parametrize(
    "recipient",
    [
        *("", "user", "@example.com", "user@", "a@x, b@y", "a@x;b@y", "Joe <a@x>", "<a@x>", "a b@x", "a@b@c"),
        *("ü@example.com", "user@" + "x" * 320, "user@" + "ü" * 70),
    ],
)
def test_a_recipient_is_exactly_one_address(recipient: str) -> None:
    with pytest.raises(Permanent, match=r"is not one mail address such as user@example\.com"):
        compose(replace(MAIL, recipient=recipient), "headrace@localhost")


def test_a_domain_in_other_scripts_is_written_in_ascii() -> None:
    assert compose(replace(MAIL, recipient="user@mühle.example"), "q@x")["To"] == "user@xn--mhle-0ra.example"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_refusal_for_now_is_tried_again(step: str) -> None:
    server = Server({step: "451 come back later"})
    async with mail_server(server) as settings:
        with pytest.raises(Unavailable, match="answered 451 'come back later'"):
            await send(MAIL, settings)
    assert server.taken == []


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_refusal_for_good_is_permanent(step: str) -> None:
    server = Server({step: "550 no such user"})
    async with mail_server(server) as settings:
        with pytest.raises(Permanent, match="answered 550 'no such user'"):
            await send(MAIL, settings)


async def test_trouble_after_the_message_was_taken_does_not_send_it_again() -> None:
    server = Server({"QUIT": "451 not now"})
    async with mail_server(server) as settings:
        assert (await send(MAIL, settings)).answer == "taken"
    assert len(server.taken) == 1


async def test_a_server_that_does_not_answer_is_tried_again() -> None:
    server = Server(silent=asyncio.Event())
    async with mail_server(server) as settings:
        with pytest.raises(Unavailable, match="did not take the message"):
            await send(MAIL, replace(settings, timeout_s=0.1))
        assert server.silent
        server.silent.set()


async def test_a_server_that_is_away_is_tried_again() -> None:
    async with mail_server(Server()) as settings:
        pass
    with pytest.raises(Unavailable, match=f"The mail server 127.0.0.1:{settings.port} did not take the message"):
        await send(MAIL, settings)


async def test_a_server_that_is_no_mail_server_is_tried_again() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable):
            await send(MAIL, MailSettings(host="127.0.0.1", port=port, timeout_s=5))


async def test_starttls_that_is_required_and_not_offered_sends_nothing() -> None:
    server = Server()
    async with mail_server(server) as settings:
        with pytest.raises(Unavailable, match="STARTTLS"):
            await send(MAIL, replace(settings, tls="starttls"))
    assert server.taken == []


async def test_login_over_starttls(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """With the right password the mail is taken; with a wrong one it never will be."""
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert session.ssl is not None
        right = isinstance(data, LoginPassword) and data.password == b"right"
        return AuthResult(success=right, handled=False)

    server = Server()
    async with mail_server(server, tls_context=tls, authenticator=authenticate, auth_required=True) as settings:
        secure = replace(settings, tls="starttls", username="queue")
        await send(MAIL, replace(secure, password="right"))
        assert len(server.taken) == 1
        with pytest.raises(Permanent, match="535"):
            await send(MAIL, replace(secure, password="wrong"))
