"""The packages, installed by apt in a booted system, used, upgraded, removed and purged, as their users do it.

One machine a suite, from top to bottom: each test leaves the service as it found it, and the last ones remove it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.rkllm_simulator import build, compiler
from tests.not_run import not_run
from tests.npu import NAME, make_directory
from tests.packaging import readme
from tests.packaging.booted import MAKE_S, booted
from tests.packaging.installed import ANSWERS, APT, APT_S, Installed, Service, paths_on
from tests.packaging.packages import BUILD_S, built, native, repacked
from tests.packaging.repository import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(MAKE_S + BUILD_S + 2 * APT_S)

WATCHDOG_S = 3
NEXT = "0.1.1~next"
CONFIG = "/etc/rockfill/config.toml"

# What apt, dpkg and systemd themselves keep of a package that was there once.
THEIRS = (
    *("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg", "/var/log", "/var/lib/systemd", "/var/cache/debconf"),
    *("/tmp", "/var/tmp", "/folder", "/etc/*-", "/var/cache/ldconfig", "/etc/ld.so.cache"),
)

# Stand-ins for what a board's kernel has: the clocks, as links to where the device is, and debugfs, closed as it is.
# /sys/class/other stands for all of /sys that is not granted; nothing but the sandbox keeps anybody from writing there.
STAND_INS = """
set -e
mount -t tmpfs -o mode=755 tmpfs /sys/class
mkdir -p /sys/class/devfreq /sys/class/devices /sys/class/other
echo x >/sys/class/other/knob && chmod 666 /sys/class/other/knob
for name in fdab0000.npu dmc fb000000.gpu; do
    mkdir /sys/class/devices/$name
    ln -s ../devices/$name /sys/class/devfreq/$name
    cd /sys/class/devices/$name
    echo simple_ondemand >governor
    echo 300000000 >min_freq
    echo 1000000000 >max_freq
    echo 300000000 1000000000 >available_frequencies
    echo simple_ondemand userspace powersave performance >available_governors
    echo 300000000 >cur_freq
