"""The bare client where there is no C compiler or no hiredis: as floor.c, argument by argument, with hiredis-py.

It imports nothing of headrace, because it stands for the least that a client can do.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

PAYLOAD = 100
WORKER = b"floor:01234567"
Arguments = list[bytes]


class Wire:
    """A blocking socket; requests may be sent ahead of their answers."""

    def __init__(self, where: str) -> None:
        if "/" in where:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(where)
        else:
            self._socket = socket.create_connection(("127.0.0.1", int(where)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, *requests: Arguments) -> None:
        """All at once."""
        packed = [hiredis.pack_command(tuple(each)) for each in requests]  # type: ignore[arg-type] # a tuple of one
        self._socket.sendall(b"".join(packed))

    def answer(self) -> Any:
        reply = self._reader.gets()
        while reply is False:
            self._reader.feed(self._socket.recv(1 << 18))
            reply = self._reader.gets()
        if isinstance(reply, hiredis.ReplyError):
            sys.exit(f"floor: {reply}")
        return reply


def envelope(task_id: bytes, task_type: bytes, number: int) -> bytes:
    """As headrace.task writes it, with a payload of PAYLOAD bytes."""
    start = b'{"n":%d,"text":"' % number
    payload = start + b"x" * (PAYLOAD - len(start) - 2) + b'"}'
    return b'{"v":1,"p":1,"i":"%b","t":"%b","c":1764024000000,"a":%b}' % (task_id, task_type, payload)


def new_id() -> bytes:
    text = secrets.token_hex(16)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}".encode()


def submission(task_type: bytes, first: int, count: int) -> Arguments:
    ids = [new_id() for _ in range(count)]
    texts = [envelope(task_id, task_type, number) for number, task_id in enumerate(ids, first)]
    return [b"", b"0", b"0", b"1", *ids, *texts]


def task_id_of(text: bytes) -> bytes:
    start = text.index(b'"i":"') + 5
    return text[start : start + 36]


def record(place: bytes, text: bytes, now_ms: int) -> bytes:
    attempt = b'{"p":"%b","o":"completed","w":"%b","s":%d,"e":%d}' % (place, WORKER, now_ms, now_ms)
    return b"completed %d\n%b1,0,0,0\n%b" % (len(text), text, attempt)


def cycle(task_type: bytes, batch: int, claims: list[list[bytes]]) -> Arguments:
    args = [WORKER, b"%d" % batch, b"rs3210", b"", b"0", b"86400", b"10000"]
    now_ms = int(time.time() * 1000)
    for digit, *rows in claims:
        entries, texts = rows[::2], rows[1::2]
        args += (digit, b"completed", b"", task_type, b"%d" % len(entries), *entries, *map(task_id_of, texts))
        args += [record(digit + entry, text, now_ms) for entry, text in zip(entries, texts, strict=True)]
    return args


def submit(wire: Wire, head: Arguments, task_type: bytes, batch: int, out: int, total: int) -> None:
    waiting: deque[int] = deque()
    for first in range(0, total, batch):
        if len(waiting) == out:
            take_submitted(wire, waiting.popleft())
        waiting.append(min(batch, total - first))
        wire.send(head + submission(task_type, first, waiting[-1]))
    while waiting:
        take_submitted(wire, waiting.popleft())


def take_submitted(wire: Wire, count: int) -> None:
    if wire.answer() != [b"n" * count]:
        sys.exit("floor: a submission was not new")


def drain(wire: Wire, head: Arguments, task_type: bytes, batch: int, out: int, total: int) -> None:
    reported, waiting = 0, deque([0] * out)
    for _ in waiting:
        wire.send(head + cycle(task_type, batch, []))
    while waiting:
        verdicts, flags, _, claims, _ = wire.answer()
        if verdicts or flags:
            sys.exit("floor: a report was not accepted")
        reported += waiting.popleft()
        if claims:
            waiting.append(sum(len(rows) // 2 for rows in claims))
            wire.send(head + cycle(task_type, batch, claims))
    if reported != total:
        sys.exit(f"floor: {reported} tasks were drained, not {total}")


def pace(wire: Wire, head: Arguments, task_type: bytes, gap_ms: int, total: int) -> list[int]:
    moments = []
    for number in range(total):
        time.sleep(gap_ms / 1000)
        moments.append(time.monotonic_ns())
        wire.send(head + submission(task_type, number, 1))
        take_submitted(wire, 1)
    return moments


def wait(wire: Wire, head: Arguments, task_type: bytes, batch: int, total: int) -> list[int]:
    moments = list[int]()
    while len(moments) < total:
        wire.send([b"BLPOP", head[-1] + b"wake", b"30"])
        if wire.answer() is None:
            sys.exit("floor: nothing came for 30 s")
        wire.send(head + cycle(task_type, batch, []))
        claims, now = wire.answer()[3], time.monotonic_ns()
        if claims:
            moments += [now] * sum(len(rows) // 2 for rows in claims)
            wire.send(head + cycle(task_type, 0, claims))
            wire.answer()
    return moments[:total]


def plain_submit(wire: Wire, batch: int, total: int) -> None:
    wire.send([b"XGROUP", b"CREATE", b"plain", b"g", b"0", b"MKSTREAM"])
    wire.answer()
    for first in range(0, total, batch):
        numbers = range(first, min(first + batch, total))
        wire.send(*([b"XADD", b"plain", b"*", b"d", envelope(new_id(), b"noop", number)] for number in numbers))
        for _ in numbers:
            wire.answer()


def plain_drain(wire: Wire, batch: int, total: int) -> None:
    ended, rows = 0, list[Any]()
    while True:
        requests, now_ms = list[Arguments](), int(time.time() * 1000)
        for entry, (_, text) in rows:
            done = record(b"1" + entry, text, now_ms)
            requests.append([b"XACK", b"plain", b"g", entry])
            requests.append([b"XDEL", b"plain", entry])
            requests.append([b"SET", b"plain:" + task_id_of(text), done, b"EX", b"86400"])
        claim = [b"XREADGROUP", b"GROUP", b"g", b"floor", b"COUNT", b"%d" % batch, b"STREAMS", b"plain", b">"]
        wire.send(*requests, claim)
        for _ in range(3 * len(rows)):
            wire.answer()
        ended += len(rows)
        claims = wire.answer()
        if not claims:
            break
        rows = claims[0][1]
    if ended != total:
        sys.exit(f"floor: {ended} tasks were drained, not {total}")


def ping(wire: Wire, total: int) -> None:
    for _ in range(total):
        wire.send([b"PING"])
        wire.answer()


def main(words: list[str]) -> None:
    where, mode, (batch, out, total) = words[0], words[1], map(int, words[2:5])
    rest = [word.encode() for word in words[5:]]
    wire = Wire(where)
    head = [b"EVALSHA", rest[1], b"%d" % len(rest[2:]), *rest[2:]] if rest else []
    work: dict[str, Callable[[], list[int] | None]] = {
        "ping": lambda: ping(wire, total),
        "submit": lambda: submit(wire, head, rest[0], batch, out, total),
        "drain": lambda: drain(wire, head, rest[0], batch, out, total),
        "pace": lambda: pace(wire, head, rest[0], batch, total),
        "wait": lambda: wait(wire, head, rest[0], batch, total),
        "plain-submit": lambda: plain_submit(wire, batch, total),
        "plain-drain": lambda: plain_drain(wire, batch, total),
    }
    wall, cpu = time.monotonic(), time.process_time()
    moments = work[mode]()
    said = {"tasks": total, "wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps(said if moments is None else said | {"at_ns": moments}))


if __name__ == "__main__":
    main(sys.argv[1:])
