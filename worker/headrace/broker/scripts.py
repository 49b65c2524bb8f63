"""The Lua scripts: each file with its keys, joined with what it includes, known by its SHA-1.

A file says on top `-- keys: …` (suffixes of keys.py, passed as KEYS and read as `K.<suffix>`) and `-- include: …`
(files of `lua/lib`, put before it).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_KEYS: Final = re.compile(r"^-- keys: (.+)$", re.MULTILINE)
_INCLUDES: Final = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """One transition: `source` as Redis runs it, `sha` as EVALSHA names it, `keys` in the order of KEYS."""

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]


def _read(path: str) -> str:
    return resources.files("headrace.broker.lua").joinpath(path).read_text(encoding="utf-8")


def _assemble(name: str) -> Script:
    text = _read(f"{name}.lua")
    shebang, _, body = text.partition("\n")
    found = _KEYS.search(body)
    assert found, f"{name}.lua does not name its keys"
    keys = tuple(found[1].split())
    table = ",".join(f"['{key}']=KEYS[{index}]" for index, key in enumerate(keys, 1))
    includes = _INCLUDES.search(body)
    libraries = [_code(_read(f"lib/{part}.lua")) for part in (includes[1].split() if includes else ())]
    source = "\n".join([shebang, f"local K={{{table}}}", *libraries, _code(body)])
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), keys)


def _code(text: str) -> str:
    """Without whole-line comments: they would travel to every server at every connect."""
    return "\n".join(line for line in text.splitlines() if line and not line.lstrip().startswith("--"))


@cache
def all_scripts() -> dict[str, Script]:
    """Every script by its name."""
    files = resources.files("headrace.broker.lua").iterdir()
    names = sorted(file.name.removesuffix(".lua") for file in files if file.name.endswith(".lua"))
    return {name: _assemble(name) for name in names}


@cache
def script(name: str) -> Script:
    """The script of this transition."""
    return all_scripts()[name]


def without_shebang(source: str) -> str:
    """For servers that do not know `#!lua` (fakeredis)."""
    return source.partition("\n")[2]
