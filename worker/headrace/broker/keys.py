"""Every key in Redis, its type, what it means, and what bounds it.

All keys of one queue share the hash tag `{namespace/queue}`, so a script touches one slot. Below, `*` is
`hr:{namespace/queue}:`.

| key | type | content | bound |
|---|---|---|---|
| `*3 *2 *1 *0` | stream, group `g` | tasks of one priority: field `d` = envelope, `n` = N once an attempt ended | maxDepth |
| `*r` | stream, group `g` | tasks handed back; read first | running tasks |
| `*s` | stream, group `g` | suspects: tasks that were running when their worker died; one a worker at a time | running tasks |
| `*loc` | hash | id of every live task → place: stream digit + entry id, `z` (in `later`), `p<key>` (in `parked`) | maxDepth |
| `*later` | sorted set | id → due ms, of scheduled and retrying tasks | maxDepth |
| `*body` | hash | id → record, of what lies in `later` and `parked` | maxDepth |
| `*parked` | sorted set, all scores 0 | `<type or !v<version>>\\n<id>`: waiting for a worker that knows them | maxDepth |
| `*t:<id>` | string | record of an ended task; completed and cancelled expire, failed stay | rate × retention, and `dead` |
| `*dead` | sorted set | id → time of death in ms | cap and age, by the purge pass |
| `*u` | hash | hash of a unique key → id of the live task that holds it | maxDepth |
| `*once:<hash>` | string, expires | id of the task that refuses others under a unique key for a time, also after its end | rate × time asked for, at most 31 days |
| `*rev` | hash | id of a running task that shall be cancelled → its worker | running tasks |
| `*w` | hash | worker → its beat: counter, tasks it runs, `d` if it drains, mean ms of a task here, and of its commonest types; or a mark `?<nonce>` of a reclaimer | live workers, cleaned |
| `*drain` | hash | worker that was asked to claim no more → since when, ms, and the counter of its last beat then | live workers, cleaned by whoever asks |
| `*wd` | hash | worker → description, JSON | live workers, cleaned |
| `*progress:<worker>` | hash, expires | id of a running task → how far it says it is, JSON | running tasks |
| `*ctl` | hash | `paused` (since ms), `max_depth`, `rate` (limits of its own), `epoch`, `run_id`, `touch` | fixed |
| `*stats` | hash | `<outcome>:<type>` → count of accepted reports | registered types |
| `*journal` | stream | `e` = one line `id place state type` a task that ended, one entry a call | journal cap |
| `*wake` | list | the marker that wakes one waiting process | 1 |
| `hr:{namespace}:queues` | set | names of queues | max_queues |
| `hr:{namespace}:types` | hash | type → description and schema, JSON, of the version published newest; `<type>#<version>` → that of another one which workers still know | registered types, and live workers |
| `hr:{namespace}:versions` | sorted set | `<type>#<version>` → when a worker last said that it knows it, ms | live workers, cleaned |
| `hr:{namespace}:rate:<bucket>` | string | rate limit of a token (`t:<subject>:<rate>`) or queue (`q:<name>:<rate>`): ms at which its bucket is full, then it expires | limits that are set |
| `hr:{namespace}:bulk` | sorted set | id of a job on many tasks → when it began, ms | 100 |
| `hr:{namespace}:bulk:<id>` | hash, expires | a job: `order`, `begun`, `owner`, `until` (its lease), `progress`, `next` (the tasks it acts on), `abort`, `state`, `ended` | 100 |
| `hr:{namespace}:audit` | stream | `e` = who changed what, JSON | audit_length |
| `hr:{namespace}:secret` | string | random secret that turns idempotency keys into ids | 1 |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

STREAMS: Final = "rs3210"
"""The streams in the order in which they are read."""
SUSPECTS: Final = "s"
"""The one of tasks that were running when their worker died."""


_NAMED_BY_MORE: Final = {"t", "once", "progress"}
"""Beginnings of many keys; a script joins the rest."""


def ending(suffix: str) -> str:
    """What follows the prefix in the key of this suffix, or in its beginning."""
    return f"{suffix}:" if suffix in _NAMED_BY_MORE else suffix


@dataclass(frozen=True)
class QueueKeys:
    """The keys of one queue, by the suffixes of the table above."""

    namespace: str
    queue: str
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", f"hr:{{{self.namespace}/{self.queue}}}:")

    def __getitem__(self, suffix: str) -> str:
        return f"{self.prefix}{ending(suffix)}"


@dataclass(frozen=True)
class NamespaceKeys:
    """The keys that all queues of a namespace share."""

    namespace: str

    @property
    def prefix(self) -> str:
        return f"hr:{{{self.namespace}}}:"

    def __getitem__(self, suffix: str) -> str:
        return f"{self.prefix}{suffix}"
