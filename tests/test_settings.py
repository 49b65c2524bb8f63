"""Settings: read once, refused with a sentence that names variable, source, range and remedy."""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headrace import redis_settings
from headrace.errors import BadSetting, ConfigError, UnknownSetting
from headrace.settings import (
    ApiSettings,
    ClientSettings,
    Durabilities,
    Fsync,
    Limits,
    Local,
    QueueShare,
    RedisSettings,
    Replicated,
    Tls,
    WorkerSettings,
    parse_durability,
)

ALL = [Limits, ClientSettings, WorkerSettings, ApiSettings]


def test_defaults_are_those_of_the_design() -> None:
    """The table of names, ids and limits, number by number."""
    worker, api = WorkerSettings.from_env({}), ApiSettings.from_env({})
    assert (worker.max_payload, worker.max_result, api.max_body) == (65_536, 65_536, 262_144)
    assert (worker.max_batch, worker.max_batch_bytes) == (1_000, 4 * 1024**2)
    assert (worker.max_retries, worker.max_crashes, worker.max_key_bytes) == (3, 3, 255)
    assert (worker.backoff_base_s, worker.backoff_cap_s) == (1, 300)
    assert (worker.soft_timeout_s, worker.hard_extra_s, worker.grace_s) == (300, 30, 30)
    assert (worker.concurrency, worker.beat_s, worker.dead_after_s, worker.age_bound_s) == (10, 1, 10, 900)
    assert (worker.retention_s, worker.retention_failed_s, worker.max_failed) == (86_400, 30 * 86_400, 1_000_000)
    assert (api.port, worker.metrics_port, worker.namespace) == (8080, 9464, "default")
    assert (worker.queues, worker.worker_id) == ((QueueShare("default", 1),), socket.gethostname())
    assert (api.schemas, api.auth, api.host) == ("warn", "tokens", "127.0.0.1")


@pytest.mark.parametrize("cls", ALL)
def test_every_field_has_its_explanation(cls: type[Limits]) -> None:
    """A docstring stands under each field of the settings classes; the reference is made from them."""
    [tree] = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(below, ast.Expr), f"{ast.unparse(field.target)} has no docstring"
            assert isinstance(below.value, ast.Constant)


def test_reads_environment_and_flags() -> None:
    """Variables are read by name; a flag wins over its variable; None is no flag."""
    environ = {
        "HEADRACE_CONCURRENCY": " 50 ",
        "HEADRACE_GRACE_S": "2.5",
        "HEADRACE_MAX_PAYLOAD": "1MiB",
        "HEADRACE_QUEUES": "orders=3, default",
        "WORKER_ID": "worker-1",
        "PORT": "9000",
        "HEADRACE_LOG_LEVEL": "DEBUG",
    }
    settings = WorkerSettings.from_env(environ, concurrency=7, grace_s=None, metrics_port="0")
    assert (settings.concurrency, settings.grace_s, settings.max_payload) == (7, 2.5, 1024**2)
    assert settings.queues == (QueueShare("orders", 3), QueueShare("default", 1))
    assert (settings.worker_id, settings.metrics_port, settings.log_level) == ("worker-1", 0, "debug")
    assert ApiSettings.from_env(environ).port == 9000


def test_host_of_the_api_is_not_the_worker_s() -> None:
    """One environment for both: what keeps the API on loopback must not hide the worker from its probes."""
    environ = {"HEADRACE_HOST": "127.0.0.1", "HEADRACE_METRICS_HOST": "::"}
    assert (ApiSettings.from_env(environ).host, WorkerSettings.from_env(environ).host) == ("127.0.0.1", "::")


