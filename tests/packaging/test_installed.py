"""The packages, installed by apt in a booted system, used, upgraded, removed and purged, as their users do it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.packaging.booted import MAKE_S, booted
from tests.packaging.installed import APT, APT_S, Installed, until
from tests.packaging.packages import BUILD_S, built, native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(MAKE_S + BUILD_S + APT_S)


@pytest.fixture(scope="module", params=["trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, suite: str) -> Path:
    """What the machine finds at /folder: the packages."""
    folder = tmp_path_factory.mktemp(suite)
    for package in built(native()).values():
        shutil.copy(package, folder)
    return folder


@pytest.fixture(scope="module")
def installed(folder: Path, suite: str) -> Iterator[Installed]:
    with booted(folder, suite, own_network=True) as machine:
        service = Installed(machine)
        service.apt("update", online=True)
        service.sh("sh", "-c", f"cd /folder && {' '.join(APT)} install ./*.deb", online=True, within_s=APT_S)
        yield service


def test_it_completes_code_as_a_user_of_its_own(installed: Installed) -> None:
    until(lambda: installed.request("GET", "/ready", token=None).status == 200, "the model is not ready")
    assert installed.complete("def add(a, b):\n    return ", "\n")["choices"][0]["text"]
    assert installed.request("GET", "/", token=None).status == 200
    assert installed.request("GET", "/v1/models", token=None).status == 401
    assert installed.tells("ActiveState") == "active"
    assert installed.sh("ps", "-o", "user=", "-p", installed.tells("MainPID")).split() == ["rockfill"]


def test_the_journal_says_what_runs_and_not_the_token(installed: Installed) -> None:
    until(lambda: "Listening on" in installed.journal(), "it does not say where it listens")
    assert "Running rockfill-tiny" in installed.journal()
    assert installed.token not in installed.sh("journalctl", "--no-pager")


def test_the_sandbox_is_tight(installed: Installed) -> None:
    *_, verdict = installed.sh("systemd-analyze", "security", "--no-pager", "rockfill").strip().splitlines()
    found = re.search(r"exposure level for rockfill.service: ([\d.]+)", verdict)
    assert found is not None, verdict
    assert float(found[1]) <= 2.0
