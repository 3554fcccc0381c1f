"""The real daemon as a process, for the tests that use it as its users do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
START_S = 120.0
LOWEST_PORT = 20_000  # below, there are some that browsers refuse


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, errors included."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Appliance:
    """One daemon on a loopback port of its own. `start` and `stop` may be called again and again."""

    def __init__(
        self,
        state_dir: Path,
        arguments: Sequence[str] = (),
        *,
        launcher: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`launcher` replaces ``python -m rockfill``; it takes the same arguments. `variables` are added to its
        environment."""
        self.state_dir = state_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = list(arguments)
        self._launcher = list(launcher or (sys.executable, "-m", "rockfill"))
        self.variables = dict(variables or {})
        self._process: subprocess.Popen[str] | None = None
        self.printed: list[str] = []
        self._reader: threading.Thread | None = None

    @property
    def token(self) -> str:
        return (self.state_dir / "token").read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return once it has printed the address of its page."""
        command = [*self._launcher, "serve", "--listen", f"127.0.0.1:{self.port}", "--state-dir", str(self.state_dir)]
        self._process = subprocess.Popen(
            [*command, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**environment(), **self.variables},
        )
        assert self._process.stdout is not None
        self.printed = []
        for line in self._process.stdout:
            self.printed.append(line.rstrip("\n"))
            if "/#token=" in line:
                # As journald does: a daemon whose log nobody empties stops at 64 KiB of it.
                self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
                self._reader.start()
                return
        self._process.wait()
        self._process.stdout.close()
        raise AssertionError("the daemon did not start:\n" + "\n".join(self.printed))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; returns its exit status. Harmless if it is not running."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert self._reader is not None
        self._reader.join()
        process.stdout.close()
        return process.wait(START_S)

    def _read(self, stdout: Iterable[str]) -> None:
        for line in stdout:
            self.printed.append(line.rstrip("\n"))

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        token: str | None = "",
    ) -> Answer:
        """One HTTP exchange. `body` is bytes, or a value sent as JSON; `token` None sends none, "" the right one."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token or self.token}")
        try:
            with urllib.request.urlopen(request, timeout=START_S) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def command(self, type_: str, **parameters: object) -> Any:
        """A command's result; fails the test if it was refused."""
        answer = self.request("POST", f"/api/command/{type_}", parameters)
        assert answer.status == 200, answer.body
        return answer.json()["result"]

    def complete(self, prompt: str, suffix: str | None = None, **fields: object) -> Any:
        """A whole completion's JSON; fails the test if it was refused."""
        body = {"prompt": prompt, "max_tokens": 32, **fields} | ({} if suffix is None else {"suffix": suffix})
        answer = self.request("POST", "/v1/completions", body)
        assert answer.status == 200, answer.body
        return answer.json()

    def wait_for_line(self, *parts: str) -> str:
        """Wait until the daemon has printed a line that holds all of `parts`; returns it."""
        deadline = time.monotonic() + START_S
        while True:
            for line in tuple(self.printed):
                if all(part in line for part in parts):
                    return line
            assert time.monotonic() < deadline, f"no line with {parts} in {self.printed}"
            time.sleep(0.01)

    def wait_for_state(self, *states: str, within_s: float = START_S) -> Any:
        """Wait until the engine is in one of `states`; returns what `engine.get` says then."""
        deadline = time.monotonic() + within_s
        while True:
            value = self.command("engine.get")
            if value["state"] in states:
                return value
            assert time.monotonic() < deadline, f"still {value['state']}: {value['problem']}"
            time.sleep(0.01)


def environment() -> dict[str, str]:
    """What a daemon under test gets: this checkout's code, warnings shown, and nothing of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROCKFILL_", "XDG_", "HF_"))}
    return {**kept, "PYTHONPATH": str(ROOT / "daemon"), "PYTHONUNBUFFERED": "1"}


def _candidates() -> Iterator[int]:
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = list(range(LOWEST_PORT, first_of_kernel)) or [0]
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


_ports = _candidates()


def free_port() -> int:
    """A loopback port that nobody has, and never the same twice.

    It is below those that the kernel gives to whoever names none, or a client's connection could be there before the
    daemon, or between two starts of it.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", next(_ports)))
            port: int = probe.getsockname()[1]
            return port


class ScriptedAppliance(Appliance):
    """A daemon whose worker does as its script says (`fakes/worker.py`)."""

    def __init__(
        self,
        state_dir: Path,
        arguments: Sequence[str] = (),
        *,
        launcher: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        scripted = [sys.executable, str(ROOT / "tests/fakes/daemon.py")]
        super().__init__(state_dir, arguments, launcher=launcher or scripted, variables=variables)
        self._model = state_dir / "models" / "fake"
        self._model.mkdir(parents=True)
        manifest = {"name": "fake", "engine": "fake", "file": "script.json", "family": "codegemma"}
        (self._model / "manifest.json").write_text(json.dumps(manifest))
        self.script()

    def script(self, **script: object) -> None:
        """What the engine does from its next run on."""
        temporary = self._model / "script.new"
        temporary.write_text(json.dumps(script))
        temporary.replace(self._model / "script.json")
