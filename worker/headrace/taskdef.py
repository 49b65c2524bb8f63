"""A task type as its application declared it: what a worker runs and a producer submits."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from headrace.backoff import Retry
from headrace.context import Ctx
from headrace.errors import BadDefinition, Permanent, TooLarge
from headrace.payload import Payload, encode_arguments, encode_json, make_decode
from headrace.schema import Parameters, make_invoke, read_parameters
from headrace.settings import WorkerSettings
from headrace.task import Priority, check_queue, check_type, parse_priority

Kind = Literal["async", "sync", "process"]
"""Where a handler runs: in the event loop, in a thread, in a process of its own."""


OnFailure = Callable[[Ctx[Any], BaseException], Any]
"""Async or sync: what is called when a task has ended in the dead letter."""
MAX_RETENTION_S: Final = 3_650 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What `@app.task(…)` was told. None = not said, so settings decide (queue: the App's)."""

    name: str | None = None
    queue: str | None = None
    priority: Priority | int | str = Priority.MEDIUM
    max_retries: int | None = None
    retry: Retry | None = None
    timeout: float | None = None
    process: bool = False
    retention: float | None = None
    on_failure: OnFailure | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskDef:
    """One task type: its function, how its payload is read, and its limits."""

    name: str
    fn: Callable[..., Any]
    kind: Kind
    parameters: Parameters
    queue: str
    priority: Priority
    retry: Retry
    soft_timeout_s: float
    """Seconds after which an attempt is cancelled."""
    hard_timeout_s: float
    """Seconds after which an attempt that did not heed that is given up (thread) or killed (process)."""
    declared: Declaration = field(repr=False)

    retention: str = field(init=False, repr=False)
    """Whole seconds for which completed tasks are kept, as a report takes them; empty: as the worker's settings say."""
    decode: Callable[[Payload], msgspec.Struct] = field(init=False, repr=False)
    """Payload to struct; raises InvalidPayload."""
    invoke: Callable[[Any, Ctx[Any] | None], Any] = field(init=False, repr=False)
    """Call the handler with such a struct: a coroutine for kind `async`, else the result. A handler that takes no
    Ctx may be given None."""
    decode_result: Callable[[Payload], Any] = field(init=False, repr=False)
    """Stored result to what the function's return annotation says."""

    def __post_init__(self) -> None:
        set_once = object.__setattr__
        kept = self.declared.retention
        set_once(self, "retention", "" if kept is None else str(max(1, math.ceil(kept))))
        set_once(self, "decode", make_decode(self.name, self.parameters))
        set_once(self, "invoke", make_invoke(self.fn, self.parameters))
        set_once(self, "decode_result", msgspec.json.Decoder(self.parameters.result).decode)

    @property
    def takes_ctx(self) -> bool:
        """Whether `invoke` needs a Ctx."""
        return self.parameters.takes_ctx

    @property
    def params(self) -> type[msgspec.Struct]:
        """The struct of the payload."""
        return self.parameters.struct

    @property
    def on_failure(self) -> OnFailure | None:
        """To be called after the final failure."""
        return self.declared.on_failure

    @property
    def max_retries(self) -> int:
        """Retries for a submission that does not say."""
        return self.retry.max

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the payload."""
        return self.parameters.schema()

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The payload of a call, checked as the worker will check it. Raises InvalidPayload."""
        payload = encode_arguments(self.name, self.parameters, args, kwargs)
        self.decode(payload)
        return payload

    def encode_result(self, result: Any, limit: int) -> bytes | None:
        """What is stored of a result: JSON, or nothing for None. Raises Permanent, TooLarge (`limit` in bytes)."""
        if result is None:
            return None
        try:
            encoded = encode_json(result)
        except Exception as error:  # of msgspec, or of code of the application's, such as its time zones
            if inspect.iscoroutine(result):
                result.close()  # or Python warns that nobody awaited it
                raise Permanent(
                    f"{self.name!r} is async, but its decorator made it a plain function, and nothing awaits it. "
                    "Let the decorator return an async def"
                ) from None
            raise Permanent(f"The result of {self.name!r} cannot be written as JSON ({error})") from error
        if len(encoded) > limit:
            raise TooLarge("result", len(encoded), limit)
        # Only a msgspec.Raw inside the result can hold a line break outside a string; a record's lines end at one.
        return encoded.replace(b"\n", b" ") if b"\n" in encoded else encoded

    def describe(self) -> dict[str, Any]:
        """What a worker publishes of a type: its schema with a hash, what it is for, and its defaults."""
        schema = self.schema()
        return {
            "schema": schema,
            "hash": hashlib.sha256(msgspec.json.encode(schema, order="deterministic")).hexdigest()[:16],
            "doc": (inspect.getdoc(self.fn) or "")[:1_000],
            "queue": self.queue,
            "priority": int(self.priority),
            "max_retries": self.max_retries,
            "timeout_s": self.soft_timeout_s,
        }

    def with_settings(self, settings: WorkerSettings) -> TaskDef:
        """The same type with the worker's settings wherever its declaration did not say."""
        said = self.declared
        retry = said.retry or Retry(settings.max_retries, settings.backoff_base_s, settings.backoff_cap_s)
        soft = settings.soft_timeout_s if said.timeout is None else said.timeout
        return replace(
            self,
            retry=retry if said.max_retries is None else replace(retry, max=said.max_retries),
            soft_timeout_s=soft,
            hard_timeout_s=soft + settings.hard_extra_s,
        )


