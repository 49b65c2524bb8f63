"""The page of all settings, made from the settings classes:

python -m headrace_cli.settings_page > docs/settings.md

A test compares the two, so that no setting is without its line and no line without its setting.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, Final

import click

from headrace.environment import Settings, variable
from headrace.settings import ApiSettings, ClientSettings, Limits, WorkerSettings
from headrace_operator.settings import OperatorSettings

from .markdown import table

HEAD: Final = """\
# Settings

Made from the code by `python -m headrace_cli.settings_page`; change it there.

Every setting is an environment variable, read once at the start. An option of a command wins over it. An unknown
`HEADRACE_…` variable or a value that is not allowed stops the start with a sentence that names it. An empty variable
counts as not set. Sizes may end in KiB, MiB or GiB; names that end in `_S` are seconds.

Settings of the application itself (priority, retries, timeout of a type) are arguments of `@app.task(…)`, which win
over the variables here: see [reference.md](reference.md#python). Those of the example tasks are in
[examples/README.md](../examples/README.md#settings).

## Where Redis is

The first that is there counts: the option or argument (`--redis`, `App(url=…)`), `HEADRACE_URL`, `REDIS_ADDR`, the file
`.headrace/url` that `headrace dev` writes (in this folder or one above, if its server answers), `localhost:6379`. Every
message about a connection says which it was.
"""

REDIS: Final = {
    "HEADRACE_URL": "Address: `redis://[user:password@]host:6379/0`, `rediss://…` (TLS), `unix:///path?db=0`, "
    "`redis+sentinel://[user:password@]host:26379,host:26379/master/0`, `rediss+sentinel://…`. Query parameters: "
    "`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_check_hostname` (true or false), `db`.",
    "REDIS_ADDR": "`host:port`, as in the original. If `HEADRACE_URL` names another server, that one is used, and the "
    "log says so.",
    "REDIS_PASSWORD": "Password for `REDIS_ADDR` and `localhost:6379`.",
    "HEADRACE_REDIS_USERNAME": "ACL user, where `HEADRACE_URL` has no login, and for `REDIS_ADDR`.",
    "HEADRACE_REDIS_PASSWORD": "Password, where `HEADRACE_URL` has none.",
    "HEADRACE_REDIS_SENTINEL_PASSWORD": "Password of the sentinels themselves, if they ask for one.",
    "HEADRACE_REDIS_CA": "PEM file of the authority that signed the server's certificate, for `rediss://`.",
    "HEADRACE_REDIS_CERT": "PEM file of this side's certificate, where the server asks for one.",
    "HEADRACE_REDIS_KEY": "PEM file of its key.",
    "HEADRACE_REDIS_SECRET": "Set in the pods of a pool: the Secret that has the address. If it has none, the worker "
    "does not start.",
}
"""These are read by hand, since one of them decides what the others mean."""

SECTIONS: Final[tuple[tuple[type[Settings], str, str], ...]] = (
    (
        WorkerSettings,
        "Worker",
        "`headrace worker`, and the workers of `headrace dev`, whose grace is 2 s unless it is set.",
    ),
    (ApiSettings, "API", "`headrace api` and the API of `headrace dev`, which is always on loopback and open."),
    (
        OperatorSettings,
        "Operator",
        "`headrace operator`. Beside these, `HEADRACE_OPERATOR_CONNECTION_<NAME>` is the address of a Redis that pools "
        "may name in `spec.redis.connection`.",
    ),
    (ClientSettings, "Everyone", "Whoever submits or runs tasks: API, workers, applications that call `enqueue`."),
    (Limits, "Limits", "How much of anything there may be. Every part of a system should have the same."),
)

DEFAULTS: Final = {
    "pod_defaults": "none",
    "worker_id": "the host's name",
    "identity": "the host's name",
    "queues": "those of the application's tasks",
    "durability": "`local`",
    "suspects": "`run`",
}
"""Defaults that a machine or an application decides, in words."""


def page() -> str:
    """The whole page."""
    parts = [HEAD, table(("variable", "meaning"), ((f"`{name}`", text) for name, text in REDIS.items()))]
    for cls, title, who in SECTIONS:
        rows = ((f"`{variable(each)}`", _default(each), _allowed(each), _meaning(cls, each)) for each in _own(cls))
        parts += [f"## {title}\n\n{who}\n", table(("variable", "default", "allowed", "meaning"), rows)]
    return "\n".join(parts)


def _own(cls: type[Settings]) -> Iterator[Field[Any]]:
    """The fields that this class adds to those it inherits."""
    return (each for each in fields(cls) if each.name in vars(cls).get("__annotations__", {}))  # type: ignore[arg-type]


def _default(each: Field[Any]) -> str:
    if each.name in DEFAULTS:
        return DEFAULTS[each.name]
    value: Any = each.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", ()):
        return "none"
    if "bytes" in _allowed(each) and value % 1024 == 0:
        return f"{value // 1024} KiB" if value % 1024**2 else f"{value // 1024**2} MiB"
    return f"`{int(value) if isinstance(value, float) and value.is_integer() else value}`"


def _allowed(each: Field[Any]) -> str:
    """The rule's own words, without what the page says once, and with numbers written out."""
    words = str(each.metadata["rule"].allowed).partition(" (64KiB")[0]
    return re.sub(r"\d[\d.]*e\+\d+", lambda found: f"{float(found[0]):.0f}", words)


def _meaning(cls: type[Settings], each: Field[Any]) -> str:
    return docstrings(cls)[each.name]


def docstrings(cls: type) -> dict[str, str]:
    """Field → the docstring below it, on one line. Python drops them, so they are read from the source."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for first, second in zip(body.body, body.body[1:], strict=False):
        match first, second:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


if __name__ == "__main__":
    click.echo(page(), nl=False)
