"""All pages of docs/ that are made from the code: `make docs` writes them, a test compares each.

python -m headrace_cli.pages [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import click

from . import commands_page, error_page, errors_page, http_page, metrics_page, settings_page
from .error_codes import known_codes

__all__ = ["PAGES"]

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings_page.page,
    "commands.md": commands_page.page,
    "errors.md": errors_page.page,
    "http.md": http_page.page,
    "metrics.md": metrics_page.page,
    **{f"errors/{code}.md": partial(error_page.page, code) for code in known_codes()},
}
"""File in docs/ → what makes it."""


def main(folder: Path) -> None:
    """Write those that changed, and say which."""
    (folder / "errors").mkdir(exist_ok=True)
    for name, make in PAGES.items():
        file, text = folder / name, make()
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            click.echo(f"{file} is new")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
