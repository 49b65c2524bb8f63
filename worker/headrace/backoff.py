"""When a failed attempt is tried again. Pure: the random numbers are passed in.

The delay is drawn evenly from 0 to min(cap, base · 2^(n-1)) after the n-th failure ("full jitter"): tasks that failed
together, because what they need was away, do not come back together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from headrace.errors import BadDefinition, InvalidTask, Permanent, RetryAfter


@dataclass(frozen=True)
class Retry:
    """How often, and how soon, a task type is tried again.

        Retry(5, on=(OSError,))                     only OSError is worth a retry
        Retry(3, per={RateLimited: Retry(20, base_s=30)})   and this one more, and slower

    Raises BadDefinition for numbers that make no sense.
    """

    max: int = 3
    """Retries after the first failure, 0 to 100."""
    base_s: float = 1.0
    """Upper end of the first delay, in seconds."""
    cap_s: float = 300.0
    """Upper end of any delay, in seconds."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """What is worth a retry; anything else goes to the dead letter at once."""
    per: Mapping[type[BaseException], Retry] = field(default_factory=dict, compare=False)
    """Other rules for single exceptions; the nearest class of the one raised counts."""

    def __post_init__(self) -> None:
        if type(self.max) is not int or not 0 <= self.max <= 100:
            raise BadDefinition("Retry", f"max is {self.max!r}", "Give a whole number from 0 to 100")
        numbers = _are_numbers(self.base_s, self.cap_s)
        if not (numbers and 0 < self.base_s <= self.cap_s and math.isfinite(self.cap_s)):
            raise BadDefinition(
                "Retry", f"base_s is {self.base_s!r} and cap_s {self.cap_s!r}", "Give 0 < base_s ≤ cap_s, in seconds"
            )
        if not _are_errors(self.on):
            raise BadDefinition("Retry", f"on is {self.on!r}", "Give a tuple of exceptions, as in on=(OSError,)")
        if not _are_rules(self.per):
            raise BadDefinition(
                "Retry", f"per is {self.per!r}", "Give each exception its Retry, as in per={OSError: Retry(5)}"
            )

    def rule_for(self, error: BaseException) -> Retry:
        """The rule of the nearest class of `error` in `per`, else this one."""
        for kind in type(error).__mro__:
            if kind in self.per:
                return self.per[kind]
        return self

    def ceiling(self, failures: int) -> float:
        """Seconds below which the delay after the `failures`-th failure (from 1) lies."""
        # The exponent is cut because 2.0**1024 overflows; every cap is reached long before.
        return min(self.cap_s, self.base_s * 2.0 ** min(max(failures, 1) - 1, 64))

    def delay(self, failures: int, rng: Random) -> float:
        """Seconds to wait after the `failures`-th failure, counted from 1."""
        return rng.uniform(0.0, self.ceiling(failures))

    def decide(self, error: BaseException, failures: int, rng: Random, max_retries: int | None = None) -> float | None:
        """Seconds until the next attempt after this `error`, the `failures`-th failure; None = dead letter.

        `max_retries` is what the submission asked for; it wins over every rule here.
        """
        rule = self.rule_for(error)
        if failures > (rule.max if max_retries is None else max_retries):
            return None
        match error:
            case Permanent() | InvalidTask():
                return None
            case RetryAfter(seconds=seconds):
                return seconds
            case _:
                return rule.delay(failures, rng) if isinstance(error, rule.on) else None


# What checkers refuse, too; but not all programs are checked, and else it would show at the first failure.


def _are_numbers(*given: object) -> bool:
    return all(isinstance(each, int | float) for each in given)


def _are_errors(given: object) -> bool:
    return isinstance(given, tuple) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in given
    )


def _are_rules(given: object) -> bool:
    return (
        isinstance(given, Mapping) and _are_errors(tuple(given)) and all(isinstance(r, Retry) for r in given.values())
    )
