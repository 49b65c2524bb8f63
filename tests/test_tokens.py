"""How tokens and rates are written, and what a token may."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from headrace.rates import Rate
from headrace.tokens import SCOPES, ApiToken, parse_tokens, read_tokens

SECRET = "correct-horse-battery"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def one(options: str = "") -> ApiToken:
    [token] = parse_tokens(f"ci:{SECRET} {options}")
    return token


def test_a_line_says_who_may_do_what_where_and_how_often() -> None:
    """Name, namespace, hash, scopes, patterns, rate: each in its field, none of the secret in the repr."""
    [token] = parse_tokens(f"ci@team-a:sha256:{DIGEST} scope=submit scope=read queue=emails-* queue=orders rate=100/s")
    assert (token.subject, token.namespace, token.digest.hex()) == ("ci", "team-a", DIGEST)
    assert (token.scopes, token.queues, token.rate) == (("submit", "read"), ("emails-*", "orders"), Rate(100, "s"))
    assert token.who == "team-a/ci"
    assert DIGEST not in repr(token)
    assert str(token.digest) not in repr(token)


def test_variables_and_files_hold_the_same_text() -> None:
    """Commas, spaces and lines stand between tokens; options belong to the token before them."""
    in_one_line = f"ci:{SECRET} scope=submit queue=a, ops:{SECRET}-2,dev:{SECRET}-3 scope=read"
    in_lines = (
        f"# a comment: not a token\nci:{SECRET}\n  scope=submit queue=a\n\nops:{SECRET}-2\ndev:{SECRET}-3 scope=read\n"
    )
    tokens = parse_tokens(in_one_line)
    assert parse_tokens(in_lines) == tokens
    assert [(each.subject, each.scopes, each.queues) for each in tokens] == [
        ("ci", ("submit",), ("a",)),
        ("ops", ("admin",), ()),
        ("dev", ("read",), ()),
    ]


def test_a_secret_may_look_like_anything_printable() -> None:
    """Base64 with its equals signs, colons, hashes."""
    for secret in ("c2VjcmV0IG9mIGNvdXJzZQ==", "a:b:c:d:e:f:g:h:i:j", "#/?&=;'\"$%!()[]{}|~"):
        assert parse_tokens(f"ci:{secret}")[0].digest == hashlib.sha256(secret.encode()).digest()


@pytest.mark.parametrize(
    ("scopes", "grants"),
    [
        ("", set(SCOPES)),
        ("scope=admin", set(SCOPES)),
        ("scope=operate", {"operate", "submit", "read"}),
        ("scope=submit", {"submit"}),
        ("scope=read", {"read"}),
        ("scope=submit scope=read", {"submit", "read"}),
    ],
)
def test_wider_scopes_include_narrower_ones(scopes: str, grants: set[str]) -> None:
    """But who only submits reads nothing."""
    assert one(scopes).grants == grants


def test_patterns_cover_whole_names() -> None:
    """* is any characters; a dot or a bracket could mean something to others, so it is refused."""
    token = one("queue=emails-* queue=orders")
    covered = ["emails-", "emails-eu", "orders"]
    others = ["emails", "my-emails-eu", "orders-2", "order", "", "orders\n"]
    assert [each for each in covered + others if token.may(each)] == covered
    assert not token.sees_all
    assert one("queue=*").may("anything")
    assert one().sees_all


WRONG = {
    f"ci:{SECRET} scope=submti": "Token 'ci': 'submti' is no scope; did you mean 'submit'",
    f"ci:{SECRET} scope=": "Token 'ci': '' is no scope; there are read, submit, operate, admin",
    f"ci:{SECRET} scopes=read": "'scopes' is no option; did you mean 'scope'",
    f"ci:{SECRET} queue=Emails": "'Emails' is no pattern of queues",
    f"ci:{SECRET} queue=a?b": "is no pattern of queues",
    f"ci:{SECRET} queue=": "'' is no pattern of queues",
    f"ci:{SECRET} rate=100": "'100' is no rate; write a whole number per s, min or h",
    f"ci:{SECRET} rate=0/s": "is no rate",
    f"ci:{SECRET} rate=1/s rate=2/s": "the rate stands there twice",
    f"scope=read ci:{SECRET}": "An option stands before any token",
    f"ci:{SECRET} xkcdpassphrase=secret": "there is an unknown option",
    "ci:sha256:1234": "The hash of token 'ci' is not 64 of",
    "ci:short": "shorter than 16 characters",
    f"ci:{SECRET} ops:{SECRET}": "Tokens 'ci' and 'ops' have the same secret",
    f"ci:{SECRET} scope=read ci:{SECRET} scope=submit": "have the same secret",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_without_the_secret(text: str) -> None:
    """The sentence names the token and the option, and shows no part of a secret."""
    with pytest.raises(ValueError) as caught:
        parse_tokens(text)
    assert WRONG[text] in str(caught.value)
    for hidden in (SECRET, "short-secret", "xkcdpassphrase", "passphrase=secret"):
        assert hidden not in str(caught.value)


def test_a_folder_is_read_as_kubernetes_mounts_a_secret(tmp_path: Path) -> None:
    """Keys are links into a folder behind `..data`, whose name starts with a dot and which is skipped."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "ci").write_text(f"ci:{SECRET} scope=submit")
    (tmp_path / "..2026" / "ops").write_text(f"ops:{SECRET}-2\n")
    (tmp_path / "..data").symlink_to("..2026")
    for name in ("ci", "ops"):
        (tmp_path / name).symlink_to(Path("..data", name))
    assert [token.subject for token in read_tokens(str(tmp_path))] == ["ci", "ops"]


def test_a_file_that_is_no_text_or_too_large_is_a_sentence(tmp_path: Path) -> None:
    """As is an empty folder."""
    file = tmp_path / "tokens"
    file.write_text("ci:short")
    with pytest.raises(ValueError, match=r"make a random one \(in tokens\)"):
        read_tokens(str(tmp_path))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="utf-8"):
        read_tokens(str(file))
    file.write_bytes(b"# \n" * 400_000)
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_tokens(str(file))
    file.unlink()
    with pytest.raises(ValueError, match="no token"):
        read_tokens(str(tmp_path))


@pytest.mark.parametrize("text", ["100/s", "6000/min", "1/h"])
def test_a_rate_reads_what_it_writes(text: str) -> None:
    assert str(Rate.parse(text)) == text


@pytest.mark.parametrize("text", ["", "100", "1.5/s", "-1/s", "100/d", "0/s", "100 / s", "9999999999/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="as in 100/s"):
        Rate.parse(text)
