"""Faults put into the scripts, or into the worker's rules, on purpose: a checker that misses one proves nothing.

Those that people make most often stand in docs/guarantees.md, by way of seeded_faults.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from headrace.broker.broker import Queue
from headrace.broker.scripts import Head, Script, script, written_out
from headrace.broker.words import flat
from model_net import Conn, Request
from model_redis import Wire, Word
from model_task import QUEUE
from model_worker import Worker
from model_world import World


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in a script."""

    name: str
    script: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.name

    def queue(self, wire: Wire) -> Queue:
        """A queue that runs the faulty script."""
        sound, source = self.sound(), self.source()
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        wire.command("SCRIPT", "LOAD", source)
        queue = Queue(QUEUE)
        queue._heads[self.script] = Head.of(sound, sha.encode(), queue._head(self.script).key)
        return queue

    def sound(self) -> Script:
        """The script as it is."""
        return script(self.script)

    def source(self) -> str:
        """The faulty script."""
        sound = self.sound()
        old, new = (written_out(code, sound.keys) for code in (self.old, self.new))
        assert old in sound.source, f"{self.script}.lua has changed: {self.old!r} is gone"
        return sound.source.replace(old, new)


MUTANTS: Final = (
    Mutant("no fence", "cycle",
           "if all or unusual().take(stream, entry) then", "if true then"),
    Mutant("acknowledged when claimed", "cycle", "'COUNT', count, 'STREAMS'", "'COUNT', count, 'NOACK', 'STREAMS'"),
    Mutant("what waits is reported", "cycle",
           "'(' .. info['last-delivered-id'], entry, 'COUNT', 1) > 0 then", "'+', '-') > 0 then"),
    Mutant("ended tasks stay in loc", "cycle", "call('HDEL', K.loc, unpack(gone_ids))", ""),
    Mutant("ended entries stay", "cycle", "call('XDEL', stream, unpack(argv, first, last))", ""),
    Mutant("claims while paused", "cycle", "local free = paused and 0 or want", "local free = want"),
    Mutant("refused at full memory", "cycle", "#!lua flags=allow-oom", "#!lua"),
    Mutant("two suspects a worker", "cycle", "(held.err or #held == 0) and 1 or 0", "free"),
    Mutant("asked to cancel, runs again", "cycle", "outcome ~= 'completed' then\n", "false then\n"),
    Mutant("a request to cancel is kept", "cycle",
           "some_asked and call('HDEL', K.rev, id) == 1", "call('HGET', K.rev, id)"),
    Mutant("history by place alone", "cycle", "'\\n{\"p\":\"' .. place .. '\",\"o\":\"' .. outcome .. '\"'", "place"),
    Mutant("stale reports are counted", "cycle", "if accepted > cancelled then",
           "accepted = count if true then"),
    Mutant("no marker is passed on", "cycle", "if work then call('LPUSH', K.wake, '1') end", ""),
    Mutant("markers for nothing", "cycle", "if not work and free < want then", "if not work then"),
    Mutant("no marker for a suspect", "cycle", "work = left('s')", "work = false"),
    Mutant("lag for what is left", "cycle", "length > info.pending", "(info.lag or 0) > 0"),
    Mutant("a unique key is kept", "cycle", "call('HDEL', K.u, key)", ""),
    Mutant("loc is not looked at", "submit",
           "call('HMGET', K.loc, unpack(argv, FIRST, FIRST + count - 1)), {}", "{}, {}"),
    Mutant("submitting trims", "submit", "call('XADD', stream, '*'", "call('XADD', stream, 'MAXLEN', 3, '*'"),
    Mutant("payloads are written anew", "submit", "'d', argv[at + count])", "'d', (string.gsub(argv[at + count],"
           " '\"a\":(.*)}$', function(a) return '\"a\":' .. cjson.encode(cjson.decode(a)) .. '}' end)))"),
    Mutant("a live task alone is not looked up", "submit", "plain = plain and not known[i] end", "end"),
    Mutant("an ended task alone is not looked up", "submit", "== 1 and not some_ended and", "== 1 and"),
    Mutant("live tasks are not looked up", "submit", "if known[i] or taken[id] then", "if taken[id] then"),
    Mutant("ended tasks are not looked up", "submit", "elseif some_ended and", "elseif false and"),
    Mutant("twice in one call", "submit", "if known[i] or taken[id] then", "if known[i] then"),
    Mutant("known beside a refused one", "submit", "ipairs({fresh, behind})", "ipairs({fresh})"),
    Mutant("no marker for a delayed one", "submit", "wake = unusual().place_delayed(id, envelope, due) or wake",
           "unusual().place_delayed(id, envelope, due)"),
    Mutant("markers while paused", "submit", "and not call('HGET', K.ctl, 'paused')", ""),
    Mutant("promoted and still delayed", "promote", "call('ZREM', K.later, id) == 1", "call('ZSCORE', K.later, id)"),
    Mutant("promoted by each that saw it", "promote",
           "call('ZREM', K.later, id) == 1", "call('ZREM', K.later, id) >= 0"),
    Mutant("promoted beside loc", "promote", "call('HSET', K.loc, id, add(crashes", "tostring(add(crashes"),
    Mutant("promoted among the sound", "promote", "crashes > 0 and 's' or priority", "priority"),
    Mutant("the living are reclaimed", "reclaim", "if seen ~= '*' and seen ~= beat then", "if false then"),
    Mutant("no beat counts as death", "reclaim", "if seen == '' then", "if false then"),
    Mutant("consumers deleted blindly", "reclaim", "if rest then return {'moved', moved, handed_on, buried} end", ""),
    Mutant("consumers deleted unseen", "reclaim", "local beat = call('HGET', K.w, worker) or ''",
           "local beat = call('HGET', K.w, worker) or ''\n"
           "for _, d in ipairs(STREAMS) do redis.pcall('XGROUP', 'DELCONSUMER', K[d], GROUP, worker) end"),
    Mutant("signed off with tasks in hand", "hand_back", "ARGV[3] == 'leave' and rest == 0", "ARGV[3] == 'leave'"),
    Mutant("reclaimed by idle time", "reclaim",
           "redis.pcall('XPENDING', K[digit], GROUP, '-', '+', limit - moved + 1, worker)",
           "{}\nlocal idle = redis.pcall('XAUTOCLAIM', K[digit], GROUP, worker, 2, '0-0', 'COUNT', limit - moved + 1)\n"
           "for _, e in ipairs(idle.err and {} or idle[2]) do rows[#rows + 1] = {e[1], worker, 2} end"),
    Mutant("a crash is no attempt", "reclaim", "{a + 1, f, c + 1, i}", "{a, f, c + 1, i}"),
    Mutant("the crashed go among the sound", "reclaim", "add('s', envelope, n)", "add('r', envelope, n)"),
    Mutant("reclaiming is refused at full memory", "reclaim", "#!lua flags=allow-oom", "#!lua"),
    Mutant("promoting is refused at full memory", "promote", "#!lua flags=allow-oom", "#!lua"),
    Mutant("no bound of crashes", "reclaim", "elseif c + 1 >= tonumber(ARGV[7]) then", "elseif false then"),
    Mutant("reclaimed although asked", "reclaim", "if call('HGET', K.rev, id) then", "if false then"),
    Mutant("the reclaimed wake nobody", "reclaim", "if moved > 0 then push_marker() end", ""),
    Mutant("handing back trims", "hand_back", "call('XADD', K[digit], '*', 'd', envelope, 'n', n)",
           "call('XADD', K[digit], 'MAXLEN', 3, '*', 'd', envelope, 'n', n)"),
    Mutant("lag for depth", "depth", "info and info.pending or ''", "info and length - (info.lag or 0) or ''"),
    Mutant("lag for demand", "demand", "info and info.pending or ''", "info and length - (info.lag or 0) or ''"),
    Mutant("a hand-back is charged", "hand_back", "{a + 1, f, c, i + 1}", "{a + 1, f + 1, c, i}"),
    Mutant("suspects go back among the sound", "hand_back", "c > 0 and 's' or 'r'", "'r'"),
    Mutant("running tasks cancelled under their worker", "cancel", "if owner and ARGV[3] ~= '1' then", "if false then"),
    Mutant("forced without a fence", "cancel", "if owner then call('XACK', K[digit], GROUP, entry) end", ""),
    Mutant("replayed twice", "replay", "if ARGV[2] ~= '' and ARGV[2] ~= last then", "if false then"),
    Mutant("replayed tokens repeat", "replay", "concat({a, 0, 0, i}, ',')", "'0,0,0,0'"),
    Mutant("a group from now on", "init", "GROUP, '0', 'MKSTREAM'", "GROUP, '$', 'MKSTREAM'"),
    Mutant("a found group wakes nobody", "init", "then push_marker() end", "then local _ = 0 end"),
    Mutant("resuming wakes nobody", "pause", "push_marker()\nreturn changed", "return changed"),
    Mutant("release without the parked", "release", "call('ZREM', K.parked, member)", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Lapse:
    """A rule that the worker, or the world, does not follow."""

    name: str
    attribute: str
    instead: Callable[..., Any]
    of: type = Worker

    def __str__(self) -> str:
        return self.name


def _claims_at_once(self: Worker) -> int:
    return self.free if self.cycles_out < 2 and not self.draining and not self.missing else 0


def _knows_what_runs(self: Worker) -> set[str]:
    return set(self.running)


def _takes_all(self: Worker, unknown: list[Any]) -> None:
    for claim in unknown:
        self._start(claim)


def _takes_none(self: Worker, unknown: list[Any]) -> None:
    del self, unknown


def _forgets_the_marker(self: Worker, request: Any) -> None:
    del request
    assert self.wait is not None
    self.wait.is_open, self.wait = False, None


def _ignores_the_loss(self: Worker) -> None:
    self.cycles_out, self.reserved, self.sent, self.reconciling = 0, 0, {}, False
    self.claims = self.world.connect(f"{self.name} claims", self._claims_broke)


def _torn(kind: str, first: Callable[[Request], Iterator[tuple[Word, ...]]]) -> Callable[[World, Conn], None]:
    """A call in two parts: of a client that has gone Redis carries out the first one only."""
    whole = World.execute

    def execute(self: World, conn: Conn) -> None:
        if conn.is_open or conn.requests[0].kind != kind:
            return whole(self, conn)
        for words in first(conn.requests.popleft()):
            self.wire.command(*words)
        return self.reread()

    return execute


def _acknowledged(request: Request) -> Iterator[tuple[Word, ...]]:
    """What a cycle reports, without what is told of it."""
    assert request.call is not None
    queue, args, at = Queue(QUEUE), [*flat(request.call.args)], 7
    while at < len(args):
        digit, count = _text(args[at]), int(args[at + 4])
        yield "XACK", queue.keys[digit], "g", *args[at + 5 : at + 5 + count]
        at += 5 + 3 * count


def _text(word: Word) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _no_longer_delayed(request: Request) -> Iterator[tuple[Word, ...]]:
    assert request.call is not None
    later, (now, _, *ids) = Queue(QUEUE).keys["later"], flat(request.call.args)
    yield ("ZREM", later, *ids) if ids else ("ZREMRANGEBYSCORE", later, "-inf", now)


LAPSES: Final = (
    Lapse("claims before reconcile", "may_claim", property(_claims_at_once)),  # type: ignore[arg-type]
    Lapse("forgets reports on their way", "known", _knows_what_runs),
    Lapse("takes more than it has slots", "_take_in", _takes_all),
    Lapse("leaves what it did not know", "_take_in", _takes_none),
    Lapse("owes no cycle for a marker", "_woken", _forgets_the_marker),
    Lapse("forgets unanswered reports", "_claims_broke", _ignores_the_loss),
    Lapse("acknowledges, then reports", "execute", _torn("cycle", _acknowledged), World),
    Lapse("promotes in two calls", "execute", _torn("promote", _no_longer_delayed), World),
)
