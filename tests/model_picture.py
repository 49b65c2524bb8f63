"""The key space of a queue in a few words, for tables of expectations."""

from __future__ import annotations

import string
from collections.abc import Iterable

from headrace import task
from headrace.broker.keys import STREAMS
from model_desk import Desk
from model_dump import Dump, complaints, look
from model_task import task_id

LETTERS = dict(zip((task_id(n) for n in range(1, 27)), string.ascii_lowercase, strict=True))


def picture(desk: Desk) -> dict[str, str]:
    """Only what is there: `a` a waiting task, `a<w` one that w runs, `a[1,0,1,0]` its counters, `~` it expires."""
    dump = look(desk.wire, desk.queue)
    assert complaints(dump) == []
    parts = {digit: _stream(dump, digit) for digit in STREAMS}
    body = {id_: _record(text) for id_, text in dump.hashes["body"].items()}
    parts["later"] = _join(f"{body[id_]}@{due - desk.now:+.0f}" for id_, due in dump.later.items())
    parts["parked"] = _join(f"{key}:{body[id_]}" for key, id_ in (row.split("\n") for row in dump.parked))
    parts["t"] = _join(_record(text) + ("~" if dump.ttl[id_] > 0 else "") for id_, text in sorted(dump.records.items()))
    parts["dead"] = _join(f"{_letter(id_)}@{at - desk.now:+.0f}" for id_, at in dump.dead.items())
    parts["u"] = _join(f"{key}={_letter(id_.decode())}" for key, id_ in dump.hashes["u"].items())
    for name in ("w", "wd", "stats"):
        parts[name] = _join(sorted(f"{key}={value.decode()}" for key, value in dump.hashes[name].items()))
    parts["rev"] = _join(f"{_letter(id_)}={who.decode()}" for id_, who in dump.hashes["rev"].items())
    parts["ctl"] = _join(key for key in dump.hashes["ctl"] if key not in {"epoch", "run_id"})
    parts["journal"] = _join(_line(line) for _, text in dump.journal for line in text.decode().split("\n"))
    parts["wake"] = "1" * dump.wake
    return {name: text for name, text in parts.items() if text}


def _stream(dump: Dump, digit: str) -> str:
    stream, words = dump.streams[digit], []
    for entry, fields in stream.entries:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        owner = stream.held.get(entry)
        word = _letter(task.decode_envelope(values[b"d"]).id) + _counters(values.get(b"n", b""))
        words.append(word + (f"<{owner}" if owner else ""))
    return _join(words)


def _record(text: bytes) -> str:
    state, envelope, carried = task.cut(text)
    name = _letter(task.decode_envelope(envelope).id) if envelope else "?"
    return f"{name}={state}{_counters(carried)}"


def _line(line: str) -> str:
    id_, place, state, _ = line.split(" ")
    return f"{_letter(id_)}:{place[:1]}:{state}"


def _counters(carried: bytes) -> str:
    return "[" + carried.partition(b"\n")[0].decode() + "]" if carried else ""


def _letter(id_: str) -> str:
    return LETTERS.get(id_, "?")


def _join(words: Iterable[str]) -> str:
    return " ".join(words)
