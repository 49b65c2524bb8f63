"""Where Redis is and how to get in.

The first that is there counts: the argument (a flag, `App(url=)`), HEADRACE_URL, REDIS_ADDR with
REDIS_PASSWORD, the file `.headrace/url` that `headrace dev` writes (in this folder or one above; if its
server answers), and localhost:6379. Every message about a connection says which it was; none shows a password.

    redis://user:password@host:6379/0          rediss://… the same over TLS
    unix:///run/redis.sock?db=0
    redis+sentinel://user:password@host:26379,host:26379/master/0      rediss+sentinel://… over TLS
Query parameters: ssl_ca_certs, ssl_certfile, ssl_keyfile (paths), ssl_check_hostname (true or false), db.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from headrace.environment import register_names
from headrace.errors import BadSetting, nearest

logger = logging.getLogger(__name__)

DEFAULT_PORT, DEFAULT_SENTINEL_PORT = 6379, 26379
DISCOVERY_TIMEOUT_S = 0.25

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")
_PARAMETERS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "db")
_EXAMPLE = "redis://host:6379/0, rediss://…, unix:///path or redis+sentinel://host:port,host:port/master/0"
_ENCODE = "Percent-encode what is special in a password: / is %2F, @ is %40, # is %23"

register_names(
    "HEADRACE_URL",
    "HEADRACE_REDIS_USERNAME",
    "HEADRACE_REDIS_PASSWORD",
    "HEADRACE_REDIS_SENTINEL_PASSWORD",
    "HEADRACE_REDIS_CA",
    "HEADRACE_REDIS_CERT",
    "HEADRACE_REDIS_KEY",
    "HEADRACE_REDIS_SECRET",
)


@dataclass(frozen=True)
class Tls:
    """How the server is checked, and how this side shows who it is: paths of PEM files, empty = not given."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    check_hostname: bool = True


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """One Redis, as found by `from_env` or written as a URL (`parse`)."""

    source: str = "the default"
    """Which setting this came from, for messages."""
    kind: Literal["tcp", "unix", "sentinel"] = "tcp"
    """How to connect: `host`:`port`, the socket at `path`, or the `master` that the `sentinels` name."""
    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    """For the sentinels themselves, where they ask for one."""
    db: int = 0
    tls: Tls | None = None
    """None is plain text."""
    connect_timeout_s: float = 1.0
    """Seconds to wait for a connection."""
    timeout_s: float = 5.0
    """Seconds to wait for an answer, beyond what a blocking call may block."""

    @property
    def url(self) -> str:
        """The whole address, password included: for a client or a child process, never for a message."""
        login = f"{quote(self.username, '')}:{quote(self.password, '')}@" if self.password else ""
        return self._address(login)

    @property
    def safe_url(self) -> str:
        """The address with the password left out."""
        return self._address(f"{quote(self.username, '')}:***@" if self.password else "")

    def __str__(self) -> str:
        """As a message names it, e.g. `redis://localhost:6379/0 (from HEADRACE_URL)`."""
        return f"{self.safe_url} (from {self.source})"

    def _address(self, login: str) -> str:
        if self.kind == "unix":
            return f"unix://{login}{quote(self.path)}?db={self.db}"
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.kind == "sentinel" else "")
        hosts = self.sentinels if self.kind == "sentinel" else ((self.host, self.port),)
        where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
        master = f"/{quote(self.master)}" if self.kind == "sentinel" else ""
        return f"{scheme}://{login}{where}{master}/{self.db}{_tls_query(self.tls)}"

    @classmethod
    def parse(cls, url: str, source: str) -> RedisSettings:
        """Read a URL. Raises BadSetting, which shows the URL without its password."""
        return _Url(url, source).read()

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], argument: str | None = None, cwd: Path | None = None
    ) -> RedisSettings:
        """Find Redis, in the order of this module's first lines. The search for the file begins in `cwd`.

        Raises BadSetting, also where HEADRACE_REDIS_SECRET says that an address is given, and there is none.
        """
        if argument:
            return _complete(cls.parse(argument, "the argument"), environ)
        if environ.get("HEADRACE_URL"):
            found = _complete(cls.parse(environ["HEADRACE_URL"], "HEADRACE_URL"), environ)
            _warn_of_contradiction(found, environ)
            return found
        if environ.get("REDIS_ADDR"):
            return _from_addr(environ)
        _refuse_without_address(environ)
        return _from_file(cwd or Path.cwd()) or _complete(cls(password=environ.get("REDIS_PASSWORD", "")), environ)


