"""Holds answers and examples against the OpenAPI document, as a client would that was made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import jsonschema_rs

from headrace_api.app import ROUTES
from headrace_api.openapi import document
from headrace_api.openapi_parts import OF_NO_ROUTE

DOCUMENT: Final[dict[str, Any]] = json.loads(json.dumps(document(ROUTES)))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path, operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    part = {"type": "[^/]+"}
    return [
        (re.compile(re.sub(r"\\{(\w+)\\}", lambda name: part.get(name[1], "[^/:]+"), re.escape(path))), path)
        for path in DOCUMENT["paths"]
    ]


def operation_of(method: str, path: str) -> tuple[str, Mapping[str, Any]] | None:
    """The path's template and what the document says of this request; None if it has no such path or method."""
    method = "get" if method == "HEAD" else method.lower()
    for pattern, template in _paths():
        if pattern.fullmatch(path) and method in DOCUMENT["paths"][template]:
            return template, DOCUMENT["paths"][template][method]
    return None


@cache
def _validator(schema: str) -> Any:
    whole = {**json.loads(schema), "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def mismatch(schema: Mapping[str, Any], value: Any) -> str | None:
    """What of a value does not fit its schema."""
    found = next(_validator(json.dumps(schema)).iter_errors(value), None)
    return None if found is None else f"{'/'.join(map(str, found.instance_path)) or 'the body'}: {found.message}"


def resolve(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` of the document means."""
    while "$ref" in given:
        found: Any = DOCUMENT
        for part in given["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        given = found
    return given


def check(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """AssertionError if the document does not say that this request can be answered so."""
    found = operation_of(method, path.partition("?")[0])
    if found is None:
        assert status in {400, 404, 405, 417}, f"{method} {path} is not in the OpenAPI document, but answers {status}."
        return
    template, operation = found
    where = f"{method} {template} → {status}"
    media = headers.get("Content-Type", "").partition(";")[0]
    problem = json.loads(body) if media == "application/problem+json" and body else {}
    if problem.get("code") in OF_NO_ROUTE:
        return
    assert str(status) in operation["responses"], (
        f"{where} {problem.get('code', '')} is not in the OpenAPI document: name the code in its Route's doc.problems "
        "(or the status in doc.also)."
    )
    response = resolve(operation["responses"][str(status)])
    for name, header in response.get("headers", {}).items():
        assert name in headers or not resolve(header).get("required"), f"{where} came without the header {name}"
    if method == "HEAD" or status == 304:
        return
    content = response.get("content", {})
    assert media in content or not body, f"{where} is {media!r}, not one of {list(content)}: see its Route's answer."
    if body and media.endswith("json"):
        wrong = mismatch(content[media]["schema"], json.loads(body))
        assert wrong is None, f"{where} {problem.get('code', '')} does not fit its schema: {wrong}"
