"""What waiting tasks cost in memory, and whether many of them slow the drain."""

from __future__ import annotations

from .harness import Bench, Measure, Reading, Round
from .rows_drain import over
from .rows_submit import PAYLOAD
from .workers import WARM, Drained, Workers, drain


class Memory:
    """Redis' bytes a waiting task beyond the payload itself."""

    name = "memory"
    measures = (
        Measure(
            "memory", "Redis bytes a waiting task beyond its 100 B payload", "B", 260, at_most=True, prototype="222"
        ),
    )

    def round(self, bench: Bench) -> Round:
        server, tasks = bench.server, bench.sizes.memory
        server.fresh()
        before = server.used_memory()
        bench.floor.fill(server, tasks)
        used = server.used_memory() - before
        server.fresh()
        return {"memory": Reading(used / tasks - PAYLOAD)}


class Backlog:
    """The small backlog is drained as often as it takes for a time that can be measured. `--quick` has 100,000."""

    name = "backlog"
    measures = (
        Measure("backlog", "drain rate, backlog of 1,000,000 / of 10,000", "×", 0.85, prototype="0.75 (loaded)"),
    )

    def round(self, bench: Bench) -> Round:
        server, sizes = bench.server, bench.sizes
        server.fresh()
        with Workers(server) as workers:
            workers.wait_until_ready()
            drain(workers, bench.floor, WARM)
            times = max(1, sizes.drain // sizes.small_backlog)
            small = together([drain(workers, bench.floor, sizes.small_backlog) for _ in range(times)])
        server.fresh()
        with Workers(server) as workers:
            workers.wait_until_ready()
            drain(workers, bench.floor, WARM)
            large = drain(workers, bench.floor, sizes.backlog)
        server.fresh()
        return {"backlog": over(large, small.rate)}


def together(runs: list[Drained]) -> Drained:
    """Several equal drains as one."""
    rate = len(runs) / sum(1 / run.rate for run in runs)
    columns = zip(*((run.client_us, run.redis_us, run.submit_us) for run in runs), strict=True)
    return Drained(sum(run.tasks for run in runs), rate, *(sum(column) / len(runs) for column in columns))