class _Url:
    """A URL being read; each step takes its part and refuses what it cannot be."""

    def __init__(self, url: str, source: str) -> None:
        self.source = source
        # A password with a raw / or @ in it makes no valid URL, and must not be shown for that.
        self.shown = re.sub(r"^(\w[\w+]*://)?.*@", r"\1***@", url.strip())
        try:
            self.parts = urlsplit(url.strip())
        except ValueError as error:
            self.refuse(str(error))
        self.options = self._options()

    def refuse(self, why: str) -> NoReturn:
        raise BadSetting("The address of Redis", self.shown, self.source, _EXAMPLE, why)

    def read(self) -> RedisSettings:
        scheme = self.parts.scheme
        if scheme not in _SCHEMES:
            self.refuse(f"The address begins with one of {', '.join(name + '://' for name in _SCHEMES)}")
        if self.parts.fragment or "@" in self.parts.path:
            self.refuse(_ENCODE)
        login, _, hosts = self.parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        found = RedisSettings(source=self.source, username=unquote(username), password=unquote(password))
        found = replace(found, tls=self._tls(scheme), db=self._db())
        if scheme == "unix":
            return replace(found, kind="unix", path=self._path(hosts))
        if scheme.endswith("+sentinel"):
            sentinels = tuple(self._host(part, DEFAULT_SENTINEL_PORT) for part in hosts.split(","))
            return replace(found, kind="sentinel", sentinels=sentinels, master=self._master())
        host, port = self._host(hosts, DEFAULT_PORT)
        return replace(found, host=host, port=port)

    def _options(self) -> dict[str, str]:
        options = dict(parse_qsl(self.parts.query, keep_blank_values=True))
        for name in options:
            if name not in _PARAMETERS:
                meant = nearest(name, _PARAMETERS)
                self.refuse(f"The parameter {name!r} is unknown" + (f"; did you mean {meant!r}?" if meant else ""))
        return options

    def _tls(self, scheme: str) -> Tls | None:
        names = [name for name in self.options if name.startswith("ssl_")]
        if not scheme.startswith("rediss"):
            return self.refuse(f"The parameter {names[0]} needs rediss:// instead of redis://") if names else None
        check = self.options.get("ssl_check_hostname", "true").lower()
        if check not in {"true", "false"}:
            self.refuse("The parameter ssl_check_hostname is true or false")
        get = self.options.get
        return Tls(get("ssl_ca_certs", ""), get("ssl_certfile", ""), get("ssl_keyfile", ""), check == "true")

    def _db(self) -> int:
        path = self.parts.path.strip("/")
        if self.parts.scheme == "unix":
            path = ""
        elif self.parts.scheme.endswith("+sentinel"):
            path = path.partition("/")[2]
        number = self.options.get("db") or path or "0"
        if not re.fullmatch(r"[0-9]{1,4}", number):
            self.refuse(f"The database is a number, not {number!r}")
        return int(number)

    def _path(self, host: str) -> str:
        if host or not self.parts.path.startswith("/"):
            self.refuse("A socket is written unix:///with/three/slashes")
        return unquote(self.parts.path)

    def _master(self) -> str:
        master = unquote(self.parts.path.strip("/").partition("/")[0])
        if not master or master.isdigit():
            self.refuse("The name of the master is missing after the sentinels")
        return master

    def _host(self, given: str, port: int) -> tuple[str, int]:
        found = _split_host(given, port)
        if found is None:
            self.refuse(f"It should have host:port where it has {given!r}")
        return found


