"""Errors of settings and definitions: what stops a start. Import them from `headrace.errors`."""
# ruff: noqa: N818 - named for the outcome, as users read them

from __future__ import annotations

from headrace.error_base import HeadraceError
from headrace.error_base import ended as _ended


class ConfigError(HeadraceError):
    """Something that was configured cannot be used. `problem` and `remedy` lack the full stop."""

    code = "config"

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{_ended(self.problem)} {_ended(self.remedy)}" if self.remedy else _ended(self.problem)


class UnknownSetting(ConfigError):
    """A variable that starts with HEADRACE_ and that nothing reads: most likely a slip of the pen."""

    code = "unknown_setting"

    def __init__(self, name: str, source: str, meant: str | None = None) -> None:
        hint = f"Did you mean {meant}?" if meant else "Remove it, or look it up in the table of settings"
        super().__init__(f"{name} (from {source}) is not a setting of headrace", hint)
        self.args = (name, source, meant)
        self.name = name
        self.meant = meant


class BadSetting(ConfigError):
    """A setting whose value is refused. A secret value is passed as None and stays unprinted."""

    code = "bad_setting"

    def __init__(self, name: str, value: str | None, source: str, allowed: str, remedy: str = "") -> None:
        shown = "a value that is not shown" if value is None else repr(value)
        advice = remedy or "Correct it, or remove it to take the default"
        super().__init__(f"{name} is {shown} (from {source}); allowed is {allowed}", advice)
        self.args = (name, value, source, allowed, remedy)
        self.name = name


class BadDefinition(ConfigError):
    """What an application declares (task, lifespan, middleware) cannot work; raised while it is imported."""

    code = "bad_definition"

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}", remedy)
        self.args = (where, problem, remedy)
        self.where = where
