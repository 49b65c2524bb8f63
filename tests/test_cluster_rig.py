"""The cluster of plain processes itself: what is started is stopped again, and nothing else is touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import cluster_kit
from cluster import host, programs, rig
from cluster.choice import RIG, Cluster, alone, choose


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = choose()
    assert isinstance(said, str)
    assert said.startswith("no cluster can be made here: kind lacks the program docker, ")
    assert "plain processes lacks the program go, " in said


def test_two_sessions_do_not_use_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CACHE", tmp_path)
    with alone(wait=False), pytest.raises(BlockingIOError), alone(wait=False):
        pass
    with alone(wait=False):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_number_that_now_belongs_to_another_program_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "RUN", tmp_path)
    (tmp_path / "etcd.pid").write_text(str(os.getpid()))
    assert host.pids() == []


@pytest.mark.cluster
@pytest.mark.timeout(300, func_only=True)
def test_a_stopped_cluster_leaves_nothing(cluster: Cluster) -> None:
    """Looked for by other means than the ones by which it is stopped; afterwards it is started again."""
    if choose() is not RIG or os.environ.get("HEADRACE_TEST_KUBECONFIG"):
        pytest.skip("this cluster is not made of plain processes by these tests")
    assert _processes() and _output("iptables-save").count("KUBE-")
    rig.down()
    try:
        assert _processes() == []
        assert "headrace" not in _output("ip", "link")
        assert "KUBE-" not in _output("iptables-save") and "10.213." not in _output("iptables-save")
        assert str(host.RUN) not in Path("/proc/mounts").read_text()
        assert not host.RUN.exists()
    finally:
        rig.up()
        cluster_kit.install(cluster)


def _processes() -> list[str]:
    lines = _output("ps", "-eo", "pid,args", "-ww").splitlines()
    return [line for line in lines if str(host.RUN) in line]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
