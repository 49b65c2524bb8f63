"""The OpenAPI 3.1 document, made of the route table and of the types that its routes name.

What a route says of itself is in `Route` and `Doc`; the words are its action's docstring: the first paragraph is the
summary, the others are the description. `operationId` is the action's name, and the tag its path's first part.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace import __version__

from .endpoint import Route
from .openapi_parts import CODES, HEADERS, PATH, REQUEST_HEADERS, RETRY, usual
from .problems import MEDIA_TYPE, ProblemBody, type_of

Schema = dict[str, Any]

_INTRODUCTION: Final = """\
Tasks in over HTTP, workers run them. Bodies are JSON in UTF-8; times are RFC 3339 in UTC, durations seconds.

Every error is a problem document (RFC 9457) with a stable `code`. A path that does not exist is 404 `unknown_route`,
a method that a path does not take is 405 `wrong_method` with `Allow`, an unknown `Expect` is 417 `expectation_failed`.
Of the connection are 400 `bad_http`, 408 `headers_timeout`, 429 `too_many_of_address` and 503 `too_many_connections`;
any other answer that the HTTP server gives by itself has the code `http`. Every GET answers HEAD, too.

After 429 and 503 a submission can be sent again; with the same Idempotency-Key it makes one task.

The payloads of task types are not in this document, for they come and go with workers: GET /api/v1/types has them."""
_TAGS: Final[Mapping[str, str]] = {
    "tasks": "Submit tasks, look at them, wait, cancel, retry.",
    "queues": "Queues, their limits, pause and purge.",
    "types": "The task types that workers know, with the JSON Schema of their payloads.",
    "bulk": "Orders about many tasks at once.",
    "workers": "Who runs what.",
    "errors": "Failed tasks, grouped.",
    "events": "Tasks as they end, and how many are where.",
    "audit": "Who changed what.",
    "service": "The service itself: probes, metrics, this document.",
}


def document(routes: Sequence[Route]) -> Schema:
    """The whole document."""
    schemas = _Schemas(routes)
    paths: dict[str, Schema] = {}
    problems: dict[str, Schema] = {}
    names = _operation_ids(routes)
    for route in routes:
        operation = _Operation(route, names[route.method, route.path], schemas, problems)
        paths.setdefault(route.path, {})[route.method.lower()] = operation.made()
    used = {_tag(route) for route in routes}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": __version__,
            "summary": "A task queue: HTTP in, Redis streams, workers.",
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": tag, "description": _TAGS.get(tag, tag)} for tag in sorted(used, key=_rank)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(problems.items())),
            "headers": {name: dict(header) for name, header in HEADERS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Needed where the API has tokens."}
            },
        },
    }


def _rank(tag: str) -> tuple[int, str]:
    known = list(_TAGS)
    return (known.index(tag) if tag in _TAGS else len(known) - 1, tag)


def _tag(route: Route) -> str:
    found = re.match(r"/api/v1/(\w+)", route.path)
    return found[1] if found and found[1] != "stats" else "service"


def _operation_ids(routes: Sequence[Route]) -> dict[tuple[str, str], str]:
    """A name for each. The second route of an action is called after its method, too."""
    made: dict[tuple[str, str], str] = {}
    taken: dict[str, Any] = {}
    for route in routes:
        name = str(getattr(route.action, "__name__", ""))
        if taken.setdefault(name, route.action) is not route.action:
            raise ValueError(f"Two actions are called {name!r}: rename that of {route.method} {route.path}.")
        if name in made.values():
            name = f"{name}_by_{route.path.rpartition('/')[2].strip('{}') if route.method == 'GET' else 'post'}"
        made[route.method, route.path] = name
    return made


class _Schemas:
    """The types of all routes, each as a schema that names its component."""

    def __init__(self, routes: Sequence[Route]) -> None:
        kinds = [
            kind
            for route in routes
            for kind in (route.query, route.body, route.answer, *route.doc.also.values(), *route.doc.events.values())
        ]
        kinds += [kind for route in routes for kind, _ in route.doc.bodies.values()]
        wanted = [ProblemBody, *(kind for kind in kinds if kind is not None)]
        made, found = msgspec.json.schema_components(wanted, ref_template="#/components/schemas/{name}")
        self._rows = list(zip(wanted, made, strict=True))
        self._queries = [route.query for route in routes if route.query is not None]
        parameters = {self._name(kind) for kind in self._queries}
        self._all = found
        self.components = {name: schema for name, schema in sorted(found.items()) if name not in parameters}

    def of(self, kind: Any) -> Schema:
        return next(dict(schema) for known, schema in self._rows if known is kind or known == kind)

    def _name(self, kind: Any) -> str:
        return str(self.of(kind)["$ref"]).rpartition("/")[2]

    def fields(self, kind: Any) -> Mapping[str, Schema]:
        """The fields of a Struct that holds parameters."""
        fields: Mapping[str, Schema] = self._all[self._name(kind)]["properties"]
        return fields


class _Operation:
    """One route in the document. Problems go into components, for many routes share them."""

    def __init__(self, route: Route, name: str, schemas: _Schemas, problems: dict[str, Schema]) -> None:
        self._route, self._name, self._schemas, self._problems = route, name, schemas, problems

    def made(self) -> Schema:
        route = self._route
        summary, description = words_of(route)
        made: Schema = {"operationId": self._name, "tags": [_tag(route)], "summary": summary}
        if description:
            made["description"] = description
        made["security"] = [] if route.open else [{"bearer": [route.scope]}]
        if parameters := [*self._path(), *self._query(), *self._headers()]:
            made["parameters"] = parameters
        if route.body is not None:
            content = _content("application/json", self._schemas.of(route.body), route.doc.body)
            for media, (kind, examples) in route.doc.bodies.items():
                content |= _content(media, self._schemas.of(kind), examples)
            made["requestBody"] = {"required": True, "content": content}
        made["responses"] = self._responses()
        return made

    def _path(self) -> Iterator[Schema]:
        for name in re.findall(r"{(\w+)}", self._route.path):
            yield {"name": name, "in": "path", "required": True, **PATH[name]}

    def _query(self) -> Iterator[Schema]:
        if self._route.query is None:
            return
        for name, field in self._schemas.fields(self._route.query).items():
            schema = _never_null({key: field[key] for key in field.keys() - {"description", "examples"}})
            made = {"name": name, "in": "query", "description": field.get("description", ""), "schema": schema}
            if shown := field.get("examples"):
                made["example"] = shown[0]
            yield made

    def _headers(self) -> Iterator[Schema]:
        names = (("Idempotency-Key", "traceparent") if self._route.submits else ()) + self._route.doc.takes
        yield from ({"name": name, "in": "header", **REQUEST_HEADERS[name]} for name in names)

    def _responses(self) -> dict[str, Schema]:
        route = self._route
        made = {str(route.status): self._good(route.status, route.answer, route.doc.media, route.doc.answer)}
        for status, kind in route.doc.also.items():
            made[str(status)] = self._good(status, kind, "application/json", {})
        for status, codes in _by_status(usual(route)):
            known = made.get(str(status))
            if known is None:
                made[str(status)] = self._problem(status, codes)
            else:
                known["content"] |= _problem_content(status, codes)
        return dict(sorted(made.items()))

    def _good(self, status: int, kind: Any, media: str, examples: Mapping[str, Any]) -> Schema:
        names = ["X-Request-Id", *(self._route.doc.headers if status == self._route.status else ())]
        names += [] if self._route.open else ["RateLimit", "RateLimit-Policy"]
        names += ["traceparent"] if self._route.submits else []
        names += ["Retry-After"] if status in RETRY else []
        made: Schema = {"description": HTTPStatus(status).phrase, "headers": _header_refs(names)}
        if kind is not None or media != "application/json":
            made["content"] = _content(media, {"type": "string"} if kind is None else self._schemas.of(kind), examples)
            if events := self._route.doc.events:
                told = {name: self._schemas.of(each) for name, each in events.items()}
                made["content"][media]["schema"] = {"oneOf": [_event(*each) for each in told.items()]}
        return made

    def _problem(self, status: int, codes: Sequence[str]) -> Schema:
        name = f"problem_{status}_{'_or_'.join(codes)}"
        if name not in self._problems:
            names = ["X-Request-Id", *({401: ["WWW-Authenticate"]}.get(status, []))]
            names += ["Retry-After"] if status in RETRY else []
            told = "; ".join(f"`{code}`: {_sentence(CODES[code][1])}" for code in codes)
            content = _problem_content(status, codes)
            self._problems[name] = {"description": told, "headers": _header_refs(names), "content": content}
        return {"$ref": f"#/components/responses/{name}"}


def _never_null(schema: Schema) -> Schema:
    """A parameter is a text, or it is not there."""
    some = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    made = {key: schema[key] for key in sorted(schema) if schema[key] is not None}
    if len(some) == 1:
        del made["anyOf"]
        made |= some[0]
    if "enum" in made:
        made["enum"] = [each for each in made["enum"] if each is not None]
    return made


def _event(name: str, data: Schema) -> Schema:
    """One event of a stream: a stream's schema is that of each of its events."""
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    properties = {"event": {"const": name}, "id": {"type": "string"}, "data": text}
    return {"type": "object", "properties": properties, "required": ["event", "data"]}


