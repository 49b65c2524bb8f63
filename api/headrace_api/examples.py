"""Examples of what the routes read and answer, for the OpenAPI document; a test holds each against its type."""

from __future__ import annotations

from typing import Any, Final

_ID: Final = "01890a5d-ac96-474b-bcce-b302099a8057"
_MAIL: Final[dict[str, Any]] = {
    "type": "send_email",
    "payload": {"recipient": "user@example.com", "subject": "Hello", "body": "This is a test."},
}

SUBMISSIONS: Final[dict[str, Any]] = {
    "An e-mail, as its type says": _MAIL,
    "With a priority and retries of its own": {**_MAIL, "priority": "high", "max_retries": 5},
    "In ten minutes, in another queue": {**_MAIL, "queue": "mail", "delay": 600},
    "Not twice at once, and not after an hour": {
        "type": "nightly_report",
        "tags": ["acme"],
        "expires": 3600,
        "unique": {"key": "report-2026-01-15"},
    },
}
SUBMITTED: Final[dict[str, Any]] = {
    "Stored": {"task_id": _ID, "status": "submitted"},
    "Of a type that no worker knows yet": {
        "task_id": _ID,
        "status": "submitted",
        "warning": "No worker has published a type 'send_emial' yet (did you mean 'send_email'?); "
        "the task waits for one.",
    },
}
BATCHES: Final[dict[str, Any]] = {"Two e-mails": {"tasks": [_MAIL, {**_MAIL, "priority": "low"}]}}
SUBMITTED_BATCH: Final[dict[str, Any]] = {
    "All are stored": {"count": 1, "tasks": [{"task_id": _ID, "status": "submitted"}]}
}
CANCELLED: Final[dict[str, Any]] = {"It waited": {"task_id": _ID, "status": "cancelled"}}
RETRIED: Final[dict[str, Any]] = {"It starts over": {"task_id": _ID, "status": "pending"}}

_TASK: Final[dict[str, Any]] = {
    "id": _ID,
    "type": "send_email",
    "priority": 2,
    "status": "completed",
    "payload": _MAIL["payload"],
    "max_retries": 3,
    "retry_count": 1,
    "created_at": "2026-01-15T10:30:00Z",
    "started_at": "2026-01-15T10:30:05.250Z",
    "completed_at": "2026-01-15T10:30:06Z",
    "worker_id": "worker-1-5f2c",
    "queue": "default",
    "due_at": None,
    "attempts": 2,
    "crashes": 0,
    "interruptions": 0,
    "result": {"message_id": "42"},
    "error": None,
    "log": [
        {
            "outcome": "retrying",
            "worker_id": "worker-1-5f2c",
            "started_at": "2026-01-15T10:30:01Z",
            "ended_at": "2026-01-15T10:30:02Z",
            "error": {"type": "ConnectionError", "message": "The mail server is away."},
            "cause": None,
        },
        {
            "outcome": "completed",
            "worker_id": "worker-1-5f2c",
            "started_at": "2026-01-15T10:30:05.250Z",
            "ended_at": "2026-01-15T10:30:06Z",
            "error": None,
            "cause": None,
        },
    ],
    "tags": [],
    "expires_at": None,
    "progress": None,
}
TASKS: Final[dict[str, Any]] = {"It ended well, the second time": _TASK}

_COUNTS: Final[dict[str, Any]] = {
    "pending": 12,
    "processing": 4,
    "completed": 1042,
    "failed": 3,
    "cancelled": 0,
    "scheduled": 1,
    "parked": 0,
    "dead_letters": 2,
}
STATS: Final[dict[str, Any]] = {
    "One queue": {**_COUNTS, "workers": 2, "queues": {"default": {**_COUNTS, "paused": False}}}
}
HEALTHY: Final[dict[str, Any]] = {"Submissions can be taken": {"status": "ok", "checks": {"redis": "up"}}}
