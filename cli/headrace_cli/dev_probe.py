"""Looking at an application in a process of its own, so that the next look sees its files as they are then.

As a program (`python -P -m headrace_cli.dev_probe APP`) it imports the application and prints what it found as JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.errors import HeadraceError

from .load import AppLoadError, load_app
from .reload import is_foreign, stamp

IMPORT_S: Final = 60.0
"""What an import may take."""
_REST_S: Final = 0.5
"""How long to read on after the end."""
_OURS: Final = ("headrace", "headrace_api", "headrace_cli", "headrace_operator")


class Type(msgspec.Struct, frozen=True):
    """One task type, as a worker publishes it."""

    schema: dict[str, Any]
    queue: str = "default"
    priority: int = 1


class Sample(msgspec.Struct, frozen=True):
    """A task that the application offers as an example: its module's SAMPLES."""

    type: str
    priority: int
    payload: dict[str, Any]


class Found(msgspec.Struct, frozen=True):
    """An application that can be imported."""

    name: str
    types: dict[str, Type]
    queues: list[str]
    """Where its tasks go; at least one."""
    namespace: str | None = None
    url: str | None = None
    files: dict[str, str] = {}
    """Those of its modules that lie below the current folder, each with its stamp (see `reload`)."""
    samples: list[Sample] = []
    has_targets: bool = False
    """Whether its module has `dev_targets`: servers that its samples talk to."""


class Broken(msgspec.Struct, frozen=True):
    """One that cannot; the parts of an AppLoadError."""

    problem: str
    remedy: str
    detail: str = ""


class Look:
    """A look at an application; begins when it is made, and goes on beside whatever else is done."""

    def __init__(self, app: str, environ: Mapping[str, str] = os.environ) -> None:
        self._app = app
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "headrace_cli.dev_probe", app],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def give_up(self) -> None:
        """End it, if it goes on; nobody wants the result any more."""
        self._process.kill()

    def result(self) -> Found:
        """What was found. Raises AppLoadError."""
        try:
            answer, said = self._printed()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AppLoadError(
                f"Importing {self._app} took longer than {IMPORT_S:g} s",
                "Move slow work from its modules into its tasks",
            ) from None
        try:
            if self._process.returncode == 0:
                return msgspec.json.decode(answer, type=Found)
            broken = msgspec.json.decode(answer, type=Broken)
        except msgspec.DecodeError:
            printed = said.decode(errors="replace")[-4_000:]
            raise AppLoadError(f"Importing {self._app} ended Python", "See what it printed", printed) from None
        raise AppLoadError(broken.problem, broken.remedy, broken.detail)

    def _printed(self) -> tuple[bytes, bytes]:
        deadline = time.monotonic() + IMPORT_S
        while True:
            ended = self._process.poll() is not None
            try:
                return self._process.communicate(timeout=_REST_S)
            except subprocess.TimeoutExpired as error:
                if ended:  # what the application started goes on and holds the pipes
                    return error.output or b"", error.stderr or b""
                if time.monotonic() > deadline:
                    raise


def together(found: Sequence[Found]) -> Found:
    """Several applications as one; the first gives the namespace and the Redis."""
    first, *others = found
    if not others:
        return first
    return msgspec.structs.replace(
        first,
        types={name: type_ for each in found for name, type_ in each.types.items()},
        queues=sorted({queue for each in found for queue in each.queues}),
        files={path: mark for each in found for path, mark in each.files.items()},
        samples=[sample for each in found for sample in each.samples],
    )


def main(name: str) -> int:
    """Print what the application has. Returns 0, or 1 if it cannot be imported."""
    # What the application prints must not get between our JSON and its reader.
    answer = os.dup(1)
    os.dup2(2, 1)
    result: Found | Broken
    try:
        result = _find(name)
    except AppLoadError as error:
        result = Broken(error.problem, error.remedy, error.detail)
    except HeadraceError as error:
        result = Broken(str(error).rstrip("."), "")
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(result))
    return 0 if isinstance(result, Found) else 1


def _find(name: str) -> Found:
    app = load_app(name)
    module = sys.modules[name.partition(":")[0]]
    types = {each.name: Type(each.schema(), each.queue, int(each.priority)) for each in app.registry.values()}
    return Found(
        name=app.name,
        types=types,
        queues=sorted({each.queue for each in types.values()} or {app.queue}),
        namespace=app.namespace,
        url=app.connections._url,
        files={path: stamp(path) for path in sorted(_files(Path.cwd()))},
        samples=[Sample(*each) for each in getattr(module, "SAMPLES", ())],
        has_targets=hasattr(module, "dev_targets"),
    )


def _files(home: Path) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if name.partition(".")[0] in {*_OURS, "__main__"} or not path.is_relative_to(home):
            continue
        parts = path.relative_to(home).parts
        if not any(map(is_foreign, parts)):
            yield str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
