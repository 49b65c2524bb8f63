"""Mail over SMTP: one message to one recipient, recognisable when it is sent twice."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import formatdate
from typing import Any

import aiosmtplib
import msgspec

from examples.exchange import Unavailable
from examples.settings import MailSettings
from headrace import Permanent

_SHOWN = 200


class _Wire(EmailPolicy):
    """How a message is written for the network: lines end in CRLF, and every byte is ASCII."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        # Up to CPython 3.12.4 the policy loses blanks where it splits a long encoded header; Header keeps them.
        if value.isascii():
            return super().fold_binary(name, value)
        return f"{name}: {Header(value, 'utf-8', header_name=name).encode(linesep=self.linesep)}\r\n".encode()


_WIRE = _Wire(linesep=SMTP.linesep, cte_type="7bit")


class Sent(msgspec.Struct, frozen=True):
    """The mail server took the message."""

    message_id: str
    """Made from the task's id: a second copy, after a crash before the report, carries the same."""
    answer: str
    """What the server said, at most 200 characters."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to send."""

    task_id: str
    recipient: str
    subject: str
    body: str


def compose(mail: Mail, sender: str) -> EmailMessage:
    """The message. Raises Permanent for a recipient that is not one address, or a line break in a header."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = _one_address(mail.recipient)
    message["Subject"] = _one_line("subject", mail.subject)
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = f"<{mail.task_id}@{sender.rpartition('@')[2]}>"
    message.set_content(mail.body)
    return message


def _one_line(field: str, text: str) -> str:
    # A line break would end the header and let the rest of the text pose as further headers.
    if any(unicodedata.category(c) == "Cc" or c in "\u2028\u2029" for c in text):
        raise Permanent(f"The {field} holds a line break or another control character; a header is one line.")
    return text


def _one_address(text: str) -> Address:
    try:
        address = Address(addr_spec=_one_line("recipient", text))
        # A domain in other scripts has an ASCII form that every server takes.
        domain = address.domain if address.domain.isascii() else address.domain.encode("idna").decode()
    except (ValueError, MessageError, IndexError) as error:
        raise _no_address(text) from error
    if not address.username or not domain or len(text) > 320:
        raise _no_address(text)
    return Address(username=address.username, domain=domain)


def _no_address(text: str) -> Permanent:
    return Permanent(f"The recipient {text[:_SHOWN]!r} is not one mail address such as user@example.com.")


async def send(mail: Mail, settings: MailSettings) -> Sent:
    """Hand the message to the server.

    Raises Permanent when it can never be sent (refused with 5xx, not an address), Unavailable when it may be
    later (4xx, no connection, no answer in time).
    """
    message = compose(mail, settings.sender)
    where = f"The mail server {settings.host}:{settings.port}"
    try:
        async with _client(settings) as client:
            _, answer = await client.sendmail(settings.sender, str(message["To"]), message.as_bytes(policy=_WIRE))
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(where, error.recipients[0]) from error
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(where, error) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Unavailable(f"{where} did not take the message: {error}") from error
    return Sent(str(message["Message-ID"]), answer[:_SHOWN])


def _client(settings: MailSettings) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        username=settings.username,
        password=settings.password,
        use_tls=settings.tls == "tls",
        start_tls={"auto": None, "starttls": True, "tls": False, "off": False}[settings.tls],
        timeout=settings.timeout_s,
        # The library's default asks the DNS, and blocks the event loop while it does.
        local_hostname=settings.sender.rpartition("@")[2],
    )


def _refused(where: str, error: aiosmtplib.SMTPResponseException) -> Exception:
    answer = f"{where} answered {error.code} {error.message[:_SHOWN]!r}"
    if 500 <= error.code < 600:
        return Permanent(f"{answer}: it would refuse the message again.")
    return Unavailable(f"{answer}; it will be asked again.")
