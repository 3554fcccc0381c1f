"""The Debian packages of this checkout, built once for each state of it and kept in ``build/``."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from debian_build import ROOT, build, digest

from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAMES = ("rockfill", "rockfill-cpu")
TOOLS = ("dpkg-buildpackage", "dh")
BUILD_S = 1200.0
LEVEL = 1  # of compression: that takes longer than all the rest


def native() -> str:
    """This machine's architecture, as Debian calls it."""
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def built(architecture: str) -> dict[str, Path]:
    """The packages by name. Ends the test as not run where this machine can't build them."""
    strip = {"amd64": "x86_64-linux-gnu-strip", "arm64": "aarch64-linux-gnu-strip"}[architecture]
    if missing := [tool for tool in (*TOOLS, strip) if shutil.which(tool) is None]:
        not_run("debian packages", f"{', '.join(missing)} missing")
    folder = ROOT / "build" / "packages" / digest(architecture)
    if not folder.exists():
        unfinished = folder.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        build(architecture, unfinished, compression_level=LEVEL)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return {name: _package(folder, name) for name in NAMES}


def _package(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"{name}_*.deb")
    return path


def repacked(package: Path, version: str, folder: Path, files: Mapping[str, str]) -> Path:
    """`package` as another version of itself, with other content in some of its files."""
    tree = folder / f"{package.stem}.{version}"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    was = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    # The dependency of one package on the other's version, too.
    control.write_text(control.read_text().replace(was.removeprefix("Version: "), version))
    for name, text in files.items():
        (tree / name).write_text(text)
    made = folder / f"{package.name.partition('_')[0]}_{version}_{package.stem.rpartition('_')[2]}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], check=True, capture_output=True)
    shutil.rmtree(tree)
    return made
