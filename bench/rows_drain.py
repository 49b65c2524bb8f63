"""How fast one worker process empties a queue of tasks that do nothing, and what that costs."""

from __future__ import annotations

from typing import Final

from .harness import Bench, Measure, Reading, Round
from .rows_http import bare_route, bare_server
from .server import Server
from .workers import Drained, drain_afresh

BATCH: Final = 50
PLAIN: Final = "XADD; XREADGROUP, XACK, XDEL, SET EX in pipelines"


class Drain:
    """Against the bare client with the same scripts; the CPU columns are the worker's and Redis'."""

    name = "drain"
    measures = (
        Measure("drain", "drain, async, concurrency 100 / floor, batch 50", "×", 0.85, prototype="1.0"),
        Measure("drain_10", "  the same, concurrency 10 / floor, batch 50", "×", prototype="84–100k/s"),
        Measure("drain_1", "  the same, concurrency 1 / floor, batch 50", "×", prototype="12.6k/s"),
        Measure("drain_sync", "drain, sync in threads / async", "×", 0.75, prototype="0.85–1.0"),
        Measure("client_async", "client CPU a task, async", "µs", 6, at_most=True, prototype="3.2"),
        Measure("client_sync", "client CPU a task, sync in threads", "µs", 8, at_most=True, prototype="3.5"),
        Measure("route_async", "  async, over a request to a bare aiohttp route", "×", 0.21, at_most=True),
        Measure("route_sync", "  in threads, over the same", "×", 0.27, at_most=True),
        Measure("life", "Redis CPU a task life, batch ≥ 50", "µs", 10.5, at_most=True, prototype="9.2"),
        Measure("life_floor", "  the same, bare client", "µs", at_most=True),
        Measure("life_plain", f"  over plain commands ({PLAIN})", "×", 1.9, at_most=True),
    )

    def round(self, bench: Bench) -> Round:
        sizes, server, bare = bench.sizes, bench.server, bench.floor
        floor = bare.best(server, "drain", sizes.drain, BATCH)
        plain_us = plain_life_us(bench, server)
        with bare_server() as bare_http:
            route = bare_route(bare_http, server, sizes.http_s)
        # The better of two, as the floor is: else what disturbs a single run would count for the floor.
        twice = [drain_afresh(server, bare, sizes.drain, concurrency=100) for _ in range(2)]
        hundred = max(twice, key=lambda run: run.rate)
        ten = drain_afresh(server, bare, sizes.few_slots, concurrency=10)
        one = drain_afresh(server, bare, sizes.one_slot, concurrency=1)
        threads = drain_afresh(server, bare, sizes.drain, concurrency=100, kind="noop_sync")
        life_us = hundred.submit_us + hundred.redis_us
        return {
            "drain": over(hundred, floor.rate),
            "drain_10": over(ten, floor.rate),
            "drain_1": over(one, floor.rate),
            "drain_sync": over(threads, hundred.rate),
            "client_async": beside(hundred.client_us, hundred),
            "client_sync": beside(threads.client_us, threads),
            "route_async": Reading(hundred.client_us / route.client_us, client_us=route.client_us),
            "route_sync": Reading(threads.client_us / route.client_us, client_us=route.client_us),
            "life": beside(life_us, hundred),
            "life_plain": Reading(life_us / plain_us, redis_us=plain_us),
            "life_floor": Reading(
                hundred.submit_us + floor.redis_us,
                rate=floor.rate,
                client_us=floor.client_us,
                redis_us=floor.redis_us,
            ),
        }


class Persistent:
    """What an append-only file, fsynced every second, adds."""

    name = "aof"
    measures = (
        Measure(
            "life_aof", "Redis CPU a task life, batch ≥ 50, AOF everysec", "µs", 14.5, at_most=True, prototype="13"
        ),
        Measure("life_aof_plain", "  over plain commands, AOF everysec", "×", at_most=True),
        Measure("drain_aof", "  drain with AOF everysec / without", "×", prototype="0.82"),
    )

    def round(self, bench: Bench) -> Round:
        plain, kept = (
            drain_afresh(bench.server_with(aof=aof), bench.floor, bench.sizes.drain, concurrency=100)
            for aof in (False, True)
        )
        plain_us = plain_life_us(bench, bench.server_with(aof=True))
        for aof in (False, True):
            bench.server_with(aof=aof).fresh()
        life_us = kept.submit_us + kept.redis_us
        return {
            "life_aof": beside(life_us, kept),
            "life_aof_plain": Reading(life_us / plain_us, redis_us=plain_us),
            "drain_aof": over(kept, plain.rate),
        }


def plain_life_us(bench: Bench, server: Server) -> float:
    """What the machine makes of commands that no queue on streams can do without: CPU of Redis a life."""
    entered, ended = bench.floor.plain(server, bench.sizes.drain, BATCH)
    return entered.redis_us + ended.redis_us


def over(run: Drained, floor: float) -> Reading:
    """A drain as a ratio."""
    return Reading(run.rate / floor, run.rate, floor, run.client_us, run.redis_us)


def beside(value: float, run: Drained) -> Reading:
    """Some value of a drain."""
    return Reading(value, run.rate, client_us=run.client_us, redis_us=run.redis_us)
