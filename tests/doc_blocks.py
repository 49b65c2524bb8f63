"""The code blocks of a page, and a folder in which they are carried out as a reader would.

A comment above a block says what to do with it; a reader does not see it:

    <!-- file: NAME -->  write it · append: add it · replace: in place of the last line · the file: it has this text
    <!-- background: NAME -->   start it and go on, in place of an earlier one of this NAME
    <!-- shows: NAME -->   what that prints next             <!-- ctrl-c: NAME -->   press it, then as shows
    <!-- exit: N -->   its exit code, else 0          <!-- skip: WHY -->   it is not carried out

A block `sh` is typed, a block `python` is run as a program; kinds in QUIET are looked at by tests of their own, as
test_doc_blocks.py says.

A block `text` or `json` after a block `sh` is what that prints; `…` in it stands for anything on a line, and on a line
of its own for any lines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0
QUIET = ("dotenv", "yaml", "promql", "acl", "ini")
"""Kinds of blocks that nobody types."""
_FENCE = re.compile(
    r"(?:^<!-- (?P<what>[a-z -]+)(?:: (?P<value>[^\n]*?))? -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; `what` and `value` are those of the comment above it."""

    page: str
    line: int
    kind: str
    text: str
    what: str
    value: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> Iterator[Block]:
    """All blocks of a page, in order. `page` is a path from the root."""
    text = (ROOT / page).read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("kind")) + 1
        yield Block(page, line, found["kind"], found["text"], found["what"] or "", found["value"] or "")


def pattern_of(shown: str) -> re.Pattern[str]:
    """What a shown text stands for."""
    lines = (
        r"(?:[^\n]*\n)*?" if line == "…" else r"[^\n]*".join(map(re.escape, line.split("…"))) + r"[^\n]*\n"
        for line in shown.splitlines()
    )
    return re.compile("^" + "".join(lines), re.MULTILINE)


@dataclass
class Job:
    """A program that goes on, and how much of what it printed was looked at."""

    process: subprocess.Popen[bytes]
    log: Path
    seen: int = 0

    def expect(self, shown: str) -> None:
        """Wait until it prints this."""
        pattern, deadline = pattern_of(shown), time.monotonic() + PATIENCE_S
        ended = False
        while not (found := pattern.search(self.output(), self.seen)):
            assert not ended and time.monotonic() < deadline, f"did not print\n{shown}but\n{self.output()[self.seen :]}"
            time.sleep(0.05)
            ended = self.process.poll() is not None
        self.seen = found.end()

    def output(self) -> str:
        return self.log.read_text(errors="replace") + "\n"

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=PATIENCE_S)


@dataclass
class Reader:
    """Somebody who does what a page says, in `folder`, with a shell that remembers its variables.

    `port` stands for 8080, which another program may have.
    """

    folder: Path
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    """Other words that stand for something else here, such as the ports of further servers."""
    _jobs: dict[str, Job] = field(default_factory=dict)
    _last: str = ""
    """What the last command printed."""

    def __enter__(self) -> Self:
        tools = str(Path(sys.executable).parent)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "REDIS_"))}
        self._environ = {**kept, "PATH": f"{tools}:{kept['PATH']}", "PORT": str(self.port), **self.environ}
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()
        for job in self._jobs.values():
            if job.process.poll() is None:
                job.end()

    def follow(self, page: str) -> None:
        """Do all of it. Raises AssertionError, which names the block."""
        for block in blocks(page):
            try:
                self.do(block)
            except AssertionError as error:
                error.add_note(f"in {block}")
                raise

    def write_files_of(self, page: str) -> None:
        """Write the files that a page has its reader write, before any of it is replaced; nothing else of it."""
        for block in blocks(page):
            if block.what in {"file", "append", "the file"}:
                self._write(block.what.removeprefix("the "), self.folder / block.value, block.text)

    def do(self, block: Block) -> None:
        """Do what one block says."""
        text = block.text.replace(":8080", f":{self.port}")
        for word, here in self.instead.items():
            text = text.replace(word, here)
        match block.what or block.kind:
            case "skip":
                return
            case "file" | "append" | "replace" | "the file":
                self._write(block.what, self.folder / block.value, text)
            case "background":
                self.start(block.value, text)
            case "shows":
                self._jobs[block.value].expect(text)
            case "ctrl-c":
                self._jobs[block.value].end()
                self._jobs[block.value].expect(text)
            case "exit" | "sh":
                self.run(text, int(block.value or 0))
            case "python":
                self._write("file", self.folder / "example.py", text)
                self.run("python -W error example.py")
            case "text" | "json":
                assert pattern_of(text).fullmatch(self._last), f"expected\n{text}\nbut it printed\n{self._last}"
            case quiet if quiet in QUIET:
                return
            case other:
                raise AssertionError(f"nobody knows what to do with {other!r}")

    def _write(self, how: str, file: Path, text: str) -> None:
        if how == "the file":
            assert file.read_text() == text
            return
        before = "" if how == "file" else file.read_text()
        if how == "replace":
            before = before[: before.rstrip("\n").rindex("\n") + 1]
        file.write_text(before + text)

    def start(self, name: str, command: str) -> Job:
        """Start a program that goes on."""
        if name in self._jobs and self._jobs[name].process.poll() is None:
            self._jobs[name].end()
        log = self.folder / f".{name}-{len(self._jobs)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        job = self._jobs[name] = Job(process, log)
        return job

    def run(self, commands: str, expected: int = 0) -> None:
        """Run it in the shell, and keep what it prints. Raises AssertionError if its last command ends otherwise."""
        mark = f"end-of-block-{time.monotonic_ns()}"
        shell = self._shell
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(f"{commands}\nprintf '\\n{mark} %d\\n' $?\n".encode())
        shell.stdin.flush()
        self._last, code = _read_until(shell.stdout, mark)
        assert code == expected, f"{commands}ended with {code}:\n{self._last}"


def _read_until(stream: IO[bytes], mark: str) -> tuple[str, int]:
    lines: list[str] = []
    for line in iter(stream.readline, b""):
        text = line.decode(errors="replace").replace("\r", "")
        if text.startswith(mark):
            printed = "".join(lines)[:-1]
            return printed if printed.endswith("\n") or not printed else printed + "\n", int(text.split()[1])
        lines.append(text)
    raise AssertionError(f"the shell ended: {''.join(lines)}")
