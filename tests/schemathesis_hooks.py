"""What schemathesis sends is sent as real clients send it, and means something where no schema can say what does.

See tests/schemathesis.toml.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import schemathesis

_KEY: Final = re.compile(r"[!#-~]{1,255}")


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> bytes:
    """An array with each item on a line of its own; what is none, as one line."""
    items = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(each).encode() + b"\n" for each in items)


@schemathesis.hook
def before_call(context: Any, case: Any, **kwargs: Any) -> None:
    """A key that can be one is used once, and numbers are written as JavaScript does, in at most 64 bits."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and _KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if not isinstance(case.body, dict | list):
        return
    case.body = plain(case.body)
    if case.meta and case.meta.generation.mode.is_positive:
        if case.operation.path == "/api/v1/tasks":
            meant(case.body)
        elif case.operation.path == "/api/v1/tasks:batch":
            for each in case.body["tasks"] if isinstance(case.body, dict) else case.body:
                meant(each)
                each.pop("queue", None)


def plain(value: Any) -> Any:
    """The value without whole numbers written as 1.0, and without integers of more than 64 bits."""
    match value:
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case float() if math.isfinite(value) and value == int(value):
            return plain(int(value))
        case int() if not isinstance(value, bool):
            return max(-(2**63), min(value, 2**63 - 1))
        case _:
            return value


def meant(submission: dict[str, Any]) -> None:
    """A submission that is valid, but for what its fields mean together: times lie within a year, and in order."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    if isinstance(submission.get("eta"), str):
        submission["eta"] = soon.isoformat()
        submission.pop("delay", None)
    if isinstance(submission.get("expires"), str):
        submission["expires"] = (soon + timedelta(hours=1)).isoformat()
    if submission.get("expires") is not None and submission.get("delay"):
        del submission["delay"]
    if submission.get("eta") is not None and isinstance(submission.get("expires"), int | float):
        del submission["expires"]
