"""Figures as people read them."""

from __future__ import annotations


def number(value: float) -> str:
    """Two places below 100, none above."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value < 100 else f"{value:.0f}"
