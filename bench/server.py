"""A Redis of the bench's own: quiet, on a Unix socket and on loopback TCP, and asked what it costs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace.broker.broker import Call, Queue
from headrace.broker.sync_client import SyncClient
from headrace.redis_settings import RedisSettings
from headrace_cli.child import Guard
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary

from .errors import MeasureError

R = TypeVar("R")

START_S = 10.0
FRESH_S = 60.0


class Server:
    """One Redis process: without persistence, or with an append-only file fsynced every second."""

    def __init__(self, binary: RedisBinary, *, aof: bool = False, tcp: bool = False) -> None:
        self.binary = binary
        self.aof = aof
        self.port = free_port()
        self.queue = Queue("default")
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
        self.socket = self.folder / "s"
        self.tcp = RedisSettings.parse(f"redis://127.0.0.1:{self.port}", "the bench")
        self.settings = self.tcp if tcp else RedisSettings.parse(f"unix://{self.socket}", "the bench")
        """How every measured client connects, the bare one too."""
        self.redis: Any = redis.Redis(
            unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0), socket_timeout=FRESH_S
        )
        self._calls = SyncClient(RedisSettings.parse(f"unix://{self.socket}", "the bench"))
        self._process = subprocess.Popen(
            self._command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self._guard = Guard(self._process.pid, signal.SIGKILL)

    def _command(self) -> list[str]:
        # A rewrite of the file would fall into one round and not into the next.
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "save": "",
            "appendonly": "yes" if self.aof else "no",
            "appendfsync": "everysec",
            "auto-aof-rewrite-percentage": "0",
            "stream-node-max-bytes": "2048",
            "loglevel": "warning",
            "logfile": str(self.folder / "log"),
        }
        return [str(self.binary.path), *(word for name, value in options.items() for word in (f"--{name}", value))]

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        give_up = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                log = (self.folder / "log").read_text(errors="replace")[-500:]
                self.close()
                raise MeasureError(f"{self.binary} did not start: {log}")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        """End it, and delete all it wrote."""
        self.redis.close()
        self._calls.close()
        self._process.kill()
        self._process.wait()
        self._guard.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    # what is done to it

    def call(self, call: Call[R]) -> R:
        """Carry out one transition."""
        return self._calls.call(call)

    def fresh(self) -> None:
        """Nothing in it but the empty queue, and every script loaded."""
        self.redis.flushall(asynchronous=False)
        self.call(self.queue.init())
        self.call(self.queue.enlist())
        self._load()

    def _load(self) -> None:
        from headrace.broker.scripts import all_scripts

        for script in all_scripts().values():
            self.redis.script_load(script.source)

    def live(self) -> int:
        """Tasks that have not ended."""
        return int(self.redis.hlen(self.queue.keys["loc"]))

    def wait_until_empty(self, timeout_s: float) -> float:
        """When (monotonic clock) the last live task had ended, to about 1 ms. Looks seldom, because a look costs."""
        start, before = time.monotonic(), self.live()
        pause = 0.001
        while True:
            time.sleep(pause)
            left, now = self.live(), time.monotonic()
            if left == 0:
                return now
            if now - start > timeout_s:
                raise MeasureError(f"{left} of {before} tasks did not end within {timeout_s:.0f} s")
            rate = max(before - left, 1) / (now - start)
            pause = min(max(left / rate / 3, 0.001), 0.2)

    # what it costs

    def cpu_s(self) -> float:
        """CPU seconds of its main thread so far (of all threads where it does not tell them apart)."""
        facts = self.redis.info("cpu")
        names = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
        if names[0] not in facts:
            names = ("used_cpu_user", "used_cpu_sys")
        return float(sum(facts[name] for name in names))

    def used_memory(self) -> int:
        """Bytes that it has allocated."""
        return int(self.redis.info("memory")["used_memory"])
