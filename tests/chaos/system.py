"""APIs and workers as real processes on one Redis, each of which can be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import aiohttp

from command_line import HEADRACE, PATIENCE_S, clean_environ
from headrace_cli.child import Guard
from headrace_cli.ports import free_port
from roles import url_of

from . import ledger
from .ledger import VARIABLE

TESTS: Final = Path(__file__).parent.parent
DEAD_AFTER_S: Final = 3.0
"""Without a sign of life for so long a worker of this system is dead."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Program:
    """One `headrace …`, with one log over all its starts."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        self._environ = dict(clean_environ(environ))
        self._given_path = environ.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        self.prefer("")
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def pid(self) -> int:
        """An error where no process runs."""
        assert self._process is not None, f"{self.name} is stopped"
        return self._process.pid

    @property
    def ended_by_itself(self) -> int | None:
        """Its exit code, if nobody here ended it."""
        return self._process.poll() if self._process is not None else None

    def prefer(self, path: str) -> None:
        """From its next start on code is looked for in `path` first, before where this process would look."""
        parts = (path, str(TESTS), self._given_path)
        self._environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))

    def give(self, environ: Mapping[str, str]) -> None:
        """From its next start on."""
        self._environ |= environ

    def start(self) -> None:
        assert self._process is None, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*HEADRACE, *self._arguments],
                cwd=TESTS,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; nothing happens if no process runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> int:
        if self._process is None or self._guard is None:
            return 0
        self._process.send_signal(sign)
        self._process.send_signal(signal.SIGCONT)
        code = self._process.wait(PATIENCE_S)
        self._guard.release()
        self._process = self._guard = None
        return code

    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def fds(self) -> int:
        """Files that it has open now."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


class System:
    """`apis` and `workers`, all of which reach Redis by `url`. Entering the block waits until the APIs answer."""

    def __init__(self, url: str, folder: Path, *, apis: int = 1, workers: int = 2, **environ: str) -> None:
        self.ledger = folder / "ledger"
        common = {"HEADRACE_LOG_LEVEL": "warning", **environ}
        ports = [free_port() for _ in range(apis)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [
            Program(f"api-{number}", ["api"], {**common, "HEADRACE_URL": url_of("api", url), "PORT": str(port)}, folder)
            for number, port in enumerate(ports)
        ]
        of_workers = {
            "HEADRACE_URL": url_of("worker", url),
            VARIABLE: str(self.ledger),
            "HEADRACE_METRICS_PORT": "0",
            "HEADRACE_BEAT_S": "0.5",
            "HEADRACE_DEAD_AFTER_S": f"{DEAD_AFTER_S:g}",
            "HEADRACE_BACKOFF_BASE_S": "0.1",
            "HEADRACE_BACKOFF_CAP_S": "1",
        }
        self.workers = [
            Program(
                f"worker-{number}",
                ["worker", "--app", "chaos.tasks"],
                {**of_workers, **common, "WORKER_ID": f"worker-{number}"},
                folder,
            )
            for number in range(workers)
        ]

    @property
    def programs(self) -> list[Program]:
        return [*self.apis, *self.workers]

    async def __aenter__(self) -> Self:
        for program in self.programs:
            program.start()
        try:
            for number in range(len(self.apis)):
                await self.ready(number)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for program in self.programs:
            program.kill()

    async def ready(self, number: int) -> None:
        """Until this API answers. Raises AssertionError with its log if it does not."""
        deadline = time.monotonic() + PATIENCE_S
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.urls[number]}/livez") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                program = self.apis[number]
                late = program.ended_by_itself is not None or time.monotonic() > deadline
                assert not late, f"{program.name} does not answer: {program.log.read_text()[-2_000:]}"
                await asyncio.sleep(0.05)

    async def works(self, program: Program) -> None:
        """Until this worker, since its last start, has begun a task; before that a signal may end it without a word."""
        name = f"{program.name}:{program.pid}"
        async with asyncio.timeout(PATIENCE_S):
            while not any(note.worker == name for note in ledger.read(self.ledger).begun):
                assert program.ended_by_itself is None, program.log.read_text()[-2_000:]
                await asyncio.sleep(0.05)

    def fallen(self) -> list[str]:
        """Programs that ended although nobody ended them, with the last that they said."""
        return [
            f"{each.name} ended with {each.ended_by_itself}: {each.log.read_text()[-1_000:]}"
            for each in self.programs
            if each.ended_by_itself is not None
        ]
