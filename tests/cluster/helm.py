"""Helm, built from its Go module at a pinned version and kept between runs; it needs no cluster."""

from __future__ import annotations

from typing import Final

from .go_program import GoProgram

HELM: Final = GoProgram("helm", "helm.sh/helm/v4/cmd/helm")
missing = HELM.missing
build = HELM.build
