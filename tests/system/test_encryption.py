"""TLS of our own, and behind nginx as the example has it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from rockfill.client import Client
from rockfill.errors import Code, Problem
from tests.appliance import ROOT, START_S, ScriptedAppliance, environment
from tests.proxy import NAME, Certificate, behind_a_proxy, certificate, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.appliance import Appliance


class Encrypted(ScriptedAppliance):
    """A daemon that speaks TLS; `certificate` is what it was started with."""

    def __init__(self, folder: Path) -> None:
        self.certificate = certificate(folder, "localhost")
        config = folder / "config.toml"
        cert, key = self.certificate.cert, self.certificate.key
        config.write_text(f'[server]\ntls_cert = "{cert}"\ntls_key = "{key}"\n')
        super().__init__(folder / "state", ["--config", str(config)])
        self.url = f"https://localhost:{self.port}"

    def ask(self, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        context = ssl.create_default_context(cafile=str(self.certificate.cert))
        connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=60)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Encrypted]:
    running = Encrypted(tmp_path)
    running.start()
    yield running
    running.stop()


def test_only_https_is_spoken_once_there_is_a_certificate(encrypted: Encrypted) -> None:
    assert encrypted.ask("GET", "/health", {}).status == 200
    assert encrypted.printed[-1].startswith(f"https://127.0.0.1:{encrypted.port}/#token=")
    with socket.create_connection(("127.0.0.1", encrypted.port), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")
    assert not any("Traceback" in line for line in encrypted.printed)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_nothing_older_than_tls_1_2_is_spoken(encrypted: Encrypted) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1  # what is tried
    context.set_ciphers("ALL:@SECLEVEL=0")
    connection = socket.create_connection(("127.0.0.1", encrypted.port), timeout=60)
    with connection, pytest.raises(ssl.SSLError) as refused:
        context.wrap_socket(connection)
    assert refused.value.reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNEXPECTED_EOF_WHILE_READING")  # not ours alone


def test_the_cookie_is_for_https_only(encrypted: Encrypted) -> None:
    async def log_in() -> str:
        context = ssl.create_default_context(cafile=str(encrypted.certificate.cert))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{encrypted.url}/login", json={"token": encrypted.token}, ssl=context) as response,
        ):
            assert response.status == 204
            return response.headers["Set-Cookie"]

    assert "Secure" in asyncio.run(log_in()).split("; ")


def test_the_command_line_asks_its_own_machine_and_elsewhere_only_whom_a_certificate_proves(
    encrypted: Encrypted,
) -> None:
    def status(variables: dict[str, str], *arguments: str) -> int:
        command = [sys.executable, "-m", "rockfill", "status", "--state-dir", str(encrypted.state_dir), *arguments]
        env = {**environment(), **variables}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=False).returncode

    assert status({}) == 0  # by the address that the daemon left in its state directory
    assert status({}, "--url", encrypted.url) == 69
    assert status({"SSL_CERT_FILE": str(encrypted.certificate.cert)}, "--url", encrypted.url) == 0


def test_a_new_certificate_is_taken_up_by_a_reload(encrypted: Encrypted, tmp_path: Path) -> None:
    before = encrypted.certificate.cert.read_bytes()
    (tmp_path / "new").mkdir()
    new = certificate(tmp_path / "new", "localhost")
    assert new.cert.read_bytes() != before
    encrypted.certificate.cert.write_bytes(new.cert.read_bytes())
    encrypted.certificate.key.write_bytes(new.key.read_bytes())
    os.kill(encrypted.pid, signal.SIGHUP)
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            assert encrypted.ask("GET", "/health", {}).status == 200  # which only the new one is good for
            break
        except ssl.SSLError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_a_reload_with_a_broken_certificate_keeps_the_old_one(encrypted: Encrypted, tmp_path: Path) -> None:
    good = encrypted.certificate.cert.read_bytes()
    encrypted.certificate.cert.write_text("broken")
    os.kill(encrypted.pid, signal.SIGHUP)
    encrypted.wait_for_line("the certificate stays as it was")
    encrypted.certificate.cert.write_bytes(good)
    assert encrypted.ask("GET", "/health", {}).status == 200


@pytest.mark.parametrize("what", ["missing", "other key", "no key"])
def test_a_certificate_that_can_not_be_used_is_named(tmp_path: Path, what: str) -> None:
    good = certificate(tmp_path, "localhost")
    other = certificate(tmp_path, "other")
    cert = tmp_path / "missing.pem" if what == "missing" else good.cert
    key = "" if what == "no key" else other.key
    config = tmp_path / "config.toml"
    config.write_text(f'[server]\ntls_cert = "{cert}"\ntls_key = "{key}"\n')
    command = [sys.executable, "-m", "rockfill", "serve", "--config", str(config), "--state-dir", str(tmp_path / "s")]
    ended = subprocess.run(
        [*command, "--listen", "127.0.0.1:0"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 78
    assert "Traceback" not in ended.stderr
    assert ("tls_key: goes with tls_cert" if what == "no key" else str(cert)) in ended.stderr


# ---- behind nginx


class _Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        here = {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        return [ResolveResult(**here)]  # type: ignore[typeddict-item]

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Appliance, str, Certificate]]:
    """A daemon, the address that nginx gives it, and nginx's certificate."""
    folder = tmp_path_factory.mktemp("proxied")
    appliance = behind_a_proxy(folder, folder / "state")
    appliance.start()
    try:
        with nginx(folder, appliance) as (port, made):
            yield appliance, f"https://{NAME}:{port}/rockfill", made
    finally:
        appliance.stop()


