"""What schemathesis sends is sent as real clients send it: see tests/schemathesis.toml."""

from __future__ import annotations

import math
import re
import uuid
from typing import Any, Final

import schemathesis

_KEY: Final = re.compile(r"[!#-~]{1,255}")


@schemathesis.hook
def before_call(context: Any, case: Any, **kwargs: Any) -> None:
    """A key that can be one is used once, and numbers are written as JavaScript does, in at most 64 bits."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and _KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if isinstance(case.body, dict | list):
        case.body = plain(case.body)


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
