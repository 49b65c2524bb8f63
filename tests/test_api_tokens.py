"""Files of tokens that change while the API runs, rotation, and requests of one token at once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from api_kit import TOKEN, Api, running
from headrace.settings import ApiSettings
from headrace_api.auth import Guard
from headrace_api.problems import HttpProblem
from headrace_api.token_file import LOOK_EVERY_S, TokenFile
from redis_server import RedisServer

NEW = "the-new-token-of-the-same-subject"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def later(self) -> None:
        """After the next look at the file is due."""
        self.now += LOOK_EVERY_S + 0.1


def subjects(file: TokenFile) -> list[str]:
    return [token.subject for token in file.tokens]


@pytest.fixture(autouse=True)
def _patient_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a machine that is busy."""
    monkeypatch.setattr("headrace_api.store.DEADLINE_S", 30.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def mounted(folder: Path, version: str, **secrets: str) -> None:
    """What the kubelet does: a new folder, a new link to it, renamed over the old one."""
    (folder / f"..{version}").mkdir()
    for name, line in secrets.items():
        (folder / f"..{version}" / name).write_text(line)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data", name))
    (folder / "..data_tmp").symlink_to(f"..{version}")
    (folder / "..data_tmp").rename(folder / "..data")


def test_a_secret_that_is_mounted_anew_is_read_again(tmp_path: Path, clock: Clock) -> None:
    """The folder and its names stay; the link behind them leads elsewhere."""
    mounted(tmp_path, "1", ci=f"ci:{TOKEN}")
    file = TokenFile(str(tmp_path), clock)
    assert not file.changed()
    mounted(tmp_path, "2", ci=f"ci:{TOKEN}\nci:{NEW}", ops=f"ops:{TOKEN}-ops")
    assert not file.changed(), "the file is looked at every two seconds"
    clock.later()
    assert file.changed()
    assert subjects(file) == ["ci", "ci", "ops"]
    clock.later()
    assert not file.changed()


def test_one_key_of_a_secret_works_as_well(tmp_path: Path, clock: Clock) -> None:
    """`HEADRACE_TOKENS_FILE=/etc/headrace/tokens`."""
    mounted(tmp_path, "1", tokens=f"ci:{TOKEN}")
    file = TokenFile(str(tmp_path / "tokens"), clock)
    mounted(tmp_path, "2", tokens=f"ops:{TOKEN}")
    clock.later()
    assert file.changed()
    assert subjects(file) == ["ops"]


def test_written_over_and_replaced_both_count(tmp_path: Path, clock: Clock) -> None:
    """Editors replace a file, `>` writes into it, both perhaps within one tick of the file system's clock."""
    path = tmp_path / "tokens"
    path.write_text(f"ci:{TOKEN}")
    file = TokenFile(str(path), clock)
    path.write_text(f"ops:{TOKEN}")
    clock.later()
    assert file.changed()
    other = tmp_path / "other"
    other.write_text(f"dev:{TOKEN}")
    other.rename(path)
    clock.later()
    assert file.changed()
    assert subjects(file) == ["dev"]


@pytest.mark.parametrize("bad", ["", "# none\n", "ci:short\n", f"ci:{NEW} scope=everything\n", "\x00", None])
def test_a_bad_file_keeps_the_old_tokens_and_says_so_once(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, bad: str | None
) -> None:
    """Emptied, half written, wrong, or gone: nobody is locked out, nobody let in; and it heals by itself."""
    path = tmp_path / "tokens"
    path.write_text(f"ci:{TOKEN}")
    file = TokenFile(str(path), clock)
    if bad is None:
        path.unlink()
    else:
        path.write_text(bad)
    for _ in range(3):
        clock.later()
        assert not file.changed()
    assert (subjects(file), file.refused) == (["ci"], True)
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith("HEADRACE_TOKENS_FILE changed to what cannot be read")
    assert NEW not in caplog.text
    path.write_text(f"ci:{NEW}")
    clock.later()
    assert file.changed()
    assert not file.refused


def test_an_open_api_never_comes_of_a_file(tmp_path: Path) -> None:
    """With a file of tokens the door is closed, whatever becomes of the file."""
    path = tmp_path / "tokens"
    path.write_text(f"ci:{TOKEN}")
    guard = Guard(ApiSettings.from_env({"HEADRACE_TOKENS_FILE": str(path)}))
    path.unlink()
    assert not guard.open_to_all


async def test_a_token_is_rotated_without_a_restart(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hold, then the new one alone. Readiness and metrics tell of a bad file."""
    monkeypatch.setattr("headrace_api.token_file.LOOK_EVERY_S", 0.0)
    path = tmp_path / "tokens"
    path.write_text(f"ci:{TOKEN}\n")

    async def statuses(api: Api) -> list[int]:
        headers = ({"Authorization": f"Bearer {each}"} for each in (TOKEN, NEW))
        return [(await api.get("/api/v1/stats", headers=each)).status for each in headers]

    async with running(redis_url, tokens_file=str(path)) as api:
        assert await statuses(api) == [200, 401]
        path.write_text(f"ci:{TOKEN}\nci:{NEW}\n")
        assert await statuses(api) == [200, 200]
        path.write_text(f"ci:{NEW}\n")
        assert await statuses(api) == [401, 200]
        path.write_text("nonsense\n")
        assert await statuses(api) == [401, 200]
        ready, text = await api.get("/readyz"), (await api.get("/metrics")).text
    assert (ready.status, ready.json["checks"]) == (200, {"redis": "up", "tokens": "stale"})
    assert "headrace_tokens_stale 1.0" in text


def test_headers_that_were_let_in_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret can be spelt in many ways; what is remembered lets nothing else in."""
    monkeypatch.setattr("headrace_api.auth.MAX_KNOWN", 2)
    guard = Guard(ApiSettings.from_env({"HEADRACE_TOKENS": f"ci:{TOKEN}"}))
    for scheme in ("Bearer", "bearer", "BEARER", "bEARER", "Bearer"):
        assert guard.identify(CIMultiDictProxy(CIMultiDict(Authorization=f"{scheme} {TOKEN}"))).subject == "ci"
    assert len(guard._known) <= 2
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
        with pytest.raises(HttpProblem, match="Authorization"):
            guard.identify(CIMultiDictProxy(CIMultiDict(Authorization=wrong)))


async def test_what_is_in_the_variable_holds_beside_the_file(redis_url: str, tmp_path: Path) -> None:
    """Both count."""
    (tmp_path / "tokens").write_text(f"ci:{NEW}\n")
    async with running(redis_url, tokens=f"ci:{TOKEN}", tokens_file=str(tmp_path)) as api:
        for each in (TOKEN, NEW):
            assert (await api.get("/api/v1/stats", headers={"Authorization": f"Bearer {each}"})).status == 200


async def test_a_token_has_so_many_requests_at_once(redis_url: str) -> None:
    """Waits count, too; one more is 429; another token is not touched; what ended makes room."""
    tokens = f"ci:{TOKEN},ops:{NEW}"
    async with running(redis_url, TOKEN, tokens=tokens, max_requests_per_token=2) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        waits = [asyncio.create_task(api.get(path + "?wait=30")) for _ in range(2)]
        await api.worker.somebody_blocks()
        refused = await api.get(path)
        other = await api.get(path, headers={"Authorization": f"Bearer {NEW}"})
        await api.ask("DELETE", path, headers={"Authorization": f"Bearer {NEW}"})
        assert {(await each).json["status"] for each in waits} == {"cancelled"}
        assert (await api.get(path)).status == 200
    assert (refused.status, refused.code) == (429, "too_many_at_once")
    assert refused.headers["Retry-After"] == "1"
    assert other.status == 200


async def test_clients_that_leave_give_their_place_back(redis_server: RedisServer, redis_url: str) -> None:
    """A request whose client went away counts no longer."""
    async with running(redis_url, TOKEN, tokens=f"ci:{TOKEN}", max_requests_per_token=1) as api:
        path = f"/api/v1/tasks/{await api.submitted()}"
        wait = asyncio.create_task(api.get(path + "?wait=30"))
        await api.worker.somebody_blocks()
        wait.cancel()
        async with asyncio.timeout(5):
            while (await api.get(path)).status != 200:
                pass