_DEFAULTS = WorkerSettings(worker_id="defaults")


def define(fn: Callable[..., Any], declared: Declaration, *, app_queue: str, scope: Mapping[str, Any]) -> TaskDef:
    """Read a task function. `scope` holds the local names its annotations may use. Raises BadDefinition."""
    where = place_of(fn)
    name = declared.name or str(getattr(fn, "__name__", ""))
    kind = _kind(fn, declared.process, where)
    _check_declaration(name, declared, where)
    bare = TaskDef(
        name=name,
        fn=fn,
        kind=kind,
        parameters=read_parameters(fn, where, scope),
        queue=declared.queue or app_queue,
        priority=parse_priority(declared.priority),
        retry=Retry(),
        soft_timeout_s=0.0,
        hard_timeout_s=0.0,
        declared=declared,
    )
    return bare.with_settings(_DEFAULTS)


def place_of(fn: Any) -> str:
    """How an error names a function."""
    code = getattr(fn, "__code__", None)
    name = f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"
    return f"Task function {name}" + (f" (line {code.co_firstlineno})" if code else "")


def _kind(fn: Callable[..., Any], process: bool, where: str) -> Kind:
    if not inspect.isfunction(fn):
        raise BadDefinition(where, "it is not a plain function", "Write @app.task() above a def or async def")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise BadDefinition(where, "it yields, but a task has one result", "Return a list")
    if not inspect.iscoroutinefunction(fn):
        if process and "<locals>" in fn.__qualname__:
            raise BadDefinition(
                where, "another process cannot import a function in a function", "Move it to its module's top"
            )
        return "process" if process else "sync"
    if process:
        raise BadDefinition(
            where, "process=True is for CPU-bound work, but it is async", "Write def instead of async def"
        )
    return "async"


_SECONDS: Final = "Give seconds, more than 0"
_RETENTION: Final = f"{_SECONDS}, up to ten years"
_RETRIES: Final = "Give a whole number from 0 to 100"
_TYPES: Final[tuple[tuple[str, tuple[type, ...], str], ...]] = (
    ("name", (str,), "Give a text"),
    ("queue", (str,), "Give a text"),
    ("priority", (int, str), "Give a name, as 'high', or 0 to 3"),
    ("max_retries", (int,), _RETRIES),
    ("retry", (Retry,), "Write retry=Retry(5, …)"),
    ("timeout", (int, float), _SECONDS),
    ("retention", (int, float), _RETENTION),
)
"""What checkers refuse, too; but not all programs are checked."""


def _check_types(declared: Declaration, where: str) -> None:
    for name, types, remedy in _TYPES:
        given = getattr(declared, name)
        if given is not None and (isinstance(given, bool) or not isinstance(given, types)):
            raise BadDefinition(where, f"{name} is {given!r}", remedy)


def _check_declaration(name: str, declared: Declaration, where: str) -> None:
    _check_types(declared, where)
    try:
        check_type(name)
        if declared.queue is not None:
            check_queue(declared.queue)
        parse_priority(declared.priority)
    except ValueError as error:
        raise BadDefinition(where, str(error).removesuffix("."), "Correct it in @app.task(…)") from None
    if declared.max_retries is not None and not 0 <= declared.max_retries <= 100:
        raise BadDefinition(where, f"max_retries is {declared.max_retries!r}", _RETRIES)
    if declared.retry is not None and declared.max_retries not in {None, declared.retry.max}:
        whose = ", Retry's default" if declared.retry.max == Retry().max else ""
        said = f"max_retries is {declared.max_retries}, but its retry is for {declared.retry.max}{whose}"
        raise BadDefinition(where, said, f"Say it once: retry=Retry({declared.max_retries}, …)")
    if declared.on_failure is not None and not callable(declared.on_failure):
        raise BadDefinition(where, f"on_failure is {declared.on_failure!r}", "Pass a function of ctx and error")
    kept = declared.retention
    if kept is not None and not 0 < kept <= MAX_RETENTION_S:
        raise BadDefinition(where, f"retention is {kept!r}", _RETENTION)
    timeout = declared.timeout
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise BadDefinition(where, f"timeout is {timeout!r}", _SECONDS)


__all__ = ["Declaration", "Kind", "TaskDef", "define", "place_of"]
