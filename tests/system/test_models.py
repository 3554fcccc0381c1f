"""Models as their users get them: through a daemon, and on the command line with and without one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.appliance import ROOT, Appliance, environment
from tests.fakes.hub import FileSpec, HubServer
from tests.fakes.rkllm_simulator import build
from tests.not_run import not_run
from tests.npu import NpuAppliance
from tests.proxy import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB = 1 << 20
[TINY] = (ROOT / "daemon/rockfill/bundled/rockfill-tiny").glob("*.gguf")
REPOSITORY = "user/rockfill-tiny-GGUF"
NAME = "rockfill-tiny-q8_0"  # since the bundled one has the shorter name
BIG = "user/Qwen2.5-Coder-0.5B-GGUF"
GEMMA = "user/codegemma-2b-GGUF"


@pytest.fixture
def offered(hub: HubServer) -> HubServer:
    hub.add(REPOSITORY, {"rockfill-tiny-q8_0.gguf": FileSpec(path=str(TINY))})
    hub.add(BIG, {"qwen2.5-coder-0.5b-q8_0.gguf": FileSpec(size_bytes=24 * MIB)})
    hub.add(GEMMA, {"codegemma-2b-q8_0.gguf": FileSpec(size_bytes=1000)}, licence="gemma")
    return hub


@pytest.fixture
def served(offered: HubServer, tmp_path: Path) -> Iterator[Appliance]:
    """A daemon that gets its models from the stand-in."""
    running = Appliance(tmp_path / "state", variables={"HF_ENDPOINT": offered.url})
    running.start()
    yield running
    running.stop()


def rockfill(
    hub: HubServer, state: Path, *arguments: str, launcher: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line, with what it needs to find the stand-in and the state directory and nothing else."""
    variables = {"HF_ENDPOINT": hub.url, "ROCKFILL_STATE_DIR": str(state), **variables}
    return subprocess.run(
        [*launcher, sys.executable, "-m", "rockfill", *arguments],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
        stdin=subprocess.DEVNULL,
    )


def download(appliance: Appliance, *states: str) -> Any:
    """Wait until the only download is in one of `states`."""
    while True:
        [job] = appliance.command("models.downloads")["downloads"]
        if job["state"] in states:
            return job
        time.sleep(0.02)


# ---- through the daemon