def session(made: Certificate) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(made.cert))
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Here(), ssl=context))


async def test_the_page_and_its_cookie_live_below_a_prefix(proxied: tuple[Appliance, str, Certificate]) -> None:
    appliance, url, made = proxied
    origin = url.removesuffix("/rockfill")
    async with session(made) as browser:
        async with browser.get(url, headers={"Accept": "text/html"}) as page:
            assert (page.status, page.url.path) == (200, "/rockfill/")
            text = await page.text()
        assert 'src="/' not in text
        assert 'href="/' not in text
        token = {"token": appliance.token}
        async with browser.post(f"{url}/login", json=token, headers={"Origin": "https://evil.example"}) as refused:
            assert refused.status == 403
        async with browser.post(f"{url}/login", json=token, headers={"Origin": origin}) as login:
            assert login.status == 204
            assert {"Secure", "HttpOnly", "SameSite=Strict"} <= set(login.headers["Set-Cookie"].split("; "))
        async with browser.post(f"{url}/api/command/engine.get", headers={"Origin": origin}) as state:
            assert (await state.json())["result"]["state"] == "ready"
        async with browser.ws_connect(f"{url}/ws", headers={"Origin": origin}) as socket_:
            assert (await socket_.receive_json())["type"] == "auth_ok"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await browser.ws_connect(f"{url}/ws", headers={"Origin": "https://evil.example"})


async def test_a_link_leads_back_below_the_prefix(proxied: tuple[Appliance, str, Certificate]) -> None:
    appliance, url, made = proxied
    path = (await asyncio.to_thread(appliance.command, "access.link"))["path"]
    async with session(made) as browser:
        headers = {"Origin": url.removesuffix("/rockfill"), "Accept": "text/html"}
        async with browser.post(f"{url}{path}", headers=headers) as page:
            assert (page.status, page.url.path) == (200, "/rockfill/")
            assert [history.status for history in page.history] == [303]


async def test_streams_flow_through(proxied: tuple[Appliance, str, Certificate]) -> None:
    appliance, url, made = proxied
    assert isinstance(appliance, ScriptedAppliance)
    appliance.script(text="abcdef" * 200, token_s=0.1)  # two minutes of it
    headers = {"Authorization": f"Bearer {appliance.token}"}
    async with session(made) as client:
        body = {"prompt": "x = ", "max_tokens": 1200, "stream": True}
        async with client.post(f"{url}/v1/completions", json=body, headers=headers) as response:
            said = b""
            while said.count(b"data: ") < 3:
                said += await response.content.readany()
            assert (await asyncio.to_thread(appliance.command, "engine.get"))["state"] == "busy"
    appliance.script(text="abcdef", token_s=0.05)
    async with (
        session(made) as client,
        client.post(f"{url}/v1/completions", json={**body, "max_tokens": 6}, headers=headers) as response,
    ):
        assert (await response.read()).count(b"data: ") >= 7


def test_who_asks_is_whom_the_proxy_names(proxied: tuple[Appliance, str, Certificate]) -> None:
    """A proxy on this machine must not make everybody a neighbour: the client of nginx is 127.0.0.1 here."""
    appliance, _, _ = proxied
    said = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": NAME, "X-Forwarded-Proto": "https"}
    while (status := appliance.request("POST", "/login", {"token": "wrong"}, token=None, headers=said).status) != 429:
        assert status == 401
    other = {**said, "X-Forwarded-For": "203.0.113.8"}
    assert appliance.request("POST", "/login", {"token": "wrong"}, token=None, headers=other).status == 401


async def test_the_client_is_told_when_something_else_answers(proxied: tuple[Appliance, str, Certificate]) -> None:
    appliance, _, _ = proxied
    with pytest.raises(Problem) as caught:
        async with Client(f"{appliance.url}/nothing", appliance.token):
            pass
    assert caught.value.code in (Code.NOT_FOUND, Code.INTERNAL_ERROR)
    assert json.dumps(caught.value.info.value())
