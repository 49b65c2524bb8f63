"""The four example tasks as they are shipped: names, payloads of the contract, and the targets of `headrace dev`."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples import tasks
from examples.export import orders
from examples.images import Processed
from examples.samples import samples
from examples.targets import Targets, dev_targets
from headrace import ConfigError, InvalidPayload, Permanent

# As the README of the original shows them.
CONTRACT: list[tuple[str, int, dict[str, Any]]] = [
    ("send_email", 2, {"recipient": "user@example.com", "subject": "Hello World", "body": "This is a test email"}),
    ("process_image", 1, {"image_url": "https://example.com/image.jpg", "operation": "resize"}),
    ("export_data", 0, {"format": "csv", "filters": {}}),
    ("call_webhook", 3, {"url": "https://example.com/hook", "method": "POST", "body": {}}),
]
ROOT = Path(__file__).parent.parent
RUN: dict[str, Any] = {
    "send_email": tasks.send_email,
    "process_image": tasks.process_image,
    "export_data": tasks.export_data,
    "call_webhook": tasks.call_webhook,
}


def rows() -> tuple[dict[str, Any], ...]:
    """The orders, for comparisons that mypy need not follow."""
    return orders()


@pytest.fixture
async def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Targets]:
    """The targets of `headrace dev`, running, and the environment that its workers get."""
    async with dev_targets(tmp_path / "state" / "targets.json") as running:
        for name, value in running.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("EXAMPLES_OUTPUT", str(tmp_path / "output"))
        yield running


@pytest.mark.parametrize(("name", "priority", "payload"), CONTRACT)
def test_each_type_has_the_name_priority_and_payload_of_the_contract(
    name: str, priority: int, payload: dict[str, Any]
) -> None:
    definition = tasks.app.registry[name]
    assert definition.priority == priority
    definition.decode(json.dumps(payload).encode())


def test_there_are_these_four_types_and_a_sample_of_each() -> None:
    every = samples({"EXAMPLES_LOOPBACK": "127.0.0.1:8025"})
    assert set(tasks.app.registry) == set(RUN) == {sample.type for sample in every}
    assert all(tasks.app.registry[type_].priority == priority for type_, priority, _ in every)


def test_without_targets_only_samples_are_offered_that_need_none() -> None:
    assert [sample.type for sample in samples({})] == ["send_email", "export_data"]


async def test_a_process_with_the_targets_environment_offers_all_samples(targets: Targets) -> None:
    """`headrace dev` looks at the application in a process of its own."""
    code = "import examples.tasks as t, json; print(json.dumps(t.SAMPLES))"
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=subprocess.PIPE)
    printed, _ = await run.communicate()
    assert json.loads(printed) == [list(sample) for sample in targets.samples]


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("send_email", {"recipient": "a@x", "subject": "s"}, "body"),
        ("send_email", {"recipient": "a@x", "subject": "s", "body": "b", "cc": "c@x"}, "cc"),
        ("process_image", {"image_url": "u", "operation": "enlarge"}, "operation"),
        ("process_image", {"image_url": "u", "operation": "resize", "width": 0}, "width"),
        ("process_image", {"image_url": "u", "operation": "resize", "height": 10_001}, "height"),
        ("process_image", {"image_url": "u", "operation": "rotate", "angle": 361}, "angle"),
        ("export_data", {"format": "xlsx", "filters": {}}, "format"),
        ("export_data", {"format": "csv", "filters": []}, "filters"),
        ("call_webhook", {"url": "u", "method": "TRACE", "body": {}}, "method"),
        ("call_webhook", {"url": "u", "method": "POST", "body": "text"}, "body"),
    ],
)
def test_a_payload_that_cannot_work_is_refused_at_the_door(name: str, payload: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPayload, match=said):
        tasks.app.registry[name].decode(json.dumps(payload).encode())


async def test_every_sample_completes_as_shipped(targets: Targets, tmp_path: Path) -> None:
    results = {sample.type: await RUN[sample.type].run(**sample.payload) for sample in targets.samples}
    assert results["send_email"].message_id == targets.mail.get_nowait()
    assert results["call_webhook"].status == 200
    assert targets.hooks.qsize() == 1
    with Image.open(tmp_path / "output" / Path(results["process_image"].path).name) as image:
        assert (image.format, image.size) == ("PNG", (320, 240))
    assert results["export_data"].rows == sum(r["status"] == "open" and r["amount"] >= 100 for r in rows()) > 0
    assert Path(results["export_data"].path).parent == tmp_path / "output"


@pytest.mark.parametrize("name", ["send_email", "export_data"])
async def test_the_contracts_own_payload_completes(name: str, targets: Targets) -> None:
    [payload] = [payload for type_, _, payload in CONTRACT if type_ == name]
    await RUN[name].run(**payload)


async def test_the_contracts_image_operation_needs_no_size(targets: Targets) -> None:
    result: Processed = await tasks.process_image.run(f"{targets.url}/wheel.jpg", "resize")
    assert (result.format, result.width, result.height) == ("JPEG", 800, 600)


async def test_workers_of_dev_reach_nothing_else_on_this_machine(targets: Targets) -> None:
    """Only the one port of the targets is open to them, not that of Redis, for example."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(Permanent, match=r"is not on the allow list|by https only"):
            await tasks.call_webhook.run(f"http://127.0.0.1:{other.getsockname()[1]}/", "POST", {})
        with pytest.raises(Permanent):
            await tasks.process_image.run(f"http://127.0.0.1:{other.getsockname()[1]}/", "resize")


async def test_the_webhook_target_refuses_what_is_not_signed_with_its_secret(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLES_WEBHOOK_SECRETS", "whsec_" + "A" * 43 + "=")
    with pytest.raises(Permanent, match="answered 401"):
        await tasks.call_webhook.run(f"{targets.url}/webhook", "POST", {})
    assert targets.hooks.empty()


async def test_the_targets_come_back_on_their_ports(tmp_path: Path) -> None:
    """Tasks that still waited when `headrace dev` was stopped name them."""
    state = tmp_path / "targets.json"
    async with dev_targets(state) as first:
        pass
    async with dev_targets(state) as second:
        assert (second.url, second.environ["SMTP_PORT"]) == (first.url, first.environ["SMTP_PORT"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"http": "x", "smtp": 1}', '{"http": 99999, "smtp": true}'])
async def test_a_useless_memory_of_ports_is_no_obstacle(text: str, tmp_path: Path) -> None:
    state = tmp_path / "targets.json"
    state.write_text(text)
    async with dev_targets(state) as running:
        assert running.url.startswith("http://127.0.0.1:")


async def test_a_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    state = tmp_path / "targets.json"
    async with dev_targets(state) as first, dev_targets(state) as second:
        assert first.url != second.url


async def test_targets_that_nobody_asks_keep_the_last_hundred_only(targets: Targets) -> None:
    for _ in range(101):
        await tasks.call_webhook.run(f"{targets.url}/webhook", "POST", {})
    assert targets.hooks.qsize() == 100


async def test_a_bad_setting_stops_the_start_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PORT", "smtp")
    with pytest.raises(ConfigError, match="SMTP_PORT"):
        async with tasks.app.lifespan():
            pass


def test_a_missing_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['aiosmtplib'] = None; import examples.tasks"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "need 'aiosmtplib', which is not installed. Run `pip install 'headrace[examples]'`." in run.stderr
