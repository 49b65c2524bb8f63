"""The pytest plugin: one fixture, `headrace`.

A package of its own, because pytest imports it at every start wherever headrace is installed: the library is imported
only when a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headrace.testing import Testing


@pytest.fixture
def headrace() -> Iterator[Testing]:
    """A test without Redis: see `headrace.testing`."""
    from headrace.testing import Testing

    with Testing() as testing:
        yield testing
