"""Errors: each is a sentence, has a stable code, and survives the way to another process."""

from __future__ import annotations

import pickle

import pytest

from headrace import errors
from headrace.errors import (
    BadSetting,
    FieldError,
    HeadraceError,
    InvalidPayload,
    Permanent,
    ResultTimeout,
    RetryAfter,
    StoreUnavailable,
    UnknownSetting,
    WrongCaller,
    nearest,
)
from headrace_cli.error_examples import OF_PYTHON

WHERE = "redis://localhost:6379/0 (from the default)"
EXAMPLES: list[HeadraceError] = [HeadraceError("something"), *OF_PYTHON]


def test_every_class_has_an_example_here() -> None:
    """A new error class cannot be forgotten below."""
    declared = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, HeadraceError)
    }
    assert declared == {type(error) for error in EXAMPLES}


def test_codes_are_distinct() -> None:
    """A code tells one outcome from every other."""
    codes = [error.code for error in EXAMPLES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_survives_pickling(error: HeadraceError) -> None:
    """An error raised in a handler's process reaches the worker whole: text and facts."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(
    "error",
    [each for each in EXAMPLES if not isinstance(each, Permanent | RetryAfter) and type(each) is not HeadraceError],
    ids=lambda error: type(error).__name__,
)
def test_reads_as_a_sentence(error: HeadraceError) -> None:
    """Begins like a sentence or with the name it is about, ends like one, and repeats no full stop."""
    text = str(error)
    assert text.endswith((".", "?"))
    assert ".." not in text
    assert len(text.split()) >= 4


def test_tells_what_to_do() -> None:
    """What happened, why, and what to do, in that order."""
    assert str(UnknownSetting("HEADRACE_CONCURENCY", "the environment", "HEADRACE_CONCURRENCY")) == (
        "HEADRACE_CONCURENCY (from the environment) is not a setting of headrace. Did you mean HEADRACE_CONCURRENCY?"
    )
    assert str(StoreUnavailable(WHERE, "Connection refused.")) == (
        f"Redis cannot be reached at {WHERE}: Connection refused. "
        "Start it (`headrace dev` brings one), or set HEADRACE_URL to one that runs."
    )
    assert str(StoreUnavailable(WHERE, "LOADING Redis is loading the dataset in memory", answered=True)) == (
        f"Redis at {WHERE} cannot be used now: LOADING Redis is loading the dataset in memory. "
        "Mend what it says, or try again later."
    )


def test_field_errors_are_named_with_their_hints() -> None:
    """An invalid payload names the field and the nearest name."""
    error = InvalidPayload("send_email", [FieldError("/to", "is unknown", "did you mean 'recipient'?")])
    assert error.errors[0].pointer == "/to"
    assert "/to: is unknown (did you mean 'recipient'?)" in str(error)


def test_secret_value_stays_unprinted() -> None:
    """A refused secret is neither in the text nor in the facts."""
    error = BadSetting("HEADRACE_TOKENS", None, "the environment", "tokens")
    assert "a value that is not shown" in str(error)


def test_builtin_kinds() -> None:
    """Callers that know nothing of headrace catch the built-in kind."""
    assert isinstance(ResultTimeout("a", 1, "pending"), TimeoutError)
    assert isinstance(WrongCaller("a", "b", "c"), TypeError)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_retry_after_refuses_what_is_no_delay(seconds: float) -> None:
    """A handler's slip is found where it is made."""
    with pytest.raises(ValueError, match="finite number of seconds"):
        RetryAfter(seconds)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("recipent", "recipient"), ("RECIPIENT", "recipient"), ("zzz", None), ("", None)],
)
def test_nearest(word: str, expected: str | None) -> None:
    """Only something close is offered."""
    assert nearest(word, ["recipient", "subject"]) == expected
