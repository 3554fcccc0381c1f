"""An arm64 Debian below ``.cache/``: root file system and kernel, made once under qemu's user mode, in ten minutes."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.not_run import not_run
from tests.packaging.booted import TRIXIE, made_once

MAKE_S = 3000.0
BINFMT = Path("/proc/sys/fs/binfmt_misc")
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "update-binfmts": "binfmt-support",
}

# What the packages depend on, and what a machine of its own needs beside it: systemd, and a shell to type into.
PACKAGES = (
    *("python3", "python3-jinja2", "python3-psutil", "python3-sdnotify", "python3-yaml"),
    *("libgcc-s1", "libgomp1", "libstdc++6"),
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "sudo", "openssh-server"),
)

# The kernel is unpacked and not installed: its package would make an initramfs, under emulation, which nobody needs
# where the whole system is one. mmdebstrap's own apt is the host's, for arm64.
KERNEL = """\
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
name=$(apt-cache depends linux-image-cloud-arm64 | sed -n 's/^ *Depends: \\(linux-image-[^ ]*\\)$/\\1/p')
cd "$1/var/cache/apt/archives"
apt-get -q download "$name"
mkdir kernel
dpkg-deb --extract "$name"_*.deb kernel
cp -a kernel/boot/. "$1/boot/"
cp -a kernel/usr/lib/modules "$1/usr/lib/"
chroot "$1" depmod "${name#linux-image-}"
rm -r kernel "$name"_*.deb
"""


def require(what: str, tools: dict[str, str]) -> None:
    """End the test as not run where this machine lacks one of `tools`, or may not mount."""
    if missing := [package for tool, package in tools.items() if shutil.which(tool) is None]:
        not_run(what, f"it needs the Debian packages {' '.join(sorted(set(missing)))}")
    if os.geteuid() != 0:
        not_run(what, "only root may make the root file system")


def root(what: str) -> Path:
    """The root file system of an arm64 trixie. Ends the test `what` as not run where that can't be had."""
    require(what, TOOLS)
    if platform.machine() == "aarch64":
        not_run(what, "this machine is one: tests/packaging/test_installed.py is this")
    if not (BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            not_run(what, "binfmt_misc can't be mounted")
    subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not (BINFMT / "qemu-aarch64").exists():
        not_run(what, "qemu-aarch64 can't be made the interpreter of arm64 programs")
    options = ["--arch=arm64", f"--customize-hook={KERNEL}"]
    return made_once(what, TRIXIE, PACKAGES, options, within_s=MAKE_S)
