"""What the senseless requests of `fuzz.py` are made of."""

from __future__ import annotations

from typing import Any, Final

ID: Final = "550e8400-e29b-41d4-a716-446655440000"
IDS: Final = (
    ID, f"mail.{ID}", "", "0", "a" * 300, ID.upper(), "%00", "..%2f..", "%c3%28", "🐙", "a:cancel", "*",
)  # fmt: skip
QUEUES: Final = (
    "default", "mail", "a" * 64, "-", "{x}", "A", "%7b", "ö", "a b", "..", "*",
)  # fmt: skip
TYPES: Final = (
    "send_email", "x" * 129, "os.system", "", "__import__", "a\u202eb", "\ud83d\ude00", "type\n",
)  # fmt: skip
QUERIES: Final = (
    "", "wait=0.01", "wait=-1", "wait=nan", "wait=1e999", "limit=0", "limit=99999999999999999999", "limit=x",
    "cursor=x", "cursor=" + "A" * 500, "state=failed", "state=nothing", "queue=mail", "queue=%00", "since=2h",
    "since=yesterday", "type=%ff", "force=true", "force=maybe", "args.a.b=1", "error=(((((", "q=state:failed",
    "q=%22", "a=b&a=c&&&=", "%", "?", "tag=" + "t" * 100, "partial=true", "until=9999-99-99", "dry_run=1",
)  # fmt: skip
HEADERS: Final = (
    ("Idempotency-Key", ("k", '"k"', "", "é", "x" * 256, "a\tb", '"')),
    ("traceparent", ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00", "zz-", "0" * 55)),
    ("X-Request-Id", ("mine", "a b", "x" * 200, "é", "<script>")),
    (
        "Content-Type",
        ("application/json; charset=utf-16", "text/plain", "", "application/json;;;=", "multipart/form-data"),
    ),
    ("Content-Encoding", ("gzip", "identity", "br, gzip", "")),
    ("Accept", ("text/event-stream", "*/*", "application/yaml", ";q=")),
    ("Authorization", ("Bearer x", "Basic eDp5", "Bearer", "é" * 50)),
    ("Prefer", ("wait=0.01", "wait=x", "respond-async", "wait=;;")),
    ("If-None-Match", ('"x"', "*", 'W/"', "é")),
    ("Last-Event-ID", ("0-0", "x", "9" * 40)),
    ("Expect", ("200-ok",)),
    ("Origin", ("https://evil.example",)),
    ("X-Forwarded-For", ("127.0.0.1",)),
)
ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, -(2**63), 10**300, 1e308, 5e-324, "", " ", "\x00",
    "\ud800", "🐙" * 50, "a" * 70_000, [], [[]], {}, {"": {}}, {"a": [1, {"b": None}]}, [None] * 500,
    "2026-01-15T10:30:00Z", "9999-12-31T23:59:59Z", "PT5S", "NaN", "../../etc/passwd",
    "'; DROP TABLE tasks; --", "{{7*7}}", "${jndi:ldap://x}", "%s%n", "\r\nX-Evil: 1",
)  # fmt: skip
FIELDS: Final = (
    "type", "payload", "priority", "max_retries", "queue", "delay", "eta", "tags", "expires", "unique", "id",
    "state", "action", "filter", "ids", "dry_run", "expected_count", "max_depth", "rate", "tasks", "__proto__",
    "constructor", "",
)  # fmt: skip
TEXTS: Final = (
    b"", b"{", b"null", b"[]", b"0", b'"', b'{"type":"a","type":"b"}', b'{"a":NaN}', b'{"a":1e999}',
    b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 5_000, b'{"a":' * 2_000,
    b'{"type":"t","payload":{"a":' + b"9" * 5_000 + b"}}", b'{"type":"\\ud800"}', b"{}{}",
    b'{"tasks":[' + b"{}," * 2_000 + b"{}]}", b"\x00" * 100, b'{"type": "t"' + b" " * 5_000 + b"}",
)  # fmt: skip
