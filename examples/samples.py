"""One task of each type to try, as `headrace dev` submits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One task to submit."""

    type: str
    priority: int
    payload: dict[str, Any]


def samples(environ: Mapping[str, str]) -> tuple[Sample, ...]:
    """The samples that complete where `environ` holds: those that fetch or call something need the targets of
    `examples.targets`, which are found by the first pair of EXAMPLES_LOOPBACK.
    """
    pairs = environ.get("EXAMPLES_LOOPBACK", "").replace(",", " ").split()
    return (*_ALONE, *(_with_targets(f"http://{pairs[0]}") if pairs else ()))


_ALONE = (
    Sample(
        "send_email",
        2,
        {"recipient": "user@example.com", "subject": "Hello World", "body": "This is a test email"},
    ),
    Sample("export_data", 0, {"format": "csv", "filters": {"status": "open", "amount": {"min": 100}}}),
)


def _with_targets(url: str) -> tuple[Sample, ...]:
    return (
        Sample(
            "process_image",
            1,
            {"image_url": f"{url}/wheel.png", "operation": "resize", "width": 320, "height": 240},
        ),
        Sample(
            "call_webhook",
            3,
            {"url": f"{url}/webhook", "method": "POST", "body": {"type": "order.shipped", "order_id": 1001}},
        ),
    )
