"""Bounds by the clock: which of a pool's schedules holds now, and what it makes of the bounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .spec import InvalidSpec, Scaling, Schedule

FIELDS: Final = 5
"""Of a cron expression. With six, cronsim takes the first for seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many replicas there may be, and which schedules say so."""

    least: int
    most: int
    because: tuple[str, ...] = ()


def active(schedule: Schedule, now: datetime) -> bool:
    """True from each start up to the next end, by the clock of the schedule's time zone. `now` is aware."""
    local = now.astimezone(ZoneInfo(schedule.time_zone))
    began, ended = _latest(schedule.start, local), _latest(schedule.end, local)
    return began is not None and (ended is None or began > ended)


def _latest(expression: str, local: datetime) -> datetime | None:
    """The last minute up to and with this one that the expression names; None if there never was one."""
    from_next_minute = local.replace(second=0, microsecond=0).timestamp() + 60
    start = datetime.fromtimestamp(from_next_minute, local.tzinfo)
    return next(CronSim(expression, start, reverse=True), None)


def bounds(scaling: Scaling, now: datetime) -> Bounds:
    """The widest floor and the lowest cap that hold now; where they cross, the cap holds."""
    holding = [schedule for schedule in scaling.schedules if active(schedule, now)]
    least = max([scaling.min_replicas, *(s.min_replicas for s in holding if s.min_replicas is not None)])
    most = min([scaling.max_replicas, *(s.max_replicas for s in holding if s.max_replicas is not None)])
    return Bounds(min(least, most), most, tuple(schedule.name for schedule in holding))


def check_schedules(scaling: Scaling) -> None:
    """Raises InvalidSpec for an expression or a time zone that nobody knows."""
    for schedule in scaling.schedules:
        where = f"spec.scaling.schedules[{schedule.name}]"
        for field, expression in (("start", schedule.start), ("end", schedule.end)):
            try:
                if (fields := len(expression.split())) != FIELDS:
                    raise CronSimError(f"it has {fields} fields, not {FIELDS}")
                CronSim(expression, datetime(2026, 1, 1))
            except CronSimError as error:
                raise InvalidSpec(f"{where}.{field}: {expression!r} is no cron expression ({error}).") from None
        _check_zone(where, schedule.time_zone)


def _check_zone(where: str, name: str) -> None:
    try:
        ZoneInfo(name)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError of its own making
        pass
    except KeyError:
        pass
    else:
        return
    raise InvalidSpec(f"{where}.timeZone: {name!r} is no time zone; use a name such as Europe/Berlin.")
