"""contract.md's HTTP rows, each by its name: whoever used the original finds here the same words."""

from __future__ import annotations

import re

from api_kit import EMAIL, SCHEMA, running
from headrace.task import Failure

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SECOND = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z"


async def test_post_tasks_answers_201_with_location_and_the_two_words(redis_url: str) -> None:
    """POST /api/v1/tasks: 201, Location, task_id, status submitted."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        answer = await api.submit(EMAIL)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"task_id": answer.json["task_id"], "status": "submitted"}
    assert re.fullmatch(UUID, answer.json["task_id"])
    assert answer.headers["Location"] == f"/api/v1/tasks/{answer.json['task_id']}"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.headers["Date"])


async def test_get_task_has_the_eleven_fields_of_the_original(redis_url: str) -> None:
    """GET /api/v1/tasks/{id} of a waiting task: every name, priority as a number, times in UTC."""
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL)
        task = await api.task(task_id)
    wanted = {key: task[key] for key in ("id", "type", "priority", "status", "payload", "max_retries", "retry_count")}
    assert wanted == EMAIL | {"id": task_id, "status": "pending", "retry_count": 0}
    assert re.fullmatch(SECOND, task["created_at"])
    assert (task["started_at"], task["completed_at"], task["worker_id"]) == (None, None, None)


async def test_get_task_follows_it_through_its_life(redis_url: str) -> None:
    """pending → processing → retrying → … → completed, with worker, times, errors and result."""
    async with running(redis_url) as api:
        task_id = await api.submitted(EMAIL)
        [claim] = await api.worker.claim()
        running_now = await api.task(task_id)
        failure = Failure("ValueError", "no such mailbox")
        await api.worker.report(claim.report("retrying", 60_000, failure))
        retrying = await api.task(task_id)
        assert (await api.ask("POST", f"/api/v1/tasks/{task_id}:retry")).json["status"] == "pending"
        [claim] = await api.worker.claim()
        await api.worker.report(claim.report("completed", result={"sent": 1}))
        done = await api.task(task_id)
    assert (running_now["status"], running_now["worker_id"]) == ("processing", "worker-1")
    assert re.fullmatch(SECOND, running_now["started_at"])
    assert (retrying["status"], retrying["retry_count"], retrying["error"]["message"]) == (
        "retrying",
        1,
        "no such mailbox",
    )
    assert re.fullmatch(SECOND, retrying["due_at"])
    assert retrying["completed_at"] is None
    assert (done["status"], done["result"], done["error"], done["attempts"]) == ("completed", {"sent": 1}, None, 2)
    assert done["started_at"] <= done["completed_at"]
    assert [each["outcome"] for each in done["log"]] == ["retrying", "completed"]


async def test_get_stats_counts_by_state(redis_url: str) -> None:
    """GET /api/v1/stats: pending, processing, completed, failed, and more."""
    async with running(redis_url) as api:
        for _ in range(8):
            await api.submitted(EMAIL)
        claims = await api.worker.claim(slots=5)
        ended = [claims[0].report("completed"), claims[1].report("completed"), claims[2].report("failed")]
        await api.worker.report(*ended)
        await api.submitted(EMAIL | {"delay": 60, "queue": "mail"})
        stats = (await api.get("/api/v1/stats")).json
    counts = {key: stats[key] for key in ("pending", "processing", "completed", "failed", "scheduled", "dead_letters")}
    assert counts == {"pending": 3, "processing": 2, "completed": 2, "failed": 1, "scheduled": 1, "dead_letters": 1}
    assert stats["workers"] == 1
    assert set(stats["queues"]) == {"default", "mail"}
    assert stats["queues"]["mail"]["scheduled"] == 1


async def test_get_health_is_200_while_the_service_can_work(redis_url: str) -> None:
    """GET /health: 200 and JSON."""
    async with running(redis_url) as api:
        answer = await api.get("/health")
    assert answer.status == 200
    assert (answer.json["status"], answer.json["checks"]) == ("ok", {"redis": "up"})


async def test_get_health_is_503_while_redis_is_away() -> None:
    """GET /health: 503 and JSON when it cannot; the process itself lives all the same."""
    async with running("redis://127.0.0.1:1/0") as api:
        health, live = await api.get("/health"), await api.get("/livez")
    assert (health.status, health.json["checks"]) == (503, {"redis": "down"})
    assert health.headers["Retry-After"] == "1"
    assert (live.status, live.json) == (200, {"status": "ok"})


async def test_get_metrics_is_prometheus_text_with_the_kept_names(redis_url: str) -> None:
    """GET /metrics: submissions, queue_size and workers_active, labels as in contract.md."""
    async with running(redis_url) as api:
        await api.worker.publish("send_email", {"schema": SCHEMA})
        await api.submitted(EMAIL | {"priority": "critical"})
        await api.submitted(EMAIL)
        await api.worker.claim(slots=1)
        answer = await api.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    assert 'tasks_submitted_total{priority="critical",type="send_email"} 1.0' in lines
    assert 'tasks_submitted_total{priority="high",type="send_email"} 1.0' in lines
    assert 'queue_size{priority="critical"} 0.0' in lines
    assert 'queue_size{priority="high"} 1.0' in lines
    assert "workers_active 1.0" in lines


async def test_priorities_by_name_and_by_number(redis_url: str) -> None:
    """critical 3, high 2, medium 1, low 0; medium if nothing is said."""
    async with running(redis_url) as api:
        said = ["critical", "high", "medium", "low", "HIGH", 0, 3]
        ids = [await api.submitted(EMAIL | {"priority": each}) for each in said]
        ids.append(await api.submitted({"type": "send_email"}))
        found = [(await api.task(each))["priority"] for each in ids]
    assert found == [3, 2, 1, 0, 2, 0, 3, 1]
