"""The bare client as a command: floor.c compiled where that works, else floor.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from headrace.broker.broker import Queue
from headrace.broker.scripts import script
from headrace.redis_settings import RedisSettings

from .errors import MeasureError
from .server import Server

HERE = Path(__file__).parent
Mode = Literal["ping", "submit", "drain", "pace", "wait", "plain-submit", "plain-drain"]
SCRIPTS: Final[dict[Mode, str]] = {"submit": "submit", "pace": "submit", "drain": "cycle", "wait": "cycle"}
READY_S: Final = 10.0


@dataclass(frozen=True)
class Bare:
    """What the bare client did: tasks a second, and CPU in µs a task, its own and Redis'."""

    tasks: int
    rate: float
    client_us: float
    redis_us: float


@dataclass(frozen=True)
class Floor:
    """How to run the bare client."""

    command: tuple[str, ...]
    name: str

    def run(
        self,
        server: Server,
        mode: Mode,
        tasks: int,
        *,
        batch: int = 1,
        out: int = 1,
        kind: str = "noop",
        settings: RedisSettings | None = None,
    ) -> Bare:
        """`tasks` of type `kind`, `batch` a call, `out` calls outstanding. MeasureError if something went wrong."""
        before = server.cpu_s()
        said = _said(self._start(settings or server.settings, server.queue, mode, kind, (batch, out, tasks)))
        spent = server.cpu_s() - before
        return Bare(tasks, tasks / said["wall_s"], said["cpu_s"] / tasks * 1e6, spent / tasks * 1e6)

    def pickups_ms(self, server: Server, tasks: int, gap_ms: int) -> list[float]:
        """From before each submission until it is claimed, by two bare clients: one submits after every gap, the other
        waits for the marker and claims."""
        start = partial(self._start, server.settings, server.queue)
        with start("wait", "noop", (100, 1, tasks)) as waiting:
            try:
                _until_blocked(server, waiting)
                sent = _said(start("pace", "noop", (gap_ms, 1, tasks)))["at_ns"]
                claimed = _said(waiting)["at_ns"]
            finally:
                waiting.kill()
        return [(end - begin) / 1e6 for begin, end in zip(sent, claimed, strict=True)]

    def _start(
        self, way: RedisSettings, queue: Queue, mode: Mode, kind: str, numbers: tuple[int, int, int]
    ) -> subprocess.Popen[str]:
        """`numbers` are the mode's BATCH (or GAP), OUT and TOTAL."""
        words = [way.path or str(way.port), mode, *map(str, numbers)]
        if mode in SCRIPTS:
            words += [kind, script(SCRIPTS[mode]).sha, queue.keys.prefix]
        return subprocess.Popen([*self.command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def best(self, server: Server, mode: Mode, tasks: int, batch: int) -> Bare:
        """The better of one and two calls outstanding; a drain finds `tasks` waiting each time."""
        runs = []
        for out in (1, 2):
            server.fresh()
            if mode == "drain":
                self.fill(server, tasks)
            runs.append(self.run(server, mode, tasks, batch=batch, out=out))
        return max(runs, key=lambda run: run.rate)

    def plain(self, server: Server, tasks: int, batch: int) -> tuple[Bare, Bare]:
        """Tasks that enter and end by plain commands in pipelines, without a script: what the machine makes of them."""
        server.fresh()
        entered = self.run(server, "plain-submit", tasks, batch=batch)
        return entered, self.run(server, "plain-drain", tasks, batch=batch)

    def fill(self, server: Server, tasks: int, kind: str = "noop") -> Bare:
        """Submit so many tasks, 100 a call."""
        return self.run(server, "submit", tasks, batch=100, out=2, kind=kind)


def _said(client: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = client.communicate()
    if client.returncode != 0:
        raise MeasureError(f"The bare client failed: {err.strip()}")
    said: dict[str, Any] = json.loads(out)
    return said


def _until_blocked(server: Server, client: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + READY_S
    while not server.redis.info("clients")["blocked_clients"]:
        if client.poll() is not None:
            _said(client)
        if time.monotonic() > give_up:
            raise MeasureError("The bare client does not wait for the marker")
        time.sleep(0.01)


def find_floor() -> Floor:
    """Compile floor.c, once, into the user's cache; the loop in Python if there is no compiler or no hiredis."""
    program = _compiled()
    if program is None:
        return Floor((sys.executable, str(HERE / "floor.py")), "hiredis-py in a loop")
    return Floor((str(program),), "C with hiredis")


def _compiled() -> Path | None:
    source = HERE / "floor.c"
    program = _cache() / f"floor-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        fresh = Path(folder) / "floor"
        words = [compiler, "-O2", "-o", str(fresh), str(source), *_hiredis_flags()]
        if subprocess.run(words, capture_output=True, check=False).returncode != 0:
            return None
        fresh.replace(program)
    return program


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _hiredis_flags() -> list[str]:
    tool = shutil.which("pkg-config")
    if tool is not None:
        done = subprocess.run([tool, "--cflags", "--libs", "hiredis"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split()
    return ["-lhiredis"]
