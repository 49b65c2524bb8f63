"""How a connection to Redis is made: who the master is, the socket, the login, and the scripts."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from contextlib import suppress
from dataclasses import replace
from typing import Any

from headrace.errors import HeadraceError, StoreTimeout, StoreUnavailable
from headrace.redis_settings import RedisSettings, Tls

from .connection import Connection, RedisError
from .scripts import all_scripts


async def connect(settings: RedisSettings, name: str = "headrace") -> Connection:
    """Connect, log in, and load the scripts. Raises StoreUnavailable or RedisError (wrong password, no rights)."""
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            connection = await _open(settings)
    except (OSError, TimeoutError, ssl.SSLError) as error:
        reason = _reason(error) or f"no connection within {settings.connect_timeout_s:g} s"
        raise StoreUnavailable(str(settings), f"{reason}{_no_tls_there(error, settings)}") from None
    try:
        await _greet(connection, name)
    except StoreUnavailable as error:
        connection.close("the greeting failed")
        await connection.wait_closed()
        raise _with_hint(error, settings) from None
    except BaseException:
        connection.close("the greeting failed")
        await connection.wait_closed()
        raise
    return connection


async def _open(settings: RedisSettings) -> Connection:
    loop = asyncio.get_running_loop()
    if settings.kind == "unix":
        return (await loop.create_unix_connection(lambda: Connection(settings), settings.path))[1]
    host, port = await _master(settings) if settings.kind == "sentinel" else (settings.host, settings.port)
    context = tls_context(settings.tls) if settings.tls else None
    return (await loop.create_connection(lambda: Connection(settings), host, port, ssl=context))[1]


def tls_context(tls: Tls) -> ssl.SSLContext:
    """What `Tls` says, as Python's ssl wants it."""
    context = ssl.create_default_context(cafile=tls.ca or None)
    context.check_hostname = tls.check_hostname
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context


async def _master(settings: RedisSettings) -> tuple[str, int]:
    """Where the sentinel that answers first knows a master. All are asked at once: some may be silent."""
    asked = [asyncio.create_task(_ask_sentinel(settings, *each)) for each in settings.sentinels]
    refusals: list[str] = []
    try:
        for answer in asyncio.as_completed(asked):
            try:
                return await answer
            except OSError as error:
                refusals.append(str(error))
    finally:
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    raise OSError(f"no sentinel names a master: {', '.join(refusals)}")


async def _ask_sentinel(settings: RedisSettings, host: str, port: int) -> tuple[str, int]:
    """Where this one says that the master is. Raises OSError, with its address and why it knows none."""
    # Who is reached over TLS has sentinels that are, and they ask for the same certificate.
    sentinel = replace(
        settings, kind="tcp", host=host, port=port, username="", password=settings.sentinel_password, db=0
    )
    limit = settings.connect_timeout_s / 2
    try:
        async with asyncio.timeout(limit):
            return await _ask_for_master(await _open(sentinel), settings.master)
    except StoreUnavailable as error:
        why = error.cause
    except HeadraceError as error:
        why = str(error)
    except OSError as error:
        why = _reason(error) or f"no answer within {limit:g} s"
    raise OSError(f"{host}:{port} ({why})")


async def _ask_for_master(sentinel: Connection, master: str) -> tuple[str, int]:
    try:
        await _log_in(sentinel)
        facts = await sentinel.command("SENTINEL", "MASTER", master)
    finally:
        sentinel.close()
        await sentinel.wait_closed()
    try:
        address, flags = _address_of(dict(zip(facts[::2], facts[1::2], strict=True)))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise OSError("its answer is none of a sentinel") from None
    if not {b"s_down", b"o_down"}.isdisjoint(flags):
        # It names the dead one until another is elected.
        raise OSError("the master is down, and there is no other yet")
    return address


def _address_of(master: dict[bytes, Any]) -> tuple[tuple[str, int], list[bytes]]:
    """Its host and port, and its flags. Who knows not what answered is ready for more errors than ValueError."""
    host, port = master[b"ip"].decode(), int(master[b"port"])
    if not 0 < port < 1 << 16:
        raise ValueError(port)
    return (host, port), master[b"flags"].split(b",")


def _no_tls_there(error: Exception, settings: RedisSettings) -> str:
    """A server without TLS takes the connection, and waits for the end of a line or says that it understood nothing."""
    if settings.tls is None or not (type(error) is TimeoutError or "WRONG_VERSION_NUMBER" in str(error)):
        return ""
    return " (perhaps it speaks no TLS: then the address begins with redis://)"


def _with_hint(error: StoreUnavailable, settings: RedisSettings) -> StoreUnavailable:
    """A server that asks for a certificate, or for TLS, lets in first, and ends the connection without a word."""
    if isinstance(error, StoreTimeout) or error.answered or settings.kind == "unix":
        return error
    if settings.tls is None:
        perhaps = "perhaps it speaks only TLS: then the address begins with rediss://"
    elif settings.tls.cert:
        return error
    else:
        perhaps = "perhaps it asks for a client certificate: ssl_certfile and ssl_keyfile name none"
    return StoreUnavailable(error.where, f"{error.cause} ({perhaps})")


def _reason(error: BaseException) -> str:
    """Its words without numbers and without the address, which the message names; asyncio joins those of several."""
    said = str(error)
    numbers = dict.fromkeys(re.findall(r"\[Errno (\d+)\] Connect call failed", said))
    return " and ".join(os.strerror(int(each)) for each in numbers) or re.sub(r"^\[Errno -?\d+\] ", "", said)


async def _greet(connection: Connection, name: str) -> None:
    await _log_in(connection)
    if connection.settings.db:
        await _ask(connection, "SELECT", connection.settings.db)
    await _identify(connection, name)
    loads = [connection.command("SCRIPT", "LOAD", script.source) for script in all_scripts().values()]
    await asyncio.gather(*loads)


async def _ask(connection: Connection, *args: str | int) -> Any:
    """One round trip of a greeting. The kernel of a server that hangs lets in, so this too is part of connecting."""
    return await connection.command(*args, timeout_s=connection.settings.connect_timeout_s)


async def _log_in(connection: Connection) -> None:
    settings = connection.settings
    if settings.password:
        login = (settings.username, settings.password) if settings.username else (settings.password,)
        await _ask(connection, "AUTH", *login)


async def _identify(connection: Connection, name: str) -> None:
    """Managed servers may refuse either command; both are for people, for the epoch, for WAITAOF and to be sure."""
    with suppress(RedisError):
        await _ask(connection, "CLIENT", "SETNAME", name)
    by_sentinel = connection.settings.kind == "sentinel"
    facts: dict[str, str] = {}
    with suppress(RedisError):
        said = await _ask(connection, "INFO", "server", *(["replication"] if by_sentinel else []))
        facts = dict(line.partition(":")[::2] for line in said.decode(errors="replace").splitlines())
    connection.run_id = facts.get("run_id", "").strip()
    connection.version = parse_version(facts.get("redis_version", ""))
    if by_sentinel and facts.get("role") == "slave":
        # A sentinel that was cut off or frozen names the old master until it hears of the new one.
        raise StoreUnavailable(str(connection.settings), "a sentinel named a server that is a replica", answered=True)


def parse_version(text: str) -> tuple[int, int, int]:
    """`redis_version` as numbers; zeros for what is none."""
    numbers = [int(part) for part in re.findall(r"\d+", text)[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch
