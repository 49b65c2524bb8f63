"""Finding the route of a request: at once for paths without parts, which is where nearly all requests go.

aiohttp walks up every path and asks each resource on the way: a thirtieth of a submission.
"""

from __future__ import annotations

import warnings

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo


class _Whole(UrlMappingMatchInfo):
    """What is found at a path without parts: nothing of the request is in it, so that one does for all of them."""

    def add_app(self, app: web.Application) -> None:
        """aiohttp calls this for each request; there is one application."""
        if not self.apps:
            super().add_app(app)


class Router(web.UrlDispatcher):
    """aiohttp's, which is asked for what is spelt in another way, has parts, or is not there."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[tuple[str, str], _Whole] = {}

    def freeze(self) -> None:
        """The application calls this when all routes are there."""
        super().freeze()
        plain = (resource for resource in self.resources() if isinstance(resource, web.PlainResource))
        self._whole = {
            (route.method, resource.canonical): _Whole({}, route) for resource in plain for route in resource
        }

    async def resolve(self, request: web.Request) -> UrlMappingMatchInfo:
        """The route, or what tells that there is none. Raises HTTPExpectationFailed."""
        if hdrs.EXPECT in request.headers:
            _check_expectation(request)
        asked = request._message  # the request's own properties that say the same cost a call each
        found = self._whole.get((asked.method, asked.path))
        return await super().resolve(request) if found is None else found


def _check_expectation(request: web.Request) -> None:
    """aiohttp refuses it in the client's own words, and fails (500) where these are no text."""
    if request.version == HttpVersion11 and request.headers[hdrs.EXPECT].lower() not in {"", "100-continue"}:
        raise web.HTTPExpectationFailed


def application(max_bytes: int) -> web.Application:
    """An application that routes so and reads bodies of so many bytes."""
    with warnings.catch_warnings():
        # Deprecated with nothing in its place: a router of one's own is seldom wanted.
        warnings.filterwarnings("ignore", "router argument is deprecated", DeprecationWarning)
        return web.Application(router=Router(), client_max_size=max_bytes)
