"""The folder ``.headrace/`` of the embedded Redis: who may use it, and what is remembered in it.

``.headrace/url``     its address while it runs; libraries and commands look for it
``.headrace/lock``    locked by the process that started it, for as long as that lives
``.headrace/redis/``  data and log, and ``server`` with what ran last, locked by the server's process itself
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.errors import ConfigError

_PATIENCE_S = 10.0


class EmbeddedError(ConfigError):
    """The embedded Redis cannot be started here; says why and what to do."""

    code = "embedded_redis"


@dataclass(frozen=True)
class Last:
    """What ran here last."""

    pid: int = 0
    port: int = 0
    product: str = ""
    version: tuple[int, int, int] = (0, 0, 0)
    """Of the real server that wrote the data."""

    @classmethod
    def read(cls, file: int) -> Last:
        """From an open file; one that is empty or damaged tells nothing."""
        try:
            known = json.loads(os.pread(file, 4096, 0))
            return cls(**known | {"version": tuple(known["version"])})
        except (ValueError, TypeError, KeyError):
            return cls()

    def write(self, file: int) -> None:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(self)).encode(), 0)


class Folder:
    """One ``.headrace/``, below the folder where a person works."""

    def __init__(self, parent: Path) -> None:
        self.home = parent.resolve() / ".headrace"
        self.data = self.home / "redis"
        self.log = self.data / "redis.log"
        self.url = self.home / "url"
        self._owner = -1
        self.server_lock = -1
        """The file that the server's process inherits and so keeps locked."""

    def take(self) -> Last:
        """Make the folder and take it for this process; tells what ran there last.

        Raises EmbeddedError where another process has it, OSError where it cannot be made. Either way, and at the
        end, say :meth:`leave`.
        """
        self._make()
        self._owner = self._open(self.home / "lock")
        self._become_owner()
        self._await_earlier_server()
        self.url.unlink(missing_ok=True)
        return Last.read(self.server_lock)

    def leave(self) -> None:
        """Let others take it. May be said more than once."""
        for file in (self.server_lock, self._owner):
            if file >= 0:
                os.close(file)
        self.server_lock = self._owner = -1

    def announce(self, url: str) -> None:
        """Write the address so that a reader sees all of it or none."""
        half = self.home / "url.new"
        half.write_text(f"{url}\n")
        half.replace(self.url)

    def _make(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        (self.home / ".gitignore").write_text("*\n")

    def _open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def _become_owner(self) -> None:
        if not _lock(self._owner, 0.0):
            owner = os.pread(self._owner, 4096, 0).decode(errors="replace") or "another process"
            raise EmbeddedError(
                f"The embedded Redis in {self.home} is in use already, by {owner}",
                f"Stop that one first, or share its Redis: HEADRACE_URL=$(cat {self.url})",
            )
        os.ftruncate(self._owner, 0)
        os.pwrite(self._owner, f"process {os.getpid()}".encode(), 0)

    def _await_earlier_server(self) -> None:
        """The server of a process that was killed ends by itself soon after it."""
        self.server_lock = self._open(self.data / "server")
        if not _lock(self.server_lock, _PATIENCE_S):
            pid = Last.read(self.server_lock).pid
            raise EmbeddedError(
                f"A Redis that an earlier start left behind (process {pid}) still uses {self.data}",
                f"End it with: kill {pid}",
            )


def _lock(file: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
