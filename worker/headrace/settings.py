"""Every number and choice that headrace lets you set, with its default, range and meaning.

Limits ── ClientSettings ─┬─ WorkerSettings     `X.from_env(os.environ, **flags)` reads one of them
                          └─ ApiSettings
Where Redis is found: `headrace.redis_settings`. How reading works: `headrace.environment`.

They stand together, though a worker reads none of the API's: so each process knows the variables of every part, takes
an environment that they share, and refuses a slip of the pen. It costs a worker some milliseconds at its start.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from headrace.environment import Rule, Settings, choice, computed_setting, number, setting, size, text, whole
from headrace.errors import BadSetting
from headrace.redis_settings import RedisSettings, Tls
from headrace.setting_types import (
    Durabilities,
    Durability,
    Fsync,
    Local,
    QueueShare,
    Replicated,
    SuspectRules,
    parse_durability,
    parse_queues,
)
from headrace.task import LABEL, LABEL_WORDS
from headrace.tokens import ApiToken, parse_tokens, read_tokens

__all__ = [
    "ApiSettings",
    "ApiToken",
    "ClientSettings",
    "Durabilities",
    "Durability",
    "Fsync",
    "Limits",
    "Local",
    "QueueShare",
    "RedisSettings",
    "Replicated",
    "Tls",
    "WorkerSettings",
    "is_loopback",
    "parse_durability",
]

KIB, MIB, DAY = 1024, 1024**2, 86_400.0

_LABEL = text(LABEL, f"a DNS label: {LABEL_WORDS}")
_DURABILITY = Rule("local, fsync, replicated:N, or per queue as in orders=fsync,default=local", Durabilities.parse)
_SUSPECTS = Rule("run, leave or only, or per queue as in mail=only,default=leave", SuspectRules.parse)
_SHARE = number(0, 1, "")


@dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """How much of anything there may be. Every part of a system should have the same."""

    max_payload: int = setting(64 * KIB, size(1 * KIB, 16 * MIB))
    """Bytes of one task's payload, as JSON."""
    max_result: int = setting(64 * KIB, size(1 * KIB, 16 * MIB))
    """Bytes of one task's result, as JSON. A larger one fails the attempt."""
    max_batch: int = setting(1_000, whole(1, 1_000, "tasks"))
    """Tasks of one batch; it is stored whole or not at all, but for partial ones."""
    max_batch_bytes: int = setting(4 * MIB, size(1 * KIB, 64 * MIB))
    """Bytes of one batch."""
    max_key_bytes: int = setting(255, whole(16, 1_024, "bytes"))
    """Bytes of an idempotency or unique key."""
    max_depth: int = setting(2_000_000, whole(1, 1_000_000_000, "tasks"))
    """Live tasks of one queue: waiting, running and delayed. More are refused with QueueFull."""
    max_queues: int = setting(1_000, whole(1, 100_000, "queues"))
    """Queues of one namespace, since their names come from clients."""
    max_retries: int = setting(3, whole(0, 100, "retries"))
    """Retries after a failure, for a type that does not say. A submission may say otherwise."""
    max_crashes: int = setting(3, whole(1, 100, "crashes"))
    """Deaths of its worker after which a task is taken for poison and goes to the dead letter."""
    retention_s: float = setting(DAY, number(0, 3_650 * DAY))
    """Seconds for which the record of a completed or cancelled task is kept: the window of idempotency."""
    retention_failed_s: float = setting(30 * DAY, number(0, 3_650 * DAY))
    """Seconds for which a dead letter is kept."""
    max_failed: int = setting(1_000_000, whole(1, 1_000_000_000, "tasks"))
    """Dead letters of one queue; beyond it the oldest are dropped, counted and warned of."""
    journal_length: int = setting(10_000, whole(100, 10_000_000, "entries"))
    """Entries of a queue's journal, one per report of a worker."""


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Limits):
    """What everyone who submits tasks has to know."""

    namespace: str = setting("default", _LABEL)
    """Logical tenant: part of every key in Redis."""
    durability: Durabilities = computed_setting(lambda: Durabilities({}), _DURABILITY)  # noqa: RUF009 - a field
    """When a submission or a report counts as accepted, per queue; `default` covers the unnamed ones."""
    durability_timeout_s: float = setting(2.0, number(0.01, 60))
    """Seconds to wait for that confirmation before the outcome is said to be unknown."""
    submit_timeout_s: float = setting(10.0, number(0.1, 600))
    """Seconds for which the library repeats a submission whose answer was lost, with the same id."""


