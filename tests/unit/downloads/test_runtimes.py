"""Rockchip's runtime: found, fetched and verified, matched to a model. The libraries are those of the simulator."""

from __future__ import annotations

import asyncio
import shutil
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from rockfill.compat.runtime import git_blob_id
from rockfill.downloads import plan
from rockfill.downloads.plan import plan_runtime
from rockfill.errors import Code, Problem
from tests.fakes import rkllm_simulator
from tests.fakes.hub import FileSpec
from tests.not_run import not_run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.hub import HubServer
    from tests.unit.downloads.conftest import Place

VENDOR = "airockchip/rknn-llm"
PATH = "rkllm-runtime/Linux/librkllm_api/aarch64/librkllmrt.so"
LICENCE = FileSpec(text="Redistribution and use in source and binary forms …", lfs=False)


@pytest.fixture(scope="session")
def libraries() -> dict[str, Path]:
    """A library by the version that it says it is."""
    if rkllm_simulator.compiler() is None:
        not_run("rkllm simulator", "no C compiler")
    return {rkllm_simulator.VERSIONS[name]: rkllm_simulator.build(name) for name in ("1.1", "1.2.0", "1.2.1", "1.3")}


@pytest.fixture
def vendor(hub: HubServer, libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor whose releases are those libraries, and a table of ids that knows them."""
    files = {}
    for version, library in libraries.items():
        files[f"release-v{version}/{PATH}"] = FileSpec(path=str(library))
        files[f"release-v{version}/LICENSE"] = LICENCE
    hub.add(VENDOR, files)
    known = {version: git_blob_id(library.read_bytes()) for version, library in libraries.items()}
    monkeypatch.setattr(plan, "OFFICIAL_BLOB_IDS", MappingProxyType(known))
    monkeypatch.setattr(plan, "_RUNTIME_LICENCE_BLOB_IDS", {"": LICENCE.blob_id()})


def directory(place: Place, version: str) -> Path:
    return place.state.path / "runtimes" / version


@pytest.mark.usefixtures("vendor")
async def test_releases_are_fetched_with_their_licence_and_kept_side_by_side(place: Place) -> None:
    for version in ("1.2.3", "1.3.0", ""):
        await place.runtimes.install(version)
    jobs = await place.work()
    assert {name: job.state for name, job in jobs.items()} == {"1.2.3": "done", "1.3.0": "done"}
    assert place.runtimes.usable_versions == ("1.2.3", "1.3.0")
    assert {path.name for path in directory(place, "1.2.3").iterdir()} == {"librkllmrt.so", "LICENSE", "manifest.json"}
    assert (directory(place, "1.2.3") / "LICENSE").read_text() == LICENCE.text
    assert await place.runtimes.install("1.2.3") is None, "it is here"


async def test_what_is_no_official_build_is_thrown_away(place: Place, hub: HubServer) -> None:
    hub.add(VENDOR, {f"release-v1.2.3/{PATH}": FileSpec(size_bytes=5000), "release-v1.2.3/LICENSE": LICENCE})
    await place.runtimes.install("1.2.3")
    job = (await place.work())["1.2.3"]
    assert job.problem is not None
    assert job.problem.code is Code.DOWNLOAD_CORRUPT
    assert place.runtimes.found == ()


async def test_a_version_that_nothing_vouches_for_is_not_fetched(place: Place, hub: HubServer) -> None:
    for version in ("1.3.1", "1.0.1", "../1.2.3", "latest"):
        with pytest.raises(Problem) as caught:
            await place.runtimes.install(version)
        assert caught.value.code is Code.RUNTIME_UNSUPPORTED
        assert "1.2.3" in caught.value.advice
    assert hub.log == []


@pytest.mark.parametrize(
    ("version", "path", "licence"),
    [
        ("1.1.3", "rkllm-runtime/runtime/Linux/librkllm_api/aarch64/librkllmrt.so", "0bc8afcf"),
        ("1.1.4", PATH, "0bc8afcf"),
        ("1.2.1b1", PATH, "0bc8afcf"),
        ("1.3.0", PATH, "347d9ab7"),
    ],
)
def test_where_a_release_is(version: str, path: str, licence: str) -> None:
    """As the trees of airockchip/rknn-llm have it at each tag."""
    library, text = plan_runtime(version, "https://github.com/airockchip/rknn-llm/").files
    assert library.address == f"https://github.com/airockchip/rknn-llm/raw/release-v{version}/{path}"
    assert text.address == f"https://github.com/airockchip/rknn-llm/raw/release-v{version}/LICENSE"
    assert text.blob_id is not None
    assert text.blob_id.startswith(licence)


async def test_a_file_is_installed_for_a_board_without_a_network(
    place: Place, libraries: dict[str, Path], tmp_path: Path, hub: HubServer
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    shutil.copy(libraries["1.3.0"], stick / "renamed.so")
    (stick / "LICENSE").write_text("mine")
    assert await place.runtimes.install_file(stick / "renamed.so") == "1.3.0"
    assert (directory(place, "1.3.0") / "LICENSE").read_text() == "mine"
    assert place.runtimes.usable_versions == ("1.3.0",)
    (stick / "page.so").write_text("<html>")
    for name, code in (("page.so", Code.RUNTIME_UNSUPPORTED), ("none.so", Code.FILE_UNREADABLE)):
        with pytest.raises(Problem) as caught:
            await place.runtimes.install_file(stick / name)
        assert caught.value.code is code
    assert hub.log == []


@pytest.mark.usefixtures("vendor")
async def test_each_model_is_run_with_what_suits_it_unless_somebody_chose(
    place: Place, libraries: dict[str, Path], tmp_path: Path
) -> None:
    system = tmp_path / "usr/lib"
    system.mkdir(parents=True)
    shutil.copy(libraries["1.2.0"], system / "librkllmrt.so")
    place.system = (system,)
    await place.reopen()
    await place.runtimes.refresh()
    assert place.runtimes.library_for("1.1.1") == system / "librkllmrt.so"
    with pytest.raises(Problem) as caught:
        place.runtimes.library_for("1.2.3")
    assert caught.value.code is Code.RUNTIME_MISSING
    assert "runtime install 1.2.3" in caught.value.advice
    for version in ("1.2.3", "1.3.0"):
        await place.runtimes.install(version)
    await place.work()
    for converter, version in (("1.1.1", "1.2.3"), ("1.2.1", "1.2.3"), ("1.3.0", "1.3.0"), (None, "1.2.3")):
        assert place.runtimes.library_for(converter) == directory(place, version) / "librkllmrt.so"
    assert await place.runtimes.use("1.3.0") == "1.3.0"
    assert place.runtimes.library_for("1.1.1") == directory(place, "1.3.0") / "librkllmrt.so"
    await place.reopen()
    assert place.runtimes.pinned == "1.3.0", "it is remembered"
    assert await place.runtimes.use("auto") is None
    with pytest.raises(Problem) as caught:
        await place.runtimes.use("1.1.0")
    assert caught.value.code is Code.NOT_FOUND


async def test_a_library_that_does_not_tell_its_version_is_better_than_none(
    place: Place, libraries: dict[str, Path], tmp_path: Path
) -> None:
    """1.1 does not; the worker finds out what it speaks, or refuses it."""
    await place.runtimes.refresh()
    with pytest.raises(Problem) as caught:
        place.runtimes.library_for("1.1.1")
    assert caught.value.code is Code.RUNTIME_MISSING
    system = tmp_path / "usr/lib"
    system.mkdir(parents=True)
    shutil.copy(libraries["1.1.4"], system / "librkllmrt.so")
    place.system = (system,)
    await place.reopen()
    await place.runtimes.refresh()
    assert place.runtimes.library_for("1.1.1") == system / "librkllmrt.so"


@pytest.mark.usefixtures("vendor")
async def test_what_the_configuration_names_is_the_one(
    place: Place, libraries: dict[str, Path], tmp_path: Path
) -> None:
    await place.runtimes.install("1.2.3")
    await place.work()
    place.configured = str(libraries["1.1.4"])
    await place.reopen()
    await place.runtimes.refresh()
    assert place.runtimes.library_for("1.3.0") == libraries["1.1.4"]
    choice = place.runtimes.choice_for("1.3.0")
    assert choice is not None
    assert choice.reason == "named in the configuration"


@pytest.mark.usefixtures("vendor")
async def test_only_what_rockfill_installed_is_removed(
    place: Place, libraries: dict[str, Path], tmp_path: Path
) -> None:
    system = tmp_path / "usr/lib"
    system.mkdir(parents=True)
    shutil.copy(libraries["1.2.0"], system / "librkllmrt.so")
    place.system = (system,)
    await place.reopen()
    await place.runtimes.install("1.2.3")
    await place.work()
    await place.runtimes.use("1.2.3")
    with pytest.raises(Problem) as caught:
        await place.runtimes.remove("1.2.0")
    assert caught.value.code is Code.NOT_REMOVABLE
    assert await place.runtimes.remove("1.2.3") == []
    assert not await asyncio.to_thread(directory(place, "1.2.3").exists)
    assert (place.runtimes.pinned, place.runtimes.usable_versions) == (None, ("1.2.0",))