def test_empty_variable_is_not_set() -> None:
    """Compose files pass empty variables for what is not said."""
    assert WorkerSettings.from_env({"HEADRACE_CONCURRENCY": ""}).concurrency == 10


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HEADRACE_CONCURRENCY": "many"}, ["HEADRACE_CONCURRENCY", "'many'", "the environment", "1 to 10000"]),
        ({"HEADRACE_CONCURRENCY": "0"}, ["HEADRACE_CONCURRENCY", "'0'", "1 to 10000"]),
        ({"HEADRACE_CONCURRENCY": "١٠"}, ["HEADRACE_CONCURRENCY"]),
        ({"HEADRACE_GRACE_S": "nan"}, ["HEADRACE_GRACE_S", "'nan'", "0 to 86400 seconds"]),
        ({"HEADRACE_GRACE_S": "30s"}, ["HEADRACE_GRACE_S", "seconds"]),
        ({"HEADRACE_MAX_PAYLOAD": "64KB"}, ["HEADRACE_MAX_PAYLOAD", "64KiB"]),
        ({"HEADRACE_NAMESPACE": "Team A"}, ["HEADRACE_NAMESPACE", "DNS label"]),
        ({"HEADRACE_NAMESPACE": "a}b"}, ["HEADRACE_NAMESPACE"]),
        ({"HEADRACE_QUEUES": "a=0"}, ["HEADRACE_QUEUES", "weight of queue 'a'"]),
        ({"HEADRACE_QUEUES": "a,a"}, ["HEADRACE_QUEUES", "named twice"]),
        ({"HEADRACE_QUEUES": "a,"}, ["HEADRACE_QUEUES", "'' is not a queue's name"]),
        ({"HEADRACE_QUEUES": " "}, ["HEADRACE_QUEUES", "at least one queue"]),
        ({"HEADRACE_DURABILITY": "forever"}, ["HEADRACE_DURABILITY", "'forever'", "fsync"]),
        ({"HEADRACE_DURABILITY": "replicated:0"}, ["HEADRACE_DURABILITY", "replicated:1"]),
        ({"HEADRACE_LOG_LEVEL": "loud"}, ["HEADRACE_LOG_LEVEL", "debug or info"]),
        ({"WORKER_ID": "a b"}, ["WORKER_ID", "'a b'"]),
        ({"HEADRACE_BEAT_S": "5"}, ["HEADRACE_DEAD_AFTER_S", "three times HEADRACE_BEAT_S"]),
        ({"HEADRACE_BACKOFF_CAP_S": "0.5"}, ["HEADRACE_BACKOFF_CAP_S", "HEADRACE_BACKOFF_BASE_S"]),
    ],
)
def test_bad_value_is_refused(environ: Mapping[str, str], words: list[str]) -> None:
    """The sentence names the variable, its value, where it came from and what is allowed."""
    with pytest.raises(BadSetting) as caught:
        WorkerSettings.from_env(environ)
    for word in words:
        assert word in str(caught.value)


def test_bad_flag_is_refused_by_its_source() -> None:
    """The same refusal, and it says that a flag was wrong."""
    with pytest.raises(BadSetting, match="the command line"):
        WorkerSettings.from_env({"HEADRACE_CONCURRENCY": "5"}, concurrency=0)


def test_constructor_checks_too() -> None:
    """Settings made in a program are held to the same ranges."""
    with pytest.raises(BadSetting, match="HEADRACE_CONCURRENCY"):
        WorkerSettings(concurrency=0)


def test_unknown_variable_without_a_near_name() -> None:
    """Nothing is offered when nothing is close."""
    with pytest.raises(UnknownSetting, match="Remove it"):
        WorkerSettings.from_env({"HEADRACE_QQQ": "1"})


def test_unknown_flag_is_a_programming_error() -> None:
    """A misspelt keyword cannot pass silently."""
    with pytest.raises(TypeError, match="concurency"):
        WorkerSettings.from_env({}, concurency=5)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HEADRACE_CONCURENCY", "HEADRACE_CONCURRENCY"),
        ("HEADRACE_REDIS_PASWORD", "HEADRACE_REDIS_PASSWORD"),
        ("HEADRACE_PORT", "PORT"),
        ("HEADRACE_WORKER_ID", "WORKER_ID"),
    ],
)
@pytest.mark.parametrize("cls", ALL)
def test_unknown_variable_is_refused(cls: type[Limits], name: str, meant: str) -> None:
    """Every part refuses what no part reads, and offers the nearest name."""
    with pytest.raises(UnknownSetting, match=re.escape(f"Did you mean {meant}?")):
        cls.from_env({name: "1"})


