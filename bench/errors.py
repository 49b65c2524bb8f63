"""The one error of the bench."""

from __future__ import annotations


class MeasureError(Exception):
    """Something cannot be measured, or went wrong while it was; the message says what. The other rows go on."""
