"""A stand-in for Redis where no real one can be had: ``python -m headrace_cli.fake_redis PORT``.

It keeps everything in memory (fakeredis) and in one thread, so it is slow and forgets all when it ends.
"""

from __future__ import annotations

import sys

READY = "Ready to accept connections"
"""What Redis and Valkey write to their log once they have read their data, and so does this."""


def main(port: int) -> None:
    """Serve on the loopback address until a signal ends the process."""
    import asyncio

    # Here, because whoever only wants to know READY has no use for fakeredis and may not have it.
    from .fake_redis_server import serve

    asyncio.run(serve(port, lambda: print(READY, flush=True)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