def test_parts_share_an_environment() -> None:
    """API, worker, Redis and operator variables stand side by side."""
    environ = {
        "HEADRACE_CONCURRENCY": "5",
        "HEADRACE_MAX_BODY": "65536",
        "HEADRACE_URL": "redis://h",
        "HEADRACE_REDIS_CA": "/ca.pem",
        "HEADRACE_OPERATOR_LEASE": "x",
        "PATH": "/bin",
    }
    for cls in ALL:
        cls.from_env(environ)


def test_kubernetes_service_links_are_no_settings() -> None:
    """A Service called headrace, headrace-api or headrace-metrics must not stop its own pods."""
    environ = {
        "HEADRACE_PORT": "tcp://10.0.0.1:8080",
        "HEADRACE_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_SERVICE_PORT": "8080",
        "HEADRACE_API_SERVICE_PORT_HTTP": "8080",
        "HEADRACE_API_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "HEADRACE_API_PORT_8080_TCP_ADDR": "10.0.0.1",
        "HEADRACE_API_PORT_8080_TCP_PORT": "8080",
        "HEADRACE_API_PORT_8080_TCP_PROTO": "tcp",
        "HEADRACE_METRICS_PORT": "tcp://10.0.0.2:9464",
    }
    assert WorkerSettings.from_env(environ).metrics_port == 9464
    assert ApiSettings.from_env(environ).port == 8080


def test_durability_per_queue() -> None:
    """One word for all, or one for each; `default` also covers queues that are not named."""
    durability = WorkerSettings.from_env({"HEADRACE_DURABILITY": "orders=fsync,default=replicated:2"}).durability
    assert (durability["orders"], durability["default"], durability["else"]) == (
        Fsync(),
        Replicated(2),
        Replicated(2),
    )
    assert ClientSettings.from_env({}).durability["any"] == Local()
    assert Durabilities.parse("fsync")["any"] == Fsync()


@pytest.mark.parametrize("text", ["local", "fsync", "replicated:3"])
def test_durability_reads_what_it_writes(text: str) -> None:
    """The words are the same in both directions."""
    assert str(parse_durability(text)) == text


SECRET = "correct-horse-battery"


def test_tokens_are_kept_as_hashes() -> None:
    """A token has a name and a namespace; its secret is nowhere in the settings."""
    digest, other = (hashlib.sha256(each.encode()).hexdigest() for each in (SECRET, "another-" + SECRET))
    settings = ApiSettings.from_env({"HEADRACE_TOKENS": f"ci:{SECRET}, ops@team-a:sha256:{other}"})
    assert [(token.subject, token.namespace) for token in settings.tokens] == [("ci", "default"), ("ops", "team-a")]
    assert [token.digest.hex() for token in settings.tokens] == [digest, other]
    assert SECRET not in repr(settings)


def test_tokens_from_a_file(tmp_path: Path) -> None:
    """A mounted Secret holds one token a line; a missing file is named, and so is one without any."""
    file = tmp_path / "tokens"
    file.write_text(f"ci:{SECRET}\n")
    ApiSettings.from_env({"HEADRACE_TOKENS_FILE": str(file), "HEADRACE_HOST": "0.0.0.0"})
    with pytest.raises(BadSetting, match=r"HEADRACE_TOKENS_FILE.*No such file"):
        ApiSettings.from_env({"HEADRACE_TOKENS_FILE": str(tmp_path / "none")})
    file.write_text("# none yet\n")
    with pytest.raises(BadSetting, match=r"HEADRACE_TOKENS_FILE.*there is no token in it"):
        ApiSettings.from_env({"HEADRACE_TOKENS_FILE": str(file)})


@pytest.mark.parametrize("tokens", ["ci:short-secret", "ci", "a b:" + SECRET, "ci@B:" + SECRET])
def test_bad_token_is_refused_unseen(tokens: str) -> None:
    """What is refused as a token may be one, so it is not shown."""
    with pytest.raises(BadSetting, match="HEADRACE_TOKENS") as caught:
        ApiSettings.from_env({"HEADRACE_TOKENS": tokens})
    assert SECRET not in str(caught.value)
    assert "short-secret" not in str(caught.value)


