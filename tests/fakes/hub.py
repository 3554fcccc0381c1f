"""A stand-in for the Hub and for the vendor's repository: real HTTP, and it misbehaves on command.

`HubServer` starts it as a process of its own; whatever it is told travels over its control address, and what it was
asked stands in its `log`. The Hub is ``127.0.0.1``, the host that has the files ``localhost``: two origins.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c70012a47460e6f35e1597419e4942cbba4e8778"
CHUNK_BYTES = 256 << 10

# Content of any size without anything on the disk: a megabyte of noise, again and again. The odd length keeps any two
# places that are some power of two apart from being equal.
NOISE = random.Random(0).randbytes((1 << 20) + 7)


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file: `text`, what is at `path`, or `size_bytes` of noise that begins at `start`, its first bytes being `head`
    (in hex).

    `lfs` files are served by the other host.
    """

    text: str | None = None
    size_bytes: int = 0
    start: int = 0
    lfs: bool = True
    path: str | None = None
    head: str = ""

    def pieces(self, begin: int = 0) -> Iterator[bytes]:
        if self.text is not None:
            yield self.text.encode()[begin:]
            return
        if self.path is not None:
            yield Path(self.path).read_bytes()[begin:]
            return
        head = bytes.fromhex(self.head)
        if begin < len(head):
            yield head[begin:]
            begin = len(head)
        while begin < self.size_bytes:
            at = (self.start + begin) % len(NOISE)
            piece = NOISE[at : at + min(CHUNK_BYTES, self.size_bytes - begin)]
            yield piece
            begin += len(piece)

    @property
    def length(self) -> int:
        if self.text is not None:
            return len(self.text.encode())
        return Path(self.path).stat().st_size if self.path is not None else self.size_bytes

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def blob_id(self) -> str:
        digest = hashlib.sha1(b"blob %d\0" % self.length)
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with requests for paths that hold `path`, the next `times` of them (0: for ever).

    `where` is "hub", "files" or "api". With `after_bytes` it happens once so much has been sent. `what` is one of:
    close, reset, stall, hold (until the faults are healed, and then goes on), garbage (one byte is another), short,
    short_total, long, no_range, wrong_range, packed, expired, status.
    """

    what: str
    path: str = ""
    where: str = "files"
    times: int = 1
    after_bytes: int = 0
    status: int = 500
    retry_after: str | None = None
    error_code: str | None = None


@dataclass(slots=True)
class Repo:
    """A repository as the stand-in knows it."""

    files: dict[str, FileSpec]
    licence: str | None = "apache-2.0"
    gated: bool = False
    base_model: str | None = None
    commit: str = COMMIT
    token: str | None = None  # who has it may have the files
    digests: dict[str, tuple[str, str]] = field(default_factory=dict)
    announced: dict[str, tuple[str, str]] = field(default_factory=dict)  # what the API says, where that is stale


class _Server:
    def __init__(self, certificate: Sequence[str]) -> None:
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.healed = asyncio.Event()
        self.log: list[dict[str, Any]] = []
        self.tokens: dict[str, str] = {}
        self.bytes_per_s = 0.0
        self.signatures = 0
        self.hub_port = 0
        self.files_port = 0

    # ---- control

    async def control(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        match body["do"]:
            case "repo":
                spec = dict(body["repo"])
                files = {name: FileSpec(**value) for name, value in spec.pop("files").items()}
                repo = Repo(files, **spec)
                repo.digests = {name: (file.sha256(), file.blob_id()) for name, file in files.items()}
                self.repos[body["name"]] = repo
            case "fault":
                self.faults.append(Fault(**body["fault"]))
            case "heal":
                self.faults.clear()
                self.tokens.clear()
                self.healed.set()
                self.healed = asyncio.Event()
            case "rate":
                self.bytes_per_s = body["bytes_per_s"]
            case "token":
                self.tokens[body["token"]] = body["account"]
            case "log":
                return web.json_response(self.log)
            case "forget":
                self.log.clear()
            case unknown:
                raise web.HTTPBadRequest(text=f"{unknown}?")
        return web.json_response({})

    def fault(self, where: str, path: str) -> Fault | None:
        for index, fault in enumerate(self.faults):
            if fault.where == where and fault.path in path:
                if fault.times == 1:
                    del self.faults[index]
                elif fault.times > 1:
                    self.faults[index] = Fault(**{**asdict(fault), "times": fault.times - 1})
                return fault
        return None

    def note(self, where: str, request: web.Request) -> dict[str, Any]:
        entry = {
            "where": where,
            "method": request.method,
            "path": request.path,
            "query": request.query_string,
            "authorization": request.headers.get("Authorization"),
            "range": request.headers.get("Range"),
            "sent_bytes": 0,
        }
        self.log.append(entry)
        return entry

    # ---- the Hub

    async def model_info(self, request: web.Request) -> web.StreamResponse:
        self.note("api", request)
        failure = self._failure("api", request)
        if failure is not None:
            return failure
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repo = self.repos.get(name)
        if repo is None:
            return web.json_response(
                {"error": "Repository not found"}, status=401, headers={"X-Error-Code": "RepoNotFound"}
            )
        revision = request.match_info.get("revision")
        if revision not in (None, "main", repo.commit):
            return web.json_response(
                {"error": "Invalid rev id"}, status=404, headers={"X-Error-Code": "RevisionNotFound"}
            )
        card: dict[str, Any] = {} if repo.licence is None else {"license": repo.licence}
        if repo.base_model is not None:
            card["base_model"] = [repo.base_model]
        siblings = []
        for path, file in repo.files.items():
            sha256, blob_id = repo.announced.get(path) or repo.digests[path]
            sibling: dict[str, Any] = {"rfilename": path, "size": file.length, "blobId": blob_id}
            if file.lfs:
                sibling["lfs"] = {"size": file.length, "sha256": sha256, "pointerSize": 134}
            siblings.append(sibling)
        tags = [] if repo.licence is None else [f"license:{repo.licence}"]
        value = {
            "_id": "0" * 24,
            "id": name,
            "modelId": name,
            "sha": repo.commit,
            "private": False,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": tags,
            "cardData": card,
            "siblings": siblings,
        }
        return web.json_response(value)

    async def whoami(self, request: web.Request) -> web.StreamResponse:
        self.note("api", request)
        account = self.tokens.get((request.headers.get("Authorization") or "").removeprefix("Bearer "))
        if account is None:
            return web.json_response({"error": "Invalid user token."}, status=401)
        return web.json_response({"type": "user", "name": account})

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        entry = self.note("hub", request)
        failure = self._failure("hub", request)
        if failure is not None:
            return failure
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        path = request.match_info["path"]
        repo = self.repos.get(name)
        if repo is None or path not in repo.files:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        authorization = request.headers.get("Authorization")
        if repo.gated and authorization != f"Bearer {repo.token}":
            message = f"Access to model {name} is restricted."
            return web.Response(
                status=401 if authorization is None else 403,
                headers={"X-Error-Code": "GatedRepo", "X-Error-Message": message},
            )
        file = repo.files[path]
        sha256, blob_id = repo.digests[path]
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if not file.lfs:
            return await self._send(request, entry, file, {**headers, "ETag": f'"{blob_id}"'}, "hub")
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(file.length), "ETag": f'"{blob_id}"'}
        return web.Response(status=302, headers={**headers, "Location": self._signed(name, path)})

    async def raw(self, request: web.Request) -> web.StreamResponse:
        """The vendor's repository: a file at a tag."""
        self.note("hub", request)
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        path = f"{request.match_info['tag']}/{request.match_info['path']}"
        if path not in self.repos.get(name, Repo({})).files:
            return web.Response(status=404)
        return web.Response(status=302, headers={"Location": self._signed(name, path)})

    def _signed(self, name: str, path: str) -> str:
        self.signatures += 1
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://localhost:{self.files_port}/{name}/{path}?X-Amz-Signature={self.signatures}"

    # ---- the host that has the files

    async def serve_file(self, request: web.Request) -> web.StreamResponse:
        entry = self.note("files", request)
        failure = self._failure("files", request)
        if failure is not None:
            return failure
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        try:
            return await self._send(request, entry, self.repos[name].files[request.match_info["path"]], {}, "files")
        except ConnectionError:  # whoever asked was killed
            raise asyncio.CancelledError from None

    def _failure(self, where: str, request: web.Request) -> web.StreamResponse | None:
        fault = next((one for one in self.faults if one.where == where and one.path in request.path), None)
        if fault is None or fault.what not in ("expired", "status"):
            return None
        fault = self.fault(where, request.path)
        assert fault is not None
        if fault.what == "expired":
            return web.Response(
                status=403, text="<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
            )
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        if fault.error_code is not None:
            headers["X-Error-Code"] = fault.error_code
        return web.Response(status=fault.status, headers=headers, text="no")

    async def _send(
        self, request: web.Request, entry: dict[str, Any], file: FileSpec, headers: Mapping[str, str], where: str
    ) -> web.StreamResponse:
        fault = self.fault(where, request.path) if request.method == "GET" else None
        what = fault.what if fault is not None else ""
        begin, status, length = 0, 200, file.length
        sent_headers = dict(headers)
        wanted = request.headers.get("Range")
        if wanted is not None and what != "no_range":
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            if begin >= length:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{length}"})
            if what == "wrong_range":
                begin = max(0, begin - 1)
            status = 206
            total = length + 5 if what == "short_total" else length
            sent_headers["Content-Range"] = f"bytes {begin}-{length - 1}/{total}"
        if what == "packed":
            sent_headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(status=status, headers=sent_headers)
        extra = b"more than there is" if what == "long" else b""
        if what == "short":
            response.enable_chunked_encoding()  # nothing then says how much there should be
        else:
            response.content_length = length - begin + len(extra)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        sent = 0
        for piece in () if what == "short" and begin else file.pieces(begin):
            data = piece
            if fault is not None and fault.what in ("close", "reset", "stall", "hold", "garbage"):
                left = fault.after_bytes - sent
                if what == "garbage" and 0 <= left < len(data):
                    data = data[:left] + bytes([data[left] ^ 1]) + data[left + 1 :]
                elif what == "hold" and 0 <= left < len(data):
                    await self._write(response, entry, data[:left])
                    await self.healed.wait()
                    data = data[left:]
                    sent += left
                elif what not in ("garbage", "hold") and left < len(data):
                    await self._write(response, entry, data[:left])
                    await self._break(request, what)
                    return response
            await self._write(response, entry, data)
            sent += len(data)
            if what == "short":
                break
        if extra:
            await response.write(extra)
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, entry: dict[str, Any], data: bytes) -> None:
        if self.bytes_per_s:
            for at in range(0, len(data), 16 << 10):
                piece = data[at : at + (16 << 10)]
                await response.write(piece)
                entry["sent_bytes"] += len(piece)
                if self.bytes_per_s:  # it may have been told to hurry
                    await asyncio.sleep(len(piece) / self.bytes_per_s)
            return
        await response.write(data)
        entry["sent_bytes"] += len(data)

    async def _break(self, request: web.Request, what: str) -> None:
        transport = request.transport
        if transport is None:
            return
        if what == "stall":
            await asyncio.sleep(3600)
        if what == "reset":
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.sleep(0.02)  # so that what was written has left
        transport.abort() if what == "reset" else transport.close()

    async def run(self) -> None:
        hub = web.Application()
        hub.router.add_get("/api/whoami-v2", self.whoami)
        hub.router.add_get("/api/models/{owner}/{name}", self.model_info)
        hub.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self.model_info)
        hub.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", self.resolve)
        hub.router.add_get("/{owner}/{name}/raw/{tag}/{path:.+}", self.raw)
        files = web.Application()
        files.router.add_get("/{owner}/{name}/{path:.+}", self.serve_file)
        control = web.Application(client_max_size=64 << 20)
        control.router.add_post("/", self.control)
        ports = []
        for app in (hub, files, control):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            listener = socket.create_server(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
            await web.SockSite(runner, listener, ssl_context=self._tls if app is not control else None).start()
        self.hub_port, self.files_port, control_port = ports
        print(json.dumps({"hub": self.hub_port, "files": self.files_port, "control": control_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until whoever started us goes


class HubServer:
    """The stand-in as a process. Use it as a context manager."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        """With a certificate and its key (paths) it speaks HTTPS."""
        self._certificate = certificate

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *(self._certificate or ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        scheme = "https" if self._certificate is not None else "http"
        self.url = f"{scheme}://127.0.0.1:{ports['hub']}"
        self.files_url = f"{scheme}://localhost:{ports['files']}"
        self._control = f"http://127.0.0.1:{ports['control']}/"
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Vanish: connections break, nobody answers any more."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def add(self, name: str, files: Mapping[str, FileSpec], **settings: Any) -> None:
        """Have a repository, in place of one of that name."""
        value = {"files": {path: asdict(file) for path, file in files.items()}, **settings}
        self._tell(do="repo", name=name, repo=value)

    def fail(self, what: str, **settings: Any) -> None:
        """Misbehave as `Fault` says."""
        self._tell(do="fault", fault=asdict(Fault(what, **settings)))

    def heal(self) -> None:
        self._tell(do="heal")

    def slow_down(self, bytes_per_s: float) -> None:
        """Send so much a second, 0 for as fast as it goes."""
        self._tell(do="rate", bytes_per_s=bytes_per_s)

    def know(self, token: str, account: str) -> None:
        self._tell(do="token", token=token, account=account)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every request since `forget`, with how much of the body was sent."""
        found: list[dict[str, Any]] = self._tell(do="log")
        return found

    def forget(self) -> None:
        self._tell(do="forget")

    def sent_bytes(self, path: str = "") -> int:
        """How much was sent of files whose path holds `path`."""
        return sum(entry["sent_bytes"] for entry in self.log if path in entry["path"])

    def _tell(self, **body: Any) -> Any:
        request = urllib.request.Request(
            self._control, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())


if __name__ == "__main__":
    asyncio.run(_Server(sys.argv[1:]).run())
