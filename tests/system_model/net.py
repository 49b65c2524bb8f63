"""Connections between simulated processes: bytes that arrive in order, and late, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from .world import World

if TYPE_CHECKING:
    from .loop import Loop

RESET: Final = "reset"


@dataclass(frozen=True)
class Weather:
    """How likely it is that something befalls one message."""

    lost_before: float = 0.0
    """It does not arrive, and the connection is reset."""
    lost_after: float = 0.0
    """It arrives, and the connection is reset before anything comes back."""
    swallowed: float = 0.0
    """It does not arrive, nor does anything after it, either way, and nobody is told."""
    late: float = 0.0
    """It takes up to `late_s`."""
    late_s: float = 3.0
    torn: float = 0.1
    """It arrives in two parts."""


CALM: Final = Weather(torn=0.0)


def latency(dice: Random) -> float:
    """Seconds that a message takes: mostly a fraction of a millisecond, at times some."""
    return 0.0001 + dice.expovariate(1 / 0.0003)


class End(Protocol):
    """One side of a connection."""

    def receive(self, data: bytes) -> None: ...

    def hang_up(self, error: Exception | None) -> None:
        """The other side closed it (None), or it was reset."""


class Link:
    """One connection."""

    weather = CALM
    """Of all connections."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.number = world.next_link()
        self.name = name
        self.dice = world.dice_of(f"link {self.number}")
        self.broken = False
        self.swallows = False
        self._ends: tuple[End, End] | None = None
        self._last = [0.0, 0.0]
        """When the last message to each end arrives."""

    def join(self, client: End, server: End) -> None:
        self._ends = client, server

    def send(self, sender: End, data: bytes) -> None:
        """It arrives at the other end, if nothing befalls it."""
        if self.broken or self.swallows:
            return
        weather, drawn = Link.weather, self.dice.random()
        if drawn < weather.lost_before:
            self.reset("before it arrived")
            return
        drawn -= weather.lost_before
        if drawn < weather.swallowed:
            self.swallows = True
            self.world.note(f"{self.name} swallows all")
            return
        drawn -= weather.swallowed
        self._post(sender, data, weather, is_late=drawn < weather.late)
        if 0 <= drawn - weather.late < weather.lost_after:
            self._after_arrival(sender, partial(self.reset, "after it arrived"))

    def _post(self, sender: End, data: bytes, weather: Weather, *, is_late: bool) -> None:
        torn, share, extra = (self.dice.random() for _ in range(3))
        cut = 1 + int(share * (len(data) - 1)) if torn < weather.torn else len(data)
        extra *= weather.late_s if is_late else 0.0
        for part in (data[:cut], data[cut:]):
            if part:
                self._deliver(sender, extra + latency(self.dice), partial(self._arrive, sender, part))

    def _deliver(self, sender: End, delay: float, action: Callable[[], None]) -> None:
        to = self._other(sender)
        self._last[to] = max(self._last[to], self.world.now + delay)
        self.world.at(self._last[to], action)

    def _after_arrival(self, sender: End, action: Callable[[], None]) -> None:
        self.world.at(self._last[self._other(sender)], action)

    def _arrive(self, sender: End, data: bytes) -> None:
        if not self.broken and not self.swallows and self._ends is not None:
            self._ends[self._other(sender)].receive(data)

    def _other(self, sender: End) -> int:
        assert self._ends is not None
        return 1 if sender is self._ends[0] else 0

    def close(self, sender: End) -> None:
        """One end is closed; the other one hears of it after all that was sent, which may be a while."""
        if self.broken or self._ends is None:
            return
        delay = self.dice.random() * Link.weather.late_s if self.dice.random() < 20 * Link.weather.late else 0.0
        to = self._ends[self._other(sender)]
        self._deliver(sender, delay + latency(self.dice), lambda: None if self.broken else to.hang_up(None))

    def reset(self, why: str) -> None:
        """Nothing more arrives, and both ends are told."""
        if self.broken or self._ends is None:
            return
        self.broken = True
        self.world.note(f"{self.name} is reset {why}")
        for end in self._ends:
            self.world.after(latency(self.dice), partial(end.hang_up, ConnectionResetError(RESET)))


class Transport(asyncio.Transport):
    """A loop's end of a connection."""

    def __init__(self, loop: Loop, protocol: Any, link: Link) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._link = link
        self._closing = False
        self.process = loop.process
        self.process.links.append(self)

    # the program's side

    def write(self, data: Any) -> None:
        if not self._closing and self.process.alive:
            self._link.send(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(bytes(part) for part in list_of_data))

    def write_eof(self) -> None:
        return

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._leave(None)

    def abort(self) -> None:
        self._leave(None)

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40_000 + self._link.number) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def _leave(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        if self in self.process.links:
            self.process.links.remove(self)
        if self.process.alive and not self._loop.is_closed():
            self._link.close(self)
            self._loop.call_soon(self._protocol.connection_lost, error)

    # the world's side

    def _is_open(self) -> bool:
        return not self._closing and self.process.alive and not self._loop.is_closed()

    def receive(self, data: bytes) -> None:
        if self._is_open():
            self._loop.call_soon(self._feed, data)

    def _feed(self, data: bytes) -> None:
        if self._closing:
            return
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._protocol.data_received(data)
            return
        while data and not self._closing:
            buffer = memoryview(self._protocol.get_buffer(len(data)))
            part = min(len(buffer), len(data))
            buffer[:part] = data[:part]
            self._protocol.buffer_updated(part)
            data = data[part:]

    def hang_up(self, error: Exception | None) -> None:
        if self._is_open():
            self._loop.call_soon(self._hung_up, error)

    def _hung_up(self, error: Exception | None) -> None:
        if self._closing:
            return
        if error is None:
            self._protocol.eof_received()
        self._leave(error)

    def vanish(self) -> None:
        """Its process is dead: the kernel closes it."""
        self._closing = True
        if self in self.process.links:
            self.process.links.remove(self)
        self._link.close(self)

    def cut(self) -> None:
        self._link.reset("by a fault")

    @property
    def is_deaf(self) -> bool:
        return self._link.swallows

    def swallow(self) -> None:
        self._link.swallows = True


class LoopServer:
    """As asyncio.Server, as far as it is used; also the socket that it is asked for."""

    def __init__(self, loop: Loop, factory: Callable[[], Any], host: str, port: int) -> None:
        self._loop = loop
        self._factory = factory
        self._address = (host, port)
        self.sockets = (self,)
        if port:
            loop.process.addresses.append(self._address)
            loop.world.servers[self._address] = self

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def accept(self, link: Link) -> End:
        protocol = self._factory()
        transport = Transport(self._loop, protocol, link)
        self._loop.call_soon(protocol.connection_made, transport)
        return transport

    def close(self) -> None:
        self._loop.world.servers.pop(self._address, None)

    async def wait_closed(self) -> None:
        return

    def is_serving(self) -> bool:
        return True
