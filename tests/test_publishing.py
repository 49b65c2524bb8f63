"""Versions of a type: both of a rollout count as long as workers renew them, and the newest one speaks for the type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from headrace.broker.publishing import LIFE_S, RENEW_S, publish, renew, version_of
from headrace.known_types import grouped
from model_desk import Desk
from test_transitions import desk

__all__ = ["desk"]

OLD: Final = b'{"hash":"old"}'
NEW: Final = b'{"hash":"new"}'
LIFE_MS: Final = int(LIFE_S * 1000)


def say(desk: Desk, text: bytes, *, name: str = "resize") -> None:
    assert desk.wire.run(publish("default", {name: text}, now_ms=desk.now)) == 0


def renewed(desk: Desk, text: bytes, *, name: str = "resize") -> bool:
    return desk.wire.run(renew("default", {name: text}, now_ms=desk.now)) == 0


def known(desk: Desk) -> Mapping[str, list[bytes]]:
    return grouped(desk.wire.command("HGETALL", "hr:{default}:types"))


def versions(desk: Desk) -> int:
    return int(desk.wire.command("ZCARD", "hr:{default}:versions"))


def test_a_life_outlasts_some_renewals_that_fail() -> None:
    assert LIFE_S >= 3 * RENEW_S


def test_both_versions_of_a_rollout_are_known_and_the_newest_comes_first(desk: Desk) -> None:
    say(desk, OLD)
    desk.now += 1_000
    say(desk, NEW)
    assert known(desk) == {"resize": [NEW, OLD]}


def test_an_old_worker_that_starts_again_does_not_displace_the_new_version(desk: Desk) -> None:
    say(desk, OLD)
    say(desk, NEW)
    desk.now += 1_000
    say(desk, OLD)
    say(desk, OLD)
    assert known(desk) == {"resize": [NEW, OLD]}
    assert versions(desk) == 2


def test_a_version_that_nobody_renews_is_forgotten_when_another_is(desk: Desk) -> None:
    say(desk, OLD)
    say(desk, NEW)
    desk.now += LIFE_MS - 1
    assert renewed(desk, NEW)
    assert known(desk) == {"resize": [NEW, OLD]}
    desk.now += 2
    assert renewed(desk, NEW)
    assert known(desk) == {"resize": [NEW]}
    assert versions(desk) == 1


def test_after_a_rollback_the_old_version_speaks_again(desk: Desk) -> None:
    say(desk, OLD)
    say(desk, NEW)
    desk.now += LIFE_MS // 2
    assert renewed(desk, OLD)
    assert known(desk)["resize"][0] == NEW
    desk.now += LIFE_MS // 2 + 1
    assert renewed(desk, OLD)
    assert known(desk) == {"resize": [OLD]}
    assert versions(desk) == 1


def test_zero_replicas_forget_nothing(desk: Desk) -> None:
    """Also while workers of other types go on."""
    say(desk, OLD)
    desk.now += 100 * LIFE_MS
    say(desk, NEW, name="other")
    assert known(desk) == {"other": [NEW], "resize": [OLD]}
    say(desk, NEW)
    assert known(desk)["resize"] == [NEW], "the old version had no worker left"


def test_a_renewal_of_what_is_not_known_asks_to_be_published(desk: Desk) -> None:
    """Somebody emptied Redis; and a description is not made up of nothing."""
    assert not renewed(desk, OLD)
    assert known(desk) == {}
    say(desk, NEW)
    assert not renewed(desk, OLD)
    assert renewed(desk, NEW)
    assert known(desk) == {"resize": [NEW]}


def test_many_versions_are_as_many_as_workers_renew(desk: Desk) -> None:
    """The bound in keys.py: what nobody renews goes."""
    for number in range(250):
        say(desk, b'{"hash":"%d"}' % number)
        desk.now += LIFE_MS // 10
    assert len(known(desk)["resize"]) <= 11
    assert versions(desk) <= 11


@pytest.mark.parametrize("name", ["resize", "a:b", "_"])
def test_names_of_types_cannot_forge_a_version(desk: Desk, name: str) -> None:
    """`#` is in no name, and what something foreign wrote under one is no type."""
    desk.wire.command("HSET", "hr:{default}:types", f"{name}#{version_of(OLD)}", OLD)
    assert known(desk) == {}
    say(desk, OLD, name=name)
    assert known(desk)[name][0] == OLD
