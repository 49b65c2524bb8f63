"""`python -m bench.image`: the image's size, and how soon its worker claims a task. Needs root, buildah, runc."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import image_kit
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary, find
from image_kit import Image, forget, megabytes
from redis_server import RedisServer

from .workers import clean_environment

ROUNDS: Final = 5
COMMAND: Final = ("worker", "--app", "examples.tasks", "--queues", "default")
TASK: Final = ("export_data", '{"format": "csv", "filters": {}}')


def headrace(url: str, *arguments: str) -> str:
    """What a command of this checkout prints."""
    command = [sys.executable, "-m", "headrace_cli", *arguments, "--redis", url]
    run = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    return run.stdout.strip()


def first_claim_s(image: Image, server: RedisServer, *, cold: bool) -> float:
    """A task waits; seconds from the start of `runc run` to the claim."""
    server.redis.flushall()
    task = headrace(server.url, "submit", *TASK)
    if cold:
        forget(image.root)
    environ = {"HEADRACE_URL": server.url, "HEADRACE_METRICS_PORT": str(free_port()), "EXAMPLES_OUTPUT": "/tmp/output"}
    started = time.time()
    container = image.run(*COMMAND, env=environ)
    try:
        found: dict[str, Any] = json.loads(headrace(server.url, "task", "get", task, "--wait", "-o", "json"))
    finally:
        container.terminate()
        container.communicate(timeout=30)
    claimed = datetime.fromisoformat(found["started_at"]).timestamp()
    return claimed - started


PARTS: Final = {
    "Pillow": ("PIL", "pillow.libs"),
    "kopf, Kubernetes client": ("kopf", "kubernetes", "pydantic", "pydantic_core"),
    "headrace itself": ("headrace", "headrace_api", "headrace_operator", "headrace_cli"),
}
"""What docs/how-to/image.md tells apart, by its folders in the image."""


def sizes(root: Path) -> dict[str, float]:
    """What the Dockerfile adds to its base, in MB, and parts of that. Raises FileNotFoundError if one is not there."""
    [packages] = (root / "opt/headrace/lib").glob("python3.*/site-packages")
    found = {"all that is added": megabytes(root / "opt/headrace", root / "app")}
    for part, names in PARTS.items():
        found[part] = megabytes(*((packages / name).resolve(strict=True) for name in names))
    return found


def main() -> int:
    if lacks := image_kit.missing():
        print(f"The image cannot be built here: {', '.join(lacks)} is missing.")
        return 1
    binary = next(each for each in find() if isinstance(each, RedisBinary))
    image_kit.build()
    with image_kit.opened() as image, RedisServer(binary) as server:
        for name, size in sizes(image.root).items():
            print(f"{name:24} {size:7.1f} MB")
        for name, cold in (("warm files", False), ("files not in memory", True)):
            rounds = [first_claim_s(image, server, cold=cold) for _ in range(ROUNDS)]
            print(f"{name:24} {median(rounds):7.2f} s from start to claim ({min(rounds):.2f} to {max(rounds):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
