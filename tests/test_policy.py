"""A foreign policy scanner on what the chart renders: kube-score, with what it is not followed in, and why."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from functools import cache
from typing import Any, Final

import pytest
import yaml

from chart_render import CASES, rendered
from cluster import helm
from cluster.go_program import KUBE_SCORE

WARNING: Final = 5
SKIPPED: Final = {
    "container-image-pull-policy": "IfNotPresent: a released tag is never moved, and a digest cannot be",
    "container-security-context-user-group-id": "no user is fixed: OpenShift gives each namespace users of its own",
    "container-resources": "no CPU limit: it throttles what could use an idle processor, and memory is limited",
    "container-ephemeral-storage-request-and-limit": "nothing is written but /tmp, and next to nothing there",
    "networkpolicy-targets-pod": "the pods of workers are made by the operator, and not by the chart",
    "pod-networkpolicy": "policies are off until networkPolicy.enabled: without a network plugin they do nothing",
    "statefulset-has-servicename": "the embedded Redis is one pod behind a plain Service: none is called by its name",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints do the same, and let pods run on a single node",
}
"""Check → why not. Each is found somewhere, else it must go."""
SCANNED: Final = tuple(case for case in CASES if case != "knobs")
"""That one adds containers and spreads of a user's own, which are as good as the user makes them."""

pytestmark = [
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.timeout(900, func_only=False),  # the first run builds both
    pytest.mark.skipif(bool(KUBE_SCORE.missing()), reason="kube-score cannot be built: the program go is missing"),
]


@cache
def found(case: str) -> dict[str, set[str]]:
    """Check that is not passed → objects that do not pass it, with what is said of them."""
    command = [str(KUBE_SCORE.build()), "score", "--output-format", "json", "--kubernetes-version", "v1.30", "-"]
    objects = yaml.safe_dump_all(rendered(case))
    run = subprocess.run(command, input=objects, capture_output=True, text=True, check=False)
    scored: list[dict[str, Any]] = json.loads(run.stdout)
    assert scored, run.stderr
    failed = defaultdict(set)
    for each in scored:
        for check in each["checks"] or ():
            if not check["skipped"] and check["grade"] <= WARNING:
                said = "; ".join(f"{comment['path']}: {comment['summary']}" for comment in check["comments"] or ())
                failed[check["check"]["id"]].add(f"{each['object_name']}: {said}")
    return dict(failed)


@pytest.mark.parametrize("case", SCANNED)
def test_the_scanner_finds_nothing_but_what_is_reasoned(case: str) -> None:
    assert {check: where for check, where in found(case).items() if check not in SKIPPED} == {}


def test_every_reason_is_needed() -> None:
    assert {check for case in SCANNED for check in found(case)} >= SKIPPED.keys()
