"""`export_data`: rows that pass the filters, in three formats, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from examples import export as module
from examples.export import COLUMNS, Format, Row, export, orders, safe_cell, select
from headrace import Permanent

TASK = "550e8400-e29b-41d4-a716-446655440000"


def test_the_shipped_rows_have_every_column_in_its_type() -> None:
    assert len(orders()) == 200
    for row in orders():
        assert list(row) == list(COLUMNS)
        assert all(COLUMNS[name].fits(value) for name, value in row.items())


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, lambda row: True),
        ({"status": "open"}, lambda row: row["status"] == "open"),
        ({"paid": False}, lambda row: row["paid"] is False),
        ({"quantity": 3}, lambda row: row["quantity"] == 3),
        ({"quantity": 3.0}, lambda row: row["quantity"] == 3),
        ({"amount": {"min": 100}}, lambda row: row["amount"] >= 100),
        ({"amount": {"min": -500, "max": 0}}, lambda row: -500 <= row["amount"] <= 0),
        ({"ordered_on": {"max": "2024-03-01"}}, lambda row: row["ordered_on"] <= "2024-03-01"),
        ({"country": {"in": ["DE", "FR"]}}, lambda row: row["country"] in ("DE", "FR")),
        ({"quantity": {"in": [1, 2, 3], "min": 2}}, lambda row: row["quantity"] in (2, 3)),
        ({"status": "open", "paid": False}, lambda row: row["status"] == "open" and not row["paid"]),
    ],
)
def test_filters_keep_exactly_the_rows_they_describe(filters: dict[str, Any], passes: Any) -> None:
    kept = select(orders(), filters)
    assert kept == [row for row in orders() if passes(row)]
    assert kept, "a filter that keeps nothing shows nothing"


def test_a_filter_that_no_row_passes_keeps_none() -> None:
    assert select(orders(), {"status": "melted"}) == []


def test_both_ends_of_a_range_belong_to_it() -> None:
    rows: list[Row] = [{"quantity": n} for n in range(5)]
    assert select(rows, {"quantity": {"min": 1, "max": 3}}) == [{"quantity": n} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"statsu": "open"}, r"no column 'statsu' \(did you mean 'status'\?\)"),
        ({"zzz": 1}, r"no column 'zzz' \(there are order_id, ordered_on, customer"),
        ({"amount": {"mn": 1}}, r"unknown condition 'mn' \(did you mean 'min'\?\)"),
        ({"amount": {"gt": 1}}, r"unknown condition 'gt' \(there are min, max, in\)"),
        ({"amount": {}}, "the filter for amount is empty"),
        ({"amount": "100"}, 'amount is compared with a number, not with "100"'),
        ({"amount": True}, "amount is compared with a number, not with true"),
        ({"amount": None}, "amount is compared with a number, not with null"),
        ({"paid": 1}, "paid is compared with true or false, not with 1"),
        ({"paid": {"min": False}}, "paid is true or false, so it has no min"),
        ({"ordered_on": "yesterday"}, "a date such as 2024-01-31"),
        ({"ordered_on": {"min": "2024-02-30"}}, "a date such as 2024-01-31"),
        ({"status": ["open"]}, r'write \{"in": \[\.\.\.\]\}'),
        ({"status": {"in": "open"}}, "takes a list of 1 to 1000 values"),
        ({"status": {"in": []}}, "takes a list of 1 to 1000 values"),
        ({"status": {"in": [1]}}, "status is compared with text, not with 1"),
        ({"statsu": 1, "amount": "x"}, "statsu.*; amount is compared"),
    ],
)
def test_a_wrong_filter_is_permanent_and_says_what_to_write(filters: dict[str, Any], said: str) -> None:
    with pytest.raises(Permanent, match=said):
        select(orders(), filters)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_each_format_reads_back_as_the_same_rows(kind: Format, tmp_path: Path) -> None:
    wanted = select(orders(), {"country": {"in": ["DE", "DK"]}})
    result = export(TASK, kind, {"country": {"in": ["DE", "DK"]}}, tmp_path)
    path = Path(result.path)
    assert (path, result.rows, result.bytes) == (tmp_path / f"{TASK}.{kind}", len(wanted), path.stat().st_size)
    text = path.read_text(encoding="utf-8")
    if kind == "csv":
        read: list[Any] = list(csv.DictReader(text.splitlines(keepends=True)))
        assert read == [{name: str(safe_cell(value)) for name, value in row.items()} for row in wanted]
    else:
        read = json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
        assert read == wanted


def test_no_text_cell_of_a_csv_starts_a_formula(tmp_path: Path) -> None:
    """A spreadsheet would run it on the machine of whoever opens the file."""
    notes = [row["note"] for row in orders()]
    assert {str(note)[:1] for note in notes} >= set("=+-@"), "the shipped rows try it"
    with Path(export(TASK, "csv", {}, tmp_path).path).open(encoding="utf-8", newline="") as file:
        written = [row["note"] for row in csv.DictReader(file)]
    assert [note.removeprefix("'") for note in written] == notes
    assert not any(note[:1] in ("=", "+", "-", "@") for note in written)


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+44", "'+44"),
        ("-x", "'-x"),
        ("@SUM", "'@SUM"),
        ("\t=1", "'\t=1"),
        ("\rx", "'\rx"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
        ("", ""),
        (-12.5, -12.5),
        (True, "true"),
    ],
)
def test_cells_are_made_safe_and_numbers_stay_numbers(cell: Any, safe: Any) -> None:
    assert safe_cell(cell) == safe


def test_a_second_run_replaces_the_file(tmp_path: Path) -> None:
    first = export(TASK, "csv", {}, tmp_path)
    second = export(TASK, "csv", {"status": "open"}, tmp_path)
    assert first.path == second.path
    assert [path.name for path in tmp_path.iterdir()] == [f"{TASK}.csv"]
    assert Path(second.path).stat().st_size == second.bytes < first.bytes


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = export(TASK, "csv", {}, tmp_path)

    def broken(rows: object, file: Any) -> None:
        file.write(b"half a row")
        raise OSError("disk full")

    monkeypatch.setattr(module, "_WRITERS", {"csv": broken})
    with pytest.raises(OSError, match="disk full"):
        export(TASK, "csv", {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{TASK}.csv"]
    assert Path(before.path).stat().st_size == before.bytes


@pytest.mark.parametrize("task_id", ["../escape", "/etc/passwd", "a/b", "", "a\x00b", ".hidden", "x" * 300])
def test_a_task_id_cannot_name_a_file_elsewhere(task_id: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="cannot be used as the name of a file"):
        export(task_id, "csv", {}, tmp_path)