done
mount -t tmpfs -o mode=755 tmpfs /sys/devices/system/cpu/cpufreq
mkdir /sys/devices/system/cpu/cpufreq/policy0
cd /sys/devices/system/cpu/cpufreq/policy0
echo schedutil >scaling_governor
echo 408000 >scaling_min_freq
echo 1800000 >scaling_max_freq
mount -t tmpfs -o mode=700 tmpfs /sys/kernel/debug
mkdir /sys/kernel/debug/rknpu
echo 'NPU load:  Core0: 42%, Core1:  0%, Core2:  0%,' >/sys/kernel/debug/rknpu/load
for folder in /etc /home /opt /srv /usr/local /var; do mkdir -m 777 -p $folder/open; done
"""
CLOCKS = [
    f"/sys/class/devfreq/{name}/{file}"
    for name in ("fdab0000.npu", "dmc", "fb000000.gpu")
    for file in ("governor", "min_freq", "max_freq")
] + [f"/sys/devices/system/cpu/cpufreq/policy0/scaling_{file}" for file in ("governor", "min_freq", "max_freq")]
OWN = ["/var/lib/rockfill", "/var/cache/rockfill", "/run/rockfill", "/tmp"]
OPEN = [f"{folder}/open" for folder in ("/etc", "/home", "/opt", "/srv", "/usr/local", "/var")]
NOT_OURS = ["/sys/class/other/knob", *OPEN, "/root", "/etc/rockfill", CONFIG, "/usr/lib/rockfill", "/run", "/dev/kmsg"]
NOT_OURS += ["/proc/sys/kernel/printk"]


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
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
        machine.path("/etc/apt/apt.conf.d/99answers").write_text(ANSWERS)
        service.apt("update", online=True)
        service.found = paths_on(machine, THEIRS)
        service.sh("sh", "-c", STAND_INS)
        service.said = INSTALL[suite](service, folder)
        yield service


def from_files(service: Installed, folder: Path) -> str:
    """On a machine that is offline, with what one that is online has fetched for it."""
    fetch, install = readme.blocks("Without a network")
    for command in fetch:
        service.in_folder(command, online=True)
    try:
        return "".join(service.in_folder(command) for command in install)
    finally:  # for the test of what is left: they were nobody's wish
        names = " ".join(file.name.partition("_")[0] for file in (folder / "offline").glob("*.deb"))
        service.in_folder(f"apt-mark auto {names}")


def from_a_repository(service: Installed, folder: Path) -> str:
    """A signed one, and only if the signature is the right one."""
    with served(folder.glob("rockfill*.deb"), folder / "repository") as repository:
        service.sh("mkdir", "-p", "/etc/apt/keyrings")
        source = service.machine.path("/etc/apt/sources.list.d/rockfill.sources")
        key = service.machine.path("/etc/apt/keyrings/rockfill.asc")
        source.write_text(repository.source)
        shutil.copy("/usr/share/keyrings/debian-archive-keyring.gpg", key.with_suffix(".gpg"))
        source.write_text(repository.source.replace("rockfill.asc", "rockfill.gpg"))
        refused = service.machine.run(*APT, "update", online=True, within_s=APT_S)
        assert (refused.returncode != 0, "is not signed" in refused.stderr) == (True, True), refused
        source.write_text(repository.source)
        shutil.copy(repository.folder / "rockfill.asc", key)
        service.apt("update", online=True)
        try:
            return service.apt("install", "rockfill", "rockfill-cpu", online=True)
        finally:
            source.unlink()
            key.unlink()
            key.with_suffix(".gpg").unlink()
            service.sh("rmdir", "--ignore-fail-on-non-empty", "/etc/apt/keyrings")


INSTALL = {"trixie": from_files, "bookworm": from_a_repository}


# ---- installed


def test_it_completes_code_as_a_user_of_its_own(installed: Service) -> None:
    installed.ready()
    assert installed.complete("def add(a, b):\n    return ", "\n")["choices"][0]["text"]
    assert installed.request("GET", "/", token=None).status == 200
    assert installed.request("GET", "/health", token=None).json() == {"status": "ok", "engine": "ready"}
    assert installed.request("GET", "/v1/models", token=None).status == 401
    assert installed.request("GET", "/v1/models", token="wrong").status == 401
    assert installed.sh("ps", "-o", "user=", "-p", installed.tells("MainPID")).split() == ["rockfill"]
    assert "sudo rockfill open" in installed.said


def test_status_and_journal_say_what_runs_and_not_the_token(installed: Service) -> None:
    installed.ready()
    installed.until(lambda: "Listening on" in installed.journal(), "it does not say where it listens")
    assert "Running rockfill-tiny" in installed.journal()
    told = 'Status: "ready · rockfill-tiny'
    installed.until(lambda: told in installed.sh("systemctl", "status", "rockfill"), "systemd does not show its status")
    assert "enabled" in installed.sh("systemctl", "status", "rockfill")
    assert installed.sh("rockfill", "status").startswith("ready · rockfill-tiny")
    assert installed.token not in installed.sh("journalctl", "--no-pager") + installed.said


def test_the_token_is_for_root_and_the_service_only(installed: Service) -> None:
    assert installed.sh("rockfill", "token").strip() == installed.token
    nobody = installed.machine.run("setpriv", "--reuid=nobody", "--clear-groups", "rockfill", "token")
    assert nobody.returncode != 0
    assert "sudo" in nobody.stderr
    assert installed.token not in nobody.stdout + nobody.stderr


def test_what_was_installed_is_right(installed: Installed) -> None:
    """As systemd's and udev's own checks see it."""
    installed.sh("systemd-analyze", "verify", "--man=no", "rockfill.service")
    rules = "/usr/lib/udev/rules.d/60-rockfill.rules"
    if installed.machine.run("udevadm", "verify", "--help").returncode == 0:  # since 254
        installed.sh("udevadm", "verify", "--no-style", rules)
    # Byte-compiled for the Python that is there.
    assert list(installed.machine.path("/usr/lib/rockfill/rockfill/__pycache__").glob("app.cpython-*.pyc"))
    assert list(installed.machine.path("/usr/lib/rockfill/vendor/aiohttp/__pycache__").glob("web.cpython-*.pyc"))


# ---- the sandbox


def test_the_sandbox_is_tight(installed: Service) -> None:
    *_, verdict = installed.sh("systemd-analyze", "security", "--no-pager", "rockfill").strip().splitlines()
    found = re.search(r"exposure level for rockfill.service: ([\d.]+)", verdict)
    assert found is not None, verdict
    assert float(found[1]) <= 2.0


def test_the_sandbox_leaves_what_it_needs_and_nothing_else(installed: Installed, folder: Path) -> None:
    """The unit with another program in it."""
    own = installed.sh("cat", "/usr/lib/systemd/system/rockfill.service")
    left_out = r"(?m)^(Type|NotifyAccess|WatchdogSec|Restart|ExecStart|ExecReload|ExecStopPost)=.*\n"
    command = "Type=oneshot\nStandardInput=file:/folder/asked\n"
    command += "ExecStart=/usr/bin/python3 /checkout/tests/packaging/probe.py\n"
    read = ["/run/rockfill/rknpu/load", "/sys/kernel/debug/rknpu/load", "/etc/shadow", *CLOCKS]
    (folder / "asked").write_text(json.dumps({"write": [*CLOCKS, *OWN, *NOT_OURS], "read": read}))
    installed.sh("systemctl", "stop", "rockfill")
    installed.machine.add_unit(
        "rockfill-probe.service", re.sub(left_out, "", own).replace("[Service]\n", f"[Service]\n{command}")
    )
    try:
        done = installed.machine.run("systemctl", "start", "rockfill-probe")
        assert done.returncode == 0, installed.sh("journalctl", "--unit=rockfill-probe", "--no-pager")
    finally:
        installed.sh("systemctl", "start", "rockfill")
    told = json.loads(installed.machine.path("/var/lib/rockfill/probe.json").read_text())
    assert told["writable"] == CLOCKS + OWN
    assert told["readable"] == ["/run/rockfill/rknpu/load", *CLOCKS]
    assert told["can"] == {
        "choose its cores": True,
        "see the machine's addresses": True,
        "see the machine's memory": True,
        "call back": True,
        "listen": True,
        "sniff": False,
        "become root": False,
        "make a namespace": False,
        "see other people's processes": False,
    }
    groups = {name: int(installed.sh("getent", "group", name).split(":")[2]) for name in ("render", "video")}
    assert set(groups.values()) <= set(told["member_of"])


# ---- as the README says


def test_the_commands_of_the_readme_do_what_they_say(installed: Installed, folder: Path) -> None:
    tiny = installed.machine.path("/usr/share/rockfill/models/rockfill-tiny/rockfill-tiny-q8_0.gguf")
    shutil.copy(tiny, folder / "my-model.gguf")
    said = {}
    chapters = ("Install", "First model", "Where things are", "Logs", "Upgrade", "Remove")
    commands = [command for chapter in chapters for block in readme.blocks(chapter) for command in block]
    for command in commands:
        if command == "sudo apt remove rockfill rockfill-cpu":
            assert installed.complete("def f():\n    ")["model"] == "my-model"
        said[command] = installed.in_folder(command)
        if "restart" in command or "apt install" in command or "models use" in command:
            installed.ready()
    link = re.search(rf"http://\S+:{installed.port}(/login/\S+)", said["sudo rockfill open"])
    assert link is not None, said["sudo rockfill open"]
    assert "active (running)" in said["systemctl status rockfill"]
    assert "fine" in said["sudo rockfill config check"]
    assert "Listening on" in said["journalctl --unit rockfill --lines 50"]
    assert "ready" in said["sudo rockfill engine history"]
    assert "freed" in said["sudo apt purge rockfill rockfill-cpu"]
    installed.in_folder("apt install ./rockfill*.deb")
    installed.ready()
    for file in readme.paths("Where things are"):
        assert installed.machine.path(file).exists(), file


def test_a_board_without_a_network_gets_runtime_and_model_from_files(installed: Installed, folder: Path) -> None:
    """With a stand-in for Rockchip's library, in the unit's sandbox."""
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    shutil.copy(build("1.2.1"), folder)
    make_directory(folder / NAME)
    place = "/var/lib/rockfill/import"
    installed.in_folder(
        f"sudo install -D --mode 644 --target-directory {place} librkllmrt.so && sudo cp -r {NAME} {place}"
    )
    try:
        installed.in_folder(f"sudo rockfill runtime install {place}/librkllmrt.so")
        assert "1.2.3" in installed.in_folder("sudo rockfill runtime list")
        installed.in_folder(f"sudo rockfill models import {place}/{NAME}")
        installed.in_folder("sudo rockfill models use codegemma:2b")  # as its files' name is understood
        installed.ready()
        assert installed.command("engine.get")["model"]["name"] == "codegemma:2b"
        assert installed.complete("def f():\n")["choices"][0]["text"]
        assert "1.2.3" in installed.command("engine.get")["runtime"]
    finally:
        installed.in_folder("sudo rockfill models use rockfill-tiny")
        installed.ready()
    installed.in_folder("sudo rockfill models rm codegemma:2b && sudo rockfill runtime rm 1.2.3")
    assert [model["name"] for model in installed.command("models.list")["models"]] == ["rockfill-tiny"]


# ---- when things go wrong


def test_a_frozen_daemon_is_restarted_by_the_watchdog(installed: Installed) -> None:
    with changed(installed, f"WatchdogSec={WATCHDOG_S}"):
        installed.ready()
        daemon = installed.tells("MainPID")
        installed.sh("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "rockfill")
        installed.until(lambda: installed.tells("MainPID") not in (daemon, "0"), "it is not restarted")
        installed.ready()
        assert f"Watchdog timeout (limit {WATCHDOG_S}s)!" in installed.journal()


@contextlib.contextmanager
def changed(service: Installed, setting: str) -> Iterator[None]:
    """The service with another setting of the unit's, restarted."""
    drop_in = "/run/systemd/system/rockfill.service.d"
    service.sh("mkdir", "-p", drop_in)
    service.machine.path(f"{drop_in}/test.conf").write_text(f"[Service]\n{setting}\n")
    try:
        service.sh("systemctl", "daemon-reload")
        service.restart()
        yield
    finally:
        service.sh("rm", "-r", drop_in)
        service.sh("systemctl", "daemon-reload")
        service.restart()


