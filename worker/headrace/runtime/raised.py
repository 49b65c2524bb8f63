"""What a handler raised in a child process, carried to the worker as texts, and made an exception again there.

Retry rules ask for classes. So the worker's exception is also an instance of the class that was raised, as far as the
worker has imported it; nothing is imported for a name, and no constructor runs.
"""

from __future__ import annotations

import sys

from headrace.errors import RetryAfter
from headrace.runtime.attempt import failure_of
from headrace.runtime.frames import Answer
from headrace.task import Failure


class HandlerFailed(Exception):  # noqa: N818 - named for the outcome, as the errors of headrace are
    """A handler raised in a child process; `failure` has the error as texts, with the child's traceback."""

    failure: Failure

    def __str__(self) -> str:
        return self.failure.message


_classes: dict[type[Exception], type[HandlerFailed]] = {}


def to_answer(error: BaseException) -> Answer:
    """In the child: the error in words."""
    kinds = [f"{kind.__module__}:{kind.__qualname__}" for kind in type(error).__mro__]
    after = getattr(error, "seconds", None) if isinstance(error, RetryAfter) else None
    return Answer(failure=failure_of(error), kinds=tuple(kinds), retry_after_s=after)


def to_error(answer: Answer) -> HandlerFailed:
    """In the worker: the answer's failure as an exception."""
    assert answer.failure is not None
    error = next((found for name in answer.kinds if (found := _imitate(name))), None) or HandlerFailed()
    error.failure = answer.failure
    if isinstance(error, RetryAfter) and answer.retry_after_s is not None:
        error.seconds = answer.retry_after_s
    return error


def _imitate(name: str) -> HandlerFailed | None:
    kind = _known_class(name)
    if kind is None:
        return None
    try:
        return _mixed(kind)()
    except Exception:  # a class that cannot be mixed, or be made without arguments
        return None


def _known_class(name: str) -> type[Exception] | None:
    module, _, path = name.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    # A coroutine that raises one of these raises RuntimeError instead.
    return None if issubclass(found, StopIteration | StopAsyncIteration) else found


def _mixed(kind: type[Exception]) -> type[HandlerFailed]:
    found = _classes.get(kind)
    if found is None:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__init__": lambda self: None}
        found = _classes[kind] = type(kind.__name__, (HandlerFailed, kind), names)
    return found
