"""`headrace token new`: a secret for a client, and the line that makes the API know it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from .command import Command, LazyGroup
from .options import namespace_option, output_option

SCOPES: Final = ("read", "submit", "operate", "admin")
PREFIX: Final = "hr_"
"""So that those who look for secrets in code find ours."""


@click.group(
    "token",
    cls=LazyGroup,
    examples="""
        headrace token new --subject ci --scope submit --queue 'emails-*'
    """,
)
def command() -> None:
    """Make tokens for the HTTP API."""


@command.command(
    "new",
    cls=Command,
    examples="""
        headrace token new --subject ci --scope submit --queue 'emails-*'
        headrace token new --subject ops --scope operate --namespace team-a --rate 100/s
        headrace token new --subject ci --scope submit --add tokens -o name    # the secret alone
    """,
)
@click.option("--subject", metavar="NAME", required=True, help="Who it is for: A-Z, a-z, 0-9, '_', '.' and '-'.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What it may do; may be given several times. operate includes read and submit, admin all. [required]",
)
@click.option("--queue", "queues", metavar="PATTERN", multiple=True, help="Queues it covers, as in 'emails-*'. [all]")
@click.option("--rate", metavar="RATE", help="Requests, as in 100/s, 6000/min or 10000/h. [any number]")
@click.option(
    "--add",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the line to this file, the API's HEADRACE_TOKENS_FILE.",
)
@namespace_option
@output_option
def new(
    subject: str,
    scopes: tuple[str, ...],
    queues: tuple[str, ...],
    rate: str | None,
    file: Path | None,
    namespace: str | None,
    output: str,
) -> None:
    """Make a token. Its secret is shown once and stored nowhere; the line holds its hash only.

    The API reads the line from HEADRACE_TOKENS_FILE, within 2 s, or from HEADRACE_TOKENS, at its start.
    """
    import os
    import secrets

    from .output import note
    from .records import show_one

    if not scopes:
        raise click.UsageError(f"Say what it may do, by --scope with one of {', '.join(SCOPES)}.")
    namespace = namespace or os.environ.get("HEADRACE_NAMESPACE") or "default"
    secret = PREFIX + secrets.token_urlsafe(32)
    who = subject if namespace == "default" else f"{subject}@{namespace}"
    options = [*(f"scope={each}" for each in scopes), *(f"queue={each}" for each in queues)]
    line = _line(who, secret, options + ([f"rate={rate}"] if rate else []))
    if file is not None:
        _add(line, file)
    record = {"subject": subject, "namespace": namespace, "secret": secret, "line": line}
    show_one(record, secret, [f"secret  {secret}", f"line    {line}"], output)
    if output in {"table", "wide"}:
        done = "The line was added." if file else "Put the line into the file of HEADRACE_TOKENS_FILE."
        note(f"{done} Give the secret to the client; it is shown this once.")


def _line(who: str, secret: str, options: list[str]) -> str:
    """The line to store. Raises click.UsageError for what the API would refuse."""
    from headrace.tokens import digest_of, parse_tokens

    parts = [f"{who}:sha256:{digest_of(secret).hex()}", *options]
    for part in parts:
        if "," in part or len(part.split()) != 1:
            raise click.UsageError(f"{part.partition(':')[0]!r} holds a space or a comma; in a token it cannot.")
    line = " ".join(parts)
    try:
        parse_tokens(line)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    return line


def _add(line: str, file: Path) -> None:
    """Append the line. What is new is for this user only: hashes are no secrets, but nobody else's business."""
    import os

    from headrace.errors import ConfigError

    try:
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as opened:
            opened.seek(0)
            text = opened.read()
            opened.write(b"%b%b\n" % (b"" if not text or text.endswith(b"\n") else b"\n", line.encode()))
    except OSError as error:
        raise ConfigError(f"The file {file} cannot be written: {error.strerror}", "Name another with --add") from None
