"""Backoff: full jitter below a doubling, capped ceiling; and what is worth a retry at all."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any, cast

import pytest

from headrace.backoff import Retry
from headrace.errors import BadDefinition, FieldError, InvalidPayload, Permanent, RetryAfter


class Draw(Random):
    """Draws a fixed share of the range."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (5_000, 300), (0, 1)])
def test_ceiling_doubles_up_to_the_cap(failures: int, ceiling: float) -> None:
    """base · 2^(n-1), never above the cap, for any number of failures."""
    assert Retry(base_s=1, cap_s=300).ceiling(failures) == ceiling


def test_jitter_covers_the_whole_range() -> None:
    """Delays reach from 0 to the ceiling and lie evenly between: their mean is its half."""
    retry, rng = Retry(base_s=8), Random(7)
    delays = [retry.delay(2, rng) for _ in range(4_000)]
    assert 0 <= min(delays) < 0.1
    assert 15.9 < max(delays) <= 16
    assert abs(sum(delays) / len(delays) - 8) < 0.3


def test_gives_up_after_max_retries() -> None:
    """max=2: failures 1 and 2 are retried, the third is not."""
    retry, rng = Retry(2), Draw(1)
    assert [retry.decide(OSError(), n, rng) for n in (1, 2, 3)] == [1, 2, None]


def test_submission_wins_over_declaration() -> None:
    """max_retries of the submission counts, in both directions, also over rules of single exceptions."""
    retry, rng = Retry(2, per={OSError: Retry(9)}), Draw(1)
    assert retry.decide(KeyError(), 3, rng, max_retries=5) == 4
    assert retry.decide(KeyError(), 1, rng, max_retries=0) is None
    assert retry.decide(OSError(), 1, rng, max_retries=0) is None


def test_only_what_is_listed_is_retried() -> None:
    """`on` names what is worth a retry; subclasses count."""
    retry, rng = Retry(5, on=(OSError,)), Draw(0.5)
    assert retry.decide(ConnectionError(), 1, rng) == 0.5
    assert retry.decide(ValueError(), 1, rng) is None


def test_nearest_exception_class_rules() -> None:
    """A rule for a class holds for its subclasses, unless one of them has its own."""
    slow, slower = Retry(10, base_s=30), Retry(20, base_s=60)
    retry, rng = Retry(1, per={OSError: slow, ConnectionError: slower}), Draw(1)
    assert retry.decide(FileNotFoundError(), 2, rng) == 60
    assert retry.decide(ConnectionResetError(), 1, rng) == 60
    assert retry.decide(ConnectionResetError(), 20, rng) == 300
    assert retry.decide(ValueError(), 2, rng) is None


def test_handler_decides() -> None:
    """Permanent ends it at once, RetryAfter sets the delay but not the number of retries."""
    retry, rng = Retry(3), Draw(1)
    assert retry.decide(Permanent("gone"), 1, rng) is None
    assert retry.decide(InvalidPayload("t", [FieldError("", "wrong")]), 1, rng) is None
    assert retry.decide(RetryAfter(1_000), 3, rng) == 1_000
    assert retry.decide(RetryAfter(1_000), 4, rng) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(-1),
        lambda: Retry(101),
        lambda: Retry(True),
        lambda: Retry(base_s=0),
        lambda: Retry(base_s=2, cap_s=1),
        lambda: Retry(cap_s=float("inf")),
        lambda: Retry(base_s=float("nan")),
        lambda: Retry(base_s=cast(Any, "1")),
        lambda: Retry(cap_s=cast(Any, timedelta(minutes=5))),
        lambda: Retry(on=cast(Any, OSError)),
        lambda: Retry(on=cast(Any, ("OSError",))),
        lambda: Retry(per=cast(Any, {OSError: 5})),
        lambda: Retry(per=cast(Any, [OSError])),
    ],
)
def test_refuses_what_makes_no_sense(make: object) -> None:
    """Found at import, not at the first failure in production."""
    assert callable(make)
    with pytest.raises(BadDefinition, match="Retry"):
        make()
