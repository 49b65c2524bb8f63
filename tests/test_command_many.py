"""Commands on many tasks and on queues: filters, dead letters, bulk jobs, limits."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from command_desk import Headrace, run_beside, submitted
from headrace import App, Permanent
from headrace.bulk import Jobs
from headrace.errors import UnknownTask
from headrace.listing import BUDGET
from headrace_cli import main
from redis_server import RedisServer
from worker_harness import Desk, working


def test_ids_come_from_standard_input_and_one_that_fails_stops_no_other(typed: Headrace) -> None:
    ids = submitted(typed, 3)
    unknown = str(uuid.uuid4())
    done = typed("task", "cancel", "-", "-o", "json", stdin="\n".join([ids[0], unknown, ids[1]]))
    assert done.code == main.FAILED
    assert done.data == [{"task_id": ids[0], "status": "cancelled"}, {"task_id": ids[1], "status": "cancelled"}]
    assert str(UnknownTask(unknown)) in done.err
    assert typed("task", "get", "-", "-o", "name", stdin="\n".join(ids)).out.split() == ids
    some = typed("task", "get", ids[0], unknown, "-o", "name")
    assert (some.code, some.out.split()) == (main.FAILED, [ids[0]])


def test_what_a_command_changes_is_in_the_audit_log(typed: Headrace, redis_server: RedisServer) -> None:
    [task_id] = submitted(typed, 1)
    typed("queue", "pause", "default")
    typed("task", "cancel", task_id)
    entries: Any = redis_server.redis.xrange("hr:{default}:audit")
    actions = [json.loads(text)["action"] for _, fields in entries for text in fields.values()]
    assert actions == ["queue.pause", "task.cancel"]


def test_a_filter_finds_tasks_and_its_names_go_into_other_commands(typed: Headrace) -> None:
    ids = submitted(typed, 5)
    typed("submit", "other", "{}")
    assert set(typed("task", "ls", "type:greet", "-o", "name").out.split()) == set(ids)
    some = typed("task", "ls", "type:greet", "--limit", "2", "-o", "json")
    assert len(some.data) == 2
    assert "There may be more" in some.err
    assert typed("task", "ls", "args.name:n3").out.splitlines()[1].startswith(ids[3])
    wrong = typed("task", "ls", "stat:failed")
    assert wrong.code == main.USAGE
    assert "did you mean 'state'?" in wrong.err


@pytest.mark.parametrize("command", [("task", "ls"), ("errors",)], ids=" ".join)
def test_a_filter_that_names_no_queue_of_those_there_are_is_told(typed: Headrace, command: tuple[str, ...]) -> None:
    """Else a slip of the pen looks as if all went well."""
    submitted(typed, 1)
    done = typed(*command, "queue:defualt,orders,default", "-o", "json")
    assert done.code == main.OK
    assert "There is no queue 'defualt'. Did you mean 'default'?\n" in done.err
    assert "There is no queue 'orders'. " in done.err
    assert "'default'. " not in done.err


async def test_dead_letters_are_grouped_and_start_over(typed: Headrace, redis_url: str) -> None:
    app: App[None] = App("t")

    @app.task()
    async def greet(name: str) -> None:
        raise Permanent("no disk")

    async with working(app, redis_url), Desk(redis_url) as desk:
        for number in range(3):
            await desk.ended(await desk.submit("greet", {"name": f"n{number}"}))
    url = redis_url
    [group] = (await run_beside("errors", "-o", "json", url=url)).data
    assert (group["count"], group["type"], group["message"]) == (3, "greet", "no disk")
    found = await run_beside("task", "ls", *group["filter"].split(), "-o", "name", url=url)
    assert len(found.out.split()) == 3
    asked = await run_beside("replay-dead", url=url)
    assert asked.code == main.USAGE
    assert "--yes" in asked.err
    dry = await run_beside("replay-dead", "--dry-run", url=url)
    assert (dry.code, dry.out) == (main.OK, "3 tasks would be replayed\n")
    done = await run_beside("replay-dead", "type:greet", "--yes", url=url)
    assert (done.code, done.out) == (main.OK, "3 tasks replayed\n")
    [queue] = (await run_beside("queue", "ls", "-o", "json", url=url)).data
    assert (queue["pending"], queue["dead_letters"]) == (3, 0)


def test_a_queue_is_purged_of_what_waits(typed: Headrace) -> None:
    submitted(typed, 4)
    typed("submit", "greet", '{"name": "x"}', "--delay", "60")
    job = typed("queue", "purge", "default", "--yes", "-o", "json").data
    assert (job["action"], job["done"], job["failed"]) == ("cancel", 5, {})
    [queue] = typed("queue", "ls", "-o", "json").data
    assert (queue["live"], queue["pending"]) == (0, 0)
    assert typed("queue", "purge", "nowhere", "--yes").code == main.FAILED


def audited(redis_server: RedisServer) -> list[dict[str, Any]]:
    entries: Any = redis_server.redis.xrange("hr:{default}:audit")
    return [json.loads(text) for _, fields in entries for text in fields.values()]


def test_a_purge_is_in_the_audit_log_with_its_queue_and_with_what_was_purged(
    typed: Headrace, redis_server: RedisServer
) -> None:
    submitted(typed, 2)
    job = typed("queue", "purge", "default", "--yes", "-o", "json").data
    begin, end = audited(redis_server)
    assert [begin[key] for key in ("action", "target", "queue")] == ["queue.purge", "default", "default"]
    assert begin["detail"] == {"tasks": "waiting", "bulk": job["id"]}
    assert [end[key] for key in ("action", "target", "who")] == ["bulk.end", job["id"], begin["who"]]
    typed("queue", "purge", "default", "--dead-letters", "--dry-run")
    assert len(audited(redis_server)) == 2


def test_a_bulk_job_is_in_the_audit_log_with_its_filter_without_values_of_arguments(
    typed: Headrace, redis_server: RedisServer
) -> None:
    typed("submit", "greet", '{"name": "secret"}', "--delay", "60")
    job = typed("bulk", "retry", "state:scheduled", "args.name:secret", "--yes", "-o", "json").data
    begin, end = audited(redis_server)
    assert (begin["action"], job["done"]) == ("bulk.start", 1)
    assert begin["detail"] == {"do": "retry", "filter": "state:scheduled args.name:…", "bulk": job["id"]}
    assert (end["action"], end["target"]) == ("bulk.end", job["id"])


def test_a_count_that_found_nothing_in_its_time_is_no_reason_to_do_nothing(
    typed: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one task that fits is not in the first look."""
    typed("submit", "greet", '{"name": "wanted"}', "--delay", "90")
    submitted(typed, BUDGET, "--delay", "60")
    count = Jobs.count
    monkeypatch.setattr(Jobs, "count", lambda self, order: count(self, order, limit_s=0))
    words = ("state:scheduled", "args.name:wanted")
    dry = typed("bulk", "retry", *words, "--dry-run", "-o", "json").data
    assert (dry["found"], dry["truncated"]) == (0, True)
    asked = typed("bulk", "retry", *words)
    assert (asked.code, "--yes" in asked.err) == (main.USAGE, True)
    assert typed("bulk", "retry", *words, "--yes").out == "1 task retried\n"


UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


def test_many_tasks_are_cancelled_and_deleted_by_a_filter_or_their_ids(typed: Headrace) -> None:
    ids = submitted(typed, 5)
    assert typed("bulk", "cancel", "args.name:n0", "--dry-run").out == "1 task would be cancelled\n"
    assert typed("bulk", "cancel", "args.name:n0", "--yes").out == "1 task cancelled\n"
    assert typed("bulk", "cancel", "--id", ids[1], "--id", ids[2], "--yes").out == "2 tasks cancelled\n"
    piped = typed("bulk", "cancel", "--id", "-", "--yes", "-o", "json", stdin=f"{ids[3]}\n{UNKNOWN}\n")
    assert piped.code == main.FAILED, "one of them is not there"
    assert (piped.data["done"], piped.data["failed"], piped.data["ids"]) == (1, {"unknown_task": 1}, 2)
    assert typed("bulk", "delete", "--id", "-", "--yes", stdin="").out == "0 tasks would be deleted\n"
    short = typed("bulk", "delete", "--id", "-", "--expected-count", "2", "--yes", stdin="")
    assert (short.code, "2 tasks were expected, but 0 fit now" in short.err) == (main.FAILED, True)
    wider = typed("bulk", "delete", "state:cancelled", "--id", "-", "--yes", stdin="")
    assert (wider.code, "needs either a filter or ids" in wider.err) == (main.USAGE, True), "else all were gone"
    assert typed("bulk", "delete", "state:cancelled", "--yes").out == "4 tasks deleted\n"
    assert typed("task", "ls", "-o", "name").out.split() == [ids[4]]


