"""The page and its files. They hold no data, so they need no token; what they show they fetch with one."""

from __future__ import annotations

import asyncio
import mimetypes
from typing import TYPE_CHECKING

from aiohttp import web

from rockfill import __version__
from rockfill.api.server import STATIC_CACHE, Route
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from pathlib import Path


class Pages:
    """Serves ``templates/page.html`` and everything in ``static/``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Listed once: a name that is not in the list does not exist, so no path in a request ever reaches the disk.
        self._static = {path.name: path for path in (root / "static").iterdir() if path.is_file()}
        self._page: str | None = None

    def routes(self) -> list[Route]:
        return [Route("GET", "/", self.page, None), Route("GET", "/static/{name}", self.static, None)]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page for a browser; Ollama's clients look here for whether "Ollama is running"."""
        headers = {"Vary": "Accept"}
        if "text/html" not in request.headers.get("Accept", ""):
            return web.Response(text="Ollama is running", headers=headers)
        if self._page is None:
            self._page = await asyncio.to_thread(self._render)
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def static(self, request: web.Request) -> web.StreamResponse:
        path = self._static.get(request.match_info["name"])
        if path is None:
            raise Problem(Code.NOT_FOUND, "There is no such file.", "Reload the page.")
        response = web.FileResponse(path, headers={"Cache-Control": STATIC_CACHE})
        response.content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return response

    def _render(self) -> str:
        import jinja2  # costs 20 MB/s of start-up for a page that may never be opened

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self._root / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
        )
        return environment.get_template("page.html").render(version=__version__)
