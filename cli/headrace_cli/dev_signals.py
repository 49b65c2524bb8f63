"""Ctrl-C once: stop in order. Twice: stop at once."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """What the person at the terminal asked for. Made inside the event loop; the first signal cancels `task`."""

    def __init__(self, task: asyncio.Task[object] | None) -> None:
        self.asked = False
        self.at_once = asyncio.Event()
        """Set by the second signal."""
        self._task = task
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self.asked:
            self.at_once.set()
        elif self._task is not None:
            self.asked = True
            self._task.cancel()
