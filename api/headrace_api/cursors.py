"""Cursors of lists: a position in a list, signed, so that nobody can be led, or lead himself, to another one.

The signature covers the namespace and the filter: a cursor goes on with the list that it came from, or is refused.
It is made with the namespace's secret, so every replica of the API takes those of the others.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from headrace.filters import Filter
from headrace.listing import Position

from .problems import HttpProblem

MAC_BYTES: Final = 16
FORM: Final = r"[A-Za-z0-9_.-]{1,4096}"
"""Of any cursor; told to readers of the OpenAPI document, and checked here, where an error gets a sentence."""


def seal(secret: bytes, namespace: str, filter: Filter, position: Position) -> str:
    """The cursor of this position."""
    text = position.text()
    return f"{text}.{_mac(secret, namespace, filter, text)}"


def unseal(secret: bytes, namespace: str, filter: Filter, cursor: str) -> Position:
    """The position of a cursor. Raises HttpProblem (400) if it is none of this list."""
    text, _, mac = cursor.rpartition(".")
    formed = re.fullmatch(FORM, cursor)
    if formed and hmac.compare_digest(mac.encode(), _mac(secret, namespace, filter, text).encode()):
        return Position.parse(text)
    detail = "The cursor is none of this list: it was cut or changed, or belongs to another filter or namespace."
    raise HttpProblem(400, "bad_cursor", detail, "Send the same filter with each `next`, or begin without a cursor.")


def _mac(secret: bytes, namespace: str, filter: Filter, text: str) -> str:
    parts = [part.encode() for part in ("cursor", namespace, filter.text(), text)]
    message = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return base64.urlsafe_b64encode(hmac.digest(secret, message, hashlib.sha256)[:MAC_BYTES]).decode().rstrip("=")