def test_clocks_are_given_back_when_it_stops_and_when_it_is_killed(installed: Installed) -> None:
    def held(path: str) -> str:
        return installed.machine.path(path).read_text().strip()

    installed.ready()
    npu, cpu = CLOCKS[0], "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    installed.sh("rockfill", "clocks", "set", "always")
    try:
        installed.until(lambda: held(npu) == "performance", "the NPU's clock is not raised")
        installed.sh("systemctl", "stop", "rockfill")
        assert (held(npu), held(cpu)) == ("simple_ondemand", "schedutil")
        with changed(installed, "Restart=no"):
            installed.until(lambda: held(npu) == "performance", "the NPU's clock is not raised again")
            installed.sh("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "rockfill")
            installed.until(lambda: installed.tells("ActiveState") == "failed", "it goes on")
            assert (held(npu), held(cpu)) == ("simple_ondemand", "schedutil")
    finally:
        installed.restart()
        installed.sh("rockfill", "clocks", "set", "auto")


def test_a_killed_daemon_takes_its_worker_along_and_comes_back(installed: Service) -> None:
    installed.ready()
    daemon, worker = installed.tells("MainPID"), str(installed.command("engine.get")["worker_pid"])
    installed.sh("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "rockfill")
    installed.until(lambda: installed.tells("MainPID") not in (daemon, "0"), "it is not restarted")
    installed.ready()
    assert installed.machine.run("kill", "-0", worker).returncode != 0
    assert installed.complete("back")["choices"]


def test_a_killed_worker_is_replaced_and_the_daemon_stays(installed: Service) -> None:
    installed.ready()
    daemon, worker = installed.tells("MainPID"), installed.command("engine.get")["worker_pid"]
    installed.sh("kill", "-KILL", str(worker))
    installed.until(
        lambda: installed.command("engine.get")["worker_pid"] not in (worker, None), "there is no new worker"
    )
    installed.ready()
    assert installed.tells("MainPID") == daemon


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (CONFIG, "[engine]\nping_s = 'often'\n", f"{CONFIG}: engine.ping_s: must be a number"),
        ("/var/lib/rockfill/state.json", '{"version": 99}', "was written by a newer Rockfill"),
    ],
)
def test_what_only_a_person_can_mend_is_said_once(installed: Installed, path: str, text: str, said: str) -> None:
    file = installed.machine.path(path)
    before = file.read_text() if file.exists() else None
    file.write_text(text)
    try:
        assert installed.machine.run("systemctl", "restart", "rockfill").returncode != 0
        installed.until(lambda: installed.tells("ActiveState") == "failed", "it goes on")
        assert (installed.tells("ExecMainStatus"), installed.tells("NRestarts")) == ("78", "0")
        assert said in installed.journal()
        assert "Traceback" not in installed.journal()
        assert file.read_text() == text
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)
        installed.restart()


