"""Everything that lies in Redis, read in one look and not through the code under test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from headrace import task
from headrace.broker.broker import Queue
from headrace.broker.keys import STREAMS
from model_redis import Wire, Word

HASHES: Final = ("loc", "body", "u", "rev", "w", "wd", "ctl", "stats")

# ARGV: the queue's prefix, the last journal entry seen. Keys are found by pattern, so that none stays unseen.
_LOOK: Final = """
local p = ARGV[1]
local function pairs_of(kind, name) return redis.pcall(kind, p .. name) end
local streams = {}
for _, d in ipairs({'r', 's', '3', '2', '1', '0'}) do
  local held = redis.pcall('XPENDING', p .. d, 'g', '-', '+', 10000)
  local who = redis.pcall('XINFO', 'CONSUMERS', p .. d, 'g')
  local names = {}
  if not who.err then for _, row in ipairs(who) do names[#names + 1] = row[2] end end
  local entries = redis.call('XRANGE', p .. d, '-', '+')
  streams[#streams + 1] = {d, entries, held.err and 0 or 1, held.err and {} or held, names}
end
local hashes = {}
for _, h in ipairs({'loc', 'body', 'u', 'rev', 'w', 'wd', 'ctl', 'stats'}) do
  hashes[#hashes + 1] = redis.call('HGETALL', p .. h)
end
local records, others = {}, {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if string.sub(key, 1, #p + 2) == p .. 't:' then
    local at = #records
    records[at + 1], records[at + 2] = string.sub(key, #p + 3), redis.call('GET', key)
    records[at + 3] = redis.call('TTL', key)
  else
    others[#others + 1] = key
  end
end
return {
  streams, hashes, records, others,
  redis.call('ZRANGE', p .. 'later', 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', p .. 'parked', 0, -1),
  redis.call('ZRANGE', p .. 'dead', 0, -1, 'WITHSCORES'),
  redis.call('LRANGE', p .. 'wake', 0, -1),
  redis.call('XRANGE', p .. 'journal', '(' .. ARGV[2], '+'),
}
"""
_SHA: Final = hashlib.sha1(_LOOK.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class Stream:
    """Entries in order (id, field and value, …); entry id → consumer of what is pending."""

    entries: list[tuple[str, list[bytes]]]
    has_group: bool
    held: dict[str, str]
    consumers: set[str]


@dataclass(slots=True)
class Dump:
    """The key space of one queue."""

    streams: dict[str, Stream]
    hashes: dict[str, dict[str, bytes]]
    records: dict[str, bytes]
    ttl: dict[str, int]
    """Of each record: seconds, -1 = for ever."""
    others: list[str]
    """All other keys there are."""
    later: dict[str, float]
    parked: list[str]
    dead: dict[str, float]
    wake: int
    journal: list[tuple[str, bytes]]
    """Entries after the one given to `look`."""


def prepare(wire: Wire) -> None:
    """Load what `look` runs."""
    wire.command("SCRIPT", "LOAD", _LOOK)


def look_command(queue: Queue, journal_after: str = "0-0") -> tuple[Word, ...]:
    """The command whose reply `read` reads."""
    return ("EVALSHA", _SHA, 0, queue.keys.prefix, journal_after)


def look(wire: Wire, queue: Queue, journal_after: str = "0-0") -> Dump:
    """All that lies there now."""
    prepare(wire)
    return read(wire.command(*look_command(queue, journal_after)))


def read(reply: list[Any]) -> Dump:
    """A dump from the reply to `look_command`."""
    streams, hashes, records, others, later, parked, dead, wake, journal = reply
    rows = list(zip(records[::3], records[1::3], records[2::3], strict=True))
    return Dump(
        {digit.decode(): _stream(*parts) for digit, *parts in streams},
        {name: _pairs(flat) for name, flat in zip(HASHES, hashes, strict=True)},
        {id_.decode(): text for id_, text, _ in rows},
        {id_.decode(): ttl for id_, _, ttl in rows},
        sorted(key.decode() for key in others),
        {id_: float(score) for id_, score in _pairs(later).items()},
        [member.decode() for member in parked],
        {id_: float(score) for id_, score in _pairs(dead).items()},
        len(wake),
        [(id_.decode(), fields[1]) for id_, fields in journal],
    )


def _stream(entries: list[Any], has_group: int, held: list[Any], consumers: list[bytes]) -> Stream:
    return Stream(
        [(id_.decode(), fields) for id_, fields in entries],
        bool(has_group),
        {row[0].decode(): row[1].decode() for row in held},
        {name.decode() for name in consumers},
    )


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return dict(zip((key.decode() for key in flat[::2]), flat[1::2], strict=True))


def complaints(dump: Dump) -> list[str]:
    """What contradicts the map of the data in keys.py, whatever happened before. Empty is good."""
    loc = {id_: place.decode() for id_, place in dump.hashes["loc"].items()}
    places = {digit + id_: fields for digit in STREAMS for id_, fields in dump.streams[digit].entries}
    waiting = {id_ for id_, place in loc.items() if place[0] in "zp"}
    parked = {f"{place[1:]}\n{id_}" for id_, place in loc.items() if place[0] == "p"}
    said = [f"{id_} lies nowhere: {place}" for id_, place in loc.items() if place[0] in STREAMS and place not in places]
    said += [f"nobody lies at {place}" for place in places.keys() - set(loc.values())]
    said += [f"{id_} is not in body" for id_ in waiting - dump.hashes["body"].keys()]
    said += [f"{id_} is in body only" for id_ in dump.hashes["body"].keys() - waiting]
    said += [f"later disagrees about {id_}" for id_ in dump.later.keys() ^ {i for i, p in loc.items() if p[0] == "z"}]
    said += [f"parked disagrees about {member}" for member in set(dump.parked) ^ parked]
    said += [f"{id_} lives and has ended" for id_ in dump.records.keys() & loc.keys()]
    said += [f"held and not there: {digit}{id_}" for digit in STREAMS for id_ in _lost(dump.streams[digit])]
    said += [f"asked to cancel but not running: {id_}" for id_ in dump.hashes["rev"].keys() - loc.keys()]
    held = {id_.decode() for id_ in dump.hashes["u"].values()}
    said += [f"unique key held by an ended task: {id_}" for id_ in held - loc.keys()]
    said += _about_records(dump)
    if dump.wake > 1:
        said.append(f"{dump.wake} markers")
    return said


def _about_records(dump: Dump) -> list[str]:
    states = {id_: task.cut(text)[0] for id_, text in dump.records.items()}
    failed = {id_ for id_, state in states.items() if state == "failed"}
    said = [f"dead letter disagrees about {id_}" for id_ in failed ^ dump.dead.keys()]
    said += [f"{id_} never expires" for id_ in states.keys() - failed if dump.ttl[id_] <= 0]
    return said + [f"the dead letter {id_} expires" for id_ in failed if dump.ttl[id_] != -1]


def _lost(stream: Stream) -> set[str]:
    return stream.held.keys() - {id_ for id_, _ in stream.entries}
