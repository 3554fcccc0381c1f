"""The page and its files. They hold no data, so they need no token; what they show they fetch with one."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from rockfill import __version__
from rockfill.api.server import CONTENT_SECURITY_POLICY, Route
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from pathlib import Path

FOREVER = "public, max-age=31536000, immutable"  # safe, as the address changes with every byte of every file
PACKED_ALREADY = frozenset({".woff2", ".png", ".webp"})
# Python's table lacks some of these on machines without /etc/mime.types.
TYPES = {".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes | None
    content_type: str


@dataclass(frozen=True, slots=True)
class _Site:
    """Everything that a browser may get. `edition` names these files; `render(template, values)` makes a page."""

    edition: str
    files: dict[str, _File]
    render: Callable[[str, Mapping[str, object]], str]


class Pages:
    """Serves ``templates/page.html`` and everything in ``static/``, as it was when first asked for.

    The files' addresses hold a hash of them all, so that a browser keeps them for good, asks for nothing at the next
    load, and never mixes two releases.
    """

    def __init__(self, root: Path, *, open_to_some: bool) -> None:
        """`open_to_some`: somebody gets in without a token, which every page says."""
        self._site = cache(lambda: _read(root))
        self._open_to_some = open_to_some

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/", self.page, None),
            Route("GET", "/static/{edition}/{name}", self.static, None),
            Route("GET", "/static/{edition}/{folder}/{name}", self.static, None),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page for a browser; Ollama's clients look here for whether "Ollama is running"."""
        headers: dict[str, str] = {hdrs.VARY: "Accept"}
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            return web.Response(text="Ollama is running", headers=headers)
        return await self.render("page.html", headers=headers)

    async def render(
        self,
        name: str,
        below: str = "",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: object,
    ) -> web.Response:
        """The page that template `name` makes. `below` leads from its address to that of the first one.

        `nonce` in a template is what a ``<style>`` needs to be heeded, such as those that the code editor makes.
        """
        site = await asyncio.to_thread(self._site)
        nonce = secrets.token_urlsafe(16)
        values |= {"version": __version__, "static": f"{below}static/{site.edition}", "nonce": nonce}
        text = await asyncio.to_thread(site.render, name, {**values, "open_to_some": self._open_to_some})
        response = web.Response(text=text, status=status, content_type="text/html", headers=headers)
        policy = f"{CONTENT_SECURITY_POLICY}; style-src 'self' 'nonce-{nonce}'"
        response.headers["Content-Security-Policy"] = policy
        return response

    async def static(self, request: web.Request) -> web.StreamResponse:
        site = await asyncio.to_thread(self._site)
        where = request.match_info
        # A name that is not in the list does not exist, so no path in a request ever reaches the disk.
        found = site.files.get("/".join(part for part in (where.get("folder"), where["name"]) if part))
        if found is None or where["edition"] != site.edition:
            raise Problem(Code.NOT_FOUND, "There is no such file.", "Reload the page.")
        headers: dict[str, str] = {hdrs.CACHE_CONTROL: FOREVER, hdrs.VARY: hdrs.ACCEPT_ENCODING}
        body = found.content
        if found.packed is not None and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            body = found.packed
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, content_type=found.content_type, headers=headers)


def _read(root: Path) -> _Site:
    import jinja2  # costs 20 MB/s of start-up for a page that may never be opened

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    static = root / "static"
    files = {path.relative_to(static).as_posix(): _file(path) for path in sorted(static.rglob("*")) if path.is_file()}
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\0{len(file.content)}\0".encode() + file.content)
    return _Site(digest.hexdigest()[:16], files, lambda name, values: environment.get_template(name).render(values))


def _file(path: Path) -> _File:
    content = path.read_bytes()
    packed = None if path.suffix in PACKED_ALREADY else gzip.compress(content, 9)
    guessed = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return _File(content, packed, guessed or "application/octet-stream")
