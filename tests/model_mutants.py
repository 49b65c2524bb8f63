"""Faults put into the scripts, or into the worker's rules, on purpose: a checker that misses one proves nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headrace.broker.broker import Queue
from headrace.broker.scripts import script, written_out
from model_redis import Wire
from model_task import QUEUE
from model_worker import Worker


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
        sound = script(self.script)
        old, new = (written_out(code, sound.keys) for code in (self.old, self.new))
        assert old in sound.source, f"{self.script}.lua has changed: {self.old!r} is gone"
        source = sound.source.replace(old, new)
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        wire.command("SCRIPT", "LOAD", source)
        queue = Queue(QUEUE)
        evalsha, _, *keys = queue._head(sound)
        queue._heads[self.script] = (evalsha, sha.encode(), *keys)
        return queue


MUTANTS: Final = (
    Mutant("no fence", "cycle",
           "if all or unusual().take(stream, entry) then", "if true then"),
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
    Mutant("lag for depth", "cycle", "length > info.pending", "(info.lag or 0) > 0"),
    Mutant("a unique key is kept", "cycle", "call('HDEL', K.u, key)", ""),
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
    Mutant("promoted beside loc", "promote", "call('HSET', K.loc, id, add(crashes", "tostring(add(crashes"),
    Mutant("promoted among the sound", "promote", "crashes > 0 and 's' or priority", "priority"),
    Mutant("the living are reclaimed", "reclaim", "if seen ~= '*' and seen ~= beat then", "if false then"),
    Mutant("no beat counts as death", "reclaim", "if seen == '' then", "if false then"),
    Mutant("consumers deleted blindly", "reclaim", "if rest then return {'moved', moved} end", ""),
    Mutant("no bound of crashes", "reclaim", "elseif c + 1 >= tonumber(ARGV[7]) then", "elseif false then"),
    Mutant("reclaimed although asked", "reclaim", "if call('HGET', K.rev, id) then", "if false then"),
    Mutant("the reclaimed wake nobody", "reclaim", "if moved > 0 then push_marker() end", ""),
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
    """A rule that the worker does not follow."""

    name: str
    attribute: str
    instead: Callable[..., Any]

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


LAPSES: Final = (
    Lapse("claims before reconcile", "may_claim", property(_claims_at_once)),  # type: ignore[arg-type]
    Lapse("forgets reports on their way", "known", _knows_what_runs),
    Lapse("takes more than it has slots", "_take_in", _takes_all),
    Lapse("leaves what it did not know", "_take_in", _takes_none),
    Lapse("owes no cycle for a marker", "_woken", _forgets_the_marker),
    Lapse("forgets unanswered reports", "_claims_broke", _ignores_the_loss),
)
