"""The API's own description: /openapi.json for programs, /docs for people. Both need no token: they are public."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec
from aiohttp import web

from .created import JSON
from .docs_page import POLICY, page
from .endpoint import Doc, Route
from .openapi import document
from .services import Request, Services


@dataclass(frozen=True)
class Text:
    """Something that is the same for everybody as long as the process lives."""

    body: bytes
    media: str
    headers: dict[str, str] = field(default_factory=dict)

    @cached_property
    def tag(self) -> str:
        """Its ETag, without the quotes."""
        return hashlib.sha256(self.body).hexdigest()[:32]

    def answer(self, http: web.Request) -> web.Response:
        """All of it, or 304 for whoever has it already."""
        headers = {"ETag": f'"{self.tag}"', "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        headers |= self.headers
        if any(each.value in {self.tag, "*"} for each in http.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, headers={"Content-Type": self.media, **headers})


class Description:
    """The document and the page, made when somebody first asks."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    @cached_property
    def document(self) -> dict[str, Any]:
        return document(self._routes)

    @cached_property
    def as_json(self) -> Text:
        return Text(msgspec.json.encode(self.document), JSON)

    @cached_property
    def as_page(self) -> Text:
        return Text(page(self.document).encode(), "text/html; charset=utf-8", {"Content-Security-Policy": POLICY})


DESCRIPTION: Final = web.AppKey("headrace_description", Description)


async def openapi(services: Services, request: Request) -> web.Response:
    """This document.

    The same for everybody, and as long as the version does not change; `If-None-Match` spares sending it again.
    """
    return request.http.app[DESCRIPTION].as_json.answer(request.http)


async def docs(services: Services, request: Request) -> web.Response:
    """This document as a page to read."""
    return request.http.app[DESCRIPTION].as_page.answer(request.http)


ROUTES: Final = (
    Route(
        "GET", "/openapi.json", openapi, open=True, answer=dict[str, Any], doc=Doc(headers=("ETag",), also={304: None})
    ),
    Route("GET", "/docs", docs, open=True, answer=str, doc=Doc(media="text/html", headers=("ETag",), also={304: None})),
)
