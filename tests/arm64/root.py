"""An arm64 Python below ``build/arm64``: Debian's packages, unpacked, and the two wheels that are not pure Python.

The packages come from the machine's own apt sources, the wheels by its own pip configuration, in the versions and with
the hashes of the locks. Nothing outside that folder is changed, no package is installed, and no privilege is needed.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
TOP = CHECKOUT / "build" / "arm64"
TOOLS = {
    "qemu-aarch64-static": "qemu-user-static",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
PACKAGES = ("python3", "libstdc++6")  # and what these depend on
WHEELS = ("tokenizers", "hypothesis")

_APT_CONF = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
"""


class NotHere(Exception):  # noqa: N818 - what a machine lacks is no error of ours
    """Why this machine can't have such a Python."""


@dataclass(frozen=True, slots=True)
class Arm64:
    """An interpreter, as a command, and the import paths that it needs besides the checkout's."""

    python: Path
    paths: tuple[Path, ...]


def prepare() -> Arm64:
    """The Python, made where it is not there yet. Raises `NotHere`."""
    if missing := [package for tool, package in TOOLS.items() if shutil.which(tool) is None]:
        raise NotHere(f"it needs the Debian packages {' '.join(missing)}")
    if platform.machine() == "aarch64":
        raise NotHere("this machine is one, so that the other tests are these")
    wheels = TOP / f"wheels-{sys.version_info.major}.{sys.version_info.minor}"
    try:
        for made, make in ((TOP / "system", _unpack_packages), (wheels, _unpack_wheels)):
            if not made.exists():
                scratch = made.with_name(f"{made.name}.new")
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
                make(scratch)
                scratch.rename(made)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no reason given"]
        raise NotHere(f"{' '.join(map(str, error.cmd[:2]))} failed: {last[0]}") from None
    python = TOP / "python3"
    python.write_text(f'#!/bin/sh\nexec qemu-aarch64-static -L {TOP}/system {TOP}/system/usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    return Arm64(python, (wheels, Path(sysconfig.get_path("purelib"))))


def _unpack_packages(folder: Path) -> None:
    state, cache = TOP / "apt/state", TOP / "apt/cache"
    for needed in (state / "lists/partial", cache / "archives/partial"):
        needed.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    configuration = TOP / "apt/apt.conf"
    configuration.write_text(_APT_CONF.format(state=state, cache=cache))
    apt = ["apt-get", "-qq", "-c", str(configuration)]
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES)
    for package in sorted((cache / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(folder))


def _unpack_wheels(folder: Path) -> None:
    locks = "\n".join(lock.read_text() for lock in sorted((CHECKOUT / "packaging").glob("requirements*.lock")))
    pins = [re.search(rf"^{name}==(?:.*\\\n)*.*$", locks, re.MULTILINE) for name in WHEELS]
    wanted = TOP / "requirements.txt"
    wanted.write_text("\n".join(pin[0] for pin in pins if pin is not None))
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    target = ["--implementation", "cp", "--python-version", version, "--abi", "abi3", "--abi", f"cp{version}"]
    for glibc in ("2014", "_2_17", "_2_28"):
        target += ["--platform", f"manylinux{glibc}_aarch64"]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download"]
    downloads = TOP / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    _run(*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", *target, "-d", str(downloads), "-r", str(wanted))
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
