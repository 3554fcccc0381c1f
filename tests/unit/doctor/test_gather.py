"""What is found out beside the board: the Hub and its time, drop-ins, the port, selftests."""

from __future__ import annotations

import grp
import os
import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from rockfill.config import ClockPolicy, Config, Server
from rockfill.doctor.checks import diagnose
from rockfill.doctor.gather import Asked, gather, hub_facts, is_tested, weakened
from rockfill.hardware.board import Account
from rockfill.snapshots import Target
from tests.fakes.boards import armbian_vendor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Hub(HTTPServer):
    """Answers HEAD with a status, and a date that is off by so many seconds."""

    status, off_s = 200, 0.0
    date: str | None = None


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        assert isinstance(self.server, Hub)
        self.send_response_only(self.server.status)
        self.send_header("Date", self.server.date or formatdate(time.time() + self.server.off_s, usegmt=True))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_hub_that_answers(hub: Hub) -> None:
    facts = hub_facts(f"http://127.0.0.1:{hub.server_port}")
    assert facts.problem is None
    assert facts.ahead_s is not None
    assert abs(facts.ahead_s) < 60


def test_a_refusal_is_an_answer_too_and_tells_the_time(hub: Hub) -> None:
    hub.status, hub.off_s = 401, -7200
    facts = hub_facts(f"http://127.0.0.1:{hub.server_port}/x")
    assert facts.problem is None
    assert facts.ahead_s is not None
    assert abs(facts.ahead_s - 7200) < 60


def test_where_encryption_fails_the_time_is_had_without_it(hub: Hub) -> None:
    hub.off_s = 86400
    facts = hub_facts(f"https://127.0.0.1:{hub.server_port}")
    assert facts.problem is not None
    assert "SSL" in facts.problem
    assert facts.ahead_s is not None
    assert abs(facts.ahead_s + 86400) < 60


def test_a_date_that_is_none_is_nothing(hub: Hub) -> None:
    hub.date = "once upon a time"
    assert hub_facts(f"http://127.0.0.1:{hub.server_port}").ahead_s is None


def test_a_hub_that_takes_for_ever_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rockfill.doctor.gather.HUB_LIMIT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        facts = hub_facts(f"http://127.0.0.1:{silent.getsockname()[1]}")
    for asking in threading.enumerate():
        if asking.name == "doctor hub":  # its connection has just ended
            asking.join()
    assert facts.problem == "it did not answer within 0 s"


def test_a_hub_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    facts = hub_facts(f"http://127.0.0.1:{port}")
    assert facts.problem is not None
    assert "refused" in facts.problem
    for wrong in ("file:///etc/passwd", "", "https://"):
        assert hub_facts(wrong).problem == "it is no address"


def test_lines_that_weaken_the_sandbox_are_found_wherever_they_stand(tmp_path: Path) -> None:
    for path, text in {
        "etc/systemd/system/rockfill.service.d/override.conf": "[Service]\nUser=root\nNoNewPrivileges = no\nNice=5\n",
        "run/systemd/system/rockfill.service.d/a.conf": "ProtectSystem=strict\nSystemCallFilter=\n# User=root\n",
        "etc/systemd/system/other.service.d/x.conf": "User=root\n",
        "etc/systemd/system/rockfill.service.d/notes.txt": "User=root\n",
        "usr/local/lib/systemd/system/rockfill.service.d/b.conf": "AmbientCapabilities=CAP_SYS_ADMIN\nUser=rockfill\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert sorted(weakened(tmp_path)) == [
        ("/etc/systemd/system/rockfill.service.d/override.conf", "NoNewPrivileges = no"),
        ("/etc/systemd/system/rockfill.service.d/override.conf", "User=root"),
        ("/run/systemd/system/rockfill.service.d/a.conf", "SystemCallFilter="),
        ("/usr/local/lib/systemd/system/rockfill.service.d/b.conf", "AmbientCapabilities=CAP_SYS_ADMIN"),
    ]
    assert list(weakened(tmp_path / "nowhere")) == []


def test_a_port_of_somebody_else_is_found_and_ours_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        def asked(*, ours: bool) -> Asked:
            account = Account.mine()
            config = Config(server=Server(listen=listen))
            return Asked(config, ClockPolicy.AUTO, tmp_path / "a" / "b", None, None, False, account, ours)

        assert gather(asked(ours=False)).port_taken == listen
        assert gather(asked(ours=True)).port_taken is None
    assert gather(asked(ours=False)).port_taken is None


def test_a_selftest_is_of_a_model_on_an_engine_whatever_the_runtime() -> None:
    target = Target("m", "rkllm", "/models/m.rkllm", None)
    assert is_tested({"rkllm|/models/m.rkllm|/usr/lib/librkllmrt.so": {}}, target)
    assert not is_tested({"llama|/models/m.rkllm|": {}, "rkllm|/models/m.rkllm2|": {}}, target)


RKLLM = "codegemma-2b-{}-w8a8-opt-1-hybrid-ratio-0.5.rkllm"


@pytest.mark.parametrize(
    ("platform", "runtime", "refused"),
    [("rk3588", b"<html>", False), ("rk3576", b"<html>", True)],
)
def test_the_chosen_model_is_held_against_board_and_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, runtime: bytes, *, refused: bool
) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path / "root"))
    armbian_vendor(tmp_path / "root")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/librkllmrt.so").write_bytes(runtime)
    (tmp_path / "lib/libgomp.so.1").touch()
    name = RKLLM.format(platform)
    target = Target("codegemma:2b", "rkllm", str(tmp_path / f"codegemma-2b-{platform}-1.1.2" / name), "codegemma")
    account = Account.mine()
    asked = Asked(Config(), ClockPolicy.AUTO, tmp_path, None, target, False, account, port_is_ours=True)
    facts = gather(asked, libraries=[tmp_path / "lib"])
    assert facts.model is not None
    assert any(refuses for refuses, _, _ in facts.model.misfits) == refused
    [found] = facts.runtimes
    assert found.problem is not None
    assert "web page" in found.problem
    assert facts.libgomp
    assert facts.hub is None  # it was not asked
    levels = {finding.check: finding.level for finding in diagnose(facts)}
    assert levels["runtime"] == "problem"
    assert levels["selftest"] == "warning"


def test_an_account_is_what_the_system_says_of_it() -> None:
    root = Account.named("root")
    assert root is not None
    assert (root.uid, 0 in root.gids) == (0, True)
    assert Account.named("nobody-of-that-name") is None
    group = grp.getgrall()[-1]
    also = Account.named("root", also=(group.gr_name, "a-group-that-is-not-there"))
    assert also is not None
    assert also.gids == root.gids | {group.gr_gid}
    assert Account.mine().uid == os.geteuid()
