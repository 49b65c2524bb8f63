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
LINES: Final[dict[str, Any]] = {"Two e-mails": [_MAIL, {**_MAIL, "priority": "low"}]}
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

LISTED: Final[dict[str, Any]] = {
    "A task that failed": {
        "tasks": [
            {
                "id": _ID,
                "type": "resize",
                "queue": "images",
                "status": "failed",
                "priority": 1,
                "tags": ["acme"],
                "created_at": "2026-01-15T10:30:00Z",
                "started_at": "2026-01-15T10:30:05.250Z",
                "completed_at": "2026-01-15T10:30:06Z",
                "due_at": None,
                "worker_id": "worker-1-5f2c",
                "attempts": 4,
                "retry_count": 4,
                "crashes": 0,
                "error": {
                    "type": "TimeoutError",
                    "message": "The image server does not answer.",
                    "reason": None,
                    "place": "shop/tasks.py:fetch",
                },
                "progress": None,
                "payload": None,
            }
        ],
        "next": None,
        "scanned": 412,
        "truncated": False,
    }
}
GROUPED: Final[dict[str, Any]] = {
    "One cause": {
        "errors": [
            {
                "type": "resize",
                "exception": "TimeoutError",
                "place": "shop/tasks.py:fetch",
                "count": 12,
                "first_at": "2026-01-15T10:30:06Z",
                "last_at": "2026-01-15T11:02:41Z",
                "message": "The image server does not answer.",
                "sample_id": _ID,
                "filter": "type:resize exception:TimeoutError place:shop/tasks.py:fetch",
            }
        ],
        "scanned": 412,
        "truncated": False,
    }
}
WORKERS: Final[dict[str, Any]] = {
    "A worker that runs one task": {
        "workers": [
            {
                "worker": "worker-1-5f2c",
                "worker_id": "worker-1",
                "alive": True,
                "draining": False,
                "version": "0.1.0",
                "host": "worker-1",
                "pid": 7,
                "queues": ["default"],
                "slots": 10,
                "held": 1,
                "started_at": "2026-01-15T10:00:00Z",
                "running": [
                    {
                        "id": _ID,
                        "type": "export",
                        "queue": "default",
                        "started_at": "2026-01-15T10:30:05Z",
                        "progress": {"done": 1, "total": 4, "message": "January", "at": "2026-01-15T10:30:06Z"},
                    }
                ],
            }
        ]
    }
}

_QUEUE: Final[dict[str, Any]] = {
    **_COUNTS,
    "queue": "default",
    "live": 17,
    "oldest_s": 3.2,
    "paused": False,
    "paused_at": None,
    "next_due_at": "2026-01-15T10:40:00Z",
    "workers": ["worker-1-5f2c"],
    "priorities": {"medium": {"pending": 12, "processing": 4, "oldest_s": 3.2}},
    "limits": {"max_depth": 10_000, "rate": None},
}
QUEUE: Final[dict[str, Any]] = {"A queue with a limit of its own": _QUEUE}
QUEUES: Final[dict[str, Any]] = {"One queue": {"queues": [_QUEUE]}}
PAUSED: Final[dict[str, Any]] = {"It was not paused before": {"queue": "default", "paused": True, "changed": True}}
RESUMED: Final[dict[str, Any]] = {"It was paused before": {"queue": "default", "paused": False, "changed": True}}

_JOB: Final[dict[str, Any]] = {
    "id": "d0d6218405ac6382bd25",
    "action": "retry",
    "filter": "type:resize exception:OSError since:2h",
    "ids": None,
    "queues": ["images"],
    "state": "running",
    "found": 1200,
    "done": 400,
    "failed": {"wrong_state": 1},
    "examples": {"wrong_state": [_ID]},
    "who": "ci",
    "created_at": "2026-01-15T10:30:00Z",
    "ended_at": None,
}
JOB: Final[dict[str, Any]] = {"A job that runs": _JOB}
JOBS: Final[dict[str, Any]] = {"One job": {"jobs": [_JOB]}}
AUDITED: Final[dict[str, Any]] = {
    "Somebody paused a queue": {
        "entries": [
            {
                "id": "1768473000000-0",
                "at": "2026-01-15T10:30:00Z",
                "who": "ci",
                "action": "queue.pause",
                "target": "default",
                "outcome": "ok",
                "status": 200,
                "request_id": "3f1c-1",
                "detail": {},
            }
        ],
        "next": None,
    }
}
