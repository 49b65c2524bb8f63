"""A stand-in for Redis where no real one can be had: ``python -m headrace_cli.fake_redis PORT``.

It keeps everything in memory and in one thread at a time, so it is slow and forgets all when it ends.
"""

from __future__ import annotations

import sys

READY = "Ready to accept connections"
"""What Redis and Valkey write to their log once they have read their data, and so does this."""


def main(port: int) -> None:
    """Serve on the loopback address until a signal ends the process."""
    from fakeredis import TcpFakeServer

    TcpFakeServer.daemon_threads = True
    with TcpFakeServer(("127.0.0.1", port), server_type="redis", server_version=(7, 2)) as server:
        print(READY, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
