"""For pytest, `-p seeded_plugin`: runs tests with the fault of seeded_faults.py that SEEDED_FAULT names, if any."""

from __future__ import annotations

import os

from seeded_faults import SEED, seed_into_this_process


def pytest_configure() -> None:
    if os.environ.get(SEED):
        seed_into_this_process(os.environ[SEED])