def test_it_stops_under_load_without_being_killed(installed: Installed) -> None:
    installed.ready()
    before, enough = time.monotonic(), threading.Event()

    def load() -> None:
        while not enough.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                installed.complete("def f():\n", max_tokens=500, stream=False, rockfill={"session": str(id(enough))})

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    installed.until(lambda: installed.command("engine.get")["state"] == "busy", "nothing runs")
    before = time.monotonic()
    installed.sh("systemctl", "stop", "rockfill")
    took_s = time.monotonic() - before
    enough.set()
    for client in clients:
        client.join()
    assert (installed.tells("Result"), installed.tells("ExecMainStatus")) == ("success", "0")
    installed.restart()
    installed.ready()
    started_s = (
        int(installed.tells("ActiveEnterTimestampMonotonic")) - int(installed.tells("InactiveExitTimestampMonotonic"))
    ) / 1e6
    print(f"stopped under load in {took_s:.2f} s; listening {started_s:.2f} s after its start")


# ---- for years


def test_it_comes_back_after_a_reboot_with_what_it_had(installed: Installed) -> None:
    token = installed.token
    installed.machine.reboot()
    installed.ready()
    assert installed.token == token
    assert installed.tells("NRestarts") == "0"
    installed.sh("sh", "-c", STAND_INS)
    installed.restart()


