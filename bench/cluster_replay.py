"""An hour of recorded traffic in a minute, on a pool as it comes; and what the simulator says of the same hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Final

from bench.autoscaling.metrics import figures
from bench.autoscaling.policies.ours import Ours
from bench.autoscaling.pool import Pool, Setting
from bench.autoscaling.starts import SharedNode
from bench.autoscaling.workloads import TRACE, Tasks, Workload
from cluster_kit import World
from headrace_cli.replay_trace import Row, read_trace
from headrace_operator.spec import Scaling

from .cluster_floor import POOL, QUEUE, quiet
from .cluster_samples import Line, Round, pod_seconds, recording, writes
from .cluster_tasks import Views, interrupted, sending, stuck, waits
from .quantiles import quantile

SPEED: Final = 60.0
AS_IT_COMES: Final = {"idleSeconds": Scaling(max_replicas=1).idle_seconds, "behavior": {}}
"""In place of what tests change of a pool's scaling so that they need not wait for it to shrink."""
PODS: Final = 20
EVERY_S: Final = 0.2
PATIENCE_S: Final = 300.0
EACH_S: Final = 0.43
"""Of the whole node, of a pod's start: of 20 in a replay the last works after 8.8 s. In bursts, where no submitter and
no short tasks take of the same cores, it is 0.34."""
APART_S: Final = 0.17
"""Of a start, in which nothing is taken: one alone has its first line after 0.5 s."""
PER_TASK_S: Final = 0.0015
"""Of a slot: naps of 20.8 ms were run at a rate of one in 22.3 ms by each pod."""
SEEDS: Final = 20
SHARES: Final = (50, 95, 99)


async def replay(made: World) -> Round:
    """The whole trace, its times and its modelled seconds divided by 60, as `headrace replay` does."""
    work = scaled(read_trace(TRACE), SPEED)
    await quiet(made)
    await made.pool(scaling=AS_IT_COMES)
    async with sending(made.redis.url) as sender, recording(made, POOL, QUEUE, EVERY_S) as recorder:
        due = await sender.open_loop(work)
        views = await sender.ends(due, PATIENCE_S)
        await recorder.until(lambda seen: seen.completed > 0 and seen.at_rest, "the pool at zero", PATIENCE_S)
    return Round(measured(due, views, recorder.line, work) | predicted(work), {POOL: recorder.line})


def scaled(rows: Sequence[Row], speed: float) -> Tasks:
    """Each row's second, and its seconds of work, so many times as fast."""
    return tuple((row.at_s / speed, row.duration_s / speed) for row in rows)


def measured(due: Mapping[str, float], views: Views, line: Line, work: Tasks) -> dict[str, float]:
    """What the table shows."""
    waited_s = waits(due, views)
    return {f"wait_p{share}": quantile(waited_s, share / 100) for share in SHARES} | {
        "cost": pod_seconds(line) / sum(seconds for _, seconds in work),
        "writes": writes(line),
        "most": max(each.wanted for each in line),
        "replay_interrupted": interrupted(views),
        "replay_stuck": stuck(views),
    }


def predicted(work: Tasks) -> dict[str, float]:
    """The same tasks on the simulated pool; means over phases of the operator's clock and over who starts first."""
    workload = Workload(f"code × {SPEED:g}", work, work[-1][0] + PATIENCE_S)
    found = []
    for seed in range(SEEDS):
        node = SharedNode(EACH_S, APART_S, seed=seed)
        setting = Setting(node, max_pods=PODS, per_task_s=PER_TASK_S, seed=seed)
        pool = Pool(workload, setting)
        Ours({}).attach(pool, Random(seed))
        found.append(figures(workload, setting, pool.run(), target_s=10.0))
    names = {f"wait_p{share}": f"wait_p{share}_s" for share in SHARES} | {"cost": "cost", "writes": "writes"}
    return {f"model_{key}": fmean(getattr(each, name) for each in found) for key, name in names.items()}
