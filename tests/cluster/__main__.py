"""`python -m cluster up | down | refresh | status`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import programs, rig


def main() -> int:
    lacks = programs.missing()
    if lacks:
        print(f"No cluster can be made here: {', '.join(lacks)} missing.")
        return 1
    action = sys.argv[1] if len(sys.argv) > 1 else "status"
    actions: dict[str, Callable[[], object]] = {
        "up": rig.up,
        "down": rig.down,
        "refresh": rig.refresh,
        "status": rig.status,
    }
    if action not in actions:
        print("Say one of: up, down, refresh, status.")
        return 2
    actions[action]()
    print(f"The cluster {rig.status()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
