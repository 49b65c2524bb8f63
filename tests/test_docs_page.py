"""/docs: whole under a policy that allows nothing, and its command lines work."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import pytest

from api_kit import running
from headrace_api.docs_page import POLICY, STYLE, curl, page
from openapi_check import DOCUMENT, operations

TOKEN = "a-secret-of-more-than-16-characters"


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_needs_nothing_from_elsewhere_and_no_script() -> None:
    """So `default-src 'none'` and the hash of its own style leave it whole."""
    read = Page(page(DOCUMENT))
    assert read.open == []
    assert {tag for tag, _ in read.tags} & {"script", "img", "iframe", "link", "form", "object", "svg"} == set()
    attributes = {name for _, attrs in read.tags for name in attrs}
    assert attributes & {"style", "src", "srcset", "onclick", "onload"} == set()
    assert "url(" not in STYLE and "@import" not in STYLE
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert POLICY.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in POLICY
    assert f"<style>{STYLE}</style>" in page(DOCUMENT)


def test_links_of_the_page_lead_somewhere() -> None:
    read = Page(page(DOCUMENT))
    there = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(there) == len(set(there))
    links = {str(attrs["href"]) for tag, attrs in read.tags if tag == "a"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(there)
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}


def test_every_route_has_its_place_and_a_command_line() -> None:
    text = page(DOCUMENT)
    for method, path, operation in operations():
        section = re.search(rf'<section id="{operation["operationId"]}">(.*?)</section>', text, re.DOTALL)
        assert section, (method, path)
        assert "curl " in section[1] and operation["summary"].split("`")[0] in section[1].replace("&#x27;", "'")


def test_what_the_document_says_cannot_become_markup() -> None:
    """Descriptions may name anything."""
    words = "<script>alert(1)</script>"
    changed: dict[str, Any] = {**DOCUMENT, "info": {**DOCUMENT["info"], "description": words, "title": words}}
    assert "<script>" not in page(changed)


async def test_the_page_is_served_with_its_policy_to_everybody(redis_url: str) -> None:
    async with running(redis_url, tokens=f"ci:{TOKEN}") as api:
        answer = await api.get("/docs")
    assert answer.text == page(DOCUMENT)
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the pages use it")
async def test_the_command_lines_work_as_they_are(redis_url: str) -> None:
    """Each is understood: what it asks for may not exist, but nothing is wrong with how it asks."""
    async with running(redis_url, tokens=f"ci:{TOKEN}") as api:
        told = {}
        for method, path, operation in operations():
            ends = "-m 1 " if "text/event-stream" in str(operation["responses"]) else ""  # a stream does not end
            quiet = f"curl -s {ends}-o /dev/null -w '%{{http_code}}' "
            line = curl(method.lower(), path, operation).replace("curl ", quiet, 1)
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", line, stdout=-1, env={**os.environ, "HEADRACE": api.url, "TOKEN": TOKEN}
            )
            told[f"{method} {path}"] = int((await process.communicate())[0])
    unexpected = {name: status for name, status in told.items() if status not in {200, 201, 202}}
    assert {name: status for name, status in unexpected.items() if "{" not in name} == {}
    assert set(unexpected.values()) <= {404}
