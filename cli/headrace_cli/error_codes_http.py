"""What each code of the HTTP API means and what to do about it, as docs/errors.md and `headrace explain` have it."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HTTP", "Told"]


class Told(NamedTuple):
    """One outcome, in half sentences without a full stop. Links are those of a page in docs/."""

    code: str
    happened: str
    remedy: str
    status: int | None = None
    """Over HTTP."""


HTTP: Final = (
    Told(
        "malformed_json",
        "not JSON, or JSON that two parsers could read differently: a key twice, NaN, half a character, an integer of "
        "more than 64 bits, nested too deep",
        "correct it at the place that `errors` names",
        400,
    ),
    Told("bad_query", "a parameter after `?` that does not exist or has no such value", "see `hint`", 400),
    Told(
        "invalid_filter",
        "a filter has a word that is none, or a value that it cannot have",
        "correct what `errors` names",
        400,
    ),
    Told(
        "bad_cursor",
        "the cursor is none of this list: it was cut or changed, or is of another filter or namespace",
        "send the same filter with each `next`, or begin without a cursor",
        400,
    ),
    Told("bad_idempotency_key", "not one header of 1 to 255 visible ASCII characters", "send a UUID", 400),
    Told("bad_body", "the body ended early, or is badly framed", "use an HTTP library", 400),
    Told(
        "bad_http",
        "not HTTP/1.1, or an address or a header of more than 8190 bytes",
        "use an HTTP library; send less",
        400,
    ),
    Told("missing_token", "no `Authorization: Bearer …`, or more than one", "send one", 401),
    Told(
        "unknown_token",
        "the token is none that this API has",
        "see that it is in `HEADRACE_TOKENS` or `HEADRACE_TOKENS_FILE`",
        401,
    ),
    Told(
        "missing_scope",
        "the token lacks the scope that this needs",
        "use a token that has it, see [reference.md](reference.md#tokens)",
        403,
    ),
    Told(
        "forbidden_queue",
        "the token does not cover the queue that was named; whether it exists is not said",
        "use one of its queues, or another token",
        403,
    ),
    Told(
        "unknown_task",
        "no task has this id, or its record has expired",
        "check the id; [settings.md](settings.md#limits) says how long records are kept",
        404,
    ),
    Told(
        "unknown_queue",
        "the namespace has no such queue, or none can be called so",
        "`detail` names one that is close, or the characters of a name; `GET /api/v1/queues` has all",
        404,
    ),
    Told(
        "unknown_type",
        "no worker has published a type of this name",
        "`detail` names one that is close; `GET /api/v1/types` has all",
        404,
    ),
    Told(
        "unknown_bulk",
        "no bulk job has this id, or it ended more than a day ago",
        "`GET /api/v1/bulk` has those that are known",
        404,
    ),
    Told("unknown_route", "nothing is at this path", "see [reference.md](reference.md#http-api)", 404),
    Told("wrong_method", "the path does not take this method", "`Allow` says which it takes", 405),
    Told("headers_timeout", "the headers did not arrive within 10 s", "send them at once", 408),
    Told("body_timeout", "the body did not arrive within 15 s", "send it at once", 408),
    Told(
        "wrong_state",
        "the task is in a state that does not allow this, such as cancelling one that ended",
        "ask for the task, and decide",
        409,
    ),
    Told(
        "wrong_count",
        "a bulk order fits another number of tasks than `expected_count`; nothing was done",
        "look at what changed, and order it again with the new count",
        409,
    ),
    Told(
        "unique_held",
        "another task holds the submission's unique key; nothing was stored",
        "`task_ids` names that task, which stands for yours",
        409,
    ),
    Told(
        "too_large",
        "payload, body or batch is over its limit, which `detail` names",
        "put large data where the worker can fetch it, and pass its address",
        413,
    ),
    Told("unsupported_media_type", "not JSON in UTF-8", "send `Content-Type: application/json`", 415),
    Told("unsupported_encoding", "the body is compressed", "send it as it is", 415),
    Told("expectation_failed", "an `Expect` other than `100-continue`", "leave it out", 417),
    Told(
        "invalid_request",
        "a field of a request about queues or many tasks is unknown, missing or wrong",
        "correct what `errors` names",
        422,
    ),
    Told("invalid_task", "a field of the submission is unknown, missing or wrong", "correct what `errors` names", 422),
    Told("invalid_payload", "the payload does not fit the arguments of the type", "correct what `errors` names", 422),
    Told("task_conflict", "the idempotency key was used for another submission", "a new key for a new submission", 422),
    Told(
        "queue_full",
        "the queue has its limit of live tasks; nothing was stored",
        "send it again after `Retry-After`; start more workers",
        429,
    ),
    Told("too_many_bulks", "as many bulk jobs run as may at once", "wait until one has ended, or abort one", 429),
    Told(
        "rate_limited",
        "the token or the queue has used up its rate; nothing was done",
        "send it again after `Retry-After`",
        429,
    ),
    Told(
        "too_many_of_address",
        "your address has `HEADRACE_MAX_CONNECTIONS_PER_ADDRESS` connections",
        "use one connection for many requests",
        429,
    ),
    Told(
        "too_many_at_once",
        "the token has `HEADRACE_MAX_REQUESTS_PER_TOKEN` requests on their way",
        "wait for answers before you send more",
        429,
    ),
    Told("internal", "a bug in headrace", "report it with the `request_id`", 500),
    Told(
        "store_unavailable",
        "Redis is away; whether this was carried out is unknown",
        "send it again with the same `Idempotency-Key`",
        503,
    ),
    Told("store_timeout", "Redis did not answer in time; whether this was carried out is unknown", "the same", 503),
    Told(
        "store_full",
        "Redis has no memory or disk left; nothing was stored, and work drains",
        "send it again later; give Redis room",
        503,
    ),
    Told(
        "store_refused",
        "Redis refuses: no rights, wrong password, a key of another kind",
        "whoever runs the service sees the reason in its log",
        503,
    ),
    Told(
        "too_many_connections",
        "the server has `HEADRACE_MAX_CONNECTIONS` connections",
        "try again; use one connection for many requests",
        503,
    ),
    Told(
        "durability_unconfirmed",
        "stored, but not confirmed as durable as the queue asks",
        "send it again with the same `Idempotency-Key`",
        503,
    ),
    Told(
        "config",
        "Redis cannot do what a setting asks, such as `fsync` without an append-only file",
        "whoever runs the service sees the reason in its log",
        503,
    ),
    Told(
        "bad_setting",
        "Redis cannot do what a setting asks, such as `fsync` without an append-only file",
        "whoever runs the service sees the reason in its log",
        503,
    ),
)
