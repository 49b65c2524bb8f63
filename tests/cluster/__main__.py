"""`python -m cluster up | down | build | refresh | status`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from . import images, programs
from .choice import RIG, Way, alone, choose, holder, running
from .go_program import ACTIONLINT, KUBE_SCORE
from .helm import HELM


def main() -> int:
    way = choose()
    if isinstance(way, str):
        print(f"{way[0].upper()}{way[1:]}.")
        return 1
    action = sys.argv[1] if len(sys.argv) > 1 else "status"
    actions: dict[str, Callable[[], object]] = {
        "up": partial(running, way),
        "down": way.down,
        "build": partial(_build, way),
        "refresh": way.refresh,
        "status": way.status,
    }
    if action not in actions:
        print(f"Say one of: {', '.join(actions)}.")
        return 2
    try:
        with alone(wait=False):
            actions[action]()
    except BlockingIOError:
        print(f"Process {holder()} uses the cluster; try again when it has ended.")
        return 1
    print(f"The cluster (by {way.name}) {way.status()}.")
    return 0


def _build(way: Way) -> None:
    """All that takes long and is kept, without starting anything."""
    for program in (HELM, ACTIONLINT, KUBE_SCORE):
        if not program.missing():
            program.build()
    if way is RIG:
        programs.build()
        images.build()


if __name__ == "__main__":
    sys.exit(main())
