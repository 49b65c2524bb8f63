"""Who owns which field of a Deployment, as the API server keeps it for server-side apply. Pure.

The request that makes a Deployment owns all that it names, beside the applies that follow: what a template no longer
names would then stay for ever, because one owner still wants it. So afterwards it is left with the number of replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entry = Mapping[str, Any]


def corrected(managed: list[Entry], manager: str) -> list[Entry] | None:
    """The list as it should be; None if it is so already."""
    entries = [_reduced(entry) if _is_of_making(entry, manager) else entry for entry in managed]
    kept = [entry for entry in entries if entry["fieldsV1"]]
    return None if kept == managed else kept


def _is_of_making(entry: Entry, manager: str) -> bool:
    return (entry.get("manager"), entry.get("operation"), entry.get("subresource", "")) == (manager, "Update", "")


def _reduced(entry: Entry) -> Entry:
    owned = entry["fieldsV1"].get("f:spec", {})
    return {**entry, "fieldsV1": {"f:spec": {"f:replicas": {}}} if "f:replicas" in owned else {}}
