"""One task of each type to try, as `headrace dev` submits them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Sample(NamedTuple):
    """One task to submit."""

    type: str
    priority: int
    payload: dict[str, Any]

    def at(self, url: str) -> Sample:
        """The same with `{targets}` in the texts of its payload replaced by the address of the targets."""
        return self._replace(payload=_filled(self.payload, url))


def _filled(payload: Mapping[str, Any], url: str) -> dict[str, Any]:
    return {key: value.replace("{targets}", url) if isinstance(value, str) else value for key, value in payload.items()}


SAMPLES: Final[tuple[Sample, ...]] = (
    Sample(
        "send_email",
        2,
        {"recipient": "user@example.com", "subject": "Hello World", "body": "This is a test email"},
    ),
    Sample(
        "process_image",
        1,
        {"image_url": "{targets}/wheel.png", "operation": "resize", "width": 320, "height": 240},
    ),
    Sample("export_data", 0, {"format": "csv", "filters": {"status": "open", "amount": {"min": 100}}}),
    Sample(
        "call_webhook",
        3,
        {"url": "{targets}/webhook", "method": "POST", "body": {"type": "order.shipped", "order_id": 1001}},
    ),
)
"""`{targets}` stands for the address of the image server and webhook receiver, which is known once they run:
`targets.samples` of `dev_targets()` has it filled in."""