def test_open_door_has_to_be_said() -> None:
    """Beyond loopback the API needs tokens, or the word that it needs none."""
    with pytest.raises(BadSetting, match="HEADRACE_AUTH=none"):
        ApiSettings.from_env({"HEADRACE_HOST": "0.0.0.0"})
    ApiSettings.from_env({"HEADRACE_HOST": "0.0.0.0", "HEADRACE_AUTH": "none"})
    ApiSettings.from_env({"HEADRACE_HOST": "0.0.0.0", "HEADRACE_TOKENS": f"ci:{SECRET}"})
    ApiSettings.from_env({"HEADRACE_HOST": "::1"})


# Where Redis is


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"host": "localhost", "port": 6379, "db": 0, "tls": None}),
        ("redis://:pw@h:1/2", {"host": "h", "port": 1, "db": 2, "password": "pw", "username": ""}),
        ("redis://u:p%40%2F@h", {"username": "u", "password": "p@/"}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("unix:///run/r.sock?db=3", {"kind": "unix", "path": "/run/r.sock", "db": 3}),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {"tls": Tls(ca="/ca.pem", check_hostname=False)},
        ),
        (
            "redis+sentinel://:pw@a:1,b/mymaster/4",
            {
                "kind": "sentinel",
                "sentinels": (("a", 1), ("b", 26379)),
                "master": "mymaster",
                "db": 4,
                "password": "pw",
            },
        ),
        ("rediss+sentinel://a/m", {"kind": "sentinel", "master": "m", "tls": Tls()}),
    ],
)
def test_url_is_read_and_written(url: str, expected: Mapping[str, object]) -> None:
    """Every scheme is read, and `url` gives back what reads the same."""
    found = RedisSettings.parse(url, "test")
    assert {name: getattr(found, name) for name in expected} == expected
    assert RedisSettings.parse(found.url, "test") == found


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://h", "redis://"),
        ("localhost:6379", "redis://"),
        ("redis://h:99999", "host:port"),
        ("redis://h:0", "host:port"),
        ("redis://", "host:port"),
        ("redis://h/x", "database"),
        ("redis://h?ssl_ca_certs=/x", "rediss://"),
        ("rediss://h?ssl_ca_cert=/x", "did you mean 'ssl_ca_certs'"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("redis+sentinel://a/0", "master"),
        ("unix://run/r.sock", "three/slashes"),
        ("redis://:hunter2/x@h", "%2F"),
        ("redis://:hunter2#x@h", "%23"),
        ("redis://[:hunter2@h", ""),
        (":hunter2@h:6379", "redis://"),
    ],
)
def test_bad_url_is_refused_without_its_password(url: str, word: str) -> None:
    """The sentence says what is wrong and where the URL came from, and never shows the password."""
    with pytest.raises(BadSetting) as caught:
        RedisSettings.parse(url, "HEADRACE_URL")
    assert word in str(caught.value)
    assert "HEADRACE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.args)


def test_password_is_never_printed() -> None:
    """Not in repr, not in str, not in safe_url."""
    found = RedisSettings.parse("redis://u:hunter2@h", "HEADRACE_URL")
    assert str(found) == "redis://u:***@h:6379/0 (from HEADRACE_URL)"
    assert "hunter2" not in repr(found) + str(found) + found.safe_url
    assert "hunter2" in found.url


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of something that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def note(folder: Path, url: str) -> Path:
    file = folder / ".headrace" / "url"
    file.parent.mkdir()
    file.write_text(f"{url}\n")
    return file


