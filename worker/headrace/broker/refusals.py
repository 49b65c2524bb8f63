"""What a person can do about a command that Redis refuses."""

from __future__ import annotations

from typing import Final

_REMEDIES: Final = (
    (
        ("NOAUTH", "HELLO must be called", "Authentication required"),
        "It wants a password: write it into HEADRACE_REDIS_PASSWORD, or into the address (redis://:PASSWORD@host).",
    ),
    (
        ("AUTH <password> called without", "ERR AUTH <password> called without"),
        "It has no password: take yours out of the address and out of HEADRACE_REDIS_PASSWORD.",
    ),
    (
        ("WRONGPASS", "invalid username-password"),
        "Correct the user or the password in the address, or in HEADRACE_REDIS_PASSWORD.",
    ),
    (
        ("ERR DB index", "DB index"),
        "It has fewer databases: correct the number at the end of the address.",
    ),
    (
        ("NOPERM", "this user has no permissions", "User "),
        "Give its user that right; docs/how-to/redis.md lists what each part needs.",
    ),
)
"""How a reply begins, with and without the first word, which redis-py cuts off, and what mends it."""


def remedied(text: str) -> str:
    """The reply as a sentence, with what to do about it where that is known."""
    known = (remedy for beginnings, remedy in _REMEDIES if text.startswith(beginnings))
    return " ".join([f"{text.rstrip('.')}.", *known])