def _split_host(given: str, port: int) -> tuple[str, int] | None:
    match = re.fullmatch(r"\s*(\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+)(?::([0-9]{1,5}))?\s*", given)
    if not match or not 0 < int(match[2] or port) < 65_536:
        return None
    return match[1].strip("[]"), int(match[2] or port)


def _tls_query(tls: Tls | None) -> str:
    if tls is None:
        return ""
    named = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    if not tls.check_hostname:
        named["ssl_check_hostname"] = "false"
    query = "&".join(f"{name}={quote(value)}" for name, value in named.items() if value)
    return query and f"?{query}"


def _complete(found: RedisSettings, environ: Mapping[str, str]) -> RedisSettings:
    """Add what the address left out: login and certificates, which often live in Secrets of their own."""
    if not found.password:
        found = replace(
            found,
            username=found.username or environ.get("HEADRACE_REDIS_USERNAME", ""),
            password=environ.get("HEADRACE_REDIS_PASSWORD", ""),
        )
    found = replace(found, sentinel_password=environ.get("HEADRACE_REDIS_SENTINEL_PASSWORD", ""))
    if found.tls is None:
        return found
    tls = replace(
        found.tls,
        ca=found.tls.ca or environ.get("HEADRACE_REDIS_CA", ""),
        cert=found.tls.cert or environ.get("HEADRACE_REDIS_CERT", ""),
        key=found.tls.key or environ.get("HEADRACE_REDIS_KEY", ""),
    )
    return replace(found, tls=tls)


def _refuse_without_address(environ: Mapping[str, str]) -> None:
    """A worker of a pool would look for a Redis in its own pod, and say only that nobody is there."""
    secret = environ.get("HEADRACE_REDIS_SECRET")
    if secret:
        remedy = f"Give the Secret {secret} the key `url`, or `addr` and `password`"
        raise BadSetting("The address of Redis", "", f"the Secret {secret}", _EXAMPLE, remedy)


def _from_addr(environ: Mapping[str, str]) -> RedisSettings:
    given = environ["REDIS_ADDR"]
    found = _split_host(given, DEFAULT_PORT)
    if found is None:
        shown = re.sub(r"^.*@", "***@", given)
        raise BadSetting("REDIS_ADDR", shown, "the environment", "host:port", "For a whole address use HEADRACE_URL")
    password = environ.get("REDIS_PASSWORD", "")
    username = environ.get("HEADRACE_REDIS_USERNAME", "") if password else ""
    return RedisSettings(source="REDIS_ADDR", host=found[0], port=found[1], username=username, password=password)


def _warn_of_contradiction(found: RedisSettings, environ: Mapping[str, str]) -> None:
    other = environ.get("REDIS_ADDR")
    if other and (found.kind != "tcp" or _split_host(other, DEFAULT_PORT) != (found.host, found.port)):
        logger.warning(
            "HEADRACE_URL (%s) and REDIS_ADDR (%s) name different servers; HEADRACE_URL is used. Remove one.",
            found.safe_url,
            re.sub(r"^.*@", "***@", other),
        )


def _from_file(cwd: Path) -> RedisSettings | None:
    """The server that `headrace dev` left a note of, if it answers."""
    for folder in (cwd, *cwd.parents):
        file = folder / ".headrace" / "url"
        if not _is_ours(file):
            continue
        found = RedisSettings.parse(file.read_text("utf-8"), str(file))
        if _answers(found):
            return found
        logger.info("%s is passed over: nothing answers there", found)
        return None
    return None


def _is_ours(file: Path) -> bool:
    """Whether the file may be trusted: above, in a shared folder, another user could name their own Redis."""
    try:
        return file.stat().st_uid in _trusted_owners()
    except OSError:
        return False


def _trusted_owners() -> set[int]:
    return {0, os.getuid()}


def _answers(found: RedisSettings) -> bool:
    try:
        if found.kind == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(DISCOVERY_TIMEOUT_S)
                probe.connect(found.path)
        else:
            socket.create_connection((found.host, found.port), DISCOVERY_TIMEOUT_S).close()
    except OSError:
        return False
    return True
