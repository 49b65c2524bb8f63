"""The OpenAPI document as one page: plain HTML and its own style, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from .created import JSON

Schema = Mapping[str, Any]

_METHODS: Final = ("get", "post", "put", "patch", "delete")

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#566173;--line:#d9dee6;--back:#fff;--code:#f4f6f9;--blue:#1558b0;
--get:#1d6f42;--post:#1558b0;--patch:#8a5a00;--delete:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b6;--line:#333c48;--back:#14181e;--code:#1d232c;
--blue:#86b7ff;--get:#7fd6a4;--post:#86b7ff;--patch:#f0c06a;--delete:#ff9d94}}
*{box-sizing:border-box}
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back)}
a{color:var(--blue)}
.all{display:grid;grid-template-columns:19rem minmax(0,1fr);max-width:80rem;margin:auto}
header{max-width:80rem;margin:auto;padding:1rem 1rem 0}
nav{position:sticky;top:0;max-height:100vh;overflow:auto;padding:0 1rem 1.5rem;font-size:.875rem}
nav b{display:block;margin:1rem 0 .25rem}
nav a{display:block;padding:.125rem 0;text-decoration:none;overflow-wrap:anywhere}
nav a:hover{text-decoration:underline}
main{padding:0 1.5rem 3rem;min-width:0}
h1,h2{line-height:1.2}
h2{margin:3rem 0 .5rem}
h3{margin:0;font:600 1rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
section{border-top:1px solid var(--line);padding:1.25rem 0}
section p{margin:.5rem 0}
.m{font-weight:700}.get{color:var(--get)}.post,.put{color:var(--post)}.patch{color:var(--patch)}.delete{color:var(--delete)}
.soft{color:var(--soft)}
h4{margin:1rem 0 .25rem;font-size:.875rem}
code,pre{font-family:ui-monospace,monospace;font-size:.875em;background:var(--code);border-radius:4px}
code{padding:.1em .3em;overflow-wrap:anywhere}
pre{padding:.75rem;overflow:auto;margin:.5rem 0}
pre code{padding:0;background:none}
table{border-collapse:collapse;width:100%;font-size:.875rem;margin:.25rem 0}
td,th{border-bottom:1px solid var(--line);padding:.375rem .75rem .375rem 0;text-align:left;vertical-align:top}
td:first-child{white-space:nowrap}
details{margin:.5rem 0}
summary{cursor:pointer}
@media(max-width:52rem){.all{display:block}nav{position:static;max-height:none;columns:2 10rem}main{padding:1rem}
table,tbody,tr,td{display:block}tr{border-bottom:1px solid var(--line);padding:.375rem 0}td,th{border:0;padding:0}
td:first-child{white-space:normal}td{overflow-wrap:anywhere}}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy under which the page is whole."""


def page(document: Schema) -> str:
    """The page."""
    info = document["info"]
    introduction = "".join(f"<p>{_words(part)}</p>" for part in info["description"].split("\n\n"))
    groups = list(_groups(document))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])} HTTP API</title><style>{STYLE}</style></head>"
        f'<body><header><h1>{escape(info["title"])} HTTP API <span class="soft">{escape(info["version"])}</span></h1>'
        f'</header><div class="all"><nav aria-label="Routes">{"".join(_menu(*group) for group in groups)}'
        f'<b>More</b><a href="#schemas">Schemas</a><a href="openapi.json">openapi.json</a></nav>'
        f"<main>{introduction}{''.join(_group(document, *group) for group in groups)}"
        f'<h2 id="schemas">Schemas</h2>{"".join(_schema(*each) for each in document["components"]["schemas"].items())}'
        "</main></div></body></html>"
    )


Row = tuple[str, str, Schema]
"""Method, path, operation."""


def _groups(document: Schema) -> Iterator[tuple[Schema, list[Row]]]:
    for tag in document["tags"]:
        rows = [
            (method, path, operations[method])
            for path, operations in document["paths"].items()
            for method in _METHODS
            if method in operations and tag["name"] in operations[method]["tags"]
        ]
        yield tag, rows


def _menu(tag: Schema, rows: list[Row]) -> str:
    links = (f'<a href="#{operation["operationId"]}">{_head(method, path)}</a>' for method, path, operation in rows)
    return f"<b>{escape(tag['name'].capitalize())}</b>{''.join(links)}"


def _head(method: str, path: str) -> str:
    return f'<span class="m {method}">{method.upper()}</span> {escape(path)}'


def _group(document: Schema, tag: Schema, rows: list[Row]) -> str:
    sections = "".join(_section(document, *row) for row in rows)
    return f"<h2>{escape(tag['name'].capitalize())}</h2><p>{_words(tag['description'])}</p>{sections}"


