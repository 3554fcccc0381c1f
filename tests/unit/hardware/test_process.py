"""What the kernel tells of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rockfill.hardware.process import is_at_work

if TYPE_CHECKING:
    from collections.abc import Iterator

SPINS = "print('spins', flush=True)\nwhile True: pass"
SLEEPS = "import signal\nprint('sleeps', flush=True)\nsignal.pause()"


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("child", [SPINS], indirect=True)
def test_one_that_computes_or_waits_for_its_turn_to_is_at_work(child: subprocess.Popen[str]) -> None:
    assert is_at_work(child.pid)


@pytest.mark.parametrize("child", [SPINS], indirect=True)
def test_one_that_was_stopped_is_not(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert not is_at_work(child.pid)


@pytest.mark.parametrize("child", [SLEEPS], indirect=True)
def test_nor_is_one_that_sleeps(child: subprocess.Popen[str]) -> None:
    while is_at_work(child.pid):  # what it printed may come before it sleeps
        pass
    assert not is_at_work(child.pid)


def test_nor_is_one_that_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not is_at_work(gone.pid)
