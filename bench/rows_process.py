"""Worker processes: whether more of them do more, how soon a new one works, what an idle one keeps."""

from __future__ import annotations

import time

from .app import NAP_S, Marks
from .clock import resident_mb
from .harness import Bench, Measure, Reading, Round
from .rows_latency import marked
from .workers import Workers, drain

CONCURRENCY = 10
SETTLE_S = 1.0


class Scaling:
    """Handlers that wait 10 ms: n processes should do n times what one does."""

    name = "scaling"
    measures = tuple(
        Measure(f"scaling_{n}", f"tasks that wait 10 ms, {n} workers, concurrency 10 / linear", "×", 0.95)
        for n in (2, 4, 8)
    )

    def round(self, bench: Bench) -> Round:
        one, *more = (self._run(bench, count) for count in bench.sizes.processes)
        return {
            f"scaling_{count}": Reading(run.rate / (one.rate * count), run.rate, one.rate, run.client_us, run.redis_us)
            for count, run in zip(bench.sizes.processes[1:], more, strict=True)
        }

    def _run(self, bench: Bench, count: int) -> Reading:
        server = bench.server
        server.fresh()
        with Workers(server, CONCURRENCY, count) as workers:
            workers.wait_until_ready()
            drain(workers, bench.floor, CONCURRENCY * count, "nap")
            tasks = int(bench.sizes.nap_s / NAP_S) * CONCURRENCY * count
            run = drain(workers, bench.floor, tasks, "nap")
        return Reading(run.rate, run.rate, client_us=run.client_us, redis_us=run.redis_us)


class Start:
    """One task waits; the clock runs from the start of `headrace worker` to the first line of its handler."""

    name = "start"
    measures = (
        Measure("start", "worker process start → first task's first line", "s", 0.5, at_most=True),
        Measure("resident", "resident memory of an idle worker", "MB", 60, at_most=True),
    )

    def round(self, bench: Bench) -> Round:
        server = bench.server
        server.fresh()
        path = server.folder / "marks"
        Marks(path, 1)
        server.call(server.queue.submit([marked(0)]))
        with Workers(server, CONCURRENCY, marks=path) as workers:
            workers.wait_until_ready()
            server.wait_until_empty(30)
            time.sleep(SETTLE_S)
            resident = resident_mb(workers.pids[0])
            started = Marks(path).times[0] - workers.started_at
        return {"start": Reading(started / 1e9), "resident": Reading(resident)}
