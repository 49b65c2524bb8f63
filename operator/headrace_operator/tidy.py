"""Memory that is not needed any more goes back to the system: a list of a thousand pools is large for a moment only."""

from __future__ import annotations

import ctypes
import gc


def tidy() -> None:
    """Collect what is garbage, and return free pages where the C library can (glibc). Takes about 0.1 s."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library
        return
