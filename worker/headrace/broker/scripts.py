"""The Lua scripts: each file with its keys, joined with what it includes, known by its SHA-1.

A file says on top `-- keys: …` (suffixes of keys.py, read as `K.<suffix>`, streams also as `K[digit]`), and where it
needs them `-- include: …` (files of `lua/lib`, put in the place of that line).

A call is told one key, which all of its keys begin with and which has their hash tag: to be told each of them cost
Redis as much as a short command a key. So `K.<suffix>` is written as that beginning and the suffix.

Every call makes each function and table of its script anew, and a function costs Redis as much as a fifth of a short
command. So what few calls need stands in a function, libraries included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Self

from .keys import ending

_KEYS: Final = re.compile(r"^-- keys: (.+)$", re.MULTILINE)
_INCLUDE: Final = re.compile(r"\s*-- include: (.+)")
_KEY: Final = re.compile(r"\bK\.(\w+)")
_STREAM: Final = re.compile(r"\bK\[(\w+)\]")


@dataclass(frozen=True)
class Script:
    """One transition: `source` as Redis runs it, `sha` as EVALSHA names it, `keys` by their suffixes."""

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]

    def head(self, prefix: str) -> Head:
        """What every call of it on the keys that begin with `prefix` begins with."""
        return Head.of(self, self.sha.encode(), prefix.encode())


@dataclass(frozen=True, slots=True)
class Head:
    """A call of a script without its arguments."""

    script: Script
    words: tuple[bytes, ...]
    packed: bytes
    """The words as `packing` writes them: nearly half of a call for one task."""

    @classmethod
    def of(cls, script: Script, sha: bytes, key: bytes) -> Self:
        """`key` is the one that a script is told, which all of its keys begin with."""
        words = (b"EVALSHA", sha, b"1", key)
        return cls(script, words, b"".join([b"\r\n$%d\r\n%b" % (len(word), word) for word in words]))

    @property
    def key(self) -> bytes:
        return self.words[3]


def _read(path: str) -> str:
    return resources.files("headrace.broker.lua").joinpath(path).read_text(encoding="utf-8")


def _assemble(name: str) -> Script:
    text = _read(f"{name}.lua")
    shebang, _, body = text.partition("\n")
    found = _KEYS.search(body)
    assert found, f"{name}.lua does not name its keys"
    keys = tuple(found[1].split())
    code = "\n".join(_code(body))
    source = "\n".join([shebang, "local P=KEYS[1]", written_out(code, keys)])
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), keys)


def written_out(code: str, keys: tuple[str, ...]) -> str:
    """Code without `K.<suffix>` and `K[digit]`. ValueError if it uses a key that is not declared."""
    named = _KEY.sub(lambda found: f"P..'{ending(keys[keys.index(found[1])])}'", code)
    return _STREAM.sub(r"P..\1", named)


def _code(text: str) -> Iterator[str]:
    """Its lines, with the libraries and without whole-line comments, which would travel at every connect."""
    for line in text.splitlines():
        include = _INCLUDE.fullmatch(line)
        if include:
            for part in include[1].split():
                yield from _code(_read(f"lib/{part}.lua"))
        elif line and not line.lstrip().startswith("--"):
            yield line


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
