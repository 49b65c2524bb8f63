"""The page of all requests, made from the OpenAPI document, which is made from the routes. `make docs` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headrace_api.app import ROUTES
from headrace_api.openapi import document

from .markdown import table

__all__ = ["page"]

HEAD: Final = """\
# HTTP requests

Made from the code by `make docs`; change it there. What holds for all requests is in
[reference.md](reference.md#http-api), the codes of errors are in [errors.md](errors.md). The API serves the same at
`/docs`, and for programs at `/openapi.json`.
"""
Schema = Mapping[str, Any]


def page() -> str:
    """The whole page."""
    whole = document(ROUTES)
    operations = [(method, path, each) for path, row in whole["paths"].items() for method, each in row.items()]
    overview = (
        (f"[`{_title(method, path)}`](#{_anchor(_title(method, path))})", _scope(each), each["summary"])
        for method, path, each in operations
    )
    types = whole["components"]["schemas"]
    parts = [
        HEAD,
        table(("request", "token", "does"), overview),
        *(_request(whole, *each) for each in operations),
        "## Types\n\nA field in *italics* may be left out.\n",
        *(_type(name, schema) for name, schema in types.items()),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _title(method: str, path: str) -> str:
    return f"{method.upper()} {path}"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _scope(operation: Schema) -> str:
    scopes = [scope for each in operation.get("security", ()) for scope in each.get("bearer", ())]
    return " ".join(f"`{scope}`" for scope in scopes) or "none"


def _request(whole: Schema, method: str, path: str, operation: Schema) -> str:
    title = _title(method, path)
    told = [operation["summary"], operation.get("description", "")]
    parts = [f"## {title}\n", " ".join(each for each in told if each) + f" Token: {_scope(operation)}.\n"]
    parameters = [_resolved(whole, each) for each in operation.get("parameters", ())]
    rows = (
        (f"`{each['name']}`", each["in"], _shape(each["schema"]).removesuffix(" or null"), each["description"])
        for each in parameters
    )
    parts += [part for part in (table(("parameter", "in", "type", "meaning"), rows),) if part]
    if "requestBody" in operation:
        for media, body in operation["requestBody"]["content"].items():
            said = "Body" if media == "application/json" else f"Or as `{media}`"
            parts.append(f"{said}: {_shape(body['schema'])}.\n\n{_example(body, media)}")
    parts.append(table(("answer", "content"), _answers(whole, operation)))
    return "\n".join(parts)


def _example(content: Schema, media: str) -> str:
    found = next((each["value"] for each in content.get("examples", {}).values()), None)
    if found is None:
        return ""
    lines = found if "ndjson" in media else [found]
    text = "\n".join(json.dumps(each, ensure_ascii=False) for each in lines)
    return f"```json\n{text}\n```\n"


def _answers(whole: Schema, operation: Schema) -> Iterator[tuple[str, str]]:
    for status, answer in sorted(operation["responses"].items()):
        resolved = _resolved(whole, answer)
        codes = _codes(resolved)
        content = resolved.get("content", {})
        shapes = " or ".join(dict.fromkeys(_shape(each.get("schema", {})) for each in content.values()))
        yield status, codes or shapes or resolved["description"]


def _codes(answer: Schema) -> str:
    """The codes of a problem document, each with its page; '' for another answer."""
    problem = answer.get("content", {}).get("application/problem+json", {}).get("schema", {})
    codes = [code for part in problem.get("allOf", ()) for code in _values(part.get("properties", {}).get("code", {}))]
    return ", ".join(f"[`{code}`](errors/{code}.md)" if code != "http" else "`http`" for code in codes)


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _resolved(whole: Schema, part: Schema) -> Schema:
    while "$ref" in part:
        found: Any = whole
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        part = found
    return part


def _type(name: str, schema: Schema) -> str:
    needed = schema.get("required", ())
    rows = (
        (f"`{field}`" if field in needed else f"*`{field}`*", _shape(each), each.get("description", ""))
        for field, each in schema.get("properties", {}).items()
    )
    told = f"{schema['description']}\n\n" if schema.get("description") else ""
    return f"### {name}\n\n{told}{table(('field', 'type', 'meaning'), rows)}"


_WORDS: Final = {"integer": "whole number", "boolean": "true or false", "string": "text"}


def _shape(schema: Schema) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_shape, choices)))
    if values := _values(schema):
        return " or ".join(f"`{value}`" for value in values)
    return _plain_shape(schema)


def _plain_shape(schema: Schema) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_shape(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_shape(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    return " or ".join(_WORDS.get(each, each) for each in ([kind] if isinstance(kind, str) else kind))