def test_nothing_is_done_if_it_is_about_another_number_of_tasks(typed: Headrace) -> None:
    submitted(typed, 3)
    for args in (("bulk", "cancel", "queue:default"), ("queue", "purge", "default")):
        refused = typed(*args, "--expected-count", "2", "--yes")
        assert (refused.code, refused.out) == (main.FAILED, "")
        assert "headrace explain wrong_count" in refused.err
    assert typed("bulk", "cancel", "queue:default", "--expected-count", "3", "--yes").code == main.OK


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("retry",), "it needs either a filter or ids"),
        (("retry", "type:greet", "--id", "x"), "it needs either a filter or ids"),
        (("replay", "state:scheduled"), "a task that is scheduled cannot be replayed (possible are failed)"),
        (("delete", "state:pending"), "a task that is pending cannot be deleted"),
        (("cancel", "stat:pending"), "did you mean"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_an_order_that_cannot_be_is_refused(typed: Headrace, args: tuple[str, ...], said: str) -> None:
    refused = typed("bulk", *args, "--yes")
    assert (refused.code, refused.out) == (main.USAGE, "")
    assert said in refused.err


def test_jobs_are_listed_shown_and_aborted(typed: Headrace, redis_server: RedisServer) -> None:
    assert typed("bulk", "ls").err == "There was no bulk job within a day.\n"
    submitted(typed, 2)
    job = typed("bulk", "cancel", "type:greet", "--yes", "-o", "name").out.strip()
    title, row = typed("bulk", "ls").out.splitlines()
    assert title.split() == ["JOB", "ACTION", "STATE", "FOUND", "DONE", "FAILED", "CREATED", "TASKS"]
    assert row.split()[:6] == [job, "cancel", "done", "2", "2", "0"]
    assert row.endswith("state:pending state:scheduled state:retrying state:parked type:greet")
    assert typed("bulk", "get", job).out == f"{job}: done\n2 tasks cancelled\n"
    assert typed("bulk", "abort", job, "-o", "json").data["state"] == "done", "what has ended stays so"
    assert audited(redis_server)[-1]["action"] == "bulk.abort"
    unknown = typed("bulk", "get", "0" * 20)
    assert (unknown.code, "unknown_bulk" in unknown.err) == (main.FAILED, True)


@pytest.mark.parametrize("words", ["get", "pause", "resume", "limit --max-depth 5", "purge --yes"])
@pytest.mark.parametrize("name", ["No Queue!", "q" * 64, ""])
def test_a_name_that_no_queue_can_have_is_told_with_what_may_be_in_one(typed: Headrace, words: str, name: str) -> None:
    command, *options = words.split()
    done = typed("queue", command, name, *options)
    assert (done.code, done.out) == (main.FAILED, "")
    assert done.err.startswith(f"Error: {name!r} is no queue name: use 1 to 63 of a-z, 0-9 and '-'")


def test_limits_of_a_queue_are_set_and_removed(typed: Headrace) -> None:
    submitted(typed, 1)
    assert typed("queue", "limit", "default", "--max-depth", "10", "--rate", "5/s").code == main.OK
    limits = typed("queue", "get", "default", "-o", "json").data["limits"]
    assert limits == {"max_depth": 10, "rate": "5/s"}
    assert "10 live tasks, 5/s submissions" in typed("queue", "get", "default").out
    typed("queue", "limit", "default", "--rate", "none")
    assert typed("queue", "get", "default", "-o", "json").data["limits"] == {"max_depth": 10, "rate": None}
    assert typed("queue", "limit", "default", "--rate", "fast").code == main.USAGE
    assert typed("queue", "limit", "default").code == main.USAGE


def test_what_changes_a_queue_prints_what_the_api_answers(typed: Headrace) -> None:
    submitted(typed, 1)
    for word, paused in (("pause", True), ("resume", False)):
        for changed in (True, False):
            told = typed("queue", word, "default", "-o", "json").data
            assert told == {"queue": "default", "paused": paused, "changed": changed}
    assert typed("queue", "purge", "default", "--yes").code == main.OK  # what waits grows older between two looks
    limited = typed("queue", "limit", "default", "--max-depth", "10", "-o", "json").data
    assert limited == typed("queue", "get", "default", "-o", "json").data
    assert limited["limits"] == {"max_depth": 10, "rate": None}


def test_a_limit_that_is_removed_is_told_with_what_holds_instead(typed: Headrace) -> None:
    submitted(typed, 1)
    removed = typed("queue", "limit", "default", "--rate", "none", "--max-depth", "none").out
    assert removed == "default: max depth as HEADRACE_MAX_DEPTH, rate none\n"
