"""What a release needs of the sources: `release.py check v1.2.3`, `release.py notes v1.2.3`. It needs no package."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent.parent


def versions(root: Path) -> dict[str, str]:
    """Where a version is written → what it is."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {
        "pyproject.toml": project["version"],
        "worker/headrace/__init__.py": _found(root / "worker/headrace/__init__.py", r'__version__ = "(.+)"'),
        "charts/headrace/Chart.yaml (appVersion)": _found(
            root / "charts/headrace/Chart.yaml", r'appVersion: "?([^"\n]+)"?'
        ),
    }


def notes(root: Path, version: str) -> str | None:
    """The changelog's section of a version, without its heading; None if there is none with a date."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |^\[|\Z)"
    section = re.search(heading, (root / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else None


def problems(root: Path, tag: str) -> list[str]:
    """Why this tag cannot be released; nothing, if it can."""
    version = tag.removeprefix("v")
    wrong = [f"{where} says {there}, and the tag {tag}." for where, there in versions(root).items() if there != version]
    if not notes(root, version):
        wrong.append(f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD`, or an empty one.")
    return wrong


def _found(file: Path, pattern: str) -> str:
    line = re.search(rf"^{pattern}$", file.read_text(), re.MULTILINE)
    return line[1] if line else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("check", "notes"))
    parser.add_argument("tag", metavar="vX.Y.Z")
    parser.add_argument("--root", type=Path, default=HERE, help="the checkout")
    given = parser.parse_args()
    if wrong := problems(given.root, given.tag):
        sys.stderr.write("\n".join(wrong) + "\n")
        return 1
    if given.action == "notes":
        sys.stdout.write(f"{notes(given.root, given.tag.removeprefix('v'))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
