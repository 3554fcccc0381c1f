"""The apt repository, made of this checkout's packages and handed out by a web server on loopback."""

from __future__ import annotations

import contextlib
import shutil
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import apt_repository

from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Repository:
    """Where it is, on disk and for apt, and what its source looks like."""

    folder: Path
    url: str

    @property
    def source(self) -> str:
        return apt_repository.SOURCES.format(url=self.url, suite=apt_repository.SUITE)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


@contextlib.contextmanager
def served(packages: Iterable[Path], folder: Path) -> Iterator[Repository]:
    """The repository of `packages`, made in `folder`, for as long as it is wanted."""
    if missing := [tool for tool in ("reprepro", "gpg") if shutil.which(tool) is None]:
        not_run("apt repository", f"{', '.join(missing)} missing")
    apt_repository.make(list(packages), folder / "apt", None, folder / "key")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "apt"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Repository(folder / "apt", f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
