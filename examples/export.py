"""Exports: rows of a table that pass a filter, written as CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec

from examples.files import atomic_file, output_path
from headrace import Permanent
from headrace.errors import nearest

Format = Literal["csv", "json", "jsonl"]
Value = int | float | bool | str
Row = dict[str, Value]
Test = Callable[[Row], bool]

_SOURCE: Final = Path(__file__).parent / "data" / "orders.csv"
_OPERATORS: Final = ("min", "max", "in")
_MAX_CHOICES: Final = 1000
_FORMULA_STARTS: Final = frozenset("=+-@＝＋－＠")


class Exported(msgspec.Struct, frozen=True):
    """What was written, and where."""

    path: str
    format: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is read, and which values a filter may compare it with."""

    read: Callable[[str], Value]
    fits: Callable[[Any], bool]
    what: str
    ordered: bool = True


def _is_date(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) == 10 and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TEXT: Final = Column(str, lambda v: isinstance(v, str), "text")
_NUMBER: Final = Column(int, _is_number, "a number")
_MONEY: Final = Column(float, _is_number, "a number")
_DATE: Final = Column(str, _is_date, "a date such as 2024-01-31")
_FLAG: Final = Column(lambda text: text == "true", lambda v: isinstance(v, bool), "true or false", ordered=False)

COLUMNS: Final[Mapping[str, Column]] = {
    "order_id": _NUMBER,
    "ordered_on": _DATE,
    "customer": _TEXT,
    "country": _TEXT,
    "product": _TEXT,
    "quantity": _NUMBER,
    "amount": _MONEY,
    "status": _TEXT,
    "paid": _FLAG,
    "note": _TEXT,
}


@cache
def orders() -> tuple[Row, ...]:
    """The rows that are shipped with the examples, in the order of the file."""
    with _SOURCE.open(encoding="utf-8", newline="") as file:
        return tuple({name: COLUMNS[name].read(text) for name, text in row.items()} for row in csv.DictReader(file))


def select(rows: Iterable[Row], filters: Mapping[str, Any]) -> list[Row]:
    """The rows that pass every filter.

    A filter is a value (equal), `{"in": [values]}`, or `{"min": value, "max": value}` with either or both,
    ends included. Raises Permanent that lists everything wrong with them, so one correction is enough.
    """
    tests: list[Test] = []
    wrong: list[str] = []
    for name, condition in filters.items():
        try:
            tests += _tests(name, condition)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise Permanent(f"The filters cannot be used: {'; '.join(wrong)}.")
    return [row for row in rows if all(test(row) for test in tests)]


def _tests(name: str, condition: Any) -> list[Test]:
    column = COLUMNS.get(name)
    if column is None:
        raise ValueError(f"there is no column {name!r}{_hint(name, COLUMNS)}")
    if not isinstance(condition, dict):
        wanted = _value(name, column, condition)
        return [lambda row: row[name] == wanted]
    if not condition:
        raise ValueError(f"the filter for {name} is empty; give a value, or min, max or in")
    return [_comparison(name, column, operator, operand) for operator, operand in condition.items()]


def _comparison(name: str, column: Column, operator: str, operand: Any) -> Test:
    if operator not in _OPERATORS:
        raise ValueError(f"{name} has the unknown condition {operator!r}{_hint(operator, _OPERATORS)}")
    if operator == "in":
        choices = _choices(name, column, operand)
        return lambda row: row[name] in choices
    if not column.ordered:
        raise ValueError(f"{name} is {column.what}, so it has no {operator}")
    bound: Any = _value(name, column, operand)
    if operator == "min":
        return lambda row: row[name] >= bound
    return lambda row: row[name] <= bound


def _choices(name: str, column: Column, operand: Any) -> list[Value]:
    if not isinstance(operand, list) or not 1 <= len(operand) <= _MAX_CHOICES:
        raise ValueError(f"in for {name} takes a list of 1 to {_MAX_CHOICES} values")
    return [_value(name, column, choice) for choice in operand]


def _value(name: str, column: Column, given: Any) -> Value:
    if isinstance(given, list):
        raise ValueError(f'{name} cannot equal a list; to choose among several write {{"in": [...]}}')
    if not column.fits(given):
        raise ValueError(f"{name} is compared with {column.what}, not with {msgspec.json.encode(given).decode()[:60]}")
    value: Value = given
    return value


def _hint(word: str, known: Iterable[str]) -> str:
    names = list(known)
    meant = nearest(word, names)
    return f" (did you mean {meant!r}?)" if meant else f" (there are {', '.join(names)})"


def export(task_id: str, kind: Format, filters: Mapping[str, Any], output: Path) -> Exported:
    """Write the orders that pass `filters` to a file. Raises Permanent for filters that cannot be used."""
    rows = select(orders(), filters)
    path = output_path(output, task_id, kind)
    with atomic_file(path) as file:
        _WRITERS[kind](rows, file)
        size = file.tell()
    return Exported(str(path), kind, len(rows), size)


def safe_cell(value: Value) -> Value:
    """A cell that a spreadsheet shows instead of running: text that starts like a formula gets a leading '.

    Numbers stay numbers, also negative ones.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    # Spreadsheets skip leading blanks and read the full-width forms of the four signs as the signs.
    if isinstance(value, str) and (value[:1] in ("\t", "\r", "\n") or value.lstrip()[:1] in _FORMULA_STARTS):
        return "'" + value
    return value


def _write_csv(rows: Sequence[Row], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([safe_cell(row[name]) for name in COLUMNS] for row in rows)
    text.detach()


def _write_json(rows: Sequence[Row], file: IO[bytes]) -> None:
    file.write(msgspec.json.encode(rows) + b"\n")


def _write_jsonl(rows: Sequence[Row], file: IO[bytes]) -> None:
    file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)


_WRITERS: Final[Mapping[Format, Callable[[Sequence[Row], IO[bytes]], None]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "jsonl": _write_jsonl,
}