def test_an_upgrade_keeps_settings_and_restarts(installed: Installed, folder: Path) -> None:
    installed.ready()
    config = installed.machine.path(CONFIG)
    config.write_text(config.read_text().replace("#idle_unload_s = 0", "idle_unload_s = 1234"))
    mine, token, daemon = config.read_text(), installed.token, installed.tells("MainPID")
    (folder / "next").mkdir()
    for package in folder.glob("rockfill*.deb"):
        changed = {"etc/rockfill/config.toml": "# another default\n"} if package.name.startswith("rockfill_") else {}
        repacked(package, NEXT, folder / "next", changed)
    installed.in_folder("apt install ./next/*.deb")
    installed.ready()
    assert installed.sh("dpkg-query", "-W", "-f", "${Version}", "rockfill", "rockfill-cpu") == NEXT * 2
    assert installed.tells("MainPID") != daemon
    assert (config.read_text(), installed.token) == (mine, token)
    assert json.loads(installed.sh("rockfill", "config", "check", "--json"))["engine"]["idle_unload_s"] == 1234
    assert installed.complete("back")["choices"]


def test_the_cpu_engine_comes_and_goes_with_its_package(installed: Installed) -> None:
    daemon = installed.tells("MainPID")
    installed.apt("remove", "rockfill-cpu")
    installed.until(lambda: installed.tells("MainPID") not in (daemon, "0"), "the service does not notice")
    installed.until(
        lambda: "install the package rockfill-cpu" in installed.journal(), "it does not say what is missing"
    )
    assert installed.command("models.list")["models"] == []
    installed.in_folder("apt install ./next/rockfill-cpu_*.deb")
    installed.ready()


def test_removed_it_leaves_the_models_and_purged_it_leaves_nothing(installed: Installed) -> None:
    token = installed.token
    installed.sh("sh", "-c", "mkdir -p /var/lib/rockfill/models/mine && echo x >/var/lib/rockfill/models/mine/x.gguf")
    installed.apt("remove", "rockfill", "rockfill-cpu")
    assert installed.tells("LoadState") == "not-found"
    with pytest.raises(OSError, match="refused"):
        installed.request("GET", "/health", token=None)
    assert installed.machine.path("/var/lib/rockfill/models/mine/x.gguf").exists()
    assert installed.machine.path(CONFIG).exists()
    for file in CLOCKS:
        status = installed.machine.path(file).stat()
        assert (status.st_gid, status.st_mode & 0o777) == (0, 0o644), file

    installed.in_folder("apt install ./next/*.deb")
    installed.ready()
    assert installed.token == token
    said = installed.apt("purge", "rockfill", "rockfill-cpu")
    assert re.search(r"models, settings and cache are removed: [\d.]+[KMG]? freed", said), said
    installed.apt("autoremove", "--purge")
    for database in ("passwd", "group"):
        assert installed.machine.run("getent", database, "rockfill").returncode != 0
    left = paths_on(installed.machine, THEIRS) - installed.found
    assert left == set(OPEN)
