"""Who gets in, and who does not: the real daemon, asked in every wrong way that we could think of."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from rockfill.access.logins import FREE_FAILURES
from rockfill.access.tokens import Scope
from rockfill.api import listener
from rockfill.api.commands.all import COMMANDS
from tests.appliance import ROOT, START_S, ScriptedAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAppliance]:
    running = ScriptedAppliance(tmp_path_factory.mktemp("guarded") / "state")
    running.start()
    yield running
    running.stop()


def configured(path: Path, text: str) -> ScriptedAppliance:
    """A daemon with a configuration of its own, not started yet."""
    file = path / "config.toml"
    file.write_text(text)
    return ScriptedAppliance(path / "state", ["--config", str(file)])


def code(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    return answer.status, error["code"] if isinstance(error, dict) else answer.json()["code"]


# ---- tokens and scopes


def test_a_token_is_good_for_its_scopes_and_no_other_command(guarded: ScriptedAppliance) -> None:
    """Every command with every scope; what is refused has not even looked at its parameters."""
    for scope in Scope:
        token = guarded.command("tokens.add", name=f"only-{scope}", scopes=[scope])["token"]
        for command in COMMANDS:
            # A value that no parameter takes: a command that is allowed says so, and does nothing.
            wrong: dict[str, object] = {name: [[{}]] for name in command.parameters.__dataclass_fields__}
            if command.scope in (scope, None) and not wrong:
                continue  # it would be carried out
            answer = guarded.request("POST", f"/api/command/{command.type}", wrong, token=token)
            allowed = command.scope in (scope, None)
            assert code(answer) == ((400, "invalid_value") if allowed else (403, "forbidden")), command.type
        guarded.command("tokens.revoke", name=f"only-{scope}")
        assert guarded.request("POST", "/api/command/ping", {}, token=token).status == 401


def test_a_token_to_complete_with_completes_and_nothing_else(guarded: ScriptedAppliance) -> None:
    token = guarded.command("tokens.add", name="editor", scopes=["complete"])["token"]
    assert guarded.request("POST", "/v1/completions", {"prompt": "x"}, token=token).status == 200
    assert guarded.request("POST", "/api/command/engine.unload", {}, token=token).status == 403
    assert guarded.request("POST", "/api/generate", {"model": "fake", "keep_alive": 0}, token=token).status in (
        200,
        403,
    )
    assert guarded.command("engine.get")["state"] in ("ready", "busy")
    scopes = guarded.request("POST", "/api/command/access.get", {}, token=token).json()["result"]
    assert scopes == {"scopes": ["complete"]}


def test_named_tokens_survive_a_restart_and_are_not_kept_readable(scripted: ScriptedAppliance) -> None:
    token = scripted.command("tokens.add", name="ha", scopes=["read"])["token"]
    assert scripted.request("POST", "/api/command/engine.get", {}, token=token).status == 200
    kept = (scripted.state_dir / "tokens.json").read_text()
    assert token not in kept
    assert (scripted.state_dir / "tokens.json").stat().st_mode & 0o777 == 0o600
    scripted.stop()
    scripted.start()
    assert scripted.request("POST", "/api/command/engine.get", {}, token=token).status == 200
    listed = scripted.command("tokens.list")["tokens"]
    assert [(entry["name"], entry["scopes"]) for entry in listed] == [("ha", ["read"])]
    assert "sha256" not in listed[0]


def test_the_session_of_a_named_token_ends_with_it(guarded: ScriptedAppliance) -> None:
    token = guarded.command("tokens.add", name="tablet", scopes=["read"])["token"]
    login = guarded.request("POST", "/login", {"token": token}, token=None)
    headers = {"Cookie": login.headers["Set-Cookie"].partition(";")[0], "Origin": guarded.url}

    def ask(type_: str) -> int:
        return guarded.request("POST", f"/api/command/{type_}", {}, token=None, headers=headers).status

    assert (ask("engine.get"), ask("engine.unload")) == (200, 403)
    guarded.command("tokens.revoke", name="tablet")
    assert ask("engine.get") == 401


# ---- guessing

UNFORGIVING = """
import sys
from rockfill.access import logins
logins.FAILURE_FORGOTTEN_S = 1e9
from tests.fakes.daemon import main
main(sys.argv[1:])
"""


@pytest.fixture
def unforgiving(tmp_path: Path) -> Iterator[ScriptedAppliance]:
    """A daemon that forgets no wrong token, however long the test takes."""
    running = changed(tmp_path / "state", UNFORGIVING)
    running.start()
    yield running
    running.stop()


def changed(state_dir: Path, program: str) -> ScriptedAppliance:
    """A daemon in whose program something is changed, not started yet."""
    launcher = [sys.executable, "-c", program]
    return ScriptedAppliance(state_dir, launcher=launcher, variables={"PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}"})


def test_ten_thousand_failed_logins_are_refused(unforgiving: ScriptedAppliance) -> None:
    """On one connection, a hundred at a time."""
    scripted = unforgiving
    body = b'{"token": "a guess"}'
    guess = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    answers: Counter[bytes] = Counter()
    with socket.create_connection(("127.0.0.1", scripted.port), timeout=60) as connection:
        for _ in range(100):
            connection.sendall(guess * 100)
            told, found = b"", list[bytes]()
            while len(found) < 100 or not told.endswith(b"}"):  # to the end of the last answer
                told += connection.recv(1 << 20)
                found = re.findall(rb"HTTP/1.1 (\d\d\d) ", told)
            answers.update(found)
            assert told.count(b"Retry-After: ") == found.count(b"429")
    assert answers == {b"401": FREE_FAILURES, b"429": 10_000 - FREE_FAILURES}
    # The right one is not looked at either, by whichever way it comes.
    for headers in ({"Authorization": f"Bearer {scripted.token}"}, {"X-API-Key": scripted.token}):
        answer = scripted.request("POST", "/api/command/engine.get", {}, token=None, headers=headers)
        assert code(answer) == (429, "too_many_requests")
    for _ in range(2):
        answer = scripted.request("POST", "/login", {"token": scripted.token}, token=None)
        assert code(answer) == (429, "too_many_requests")
    assert scripted.request("GET", "/health", token=None).status == 200


def test_whoever_was_in_is_not_locked_out_by_a_neighbour(unforgiving: ScriptedAppliance) -> None:
    unforgiving.command("engine.get")
    for _ in range(FREE_FAILURES):
        assert unforgiving.request("POST", "/api/command/engine.get", {}, token="wrong").status == 401
    assert unforgiving.request("POST", "/api/command/engine.get", {}, token="wrong").status == 429
    assert unforgiving.command("engine.get")["state"] == "ready"


# ---- links


def test_a_link_signs_in_once_and_only_when_it_is_followed(guarded: ScriptedAppliance) -> None:
    path = guarded.command("access.link")["path"]
    for _ in range(2):  # a preview uses nothing up
        page = guarded.request("GET", path, token=None)
        assert (page.status, "Set-Cookie" in page.headers) == (200, False)
        assert b'<form method="post"' in page.body
    ours = {"Origin": guarded.url}
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port)
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        connection.request("POST", path, headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 403
    connection.request("POST", path, headers=ours)
    response = connection.getresponse()
    response.read()
    assert (response.status, response.headers["Location"]) == (303, "../")
    cookie = response.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert cookie.startswith(f"rockfill_{guarded.port}=")
    connection.close()
    session = {**ours, "Cookie": cookie.partition(";")[0]}
    assert guarded.request("POST", "/api/command/engine.get", {}, token=None, headers=session).status == 200
    again = guarded.request("POST", path, b"", token=None, headers=ours)
    assert (again.status, "Set-Cookie" in again.headers) == (403, False)
    assert b"has been used" in again.body


def link_of(appliance: ScriptedAppliance, token: str) -> str:
    path: str = appliance.request("POST", "/api/command/access.link", {}, token=token).json()["result"]["path"]
    return path


def test_a_link_is_worth_what_its_maker_is_and_ends_with_it(guarded: ScriptedAppliance) -> None:
    """And so is the session that came of it, and the link that was made by that session."""
    token = guarded.command("tokens.add", name="deputy", scopes=["admin"])["token"]
    ours = {"Origin": guarded.url}
    used, unused, late = (link_of(guarded, token) for _ in range(3))

    def follow(path: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", guarded.port)
        connection.request("POST", path, headers=ours)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, {**ours, "Cookie": response.headers.get("Set-Cookie", "").partition(";")[0]}

    def ask(type_: str, headers: dict[str, str]) -> Any:
        return guarded.request("POST", f"/api/command/{type_}", {}, token=None, headers=headers)

    status, session = follow(used)
    assert status == 303
    assert ask("access.get", session).json()["result"] == {"scopes": ["admin"]}
    assert ask("engine.unload", session).status == 403
    of_the_session = ask("access.link", session).json()["result"]["path"]
    guarded.command("tokens.revoke", name="deputy")
    assert ask("access.get", session).status == 401
    assert [follow(path)[0] for path in (unused, of_the_session)] == [403, 403]
    guarded.command("tokens.add", name="deputy", scopes=["admin"])  # another one, whatever it is called
    assert follow(late)[0] == 403
    guarded.command("tokens.revoke", name="deputy")


# ---- other people's pages


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1.evil:1"])
@pytest.mark.parametrize("path", ["/login", "/logout", "/v1/completions", "/api/command/engine.unload", "/infill"])
def test_no_page_from_elsewhere_may_change_anything(guarded: ScriptedAppliance, path: str, origin: str) -> None:
    """Not even with the token: a browser that has it would not be there."""
    answer = guarded.request("POST", path, {"token": guarded.token}, headers={"Origin": origin})
    assert answer.status == 403
    assert guarded.request("POST", "/api/command/ping", {}, headers={"Origin": guarded.url}).status == 200


def test_a_form_of_another_page_is_refused(guarded: ScriptedAppliance) -> None:
    login = guarded.request("POST", "/login", {"token": guarded.token}, token=None)
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = guarded.request(
            "POST", "/api/command/engine.unload", b"a=1", token=None, headers={**headers, **origin}
        )
        assert answer.status == 403
    assert guarded.command("engine.get")["state"] in ("ready", "busy")


def test_nothing_is_shared_with_other_origins(guarded: ScriptedAppliance) -> None:
    for method, path in (("OPTIONS", "/v1/completions"), ("GET", "/health"), ("OPTIONS", "/api/command/engine.get")):
        answer = guarded.request(method, path, headers={"Origin": "http://evil.example"})
        assert not any(name.lower().startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize("path", ["/", "/login/x", "/static/page.js", "/health", "/nothing", "/v1/models"])
def test_every_answer_has_the_headers_that_browsers_heed(guarded: ScriptedAppliance, path: str) -> None:
    headers = guarded.request("GET", path, headers={"Accept": "text/html"}).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_nonce_for_styles_is_another_one_each_time(guarded: ScriptedAppliance) -> None:
    policies = [
        guarded.request("GET", "/", headers={"Accept": "text/html"}).headers["Content-Security-Policy"]
        for _ in range(2)
    ]
    nonces = [re.findall(r"style-src 'self' 'nonce-([\w-]{20,})'", policy) for policy in policies]
    assert all(len(found) == 1 for found in nonces)
    assert nonces[0] != nonces[1]
    assert all("script-src" not in policy for policy in policies)


# ---- what does not belong into an address


@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "Token", "key"])
def test_a_token_in_an_address_is_refused_and_never_logged(tmp_path: Path, name: str) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    appliance.start()
    token = appliance.token
    try:
        for path in ("/", "/v1/models", "/ws", "/static/page.css", "/nothing"):
            answer = appliance.request("GET", f"{path}?{name}={token}", token=None)
            assert code(answer) == (400, "invalid_value")
            assert token.encode() not in answer.body
        assert appliance.request("GET", f"/health?{name}=anything", token=None).status == 400
    finally:
        appliance.stop()
    logged = [line for line in appliance.printed if "/#token=" not in line]
    assert not any(token in line for line in logged)


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_no_address_tells_whether_what_it_holds_is_a_token(guarded: ScriptedAppliance, path: str) -> None:
    """Nobody counts addresses, so that one which told could be asked for ever."""
    right, wrong = (guarded.request("GET", f"{path}?x={value}", token=None) for value in (guarded.token, "wrong"))
    assert (right.status, right.body) == (wrong.status, wrong.body)
    assert right.status == (200 if path == "/health" else 401)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../page.html",
        "/static/..%2f..%2fpyproject.toml",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static/..\\page.html",
        "/static//etc/passwd",
        "/static/%00",
        "/login/../../etc/passwd",
        "//etc/passwd",
        "/../../../etc/passwd",
        "/v1/models/..%2f..%2ftoken",
        "/api/command/..%2f..%2ftoken",
    ],
)
def test_no_path_leads_out(guarded: ScriptedAppliance, path: str) -> None:
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", guarded.port)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{guarded.port}")
        connection.putheader("Authorization", f"Bearer {guarded.token}")
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.status in (400, 403, 404, 405) or path.startswith("/login/")
        assert b"root:" not in body
        assert b"[project]" not in body
        assert guarded.token.encode() not in body


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", "/etc/passwd", "a\x00b", "a\r\nSet-Cookie: x=1", "x" * 5000]
)
def test_no_name_leads_out_or_into_a_header(guarded: ScriptedAppliance, name: str) -> None:
    for type_, parameters in (
        ("engine.load", {"model": name}),
        ("complete.start", {"prefix": "", "model": name}),
        ("tokens.add", {"name": name, "scopes": ["read"]}),
        ("tokens.revoke", {"name": name}),
    ):
        answer = guarded.request("POST", f"/api/command/{type_}", parameters)
        assert answer.status in (400, 404), type_
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\rSet-Cookie: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 5000 + b"\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
)
def test_a_broken_request_is_refused_whatever_is_wrong_with_it(guarded: ScriptedAppliance, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
        connection.sendall(head)
        if b"\r\n\r\n" in head:
            answer = connection.recv(65536)
            assert any(status in answer.partition(b"\r\n")[0] for status in (b" 400 ", b" 403 ", b" 431 ")), answer[
                :300
            ]
        else:
            connection.shutdown(socket.SHUT_WR)
            answer = _rest(connection)
            assert b" 200 " not in answer
    assert b"Traceback" not in answer
    assert guarded.request("GET", "/health", token=None).status == 200


def _rest(connection: socket.socket) -> bytes:
    found = b""
    try:
        while more := connection.recv(65536):
            found += more
    except ConnectionResetError:
        pass
    return found


# ---- without a token


@pytest.mark.parametrize(
    ("config", "near"),
    [
        ('[server]\ntrusted_proxies = ["127.0.0.1"]\n[access]\ninsecure_lan = true\n', {"X-Forwarded-For": "10.0.0.7"}),
        ('[access]\ntokenless = ["127.0.0.0/8"]\n', {}),
    ],
)
def test_a_network_that_needs_no_token_reads_and_completes_and_nothing_else(
    tmp_path: Path, config: str, near: dict[str, str]
) -> None:
    appliance = configured(tmp_path, config)
    appliance.start()
    try:

        def ask(path: str, body: object, token: str | None = None, **headers: str) -> Any:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return appliance.request("POST", path, body, token=token, headers={**near, **named})

        assert ask("/v1/completions", {"prompt": "x"}).status == 200
        assert ask("/api/command/engine.get", {}).status == 200
        for command in COMMANDS:
            if command.scope in (Scope.CONTROL, Scope.ADMIN):
                assert code(ask(f"/api/command/{command.type}", {})) == (403, "forbidden"), command.type
        # A wrong token is wrong all the same, and the right one is worth what it is worth.
        assert ask("/v1/completions", {"prompt": "x"}, "wrong").status == 401
        assert ask("/api/command/config.get", {}, "").status == 200
        # Other people's pages are kept out as ever.
        assert ask("/v1/completions", {"prompt": "x"}, Origin="http://evil.example").status == 403
        assert ask("/v1/completions", {"prompt": "x"}, Host="evil.example").status == 403
        # Somebody far away, by way of a proxy that nobody told us of or that says so, is not of this network.
        far = "8.8.8.8" if near else "127.0.0.1"
        assert ask("/v1/completions", {"prompt": "x"}, X_Forwarded_For=far).status == 401
        for path in ("/", "/login/x"):
            page = appliance.request("GET", path, token=None, headers={"Accept": "text/html"}).body
            assert b"without a token" in page
    finally:
        appliance.stop()


def test_a_proxy_here_that_says_nothing_does_not_let_everybody_into_an_insecure_network(tmp_path: Path) -> None:
    appliance = configured(tmp_path, "[access]\ninsecure_lan = true\n")
    appliance.start()
    try:
        assert appliance.request("POST", "/v1/completions", {"prompt": "x"}, token=None).status == 401
        assert appliance.request("POST", "/v1/completions", {"prompt": "x"}).status == 200
    finally:
        appliance.stop()


def test_whoever_needs_a_token_is_not_told_otherwise(guarded: ScriptedAppliance) -> None:
    page = guarded.request("GET", "/", token=None, headers={"Accept": "text/html"}).body
    assert b"without a token" not in page


def test_only_a_trusted_proxy_speaks_for_others(tmp_path: Path) -> None:
    appliance = configured(
        tmp_path, '[server]\ntrusted_proxies = ["127.0.0.1"]\n[access]\ntokenless = ["192.168.1.0/24"]\n'
    )
    appliance.start()
    try:

        def status(**headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return appliance.request("POST", "/v1/completions", {"prompt": "x"}, token=None, headers=named).status

        assert status() == 401
        assert status(X_Forwarded_For="192.168.1.7") == 200
        assert status(X_Forwarded_For="192.168.1.7, 8.8.8.8") == 401
        assert status(X_Forwarded_For="192.168.1.7", X_Forwarded_Host="evil.example") == 403
        login = appliance.request(
            "POST", "/login", {"token": appliance.token}, token=None, headers={"X-Forwarded-Proto": "https"}
        )
        assert "Secure" in login.headers["Set-Cookie"]
    finally:
        appliance.stop()


def test_what_anybody_says_of_others_does_not_count(guarded: ScriptedAppliance) -> None:
    headers = {"X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "https", "Host": "evil.example"}
    assert guarded.request("GET", "/health", headers=headers).status == 403
    login = guarded.request(
        "POST", "/login", {"token": guarded.token}, token=None, headers={"X-Forwarded-Proto": "https"}
    )
    assert "Secure" not in login.headers["Set-Cookie"]


# ---- connections


def test_one_address_has_so_many_connections(tmp_path: Path) -> None:
    appliance = configured(tmp_path, "[server]\nmax_connections_per_address = 5\n")
    appliance.start()
    held = [socket.create_connection(("127.0.0.1", appliance.port), timeout=60) for _ in range(5)]
    try:
        with socket.create_connection(("127.0.0.1", appliance.port), timeout=60) as one_more:
            answer = _rest(one_more)
        assert answer.startswith(b"HTTP/1.1 429 ")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert int(head.lower().partition(b"content-length: ")[2].split()[0]) == len(body)
        assert json.loads(body)["error"]["code"] == "too_many_requests"
        held.pop().close()
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                assert appliance.request("GET", "/health", token=None).status == 200
                break
            except (AssertionError, OSError):  # it takes a moment until the daemon has seen it close
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
    finally:
        for connection in held:
            connection.close()
        appliance.stop()


IMPATIENT = """
import sys
from rockfill.api import listener, server
from rockfill.api.ws import connection
connection.AUTH_TIMEOUT_S = 1.0
listener.HEADER_TIMEOUT_S = listener.UNREAD_TIMEOUT_S = server.BODY_TIMEOUT_S = 1.0
from tests.fakes.daemon import main
main(sys.argv[1:])
"""


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[ScriptedAppliance]:
    """A daemon that waits for a second where others wait for a minute."""
    running = changed(tmp_path / "state", IMPATIENT)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_a_header_that_never_ends_is_not_waited_for(impatient: ScriptedAppliance, first: bytes) -> None:
    assert listener.HEADER_TIMEOUT_S <= 30
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as connection:
        connection.sendall(first)
        assert _dripped(connection, first[-1:]) == b""


@pytest.mark.parametrize("meanwhile", [b"", b"\x89\x80\0\0\0\0"], ids=["silent", "pings"])
def test_a_websocket_whose_client_does_not_say_who_it_is_ends(impatient: ScriptedAppliance, meanwhile: bytes) -> None:
    deadline_s = time.monotonic() + START_S
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        answer = b""
        while b"\x88\x02\x03\xf0" not in answer:  # a close frame, 1008
            assert time.monotonic() < deadline_s, "it is still open"
            client.sendall(meanwhile)
            time.sleep(0.2)
            with contextlib.suppress(BlockingIOError):
                more = client.recv(65536, socket.MSG_DONTWAIT)
                assert more, answer
                answer += more
    assert b"auth_required" in answer


def test_neither_is_one_after_a_good_request(impatient: ScriptedAppliance) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        time.sleep(1.5)  # doing nothing is allowed for longer
        connection.sendall(b"GET /hea")
        assert _dripped(connection, b"a") == b""


def test_a_body_that_never_ends_is_not_waited_for(impatient: ScriptedAppliance) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {impatient.token}\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        answer = _dripped(connection, b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_answers_that_are_never_read_are_not_kept(impatient: ScriptedAppliance) -> None:
    """More of them than the kernel takes: the connection ends."""
    asked = 2000
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", impatient.port))
        connection.sendall(b"GET /api/protocol.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * asked)
        daemon = psutil.Process(impatient.pid)
        while any(there.raddr == connection.getsockname() for there in daemon.net_connections("tcp")):
            time.sleep(0.05)
        answered = _rest(connection).count(b"HTTP/1.1 200 OK")
    assert 0 < answered < asked / 2


def _dripped(connection: socket.socket, byte: bytes) -> bytes:
    """What comes back while `byte` is sent now and then, up to the end of the connection."""
    deadline_s = time.monotonic() + START_S
    connection.settimeout(0.2)
    found = b""
    while time.monotonic() < deadline_s:
        try:
            more = connection.recv(65536)
            if not more:
                return found
            found += more
        except TimeoutError:
            with contextlib.suppress(OSError):  # what was answered before it ended is still to be read
                connection.sendall(byte)
        except ConnectionResetError:
            return found
    raise AssertionError("the connection is still open")


# ---- logs


def test_neither_token_nor_code_is_logged(tmp_path: Path) -> None:
    appliance = ScriptedAppliance(tmp_path / "state")
    appliance.start()
    token, secret = appliance.token, "hunter2_is_my_password"
    try:
        named = appliance.command("tokens.add", name="ha", scopes=["complete"])["token"]
        nonce = appliance.command("access.link")["path"].rpartition("/")[2]
        for body in ({"prompt": secret}, {"prompt": secret, "n": secret}, {secret: secret}, secret.encode()):
            appliance.request("POST", "/v1/completions", body)
            appliance.request("POST", "/v1/completions", body, token=named)
        appliance.request("GET", f"/{secret}?q={secret}")
        appliance.request("POST", f"/api/command/{secret}", {})
        appliance.request("POST", "/login", {"token": secret}, token=None)
        appliance.request("POST", "/login", {"token": token}, token=None)
        appliance.request("POST", "/v1/completions", {"prompt": "x"}, token=secret)
        appliance.script(text="x", fault={"when": "prefill", "what": "exit"})
        appliance.request("POST", "/v1/completions", {"prompt": secret})
    finally:
        appliance.stop()
    logged = [line for line in appliance.printed if "/#token=" not in line]
    assert any("engine" in line for line in logged)  # the crash was told, so there is a log to look at
    for word in (secret, token, named, nonce):
        assert not any(word in line for line in logged)
