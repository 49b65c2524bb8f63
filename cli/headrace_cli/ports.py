"""TCP ports of the loopback address for the servers that ``headrace dev`` starts."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

# Below the ports that systems lend to outgoing connections (from 32768 on Linux, 49152 elsewhere). Inside that
# range a client that knocks at a server which is down now and then gets the server's own port, connects to itself,
# and the server cannot come back.
_RANGE = range(16384, 32768)
_TRIES = 200


def free_port() -> int:
    """One on which nothing listens now. Raises OSError where none was found."""
    for port in random.sample(_RANGE, _TRIES):
        if is_free(port):
            return port
    raise OSError(f"{_TRIES} ports of {HOST} from {_RANGE.start} to {_RANGE.stop - 1} are all taken")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
