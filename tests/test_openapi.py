"""The OpenAPI document says all of the API and nothing else, and what it shows is true."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api_kit import running
from headrace.filters import Filter, InvalidFilter
from headrace_api.app import ROUTES
from headrace_api.openapi import document, words_of
from headrace_api.openapi_parts import CODES, OF_NO_ROUTE, usual
from headrace_api.problems import KINDS
from openapi_check import DOCUMENT, mismatch, operations, resolve

API: Final = Path(__file__).parent.parent / "api/headrace_api"


def test_every_route_is_in_the_document_and_the_reverse() -> None:
    assert {(method, path) for method, path, _ in operations()} == {(route.method, route.path) for route in ROUTES}


def test_the_document_is_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_reference_leads_somewhere() -> None:
    """And every component is used."""
    used = set(re.findall(r'"\$ref": "(#/components/[^"]+)"', json.dumps(DOCUMENT)))
    assert all(resolve({"$ref": ref}) for ref in used)
    made = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in DOCUMENT["components"][kind]}
    assert made - used == set()


@pytest.mark.parametrize(("method", "path", "operation"), list(operations()), ids=lambda each: str(each)[:40])
def test_a_route_says_all_that_a_caller_needs(method: str, path: str, operation: dict[str, Any]) -> None:
    """A summary as a sentence, what a token needs, each parameter and each answer in words."""
    assert re.fullmatch(r"[A-Z][^\n]*\.", operation["summary"]), operation["summary"]
    assert not re.match(r"(GET|POST|PUT|PATCH|DELETE) /", operation["summary"])
    assert all(each["description"] for each in operation.get("parameters", ()))
    assert set(re.findall(r"{(\w+)}", path)) == {
        each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"
    }
    good = [resolve(each) for status, each in operation["responses"].items() if status < "300" and status != "204"]
    assert good and all("content" in each for each in good)


def test_names_of_operations_are_given_once() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z_]+", name) for name in names)


def examples() -> list[Any]:
    """Every example of a body or an answer with its schema."""
    found = []
    for method, path, operation in operations():
        answers = [resolve(each) for each in operation["responses"].values()]
        for part in [operation.get("requestBody", {}), *answers]:
            for content in part.get("content", {}).values():
                for name, example in content.get("examples", {}).items():
                    found.append(pytest.param(content["schema"], example["value"], id=f"{method} {path} {name}"))
    return found


@pytest.mark.parametrize(("schema", "example"), examples())
def test_every_example_validates(schema: dict[str, Any], example: Any) -> None:
    assert mismatch(schema, example) is None


def test_every_body_has_an_example() -> None:
    """The page makes a command line of it."""
    bodies = [operation for _, _, operation in operations() if "requestBody" in operation]
    missing = [each["operationId"] for each in bodies if "examples" not in str(each["requestBody"])]
    assert missing == []


def test_every_answer_of_a_type_has_an_example() -> None:
    """Put it into the doc.answer of its Route."""
    missing = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if route.doc.media == "application/json" and route.path.startswith("/api/") and not route.doc.answer
    ]
    assert missing == []


def test_parameters_have_examples_that_validate() -> None:
    given = [each for _, _, operation in operations() for each in operation.get("parameters", ())]
    assert all("example" in each for each in given if each["in"] == "path")
    for each in given:
        assert "example" not in each or mismatch(each["schema"], each["example"]) is None, each


def codes_of_http() -> dict[str, int]:
    """Code → status of every `HttpProblem(status, code, …)` in the source."""
    found = {}
    for file in API.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="HttpProblem" | "Problem"),
                    args=[ast.Constant(int(status)), ast.Constant(str(code)), *_],
                ):
                    found[code] = status
    return found


def test_codes_have_the_status_that_the_source_gives_them() -> None:
    told = {code: status for code, (status, _) in CODES.items()}
    assert {cls.code: kind.status for cls, kind in KINDS.items()}.items() <= told.items()
    of_http = {code: status for code, status in codes_of_http().items() if code not in OF_NO_ROUTE}
    assert of_http.items() <= told.items()


def test_a_batch_may_come_as_lines() -> None:
    """As an array, which is how OpenAPI 3.2 describes what comes item by item; each is as JSON has it in `tasks`."""
    content = DOCUMENT["paths"]["/api/v1/tasks:batch"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/json", "application/x-ndjson"]
    lines, tasks = content["application/x-ndjson"]["schema"], resolve(content["application/json"]["schema"])
    assert lines["type"] == "array" and lines["items"] == tasks["properties"]["tasks"]["items"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("type", ["resize", "image.*", "*", "a,b.*,*"], ["", "a b", "a,", "**", "*a", "a" * 129]),
        ("queue", ["default", "a,b-1"], ["", "A", "a,,b", "-a"]),
        ("tag", ["acme", "a/b@c:1"], ["", "a b", "a,b"]),
        ("since", ["90s", "2h", "2026-01-15", "2026-01-15T10:30:00Z", "2026-01-15t10:30+01:00"], ["", "2 h", "now"]),
        ("until", ["3d"], ["tomorrow"]),
        ("error", ["timed out"], [""]),
        ("q", ["", "state:failed"], ["x" * 5_000]),
    ],
)
def test_a_filter_parameter_has_the_form_that_the_filter_takes(name: str, good: list[str], bad: list[str]) -> None:
    """What the document forbids is refused, what it allows is taken, on each route that has it."""
    paths = ("/api/v1/tasks", "/api/v1/errors", "/api/v1/events")
    parameters = [each for path in paths for each in DOCUMENT["paths"][path]["get"]["parameters"]]
    schemas = [each["schema"] for each in parameters if each["name"] == name]
    assert len(schemas) == (3 if name in {"type", "queue"} else 2)
    for value in good:
        assert [mismatch(schema, value) for schema in schemas] == [None] * len(schemas)
        Filter.from_query({name: value})
    for value in bad:
        assert None not in [mismatch(schema, value) for schema in schemas]
        with pytest.raises(InvalidFilter):
            Filter.from_query({name: value})


def test_every_code_is_told_for_some_route() -> None:
    assert set(CODES) - {code for route in ROUTES for code in usual(route)} == set()


def test_a_summary_is_the_first_paragraph_of_the_docstring_without_what_is_raised() -> None:
    [route] = [each for each in ROUTES if (each.method, each.path) == ("POST", "/api/v1/tasks")]
    summary, description = words_of(route)
    assert summary == "Submit a task."
    assert "Idempotency-Key" in description and "Raises" not in description


@pytest.mark.parametrize("where", ["path", "query", "header"])
async def test_an_address_or_header_that_is_too_long_is_told_as_the_document_says(redis_url: str, where: str) -> None:
    """The parser refuses it before there is a route; whoever sends it knows which one was meant."""
    long = "x" * 9_000
    sent = {"path": (f"/{long}", {}), "query": (f"?q={long}", {}), "header": ("", {"X-Request-Id": long})}
    path, headers = sent[where]
    async with running(redis_url) as api:
        answer = await api.get(f"/api/v1/tasks{path}", headers=headers)
    assert (answer.status, answer.code) == (400, "bad_http")
    assert answer.json["detail"] == "The address or a header has more than 8190 bytes."
    assert all("bad_http" in usual(route) for route in ROUTES)


def test_two_actions_of_one_name_are_refused() -> None:
    """Made clients would lose one of them."""
    from dataclasses import replace

    async def submit_task(services: Any, request: Any) -> Any:
        """Another."""

    [first] = [each for each in ROUTES if (each.method, each.path) == ("POST", "/api/v1/tasks")]
    with pytest.raises(ValueError, match="submit_task"):
        document([first, replace(first, action=submit_task, path="/api/v1/other")])


async def test_the_document_is_served_to_everybody_and_only_when_it_changed(redis_url: str) -> None:
    async with running(redis_url, tokens="ci:a-secret-of-more-than-16-characters") as api:
        answer = await api.get("/openapi.json")
        assert answer.json == DOCUMENT
        etag = answer.headers["ETag"]
        for given, status in [(etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)]:
            again = await api.get("/openapi.json", headers={"If-None-Match": given})
            assert (again.status, again.headers["ETag"]) == (status, etag), given
            assert bool(again.text) == (status == 200)
