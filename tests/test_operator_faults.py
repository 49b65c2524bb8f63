"""What the operator's model test found, each by itself."""

from __future__ import annotations

from headrace.broker.broker import WorkerSeen
from headrace_operator.fleet import Ended
from headrace_operator.hand_on import dead_boots
from headrace_operator.news import Event, News, Teller

NOON = 1_764_072_000.0


def boot(name: str, started_s: float) -> WorkerSeen:
    return WorkerSeen(name, "1", b'{"started_ms":%d}' % int((NOON + started_s) * 1000), 1)


def test_a_boot_that_began_in_the_second_of_the_end_lives_if_another_is_there() -> None:
    """The end at 300.1 is told as 300; the watch has not shown yet that the container runs again."""
    ended = Ended(NOON + 300, "Error", False)
    old, fresh = boot("emails-1:old", 250), boot("emails-1:new", 300.8)
    assert dead_boots([fresh, old], "emails-1", ended) == ["emails-1:old"]
    assert dead_boots([fresh], "emails-1", ended) == ["emails-1:new"], "it died as soon as it began"


def test_what_comes_and_goes_is_no_flood_of_events() -> None:
    teller, news = Teller(), News(Event.QUEUE_UNREACHABLE, "away")
    told = []
    for second in range(60):
        told += [teller.tell(news, float(second))]
        teller.over(Event.QUEUE_UNREACHABLE)
    posted = [each for each in told if each is not None]
    assert [each.message for each in posted] == ["away", "away (and 29 times before)"]
