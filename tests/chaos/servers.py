"""Redis servers whose disk fills up, and whose clock can be set."""

from __future__ import annotations

import resource
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final, Unpack

from headrace_cli.redis_binary import RedisBinary
from redis_server import Options, RedisServer

from . import aof

_SOURCE: Final = Path(__file__).with_name("skew.c")
_IGNORE_XFSZ: Final = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"]


class FillableServer(RedisServer):
    """Its append-only file can be kept from growing, as by a disk that is full."""

    def _command(self) -> list[str]:
        # A write beyond the limit is then an error, and no signal that ends the process.
        return [*_IGNORE_XFSZ, *super()._command()]

    def fill_disk(self, room: int = 0) -> None:
        """Let the file that it writes grow by `room` bytes and no more."""
        size = aof.tail(self).stat().st_size + room
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    @property
    def runs(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.poll() is None


class Clock:
    """The time of day of all processes that start with its `environ`; monotonic clocks go on."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environ: Final = {"LD_PRELOAD": str(library), "SKEW_FILE": str(file)}
        self.set(0.0)

    def set(self, by_s: float) -> None:
        """So much before or behind the true time."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("q", round(by_s * 1_000_000)))


class SkewedServer(RedisServer):
    """Its time of day can be set."""

    def __init__(self, binary: RedisBinary, library: Path, **options: Unpack[Options]) -> None:
        super().__init__(binary, **options)
        self._clock = Clock(library, self.folder / "skew")
        self.set_clock = self._clock.set

    def _command(self) -> list[str]:
        preload = [f"{name}={value}" for name, value in self._clock.environ.items()]
        return ["/usr/bin/env", *preload, *super()._command()]


def build_shim(folder: Path) -> Path | None:
    """The library that shifts the clock; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "skew.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    return library