def test_order_of_discovery(tmp_path: Path, listening: int) -> None:
    """Argument, HEADRACE_URL, REDIS_ADDR, the note of `headrace dev` here or above, localhost; each says which."""
    file = note(tmp_path, f"redis://127.0.0.1:{listening}")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    environ = {"HEADRACE_URL": "redis://two:1", "REDIS_ADDR": "three:3", "REDIS_PASSWORD": "pw"}

    def find(environ: Mapping[str, str], argument: str | None = None) -> RedisSettings:
        return RedisSettings.from_env(environ, argument, deep)

    assert (find(environ, "redis://one").host, find(environ, "redis://one").source) == ("one", "the argument")
    del environ["REDIS_ADDR"]
    assert (find(environ).host, find(environ).source) == ("two", "HEADRACE_URL")
    environ = {"REDIS_ADDR": "three:3", "REDIS_PASSWORD": "pw"}
    found = find(environ)
    assert (found.host, found.port, found.password, found.source) == ("three", 3, "pw", "REDIS_ADDR")
    assert (find({}).port, find({}).source) == (listening, str(file))


def test_default_is_localhost(tmp_path: Path) -> None:
    """Nothing said and nothing found: localhost:6379, with the kept REDIS_PASSWORD."""
    found = RedisSettings.from_env({"REDIS_PASSWORD": "pw"}, cwd=tmp_path)
    assert (found.host, found.port, found.password, found.source) == ("localhost", 6379, "pw", "the default")


def test_note_of_a_socket(tmp_path: Path) -> None:
    """The embedded server may listen on a socket only."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "r"))
        server.listen()
        note(tmp_path, f"unix://{tmp_path / 'r'}")
        assert RedisSettings.from_env({}, cwd=tmp_path).kind == "unix"


def test_note_of_a_dead_server_is_passed_over(tmp_path: Path) -> None:
    """A note that outlived its server does not send anybody into the void."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    note(tmp_path, f"redis://127.0.0.1:{port}")
    assert RedisSettings.from_env({}, cwd=tmp_path).source == "the default"


def test_note_of_another_user_is_passed_over(tmp_path: Path, listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared folder above, somebody else could leave a note that points to their Redis."""
    note(tmp_path, f"redis://127.0.0.1:{listening}")
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(redis_settings, "_trusted_owners", lambda: {owner + 1})
    assert RedisSettings.from_env({}, cwd=tmp_path).source == "the default"


def test_contradiction_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """HEADRACE_URL wins over a REDIS_ADDR that names another server, and the log says so, without passwords."""
    with caplog.at_level(logging.WARNING):
        RedisSettings.from_env({"HEADRACE_URL": "redis://:hunter2@a:1", "REDIS_ADDR": "b:2"})
    assert "HEADRACE_URL is used" in caplog.text
    assert "hunter2" not in caplog.text


def test_agreement_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Both naming one server is no contradiction."""
    with caplog.at_level(logging.WARNING):
        RedisSettings.from_env({"HEADRACE_URL": "redis://a:1/5", "REDIS_ADDR": "a:1"})
    assert not caplog.records


def test_login_and_certificates_may_come_apart() -> None:
    """Secrets often live beside the address; what the address says wins."""
    environ = {
        "HEADRACE_REDIS_USERNAME": "app",
        "HEADRACE_REDIS_PASSWORD": "pw",
        "HEADRACE_REDIS_CA": "/ca.pem",
        "HEADRACE_REDIS_CERT": "/cert.pem",
        "HEADRACE_REDIS_KEY": "/key.pem",
    }
    found = RedisSettings.from_env({**environ, "HEADRACE_URL": "rediss://h?ssl_ca_certs=/mine.pem"})
    assert (found.username, found.password) == ("app", "pw")
    assert found.tls == Tls("/mine.pem", "/cert.pem", "/key.pem")
    assert RedisSettings.from_env({**environ, "HEADRACE_URL": "redis://u:x@h"}).password == "x"


@pytest.mark.parametrize("addr", ["nonsense:port", "redis://h:1", "u:hunter2@h:1"])
def test_bad_redis_addr_is_refused(addr: str) -> None:
    """REDIS_ADDR is host:port; a URL belongs into HEADRACE_URL."""
    with pytest.raises(ConfigError, match="HEADRACE_URL") as caught:
        RedisSettings.from_env({"REDIS_ADDR": addr})
    assert "hunter2" not in str(caught.value)
