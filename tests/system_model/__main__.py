"""`python -m system_model`: runs of the system model; `make model` does many. A seed that is given is run alone."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from headrace_cli.redis_binary import RedisBinary
from redis_server import RedisServer, real_servers

from .nemesis import PROFILES
from .redis_double import Tap
from .run import BrokenError, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m system_model", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first one; it alone, unless --runs says how many")
    parser.add_argument("--profile", default="", choices=[each.name for each in PROFILES])
    parser.add_argument("--runs", type=int)
    given = parser.parse_args()
    first = secrets.randbelow(10**6) if given.seed is None else given.seed
    runs = given.runs or (len(PROFILES) if given.seed is None else 1)
    binary = next(each for each in real_servers().values() if isinstance(each, RedisBinary))
    with RedisServer(binary) as server, Tap(server.socket) as tap:
        for seed in range(first, first + runs):
            began = time.monotonic()
            try:
                outcome = simulate(seed, tap, given.profile)
            except BrokenError as error:
                sys.stdout.write(f"{error}\n")
                return 1
            sys.stdout.write(f"{outcome}, {time.monotonic() - began:.1f} s\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
