"""What each error means and what to do about it: the source of docs/errors.md (`make docs`) and of `headrace explain`.

A new code stands here, or in error_codes_http.py if the API answers with it; tests name those that are missing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .error_codes_http import HTTP, Told

__all__ = ["COMMANDS", "HTTP", "PYTHON", "Raised", "Told", "known_codes"]


class Raised(NamedTuple):
    """One class of `headrace.errors`."""

    name: str
    code: str
    happened: str
    remedy: str


PYTHON: Final = (
    Raised(
        "ConfigError",
        "config",
        "something that was configured cannot be used; its subclasses:",
        "correct what the sentence names",
    ),
    Raised(
        "UnknownSetting",
        "unknown_setting",
        "a `HEADRACE_…` variable that nothing reads: most likely a slip of the pen",
        "correct the name, or remove the variable",
    ),
    Raised(
        "BadSetting",
        "bad_setting",
        "a setting has a value that it cannot have",
        "give it one of the values that the sentence allows",
    ),
    Raised(
        "BadDefinition",
        "bad_definition",
        "a task function, middleware or `deps` that cannot work; raised at import",
        "correct the line that the sentence names",
    ),
    Raised(
        "InvalidTask",
        "invalid_task",
        "a submission is wrong, and would be again; `.errors` says where. Its subclasses:",
        "correct what `.errors` names",
    ),
    Raised("InvalidPayload", "invalid_payload", "the arguments do not fit the function", "correct the arguments"),
    Raised(
        "TooLarge",
        "too_large",
        "payload, result or batch is over its limit",
        "put large data where the worker can fetch it, and pass its address",
    ),
    Raised(
        "TaskConflict",
        "task_conflict",
        "the id or key belongs to another submission",
        "a new id or key for a new submission; the same submission for the same id",
    ),
    Raised(
        "QueueFull",
        "queue_full",
        "the queue has its limit of live tasks",
        "try again later; start more workers, or raise `HEADRACE_MAX_DEPTH`",
    ),
    Raised(
        "StoreUnavailable",
        "store_unavailable",
        "Redis cannot be reached; its subclasses:",
        "start Redis, or correct the address; the sentence says where it came from",
    ),
    Raised(
        "StoreFull",
        "store_full",
        "Redis refuses writes for want of memory or disk",
        "give Redis memory or disk, or wait until workers have drained the queue",
    ),
    Raised(
        "StoreTimeout",
        "store_timeout",
        "Redis did not answer in time",
        "repeat it with the same id, which stores it once",
    ),
    Raised(
        "DurabilityUnconfirmed",
        "durability_unconfirmed",
        "stored, but not confirmed; send the same id again",
        "send it again with the same ids",
    ),
    Raised(
        "InvalidFilter",
        "invalid_filter",
        "a filter cannot be understood; `.errors` says where",
        "correct the word that the sentence names",
    ),
    Raised(
        "InvalidRequest",
        "invalid_request",
        "an order about queues or many tasks is wrong; `.errors` says where",
        "correct what `.errors` names",
    ),
    Raised(
        "UnknownTask",
        "unknown_task",
        "no task has this id any more",
        "check the id; records are kept for `HEADRACE_RETENTION_S`",
    ),
    Raised(
        "UnknownQueue",
        "unknown_queue",
        "the namespace has no such queue, or none can be called so",
        "see `headrace queue ls`",
    ),
    Raised("UnknownType", "unknown_type", "no worker has published such a type", "see `headrace types`"),
    Raised("UnknownBulk", "unknown_bulk", "no bulk job has this id any more", "see `GET /api/v1/bulk`"),
    Raised(
        "WrongCount",
        "wrong_count",
        "a bulk order fits another number of tasks than was expected; nothing was done",
        "look at what changed, and order it again",
    ),
    Raised(
        "TooManyBulks",
        "too_many_bulks",
        "as many bulk jobs run as may at once",
        "wait until one has ended, or abort one",
    ),
    Raised(
        "WrongState",
        "wrong_state",
        "the task's state does not allow it",
        "look at the task (`headrace task get`), and decide",
    ),
    Raised(
        "TaskFailed",
        "task_failed",
        "`Handle.get`: it ended in the dead letter",
        "look at its error (`headrace task get`); `headrace task retry` starts it over",
    ),
    Raised(
        "TaskCancelled",
        "task_cancelled",
        "`Handle.get`: it was cancelled; its subclass:",
        "submit it anew if it is still wanted",
    ),
    Raised(
        "TaskExpired",
        "task_expired",
        "`Handle.get`: nobody had begun it when its `expires` passed",
        "give it more time by `expires`, or start more workers",
    ),
    Raised(
        "ResultTimeout",
        "result_timeout",
        "`Handle.get`: it has not ended yet; a `TimeoutError` too",
        "wait longer, or see that a worker serves its queue (`headrace workers`)",
    ),
    Raised(
        "InvalidResult",
        "invalid_result",
        "`Handle.get`: it completed, but its result does not fit its return type",
        "let the function return what its annotation says; to read older results, let it say those as well",
    ),
    Raised(
        "WrongCaller",
        "wrong_caller",
        "a method that cannot be used here, such as `enqueue()` in a running event loop",
        "use what the sentence names",
    ),
    Raised("Permanent", "permanent", "by handlers: no retry", "for handlers to raise; nothing to do"),
    Raised(
        "RetryAfter",
        "retry_after",
        "by handlers: a retry after so many seconds",
        "for handlers to raise; nothing to do",
    ),
)
COMMANDS: Final = (
    Told(
        "app_not_loaded",
        "the application cannot be imported, or the module has none",
        "correct the line that it names; `--debug` shows the traceback",
    ),
    Told(
        "embedded_redis",
        "the Redis of `headrace dev` cannot be started in this folder",
        "install `headrace[dev]` or a Redis 7.0 or newer, or set `HEADRACE_URL`",
    ),
    Told(
        "invalid_pool_file",
        "a file of `headrace dev --file` holds no WorkerPool, or one that a cluster would refuse",
        "correct the field that it names; [how-to](how-to/pools.md) has an example",
    ),
    Told("trace", "the file of `headrace replay` cannot be read", "correct the line that it names"),
    Told(
        "api_unreachable",
        "`headrace replay`: nothing answers at the API's address",
        "start the API, or correct `--url`",
    ),
    Told("refused", "`headrace replay`: the API refuses what it is sent", "give a `--token` that may do this"),
)


def known_codes() -> list[str]:
    """Every code that there is, each once."""
    return list(dict.fromkeys(each.code for each in (*HTTP, *PYTHON, *COMMANDS)))
