"""How settings are read: once, from a mapping (the environment) and keyword overrides (the command line).

A settings class is a frozen dataclass derived from `Settings`; `setting(default, rule)` makes its fields.
The variable of a field is HEADRACE_ and the field's name in upper case, unless the field names another.
Whatever is wrong is refused here with a ConfigError that names variable, value, where it came from, what is
allowed and what to do; so the rest of headrace never meets a bad value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Generic, Self, TypeVar

from headrace.errors import BadSetting, UnknownSetting, nearest

T = TypeVar("T")

PREFIX = "HEADRACE_"

_known: set[str] = set()

# The operator reads and refuses its own variables.
_LEFT_TO_OTHERS = ("HEADRACE_OPERATOR_",)

# Kubernetes sets such variables for every Service in reach: one called headrace-api must not stop a start.
_LINK_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SHORT_LINK = re.compile(r"\w+(?<!_SERVICE)(?<!_TCP)(?<!_UDP)(?<!_SCTP)_PORT")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True)
class Rule(Generic[T]):
    """What a setting may be: how its text becomes a value, which values pass, and both in words."""

    allowed: str
    parse: Callable[[str], T]
    """Text to value; raises ValueError when the text says nothing of the kind."""
    passes: Callable[[T], bool] = lambda value: True


def setting(default: T, rule: Rule[T], *, env: str | None = None, secret: bool = False) -> T:
    """A field of a settings class. `secret` keeps its value out of every message and repr."""
    return field(default=default, metadata={"rule": rule, "env": env, "secret": secret}, repr=not secret)


def computed_setting(default: Callable[[], T], rule: Rule[T], *, env: str | None = None) -> T:
    """As `setting`, with a default that is found out when the settings are made, such as the host's name."""
    return field(default_factory=default, metadata={"rule": rule, "env": env, "secret": False})


def whole(low: int, high: int, unit: str = "") -> Rule[int]:
    """A whole number from `low` to `high`."""
    allowed = f"a whole number from {low} to {high}{unit and ' ' + unit}"
    return Rule(allowed, _integer, lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float, unit: str = "seconds") -> Rule[float]:
    """A finite number from `low` to `high`."""
    allowed = f"a number from {low:g} to {high:g}{unit and ' ' + unit}"
    return Rule(allowed, _finite, lambda value: isinstance(value, int | float) and low <= value <= high)


def size(low: int, high: int) -> Rule[int]:
    """A number of bytes; the text may end in KiB, MiB or GiB."""
    allowed = f"a number of bytes from {low} to {high} (64KiB and 4MiB may be written so)"
    return Rule(allowed, _bytes, lambda value: type(value) is int and low <= value <= high)


def choice(*values: str) -> Rule[str]:
    """One of these words."""
    return Rule(" or ".join(values), lambda text: text.strip().lower(), lambda value: value in values)


def text(pattern: str, allowed: str) -> Rule[str]:
    """Text that matches the whole pattern."""
    compiled = re.compile(pattern)
    return Rule(allowed, str.strip, lambda value: compiled.fullmatch(value) is not None)


class Settings:
    """Base of the settings classes: reading, checking, refusing."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, declared in cls.__dict__.items():
            if isinstance(declared, Field):
                register_names(declared.metadata["env"] or PREFIX + name.upper())

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            _check(each, getattr(self, each.name), "the program")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: object) -> Self:
        """Read the settings. An override that is None counts as not given; text is parsed as a variable's is.

        Raises BadSetting, and UnknownSetting for a HEADRACE_* variable that no part of headrace reads.
        """
        refuse_unknown(environ)
        values: dict[str, object] = {}
        for each in fields(cls):  # type: ignore[arg-type]
            given = overrides.pop(each.name, None)
            name = variable(each)
            if given is not None:
                values[each.name] = _value(each, given, "the command line")
            elif environ.get(name) and not is_service_link(name, environ[name]):
                values[each.name] = _value(each, environ[name], "the environment")
        if overrides:
            raise TypeError(f"{cls.__name__} has no setting {', '.join(overrides)}")
        return cls(**values)


def variable(each: Field[Any]) -> str:
    """The name of the environment variable that sets this field."""
    return each.metadata["env"] or PREFIX + each.name.upper()


def register_names(*names: str) -> None:
    """Make variables known that another part of headrace reads by itself."""
    _known.update(names)


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Refuse a HEADRACE_* variable that nothing reads: a slip of the pen would do nothing, silently."""
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in _known or name.startswith(_LEFT_TO_OTHERS):
            continue
        if not is_service_link(name, value):
            # Compared without the prefix, which would make everything look alike.
            known = {each.removeprefix(PREFIX): each for each in _known}
            meant = nearest(name.removeprefix(PREFIX), known)
            raise UnknownSetting(name, "the environment", known[meant] if meant else None)


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is one of those that Kubernetes sets for each Service in reach of a pod."""
    if not _LINK_NAME.fullmatch(name):
        return False
    # Only the shortest form, such as HEADRACE_METRICS_PORT, can be a setting of ours as well.
    return not _SHORT_LINK.fullmatch(name) or bool(_LINK_VALUE.match(value))


def _value(each: Field[Any], given: object, source: str) -> object:
    if not isinstance(given, str):
        return _check(each, given, source)
    rule: Rule[object] = each.metadata["rule"]
    try:
        value = rule.parse(given)
    except ValueError as error:
        raise _refusal(each, given, source, str(error)) from None
    return _check(each, value, source, given)


def _check(each: Field[Any], value: object, source: str, given: str | None = None) -> object:
    rule: Rule[object] = each.metadata["rule"]
    if not rule.passes(value):
        raise _refusal(each, str(value) if given is None else given, source)
    return value


def _refusal(each: Field[Any], given: str, source: str, why: str = "") -> BadSetting:
    shown = None if each.metadata["secret"] else given
    return BadSetting(variable(each), shown, source, each.metadata["rule"].allowed, why)


def _integer(given: str) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", given):
        raise ValueError("")
    return int(given)


def _finite(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        raise ValueError("") from None
    if not math.isfinite(value):
        raise ValueError("")
    return value


_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def _bytes(given: str) -> int:
    match = re.fullmatch(r"\s*([0-9]{1,15})\s*(|b|kib|mib|gib)\s*", given, re.IGNORECASE)
    if not match:
        raise ValueError("")
    return int(match[1]) * _UNITS[match[2].lower()]