def words_of(route: Route) -> tuple[str, str]:
    """Summary and description: the action's docstring without what it raises."""
    first, *rest = re.split(r"\n\s*\n", inspect.getdoc(route.action) or "")
    told = (" ".join(each.split()) for each in rest if not each.startswith("Raises"))
    return " ".join(first.split()), "\n\n".join(told)


def _sentence(words: str) -> str:
    return words[:1].lower() + words[1:]


def _by_status(codes: Iterable[str]) -> list[tuple[int, list[str]]]:
    found: dict[int, list[str]] = {}
    for code in sorted(set(codes)):
        found.setdefault(CODES[code][0], []).append(code)
    return sorted(found.items())


def _header_refs(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _content(media: str, schema: Schema, examples: Mapping[str, Any]) -> Schema:
    made: Schema = {"schema": schema}
    if examples:
        made["examples"] = {_slug(title): {"summary": title, "value": value} for title, value in examples.items()}
    return {media: made}


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def _problem_content(status: int, codes: Sequence[str]) -> Schema:
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": list(codes)}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/ProblemBody"}, narrowed]}
    return _content(MEDIA_TYPE, schema, {CODES[code][1]: _problem_example(code) for code in codes})


def _problem_example(code: str) -> Schema:
    status, words = CODES[code]
    title = HTTPStatus(status).phrase
    made = {"type": type_of(code), "title": title, "status": status, "detail": f"{words}.", "code": code}
    return made | {"instance": "/api/v1/tasks", "request_id": "3f1c-1"}