def test_what_is_chosen_is_fetched_then_run_and_whoever_asks_meanwhile_is_told(
    served: Appliance, offered: HubServer
) -> None:
    offered.slow_down(MIB // 8)
    answer = served.command("models.use", model=REPOSITORY)
    assert (answer["model"], answer["installed"]) == (NAME, False)
    body = {"prompt": "def add(a, b):\n    return ", "model": NAME, "max_tokens": 8}
    for path, prompt in (("/v1/completions", body), ("/v1/completions", {**body, "model": ""})):
        told = served.request("POST", path, prompt)
        assert told.status == 503
        assert told.json()["error"]["code"] == "model_fetching"
        assert "%" in told.json()["error"]["message"]
        assert int(told.headers["Retry-After"]) >= 1
    assert served.complete("def add(a, b):\n    return ", model="rockfill-tiny")["model"] == "rockfill-tiny"
    offered.slow_down(0)
    download(served, "done")
    while served.command("engine.get")["model"]["name"] != NAME:
        time.sleep(0.02)
    served.wait_for_state("ready")
    assert served.complete("def add(a, b):\n    return ", model="")["model"] == NAME
    score = {"name": "tasks", "count": 4, "passed": 0.5, "exact": 0, "similarity": 0.5, "loops": 0, "median_s": 1}
    served.command("evaluations.keep", questions="q", sha256="ab", seed=0, limit=None, scores=[score])
    offering = rockfill(offered, served.state_dir, "models", "variants", REPOSITORY)
    assert "Measured: rockfill-tiny-q8_0.gguf\n  q on llama.cpp" in offering.stdout, offering.stderr
    assert "tasks: pass@1 50.0 % ± 25.0" in offering.stdout
    assert served.command("models.show")["name"] == NAME
    served.stop()
    served.start()
    assert served.command("engine.get")["model"]["name"] == NAME, "and is remembered"


def test_a_download_goes_on_by_itself_after_a_kill(served: Appliance, offered: HubServer) -> None:
    offered.fail("hold", path=".gguf", after_bytes=8 * MIB, times=0)
    served.command("models.pull", model=BIG)
    while download(served, "queued", "fetching")["done_bytes"] < 4 * MIB:
        time.sleep(0.02)
    served.stop(signal.SIGTERM)  # what has come is written down
    offered.heal()
    before = offered.sent_bytes()
    served.start()
    assert download(served, "done")["name"] == "qwen2.5-coder:0.5b"
    assert served.command("models.verify", model="qwen2.5-coder:0.5b")["ok"]
    assert offered.sent_bytes() - before < 21 * MIB, "not from the beginning"
    offered.fail("hold", path=".gguf", after_bytes=8 * MIB, times=0)
    served.command("models.remove", model="qwen2.5-coder:0.5b")
    served.command("models.pull", model=BIG)
    while download(served, "queued", "fetching")["done_bytes"] < MIB:
        time.sleep(0.02)
    served.stop(signal.SIGKILL)
    offered.heal()
    served.start()
    download(served, "done")
    assert served.command("models.verify", model="qwen2.5-coder:0.5b")["ok"]


def test_the_chosen_model_is_not_removed_and_what_is_not_ours_neither(served: Appliance) -> None:
    served.command("models.pull", model=REPOSITORY)
    download(served, "done")
    served.command("models.use", model=NAME)
    for model, code in ((NAME, "not_removable"), ("rockfill-tiny", "not_removable"), ("none", "model_not_found")):
        answer = served.request("POST", "/api/command/models.remove", {"model": model})
        assert answer.json()["error"]["code"] == code
    served.command("models.use", model="rockfill-tiny")
    assert served.command("models.remove", model=NAME)["left"] == []
    assert [model["name"] for model in served.command("models.list")["models"]] == ["rockfill-tiny"]


def test_a_licence_is_shown_before_a_byte_comes(served: Appliance, offered: HubServer) -> None:
    answer = served.request("POST", "/api/command/models.pull", {"model": GEMMA})
    assert answer.status == 409
    error = answer.json()["error"]
    assert (error["code"], error["detail"]["url"]) == ("licence_not_accepted", "https://ai.google.dev/gemma/terms")
    assert offered.sent_bytes() == 0
    served.command("models.pull", model=GEMMA, accept_licence=True)
    download(served, "done")


def test_a_token_is_stored_for_us_alone_and_never_told(served: Appliance, offered: HubServer) -> None:
    offered.know("hf_good", "somebody")
    bad = served.request("POST", "/api/command/hub.login", {"token": "hf_bad"})
    assert bad.json()["error"]["code"] == "unauthorized"
    assert not served.command("hub.get")["has_token"]
    assert served.command("hub.login", token="hf_good") == {"account": "somebody"}
    file = served.state_dir / "hub-token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert served.command("hub.get") == {"endpoint": offered.url, "has_token": True}
    offered.add("google/x-GGUF", {"x-q8_0.gguf": FileSpec(size_bytes=9)}, gated=True, token="hf_good")
    served.command("models.pull", model="google/x-GGUF")
    download(served, "done")
    served.command("hub.logout")
    assert not file.exists()


# ---- on the command line


@pytest.mark.timeout(600)
def test_the_command_line_says_the_same_with_and_without_a_daemon(
    served: Appliance, offered: HubServer, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    for state in (served.state_dir, alone):
        pulled = rockfill(offered, state, "models", "pull", BIG)
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stdout == "qwen2.5-coder:0.5b is here. `rockfill models use qwen2.5-coder:0.5b` runs it.\n"
    for command in (
        ["models", "list", "--json"],
        ["models", "variants", BIG, "--json"],
        ["models", "show", "qwen2.5-coder:0.5b", "--json"],
        ["runtime", "list", "--json"],
    ):
        through, here = (rockfill(offered, state, *command) for state in (served.state_dir, alone))
        assert through.returncode == here.returncode == 0
        assert json.loads(through.stdout.replace(str(served.state_dir), "")) == json.loads(
            here.stdout.replace(str(alone), "")
        )
    for state in (served.state_dir, alone):
        assert rockfill(offered, state, "models", "rm", "qwen2.5-coder:0.5b").returncode == 0
        assert "qwen" not in rockfill(offered, state, "models", "list").stdout
        refused = rockfill(offered, state, "models", "pull", GEMMA)
        assert refused.returncode == 1
        assert "Gemma Terms of Use" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_choice_made_without_a_daemon_holds_for_the_next_one(offered: HubServer, tmp_path: Path) -> None:
    used = rockfill(offered, tmp_path / "state", "models", "use", REPOSITORY)
    assert used.stdout == f"{NAME} is the chosen model.\n", used.stderr
    appliance = Appliance(tmp_path / "state")
    appliance.start()
    try:
        assert appliance.command("engine.get")["model"]["name"] == NAME
    finally:
        appliance.stop()


def test_a_licence_is_asked_about_where_somebody_sits(offered: HubServer, tmp_path: Path) -> None:
    shown = {answer: _at_a_terminal(offered, tmp_path / answer, f"{answer}\n") for answer in ("n", "y")}
    for text, _ in shown.values():
        assert "https://ai.google.dev/gemma/terms" in text
        assert "Do you accept it? [y/N]" in text
    assert shown["n"][1] == 1
    text, status = shown["y"]
    assert status == 0
    assert "100 %" in text
    assert "########" in text


def _at_a_terminal(hub: HubServer, state: Path, answer: str) -> tuple[str, int]:
    """What somebody sees who fetches a model and answers the question; and the exit status."""
    ours, theirs = pty.openpty()
    variables = {**environment(), "HF_ENDPOINT": hub.url, "ROCKFILL_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "rockfill", "models", "pull", GEMMA]
    with subprocess.Popen(command, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        seen = b""
        while select.select([ours], [], [], 120)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    return seen.decode(), process.returncode


def test_root_leaves_files_that_the_service_can_manage(offered: HubServer, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        not_run("sudo", "not root")
    nobody = 65534
    # Where that user may go: everything above the state directory belongs to root.
    place = Path(os.environ.get("TMPDIR") or "/tmp") / f"rockfill-test-{os.getpid()}"
    state = place / "state"
    state.mkdir(parents=True)
    try:
        place.chmod(0o755)
        os.chown(state, nobody, nobody)
        # The capabilities are kept beyond the change of user, since this Python may be one that only root can read.
        keeping = ["setpriv", "--securebits", "+no_setuid_fixup"]
        pulled = rockfill(offered, state, "models", "pull", REPOSITORY, launcher=keeping)
        assert pulled.returncode == 0, pulled.stderr
        owners = {path: path.lstat().st_uid for path in state.rglob("*")}
        assert set(owners.values()) == {nobody}, owners
        assert (state / f"models/{NAME}/manifest.json").is_file()
    finally:
        shutil.rmtree(place)


def test_a_command_that_holds_the_directory_is_named_to_the_next(offered: HubServer, tmp_path: Path) -> None:
    offered.slow_down(MIB // 16)  # it lasts for minutes
    state = tmp_path / "state"
    variables = {**environment(), "HF_ENDPOINT": offered.url, "ROCKFILL_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "rockfill", "models", "pull", BIG]
    with subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        while not offered.sent_bytes(".gguf"):
            time.sleep(0.02)
        second = rockfill(offered, state, "models", "list", ROCKFILL_URL="")
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=120)
    assert second.returncode == 69
    assert f"process {first.pid}" in second.stderr
    assert first.returncode == 130
    assert "What has come is kept" in said
    assert "Traceback" not in said
    offered.slow_down(0)
    offered.forget()
    assert rockfill(offered, state, "models", "pull", BIG).returncode == 0
    assert offered.sent_bytes() < 24 * MIB


# ---- through a proxy


class _Proxy(threading.Thread):
    """An HTTP proxy that answers CONNECT, and remembers where to."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        self._serving: list[threading.Thread] = []

    def run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._serving.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
            self._serving[-1].start()

    def close(self) -> None:
        """Return once nothing of it is left; whoever used it is gone already."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self._listener.close()
        for thread in self._serving:
            thread.join()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):  # either end may go in the middle of what the other says
            head = b""
            while b"\r\n\r\n" not in head:
                head += peer.recv(4096)
            line = head.partition(b"\r\n")[0].decode()
            self.asked.append(line)
            host, _, port = line.split()[1].rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                ends = [peer, there]
                while True:
                    for end in select.select(ends, [], [])[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        ends[end is peer].sendall(data)


def test_everything_goes_through_the_proxy_that_is_named(tmp_path: Path) -> None:
    made = certificate(tmp_path, "127.0.0.1", "localhost")
    proxy = _Proxy()
    proxy.start()
    with HubServer(certificate=(str(made.cert), str(made.key))) as hub:
        hub.add(BIG, {"qwen2.5-coder-0.5b-q8_0.gguf": FileSpec(size_bytes=MIB)})
        variables = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(made.cert)}
        pulled = rockfill(hub, tmp_path / "state", "models", "pull", BIG, **variables)
        assert pulled.returncode == 0, pulled.stderr
        hosts = {line.split()[1] for line in proxy.asked}
        assert hosts == {hub.url.removeprefix("https://"), hub.files_url.removeprefix("https://")}
        proxy.close()
        refused = rockfill(hub, tmp_path / "state", "models", "variants", BIG, **variables)
        assert refused.returncode == 1
        assert "HTTPS_PROXY" in refused.stderr


def test_a_model_that_only_lacked_a_runtime_is_run_once_there_is_one(tmp_path: Path) -> None:
    appliance = NpuAppliance(tmp_path, library="")
    appliance.start()
    try:
        engine = appliance.wait_for_state("ready")
        assert engine["model"]["name"] == "rockfill-tiny"
        assert engine["instead_of"]["problem"]["code"] == "runtime_missing"
        assert "rockfill runtime install" in engine["instead_of"]["problem"]["advice"]
        installed = appliance.command("runtimes.install", path=str(build("1.2.1")))
        assert installed == {"version": "1.2.3", "installed": True, "download": None}
        while appliance.command("engine.get")["model"]["demonstration"]:
            time.sleep(0.02)
        assert appliance.wait_for_state("ready")["instead_of"] is None
        [runtime] = appliance.command("runtimes.list")["runtimes"]
        assert (runtime["version"], runtime["origin"], runtime["official"]) == ("1.2.3", "installed", False)
        assert appliance.command("runtimes.use", version="1.2.3") == {"pinned": "1.2.3"}
        assert appliance.command("runtimes.remove", version="1.2.3")["left"] == []
        assert appliance.command("runtimes.list")["pinned"] is None
    finally:
        appliance.stop()
