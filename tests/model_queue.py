"""What each script must answer and change, written from the rules and not from the scripts.

Every method takes what the script takes, changes the model, and returns the raw reply (ANY where it is Redis' to say).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace import task as tasks
from headrace.broker.broker import NewTask, Reclaim, Report
from headrace.broker.keys import STREAMS
from headrace.task import Counters
from model_state import Entry, State, Task
from model_task import foreign_id, type_of


class _Any:
    """Equal to all."""

    __hash__ = object.__hash__

    def __eq__(self, _: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
REFUSED: Final = "OOM"
"""The answer of submit and replay at full memory."""


@dataclass
class ModelQueue(State):
    """One queue, and each transition."""

    full_memory: bool = False
    beaten: Counter[str] = field(default_factory=Counter)
    """Beats of each worker that got through."""
    saw: Counter[str] = field(default_factory=Counter)
    """Findings V1 to V21 of the first model check, and other rare events, that a run reached."""

    # -- how tasks move

    def push(self) -> None:
        """The marker wakes one process; nobody is woken while paused."""
        self.marker = self.marker or not self.paused

    def _enter(self, task: Task, digit: str) -> None:
        task.state = "pending"
        carried = [b"n", task.carried] if task.carried else []
        task.entry = Entry(digit, [b"d", task.envelope, *carried], task)
        self.streams[digit].append(task.entry)

    def _resume(self, task: Task) -> None:
        self._enter(task, "s" if task.counters.crashes else str(task.priority))

    def _leave(self, task: Task) -> None:
        """Out of its stream."""
        if task.entry is not None:
            self.streams[task.entry.digit].remove(task.entry)
            task.entry = None

    def _delay(self, task: Task, state: str, low: int, high: int | None = None) -> None:
        self._leave(task)
        task.state, task.due, task.asked = state, (low, low if high is None else high), None

    def _end(self, task: Task, state: str, place: str, now: int) -> None:
        self._leave(task)
        task.state, task.asked, task.died_ms = state, None, now
        self.journal.append(f"{task.id} {place} {state} {type_of(task.envelope)}")

    def _bury(self, entry: Entry, worker: str, now: int) -> None:
        """What cannot be read is a dead letter at once."""
        self.streams[entry.digit].remove(entry)
        envelope, carried = texts(entry)
        task = Task(foreign_id(entry.place), envelope, carried=carried)
        c = task.counters
        charged = Counters(c.attempts + 1, c.failures + 1, c.crashes, c.interruptions)
        error = tasks.Failure("MalformedTask", "its envelope cannot be read", reason="malformed")
        line = tasks.Attempt(entry.place, "failed", worker, ended_ms=now, error=error)
        task.carried = tasks.extend(task.carried, charged, tasks.encode_attempt(line))
        self.tasks[task.id] = task
        self._end(task, "failed", entry.place, now)
        self.stats["failed"] += 1
        self.saw["buried"] += 1

    # -- submit, replay, cancel

    def submit(self, batch: Sequence[NewTask], max_depth: int, touch: bool, now: int) -> list[bytes] | str:
        if self.full_memory:
            return REFUSED
        answers = self._judge(batch)
        fresh = [new for new, answer in zip(batch, answers, strict=True) if answer[0] == "n"]
        if fresh and 0 < max_depth < sum(1 for _ in self.live()) + len(fresh):
            answers = [("f", b"", True) if rests else (letter, who, rests) for letter, who, rests in answers]
            fresh = []
            self.saw["full"] += 1
            self.saw["V21"] += any(answer[0] == "k" for answer in answers)
        wakes = [self._add(new, now) for new in fresh]
        if any(wakes):
            self.push()
        if not fresh and touch:
            self._touch()
        letters = "".join(a[0] for a in answers)
        limit = [b"%d" % max_depth] if "f" in letters else []
        return [letters.encode(), *(who for letter, who, _ in answers if letter == "u"), *limit]

    def _judge(self, batch: Sequence[NewTask]) -> list[tuple[str, bytes, bool]]:
        """A letter each, who holds the unique key, and whether that rests on what this very call adds."""
        taken: set[str] = set()
        holders = {task.unique: task.id for task in self.live() if task.unique}
        answers = []
        for new in batch:
            known, key = self.tasks.get(new.id), unique_of(new)
            self.saw["V1"] += known is not None and known.is_delayed
            self.saw["V3"] += new.id in taken
            if new.id in taken or (known and known.is_live):
                answers.append(("k", b"", new.id in taken))
            elif known:
                answers.append(("t", b"", False))
                self.saw["V2"] += 1
            elif key in holders:
                answers.append(("u", holders[key].encode(), holders[key] in taken))
                self.saw["unique"] += 1
            else:
                answers.append(("n", b"", True))
                taken.add(new.id)
                if key:
                    holders[key] = new.id
        return answers

    def _add(self, new: NewTask, now: int) -> bool:
        """Whether somebody must wake up for it."""
        said = tasks.decode_envelope(new.envelope)
        task = Task(new.id, new.envelope, new.priority, said.type, unique_of(new))
        due = new.due_ms if new.due_ms is not None else now + new.delay_ms
        earliest = self.delayed()[:1]
        self.tasks[new.id] = task
        if new.due_ms is None and not new.delay_ms:
            self._enter(task, str(new.priority))
            return True
        self._delay(task, "scheduled", due)
        return not earliest or due < earliest[0].due[0]

    def _touch(self) -> None:
        self.ctl["touch"] = b"%d" % (int(self.ctl.get("touch", b"0")) + 1)

    def replay(self, id_: str, place: str, touch: bool) -> bytes | str:
        if self.full_memory:
            return REFUSED
        if touch:
            self._touch()
        task = self.tasks.get(id_)
        refused = b"unknown" if task is None else self._why_not(task, place)
        if task is None or refused:
            return refused
        c = task.counters
        fresh = Counters(c.attempts, 0, 0, c.interruptions).text().encode()
        task.carried = fresh + b"\n" + task.carried.partition(b"\n")[2]
        self._enter(task, str(task.priority))
        self.push()
        self.saw["replayed"] += 1
        return b"replayed"

    def _why_not(self, task: Task, place: str) -> bytes:
        """Why it is not replayed; nothing if it is."""
        if task.state != "failed":
            return b"pending" if task.is_live else task.state.encode()
        if place and place != tasks.parse_attempts(task.carried)[-1].place:
            self.saw["V16"] += 1
            return b"other"
        if not is_readable(task.envelope):
            return b"foreign"
        held = task.unique and any(other.unique == task.unique for other in self.live())
        return b"unique" if held else b""

    def cancel(self, id_: str, force: bool, now: int) -> bytes:
        task = self.tasks.get(id_)
        if task is None or not task.is_live:
            return b"unknown" if task is None else task.state.encode()
        owner = task.entry and task.entry.owner
        if owner and not force:
            task.asked = owner
            return b"asked"
        self.saw["forced"] += bool(owner)
        place, c = task.place if owner else "", task.counters
        charged = Counters(c.attempts + bool(owner), c.failures, c.crashes, c.interruptions)
        line = b'{"p":"%b","o":"cancelled","w":"","e":%d}' % (place.encode(), now)
        task.carried = tasks.extend(task.carried, charged, line)
        self._end(task, "cancelled", place, now)
        self.stats["cancelled"] += 1
        return b"cancelled"

    # -- cycle

    def cycle(self, worker: str, slots: int, reports: Sequence[Report], order: str, touch: bool, now: int) -> list[Any]:
        verdicts: list[bytes] = []
        for report in by_kind(reports):
            entry = self.at(report.place.decode())
            if entry is None or entry.owner is None:
                verdicts += [report.place, self._verdict(report)]
            else:
                self._accept(entry, report, now)
        if touch and verdicts:
            self._touch()
        if self.paused:
            return [verdicts, 1, self.next_due(), [], []]
        claimed, missing = self._claim(worker, slots, order)
        if not missing:
            self._pass_on(len(claimed), slots)
        return [verdicts, 2 * missing, self.next_due(), *by_stream(claimed)]

    def _verdict(self, report: Report) -> bytes:
        task = self.tasks.get(report.id)
        if task is None:
            self.saw["gone"] += 1
            return b"gone"
        place = report.place.decode()
        history = {attempt.place: attempt.outcome for attempt in tasks.parse_attempts(task.carried)}
        known = history.get(place)
        self.saw["V4"] += known == report.outcome == "completed"
        self.saw["V14"] += known is not None and known != report.outcome
        self.saw["V15"] += known == report.outcome and task.is_live
        return b"dup" if known == report.outcome else b"stale"

    def _accept(self, entry: Entry, report: Report, now: int) -> None:
        task = entry.task
        if task is None:  # a foreign entry ends under the id that its place makes
            self.streams[entry.digit].remove(entry)
            task = self.tasks[report.id] = Task(report.id, b"")
        _, task.envelope, task.carried = tasks.cut(report.record)
        outcome = "cancelled" if task.asked and report.outcome != "completed" else report.outcome
        self.stats[f"{outcome}:{report.type}"] += 1
        self.saw["V5"] += bool(task.asked) and outcome == "completed"
        self.saw["V6 " + report.outcome] += outcome != report.outcome
        self.saw["V17"] += outcome == "parked"
        if outcome == "retrying":
            self._delay(task, outcome, now + int(report.argument))
        elif outcome == "parked":
            self._leave(task)
            task.state, task.key, task.asked = outcome, str(report.argument), None
        else:
            task.completions += outcome == "completed"
            assert task.completions <= 1, f"{task.id} completed twice"
            self._end(task, outcome, report.place.decode(), now)

    def _claim(self, worker: str, slots: int, order: str) -> tuple[list[Entry], bool]:
        claimed: list[Entry] = []
        for digit in order:
            room = slots - len(claimed)
            if digit == "s":
                self.saw["V18"] += bool(self.held("s", worker) and self.waiting("s") and slots)
                room = min(room, 0 if self.held("s", worker) else 1)
            if room <= 0 or not self.streams[digit]:
                continue
            if digit not in self.groups:
                self.saw["V19"] += 1
                return claimed, True
            self.newcomers[digit].add(worker)
            for entry in self.waiting(digit)[:room]:
                entry.owner = worker
                claimed.append(entry)
        return claimed, False

    def _pass_on(self, claimed: int, slots: int) -> None:
        """Rule (b) of the marker wait: each push is paid for by a claim, or by a full process that steps out."""
        main = any(self._left(digit) for digit in "r3210") and (claimed > 0 or slots == 0)
        if main or (claimed > 0 and self._left("s")):
            self.push()

    def _left(self, digit: str) -> bool:
        return bool(self.waiting(digit) or (self.streams[digit] and digit not in self.groups))

    # -- what takes tasks from workers

    def reclaim(self, order: Reclaim, now: int) -> list[Any]:
        beat = self.beats.get(order.worker, "")
        if order.seen not in {"*", beat}:
            return [b"alive", 0, [], []]
        if order.seen == "":
            self.beats[order.worker] = "?" + order.nonce
            return [b"marked", 0, [], []]
        held = [entry for digit in STREAMS for entry in self.held(digit, order.worker)]
        taken = held[: order.limit]
        for entry in taken:
            self._crash(entry, order, now)
        if held:
            self.push()
        told = [len(taken), *self._told(taken)]
        if len(held) > order.limit:
            return [b"moved", *told]
        self._sign_off(order.worker)
        return [b"done", *told]

    def _told(self, taken: Sequence[Entry]) -> tuple[list[bytes], list[bytes | int]]:
        """Who goes on, and who was buried with what count of crashes."""
        handed_on: list[bytes] = []
        buried: list[bytes | int] = []
        for entry in taken:
            task = entry.task
            if task is None:
                id_ = foreign_id(entry.place)
                buried += [id_.encode(), b"", self.tasks[id_].counters.crashes]
            elif task.is_live:
                handed_on.append(task.id.encode())
            elif task.state == "failed":
                buried += [task.id.encode(), task.type.encode(), task.counters.crashes]
        return handed_on, buried

    def _crash(self, entry: Entry, order: Reclaim, now: int) -> None:
        task = entry.task
        if task is None:
            return self._bury(entry, order.worker, now)
        place, c = entry.place, task.counters
        line = tasks.Attempt(place, "crashed", order.worker, ended_ms=now, cause=order.cause)
        charged = Counters(c.attempts + 1, c.failures, c.crashes + 1, c.interruptions)
        task.carried = tasks.extend(task.carried, charged, tasks.encode_attempt(line))
        if task.asked or charged.crashes >= order.max_crashes:
            state = "cancelled" if task.asked else "failed"
            self.saw["V6 reclaim" if task.asked else "poison"] += 1
            self.stats[state] += 1
            self._end(task, state, place, now)
        elif charged.crashes == 1:
            self._leave(task)
            self._enter(task, "s")
        else:
            self._delay(task, "retrying", now + order.backoff_ms // 2, now + order.backoff_ms * 3 // 2)
        return None

    def _sign_off(self, worker: str) -> None:
        for digit in STREAMS:
            self.consumers[digit].discard(worker)
        self.beats.pop(worker, None)
        self.infos.pop(worker, None)

    def hand_back(self, worker: str, places: Sequence[str], leave: bool, now: int) -> list[int]:
        if tuple(places) == ("*",):
            entries = [entry for digit in STREAMS for entry in self.held(digit, worker)]
        else:
            entries = [entry for place in dict.fromkeys(places) if (entry := self.at(place)) and entry.owner]
        for entry in entries:
            self._return(entry, worker, now)
        if entries:
            self.push()
        rest = any(self.held(digit, worker) for digit in STREAMS)
        if leave and not rest:
            self._sign_off(worker)
        return [len(entries), int(rest)]

    def _return(self, entry: Entry, worker: str, now: int) -> None:
        task = entry.task
        if task is None:
            return self._bury(entry, worker, now)
        place, c = entry.place, task.counters
        line = tasks.Attempt(place, "interrupted", worker, ended_ms=now)
        charged = Counters(c.attempts + 1, c.failures, c.crashes, c.interruptions + 1)
        task.carried = tasks.extend(task.carried, charged, tasks.encode_attempt(line))
        if task.asked:
            self.saw["V6 hand back"] += 1
            self.stats["cancelled"] += 1
            return self._end(task, "cancelled", place, now)
        self._leave(task)
        return self._enter(task, "s" if c.crashes else "r")

    # -- passes

    def promote(self, ids: Sequence[str], limit: int, now: int) -> list[Any]:
        due = [task for task in self.delayed() if task.due[0] <= now][:limit]
        named = [self.tasks[id_] for id_ in dict.fromkeys(ids) if id_ in self.tasks and self.tasks[id_].is_delayed]
        chosen = named if ids else due
        for task in chosen:
            self._resume(task)
        if chosen:
            self.push()
        return [len(chosen), self.next_due()]

    def release(self, keys: Sequence[str], limit: int) -> int:
        released = 0
        for key in keys:
            waiting = sorted((t for t in self.tasks.values() if t.state == "parked" and t.key == key), key=_id)
            for task in waiting[: limit - released]:
                self._resume(task)
                released += 1
        if released:
            self.push()
        return released

    def purge(self, ids: Sequence[str], before_ms: int, keep: int, limit: int) -> int:
        dead = self.dead()
        old = [task for task in dead if task.died_ms < before_ms][:limit]
        beyond = dead[: max(0, min(limit, len(dead) - keep))]
        chosen = max(old, beyond, key=len) if not ids else [task for task in dead if task.id in ids]
        self.saw["purged"] += len(chosen)
        for task in chosen:
            del self.tasks[task.id]
        return len(chosen)

    def expire(self, id_: str) -> None:
        """The time of a record is over."""
        del self.tasks[id_]

    # -- the rest

    def init(self, run_id: str, now: int) -> list[int]:
        for digit in STREAMS:
            if digit not in self.groups:
                self.groups.add(digit)
                if self.streams[digit]:
                    self.push()
        epoch = int(self.ctl.get("epoch", b"0"))
        if epoch == 0 or (run_id and self.ctl["run_id"] != run_id.encode()):
            epoch = max(epoch + 1, now // 1000)
            self.ctl["epoch"], self.ctl["run_id"] = b"%d" % epoch, run_id.encode()
        return [epoch, int(self.paused)]

    def destroy_group(self, digit: str) -> None:
        self.groups.discard(digit)
        self.consumers[digit].clear()
        for entry in self.streams[digit]:
            entry.owner = None

    def pause(self, paused: bool, now: int) -> int:
        changed = paused != self.paused
        if paused:
            self.ctl.setdefault("paused", b"%d" % now)
        else:
            self.ctl.pop("paused", None)
            self.push()
        return int(changed)

    def beat(self, worker: str, counter: int, info: bytes) -> list[Any]:
        self.beats[worker] = str(counter)
        self.beaten[worker] += 1
        if info:
            self.infos[worker] = info
        asked = sorted(task.id.encode() for task in self.live() if task.asked == worker)
        heads = [(digit, self.waiting(digit)[:1]) for digit in "3210"]
        oldest = [part for digit, head in heads for entry in head for part in (digit.encode(), entry.id.encode())]
        nobody_drains = 0  # the handshake touches no task
        return [int(self.paused), self.next_due(), asked, oldest, ANY, nobody_drains]

    def reconcile(self, worker: str, known: Sequence[str]) -> list[list[bytes]] | str:
        if len(self.groups) < len(STREAMS):
            return "NOGROUP"
        held = [entry for digit in STREAMS for entry in self.held(digit, worker)]
        others = [(entry.place.encode(), *texts(entry)) for entry in held if entry.place not in known]
        return [
            [entry.place.encode() for entry in held if entry.place in known],
            [part for other in others for part in other],
        ]

    def get(self, id_: str) -> list[Any]:
        task = self.tasks.get(id_)
        if task is None:
            return []
        if not task.is_live:
            return [b"t", task.record]
        if task.entry is None:
            return [b"z", task.record, b"%d" % task.due[0]] if task.is_delayed else [b"p", task.record]
        owner = [task.entry.owner.encode(), ANY, b""] if task.entry.owner else []
        return [task.place.encode(), task.envelope, task.carried, *owner]

    def workers(self) -> dict[bytes, tuple[bytes, bytes, int]]:
        """Name → beat, description, how many it holds."""
        names = set(self.beats).union(*self.consumers.values())
        return {
            name.encode(): (
                self.beats.get(name, "").encode(),
                self.infos.get(name, b""),
                sum(len(self.held(digit, name)) for digit in STREAMS),
            )
            for name in names
        }

    def depth(self) -> dict[str, tuple[int, int]]:
        """Of each stream: entries, claimed ones."""
        return {d: (len(s), sum(e.owner is not None for e in s)) for d, s in self.streams.items()}


def _id(task: Task) -> str:
    return task.id


def unique_of(new: NewTask) -> str | None:
    """Its unique key."""
    return tasks.decode_envelope(new.envelope).unique if new.unique else None


def by_kind(reports: Sequence[Report]) -> list[Report]:
    """In the order in which they count: those of one stream, outcome, argument and type are told together."""
    kinds: dict[object, list[Report]] = {}
    for report in reports:
        kinds.setdefault((report.place[:1], report.outcome, report.argument, report.type), []).append(report)
    return [report for kind in kinds.values() for report in kind]


def by_stream(claimed: Sequence[Entry]) -> tuple[list[list[bytes]], list[bytes]]:
    """How claims look: digit, then id and envelope of each; and the N of those that have one."""
    streams: dict[str, list[bytes]] = {}
    past: list[bytes] = []
    for entry in claimed:
        envelope, carried = texts(entry)
        streams.setdefault(entry.digit, [entry.digit.encode()]).extend((entry.id.encode(), envelope))
        past += [entry.place.encode(), carried] if carried else []
    return list(streams.values()), past


def texts(entry: Entry) -> tuple[bytes, bytes]:
    """What the scripts take for its envelope and its N."""
    fields = entry.fields
    if fields[0] != b"d" or fields[2:3] not in ([], [b"n"]):
        return b"", b""
    return fields[1], fields[3] if len(fields) > 3 else b""


def is_readable(envelope: bytes) -> bool:
    """Whether it begins as every envelope does."""
    return re.match(rb'\{"v":\d+,"p":[0-3],"i":"[\w.-]+"', envelope) is not None
