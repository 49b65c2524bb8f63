"""The example of the library runs as it stands; what type checkers say of it is in test_typing.py."""

from __future__ import annotations

from examples.thirty_lines import test_sync_view, test_view

__all__ = ["test_sync_view", "test_view"]


def test_it_has_thirty_lines_of_code() -> None:
    """As it says of itself, without blank lines, imports and tests."""
    from pathlib import Path

    from examples import thirty_lines

    text = Path(str(thirty_lines.__file__)).read_text().partition("async def test_view")[0]
    code = [line for line in text.splitlines() if line and not line.startswith(("from ", '"""'))]
    assert len(code) <= 30, len(code)
