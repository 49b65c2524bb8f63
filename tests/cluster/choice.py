"""Which cluster the tests use on this machine, and that only one session at a time uses it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import host, images, kind, programs, rig


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs."""

    kubeconfig: Path
    kubectl: str
    image: str
    """Of the workers, with the app `clusterapp`."""
    address: str
    """Of this machine, as pods reach it: a Redis server listens there."""
    here: bool
    """Its processes are plain processes of this machine: they can be paused, and pods' processes be killed."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have a cluster of our own."""

    name: str
    missing: Callable[[], list[str]]
    up: Callable[[], Path]
    down: Callable[[], None]
    refresh: Callable[[], None]
    status: Callable[[], str]


KIND = Way("kind", kind.missing, kind.up, kind.down, kind.refresh, kind.status)
RIG = Way("plain processes", programs.missing, rig.up, rig.down, rig.refresh, rig.status)


def choose() -> Way | str:
    """The first way that this machine can go, else what it lacks for each of them."""
    lacks = {way.name: way.missing() for way in (KIND, RIG)}
    for way in (KIND, RIG):
        if not lacks[way.name]:
            return way
    return "no cluster can be made here: " + "; ".join(f"{name} lacks {', '.join(of)}" for name, of in lacks.items())


def running(way: Way) -> Cluster:
    """What :func:`choose` gave, started and with the image of the sources as they are."""
    kubeconfig = way.up()
    way.refresh()
    if way is KIND:
        return Cluster(kubeconfig, "kubectl", images.WORKER, kind.gateway(), here=False)
    return Cluster(kubeconfig, str(programs.folder() / "kubectl"), images.WORKER, host.GATEWAY, here=True)


def given(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster that the environment names, if it does. Raises KeyError for what it leaves out."""
    if not environ.get("HEADRACE_TEST_KUBECONFIG"):
        return None
    built = programs.folder() / "kubectl"
    kubectl = str(built) if built.exists() else shutil.which("kubectl") or "kubectl"
    image, address = environ["HEADRACE_TEST_IMAGE"], environ["HEADRACE_TEST_ADDRESS"]
    here = environ.get("HEADRACE_TEST_HERE") == "true"
    return Cluster(Path(environ["HEADRACE_TEST_KUBECONFIG"]), kubectl, image, address, here)


@contextmanager
def alone(*, wait: bool) -> Iterator[None]:
    """Nobody else starts, stops or tests the cluster meanwhile. Raises BlockingIOError if somebody does already."""
    programs.CACHE.mkdir(parents=True, exist_ok=True)
    with (programs.CACHE / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def holder() -> str:
    """The process that holds the lock, by its number."""
    return (programs.CACHE / "lock").read_text() or "unknown"