_LEVELS = choice("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(ClientSettings):
    """A worker process."""

    app: str = setting("", text(r"[\w.]*(:[\w.]+)?", "module or module:attribute"))
    """Where the App is, as `package.tasks` or `package.tasks:app`."""
    worker_id: str = computed_setting(
        lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:128] or "worker",
        text(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'"),
        env="WORKER_ID",
    )
    """Name of this worker; by default the host's name. A random part is added at each start."""
    queues: tuple[QueueShare, ...] = setting(
        (QueueShare("default"),), Rule("names with weights, as in orders=3,default=1", parse_queues, bool)
    )
    """Queues to serve, with their shares of the claims."""
    suspects: SuspectRules = computed_setting(lambda: SuspectRules({}), _SUSPECTS)  # noqa: RUF009 - a field
    """Tasks that were running when their worker died: run them as well, leave them to workers that say `only`, or run
    nothing else; per queue, `default` covers the unnamed ones."""
    concurrency: int = setting(10, whole(1, 10_000, "slots"))
    """Tasks that run at once."""
    processes: int = setting(0, whole(0, 1_024, "processes"))
    """Processes for CPU-bound handlers; 0 = as many as the machine has processors, at most `concurrency`."""
    grace_s: float = setting(30.0, number(0, 86_400))
    """Seconds that running tasks have to end after SIGTERM; what still runs is then handed back."""
    beat_s: float = setting(1.0, number(0.05, 60))
    """Seconds between two signs of life."""
    dead_after_s: float = setting(10.0, number(0.2, 3_600))
    """Seconds without a sign of life after which other workers take this one's tasks."""
    age_bound_s: float = setting(900.0, number(0, 30 * DAY))
    """Seconds after which a waiting task of low priority gets one claim in ten; 0 = strictly by priority."""
    soft_timeout_s: float = setting(300.0, number(0.01, 7 * DAY))
    """Seconds an attempt may take, for a type that does not say; then it is cancelled."""
    hard_extra_s: float = setting(30.0, number(0.01, 3_600))
    """Seconds from then until a handler that does not stop is given up (thread) or killed (process)."""
    max_leaks: int = setting(3, whole(1, 10_000, "threads"))
    """Handlers given up in threads after which the worker hands back its tasks and exits."""
    backoff_base_s: float = setting(1.0, number(0.001, 3_600))
    """Seconds of the first backoff, for a type that does not say; doubled each time, with full jitter."""
    backoff_cap_s: float = setting(300.0, number(0.001, 7 * DAY))
    """Seconds that a backoff never exceeds."""
    event_loop: str = setting("auto", choice("auto", "asyncio"))
    """What handlers run in: `auto` is uvloop where it is installed, which takes less CPU; `asyncio` is Python's own."""
    host: str = setting(
        "0.0.0.0",  # noqa: S104 - probes and Prometheus come from outside
        text(r"[A-Za-z0-9.:-]{1,253}", "an address or host name"),
        env="HEADRACE_METRICS_HOST",
    )
    """Address of the health and metrics port; by default every interface."""
    metrics_port: int = setting(9464, whole(0, 65_535))
    """Port for health and metrics; 0 takes a free one."""
    log_level: str = setting("info", _LEVELS)
    """Least level that is logged."""
    log_format: str = setting("auto", choice("auto", "json", "text"))
    """`auto` is text in a terminal and JSON elsewhere."""
    log_sample: float = setting(1.0, _SHARE)
    """Share of the successful attempts that get a line; those that go wrong always do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dead_after_s < 3 * self.beat_s:
            raise BadSetting(
                "HEADRACE_DEAD_AFTER_S", f"{self.dead_after_s:g}", "the settings together",
                f"at least three times HEADRACE_BEAT_S, which is {self.beat_s:g}",
                "Raise it, or lower HEADRACE_BEAT_S; else one late beat costs a live worker its tasks",
            )  # fmt: skip
        if self.backoff_cap_s < self.backoff_base_s:
            raise BadSetting(
                "HEADRACE_BACKOFF_CAP_S", f"{self.backoff_cap_s:g}", "the settings together",
                f"at least HEADRACE_BACKOFF_BASE_S, which is {self.backoff_base_s:g}",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ApiSettings(ClientSettings):
    """The HTTP API."""

    host: str = setting("127.0.0.1", text(r"[A-Za-z0-9.:-]{1,253}", "an address or host name"))
    """Address to listen on. Beyond loopback the API needs tokens, or `auth` none."""
    port: int = setting(8080, whole(0, 65_535), env="PORT")
    """Port to listen on; 0 takes a free one."""
    auth: str = setting("tokens", choice("tokens", "none"))
    """`none` lets everyone in, wherever the API listens."""
    tokens: tuple[ApiToken, ...] = setting(
        (), Rule("NAME:SECRET or NAME@NAMESPACE:SECRET and options, with commas between", parse_tokens), secret=True
    )
    """Bearer tokens. Without any, a loopback address is open to everyone on the machine."""
    tokens_file: str = setting("", text(r"[^\0]*", "a path"))
    """A file with more tokens, one a line, or a folder of such files, as a Secret is mounted. It is read again when it
    changes."""
    max_connections: int = setting(10_000, whole(10, 1_000_000, "connections"))
    """Connections at once; more are answered with 503."""
    max_connections_per_address: int = setting(1_000, whole(1, 1_000_000, "connections"))
    """Connections at once from one address, which may be that of a proxy; more are answered with 429."""
    max_requests_per_token: int = setting(1_000, whole(1, 1_000_000, "requests"))
    """Requests of one token that are answered at once, those that wait among them; more are answered with 429."""
    max_body: int = setting(256 * KIB, size(1 * KIB, 64 * MIB))
    """Bytes of one request's body; a batch may have `max_batch_bytes`."""
    max_wait_s: float = setting(60.0, number(0, 3_600))
    """Seconds that `?wait=` may ask for."""
    bulk_rate: int = setting(2_000, whole(1, 1_000_000, "tasks a second"))
    """Tasks a second that bulk jobs of one process act on, so that workers have most of Redis' time."""
    audit_length: int = setting(50_000, whole(100, 10_000_000, "entries"))
    """Entries of a namespace's audit log, about; the oldest are dropped."""
    scan_budget: int = setting(10_000, whole(100, 10_000_000, "tasks"))
    """Tasks that are looked at for one page of a list; those over 4 KiB count as several."""
    scan_s: float = setting(0.03, number(0, 60))
    """Seconds that such a look may take; what would end later is left to the next page, but never all of it."""
    schemas: str = setting("warn", choice("off", "warn", "enforce"))
    """Payloads at the door: not checked (off), checked for known types (warn), others refused (enforce)."""
    log_level: str = setting("info", _LEVELS)
    """Least level that is logged."""
    log_format: str = setting("auto", choice("auto", "json", "text"))
    """`auto` is text in a terminal and JSON elsewhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens_file and self.auth == "tokens":
            _check_tokens(self.tokens_file)
        if self.auth == "tokens" and not self.tokens and not self.tokens_file and not is_loopback(self.host):
            raise BadSetting(
                "HEADRACE_HOST", self.host, "the settings together",
                "a loopback address (127.0.0.1, ::1, localhost) as long as there are no tokens",
                "Set HEADRACE_TOKENS or HEADRACE_TOKENS_FILE, or say HEADRACE_AUTH=none to let everyone in",
            )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a port on this address."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


def _check_tokens(path: str) -> None:
    try:
        read_tokens(path)
    except (OSError, ValueError) as error:
        raise BadSetting(
            "HEADRACE_TOKENS_FILE", path, "the settings", "a readable file with one token a line, or a folder of such",
            str(error),
        ) from None  # fmt: skip
