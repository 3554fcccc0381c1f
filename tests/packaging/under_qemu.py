"""The arm64 packages in an arm64 Debian under qemu's user mode. The name keeps it out of ``make test``.

It takes minutes. systemd does not run in it (qemu 7.2 starts its services in vain): apt installs, and the daemon
is started as its user by hand. What is installed goes to a layer above the root file system.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.appliance import free_port
from tests.packaging import arm64
from tests.packaging.packages import built

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHAT = "arm64 packages"
INSTALL_S, START_S = 1500.0, 900.0

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
    arm64.require(WHAT, {"unshare": "util-linux", "setpriv": "util-linux"})
    return arm64.root(WHAT)


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


@pytest.mark.timeout(arm64.MAKE_S + INSTALL_S + START_S)
def test_the_arm64_packages_install_and_complete(root: Path, tmp_path: Path) -> None:
    folder, port = tmp_path / "folder", free_port()
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
