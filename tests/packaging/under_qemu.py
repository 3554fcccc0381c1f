"""The arm64 packages in an arm64 Debian under qemu's user mode. The name keeps it out of ``make test``.

It takes minutes. There is no systemd in it (qemu 7.2 starts its services in vain), so that apt installs, and the daemon
is started as its user by hand. The root file system is made once and kept in ``.cache/``; what is installed goes to a
layer above it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.appliance import ROOT, _free_port
from tests.not_run import not_run
from tests.packaging.packages import built

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = ("mmdebstrap", "qemu-aarch64-static", "update-binfmts", "unshare", "setpriv")
PACKAGES = ("python3", "python3-jinja2", "python3-psutil", "python3-sdnotify", "python3-yaml", "libgomp1", "libstdc++6")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
MAKE_S, INSTALL_S, START_S = 3000.0, 1500.0, 900.0

# Every program runs some 20 times slower: what a worker may take to start natively is far too little.
CONFIG = '[server]\nlisten = "127.0.0.1:{port}"\n[engine]\nhello_timeout_s = 600\nload_timeout_s = 600\n'

# In a mount namespace of its own: the packages' changes go to memory. $1 root, $2 a folder for that, the rest is run.
LAYER = """
set -e
root=$1 layer=$2
shift 2
mount -t tmpfs tmpfs $layer
mkdir $layer/upper $layer/work $layer/root
mount -t overlay -o lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work overlay $layer/root
for folder in proc sys dev; do mount --rbind /$folder $layer/root/$folder; done
mkdir -p $layer/root/folder && mount --bind "$FOLDER" $layer/root/folder
exec chroot $layer/root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
"""
INSIDE = """
set -e
apt-get -q -y --no-install-recommends install ./folder/rockfill_*.deb ./folder/rockfill-cpu_*.deb
cp /folder/config.toml /etc/rockfill/config.toml
mkdir -p /var/lib/rockfill && chown rockfill:rockfill /var/lib/rockfill
touch /folder/installed
exec setpriv --reuid=rockfill --regid=rockfill --clear-groups rockfill serve
"""


@pytest.fixture(scope="module")
def root() -> Path:
    """An arm64 trixie with what the packages depend on."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        not_run("arm64 packages", f"{', '.join(missing)} missing")
    if os.geteuid() != 0:
        not_run("arm64 packages", "only root may mount")
    if platform.machine() == "aarch64":
        not_run("arm64 packages", "this machine is one: tests/packaging/test_installed.py is this")
    if not (BINFMT / "register").exists():
        mounted = subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            not_run("arm64 packages", "binfmt_misc can't be mounted")
    subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not (BINFMT / "qemu-aarch64").exists():
        not_run("arm64 packages", "qemu-aarch64 can't be made the interpreter of arm64 programs")
    made = ROOT / ".cache" / "root-trixie-arm64"
    if not made.exists():
        unfinished = made.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        include = ",".join((*PACKAGES, "systemd-standalone-sysusers"))
        command = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=minbase", f"--include={include}", "trixie"]
        done = subprocess.run([*command, unfinished], capture_output=True, text=True, timeout=MAKE_S, check=False)
        if done.returncode != 0:
            not_run("arm64 packages", f"mmdebstrap failed: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(made)
    return made


@contextlib.contextmanager
def _serving(root: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    layer = folder.with_name("layer")
    layer.mkdir()
    inside = ("sh", "-c", INSIDE)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", LAYER, "sh"), root, layer, *inside],
            env={**os.environ, "FOLDER": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _ask(port: int, method: str, path: str, token: str, body: object = None) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as client:
        client.request(method, path, json.dumps(body), {"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        return answer.status, answer.read()


@pytest.mark.timeout(MAKE_S + INSTALL_S + START_S)
def test_the_arm64_packages_install_and_complete(root: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "folder", _free_port()
    folder.mkdir()
    folder.chmod(0o755)
    for package in built("arm64").values():
        shutil.copy(package, folder)
    (folder / "config.toml").write_text(CONFIG.format(port=port))
    with _serving(root, folder) as process:
        deadline = time.monotonic() + INSTALL_S + START_S

        def told() -> str:
            return (folder / "log").read_text(errors="replace")[-3000:]

        while "Listening on" not in told() and "#token=" not in told():
            assert process.poll() is None, told()
            assert time.monotonic() < deadline, told()
            time.sleep(1)
        assert (folder / "installed").exists()
        (token,) = [line.partition("#token=")[2] for line in told().splitlines() if "#token=" in line]
        assert _ask(port, "GET", "/v1/models", "wrong")[0] == 401
        status, body = _ask(
            port, "POST", "/v1/completions", token, {"prompt": "def add(a, b):\n    return ", "suffix": "\n"}
        )
        assert status == 200, body
        assert json.loads(body)["choices"][0]["text"]
        assert (
            json.loads(_ask(port, "POST", "/api/command/engine.get", token, {})[1])["result"]["model"]["name"]
            == "rockfill-tiny"
        )
