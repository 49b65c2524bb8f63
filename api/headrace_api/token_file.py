"""Tokens from a file or a mounted Secret, read again when it changes, without a restart.

Kubernetes swaps a symbolic link when a Secret changes, editors write a new file, `>` writes into the old one: all of
them change what `stat` tells of the files. What cannot be read leaves the tokens as they were: half a file must lock
nobody out, nor let anybody in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from headrace.tokens import ApiToken, files_of, read_tokens

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0

_Mark = tuple[tuple[str, int, int, int, int], ...]


@dataclass(slots=True)
class TokenFile:
    """Raises OSError and ValueError when it is made, never later."""

    path: str
    clock: Callable[[], float] = time.monotonic
    tokens: tuple[ApiToken, ...] = ()
    refused: bool = False
    """Whether the file is now one that cannot be taken, so that older tokens hold."""
    _mark: _Mark = field(default=(), repr=False)
    _next_look: float = 0.0

    def __post_init__(self) -> None:
        self._mark = _mark_of(self.path)
        self.tokens = read_tokens(self.path)
        self._next_look = self.clock() + LOOK_EVERY_S

    def changed(self) -> bool:
        """Whether there are new tokens. Looks at the file every few seconds at most."""
        now = self.clock()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY_S
        try:
            mark = _mark_of(self.path)
            if mark == self._mark:
                return False
            # Kept before it is read: what changes meanwhile is seen at the next look.
            self._mark = mark
            tokens = read_tokens(self.path)
        except (OSError, ValueError) as error:
            self._refuse(error)
            return False
        return self._take(tokens)

    def _refuse(self, error: Exception) -> None:
        self._mark = ()
        if not self.refused:
            said = "HEADRACE_TOKENS_FILE changed to what cannot be read, so the tokens stay as they were: %s in %s"
            logger.error(said, error, self.path)
        self.refused = True

    def _take(self, tokens: tuple[ApiToken, ...]) -> bool:
        if tokens == self.tokens and not self.refused:
            return False
        self.tokens, self.refused = tokens, False
        subjects = ", ".join(sorted({token.who for token in tokens}))
        logger.info("HEADRACE_TOKENS_FILE was read again: %d tokens of %s", len(tokens), subjects[:500])
        return True


def _mark_of(path: str) -> _Mark:
    """What changes when the files do. Raises OSError."""
    stats = ((str(file), file.stat()) for file in files_of(path))
    return tuple((name, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
