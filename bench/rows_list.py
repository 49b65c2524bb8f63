"""How long the first page of a list takes that hardly anything fits, among many waiting tasks."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import Any, Final

from .errors import MeasureError
from .harness import Bench, Measure, Reading, Round
from .quantiles import quantile
from .rows_http import TOKEN, HttpServer, api_server

RARE: Final = "/api/v1/tasks?type=rare"
MOST_S: Final = 0.05


class Listing:
    """There is no index, so the page is bounded in tasks and in time, and has to say so. `--quick` has 100,000."""

    name = "list"
    measures = (
        Measure("list_p50", "first page of a rare filter, 1,000,000 waiting tasks, p50", "ms", at_most=True),
        Measure("list_p99", "  p99", "ms", MOST_S * 1e3, at_most=True),
    )

    def round(self, bench: Bench) -> Round:
        server, sizes = bench.server, bench.sizes
        server.fresh()
        bench.floor.fill(server, sizes.backlog)
        with api_server(server) as api:
            times = first_pages(api, sizes.pages, sizes.backlog)
        server.fresh()
        return {f"list_p{share}": Reading(quantile(times, share / 100) / 1e6) for share in (50, 99)}


def first_pages(api: HttpServer, pages: int, waiting: int) -> list[int]:
    """Nanoseconds that each took, one after the other, on one connection."""
    times = []
    with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)) as connection:
        ask(connection)  # scripts, types and secrets are read once
        for _ in range(pages):
            began = time.perf_counter_ns()
            page = ask(connection)
            times.append(time.perf_counter_ns() - began)
            # A page that ends with the last task does not know yet that it was the last.
            if page["tasks"] or (page["scanned"] < waiting and not page["truncated"]):
                raise MeasureError(f"Of {waiting} tasks, none of which fits, a page said {str(page)[:200]}")
    return times


def ask(connection: http.client.HTTPConnection) -> Any:
    connection.request("GET", RARE, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise MeasureError(f"GET {RARE} was answered with {answer.status} {body[:200]!r}")
    return json.loads(body)