def _section(document: Schema, method: str, path: str, operation: Schema) -> str:
    scopes = [scope for each in operation["security"] for scope in each.get("bearer", ())]
    needs = f"Needs a token with the scope <code>{escape(scopes[0])}</code>." if scopes else "Open: needs no token."
    told = "".join(f"<p>{_words(part)}</p>" for part in operation.get("description", "").split("\n\n") if part)
    return (
        f'<section id="{operation["operationId"]}"><h3>{_head(method, path)}</h3>'
        f'<p>{_words(operation["summary"])} <span class="soft">{needs}</span></p>{told}'
        f"{_parameters(operation)}{_body(operation)}{_curl(method, path, operation)}{_answers(document, operation)}"
        "</section>"
    )


def _words(text: str) -> str:
    """Text with `code` in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(rows: Iterable[Sequence[str]]) -> str:
    return f"<table>{''.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>' for row in rows)}</table>"


def _parameters(operation: Schema) -> str:
    given = operation.get("parameters", ())
    if not given:
        return ""
    rows = (
        (f"<code>{escape(each['name'])}</code>", f"{_type(each['schema'])}, {each['in']}", _words(each["description"]))
        for each in given
    )
    return f"<h4>Parameters</h4>{_table(rows)}"


def _body(operation: Schema) -> str:
    if "requestBody" not in operation:
        return ""
    return "".join(
        f"<h4>Body as {escape(media)}: {_type(content['schema'])}</h4>{_examples(content)}"
        for media, content in operation["requestBody"]["content"].items()
    )


def _examples(content: Schema) -> str:
    return "".join(
        f"<details><summary>{escape(each['summary'])}</summary><pre><code>{_json(each['value'])}</code></pre></details>"
        for each in content.get("examples", {}).values()
    )


def _json(value: Any) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False) if not isinstance(value, str) else value)


def curl(method: str, path: str, operation: Schema) -> str:
    """A command line that asks for this, with $HEADRACE for the address and $TOKEN for the token."""
    for each in operation.get("parameters", ()):
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", str(each["example"]))
    words = [f'curl "$HEADRACE{path}"']
    if method not in {"get", "post"} or (method == "post" and "requestBody" not in operation):
        words.append(f"-X {method.upper()}")
    if operation["security"]:
        words.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        content = operation["requestBody"]["content"][JSON]
        example: Any = next(iter(content.get("examples", {}).values()), {"value": {}})["value"]
        quoted = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
        words += ['-H "Content-Type: application/json"', f"-d '{quoted}'"]
    return " \\\n  ".join(words)


def _curl(method: str, path: str, operation: Schema) -> str:
    return f"<pre><code>{escape(curl(method, path, operation))}</code></pre>"


def _answers(document: Schema, operation: Schema) -> str:
    rows = (_answer(document, status, each) for status, each in operation["responses"].items())
    examples = "".join(
        _examples(content)
        for each in operation["responses"].values()
        for media, content in each.get("content", {}).items()
        if "problem" not in media
    )
    return f"<h4>Answers</h4>{_table(rows)}{examples}"


def _answer(document: Schema, status: str, given: Schema) -> tuple[str, str]:
    found = given
    if "$ref" in given:
        found = document["components"]["responses"][given["$ref"].rpartition("/")[2]]
    kinds = [
        _type(content["schema"]) for content in found.get("content", {}).values() if "allOf" not in content["schema"]
    ]
    return f"<b>{status}</b>", ": ".join([_words(found["description"]), *kinds])


def _type(schema: Schema) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_type(schema.get('items') or {})}"
    return escape(kind if isinstance(kind, str) else " or ".join(kind)) + _bounds(schema)


_BOUNDS: Final = {
    "minimum": "from {}", "maximum": "to {}", "exclusiveMinimum": "over {}", "exclusiveMaximum": "below {}",
    "minLength": "at least {} long", "maxLength": "at most {} long", "format": "{}", "pattern": "{}",
}  # fmt: skip


def _bounds(schema: Schema) -> str:
    told = [words.format(schema[name]) for name, words in _BOUNDS.items() if name in schema]
    return f' <span class="soft">({escape(", ".join(told))})</span>' if told else ""


def _schema(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = (
        (
            f"<code>{escape(field)}</code>",
            _type(each) + ("" if field in required else ' <span class="soft">(may be left out)</span>'),
            _words(each.get("description", "")),
        )
        for field, each in schema.get("properties", {}).items()
    )
    told = f"<p>{_words(schema['description'])}</p>" if "description" in schema else ""
    inner = _table(rows) if "properties" in schema else f"<p>{_type(schema)}</p>"
    return f'<section id="schema-{escape(name)}"><h3>{escape(name)}</h3>{told}{inner}</section>'
