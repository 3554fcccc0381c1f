"""Makes `.venv` ready for `make run` or `make test`, from nothing but Python and the locks.

`bootstrap.py run | test` installs exactly what the locks pin; `bootstrap.py debian-packages` sees to what the tests
need from Debian and npm. As root a missing Debian package is installed; else the command that installs it is printed.
Runs on the standard library alone, for it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

LOCKS = {"run": ("requirements.lock",), "test": ("requirements.lock", "requirements-dev.lock")}
STAMPS = {"run": ("ready-to-run",), "test": ("ready-to-run", "ready-to-test")}

# A relative path, and a script that looks for its neighbour: the tree may be moved or copied with its .venv.
PATH_FILE = "../../../../daemon\n"
SCRIPT = """\
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -m rockfill "$@"
"""


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """`provides` tells whether it is there: an absolute path, or a command on PATH."""

    name: str
    provides: str
    reason: str

    def missing(self) -> bool:
        return not Path(self.provides).exists() if self.provides.startswith("/") else not shutil.which(self.provides)


TEST_PACKAGES = (
    DebianPackage("bubblewrap", "bwrap", "the sandbox of `rockfill eval`"),
    DebianPackage("binutils-aarch64-linux-gnu", "aarch64-linux-gnu-strip", "strips the wheels of the arm64 packages"),
    DebianPackage("chromium", "chromium", "tests/browser drives the page in it"),
    DebianPackage("curl", "curl", "what shell scripts ask with"),
    DebianPackage("debhelper", "dh", "builds the Debian packages"),
    DebianPackage("dpkg-dev", "dpkg-buildpackage", "builds the Debian packages"),
    DebianPackage("gcc", "gcc", "compiles the simulator of librkllmrt.so"),
    DebianPackage("gnupg", "gpg", "signs the apt repository"),
    DebianPackage("iproute2", "ip", "connects a booted system with this one"),
    DebianPackage("jq", "jq", "what shell scripts take JSON apart with"),
    DebianPackage("libc6-dev", "/usr/include/stdio.h", "the headers that the simulator includes"),
    DebianPackage("lintian", "lintian", "judges the Debian packages"),
    DebianPackage("mmdebstrap", "mmdebstrap", "makes the root file system for the next one"),
    DebianPackage("nginx-light", "nginx", "a reverse proxy in front of the appliance"),
    DebianPackage("nodejs", "node", "runs Node-RED, and bundles what the page uses of others"),
    DebianPackage("npm", "npm", "installs Node-RED, and axe-core for tests/browser"),
    DebianPackage("reprepro", "reprepro", "makes the apt repository"),
    DebianPackage("systemd-container", "systemd-nspawn", "tests/packaging boots a real systemd in it"),
)


# What the tests need from npm: its folder in build/, and where its lock is.
NPM_TOOLS = {"node-red": "tests/clients/node_red", "axe": "tests/browser/axe"}


def install_debian(packages: list[DebianPackage]) -> bool:
    """Install the packages as root, else say which command would; True if they are there now."""
    for package in packages:
        print(f"Missing: {package.name} ({package.reason})", file=sys.stderr)
    names = [package.name for package in packages]
    if shutil.which("apt-get") is None:
        return False
    if os.geteuid() != 0:
        print(f"To install: sudo apt-get install {' '.join(names)}", file=sys.stderr)
        return False
    # A held lock (unattended-upgrades on a fresh machine) is waited for, and no question is ever asked.
    apt = ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"Installing {' '.join(names)} …", file=sys.stderr)

    def run(*step: str) -> bool:
        # Of what dpkg tells only the errors matter, and they go to stderr.
        null = subprocess.DEVNULL
        return subprocess.run([*apt, *step], env=environment, stdin=null, stdout=null, check=False).returncode == 0

    run("update")
    return run("install", "--no-install-recommends", *names)


def make_venv() -> None:
    """Leave a `.venv` whose interpreter runs and has pip; one that is there and works is kept."""
    works: list[str | Path] = [PYTHON, "-c", "import pip"]
    if PYTHON.exists() and subprocess.run(works, check=False, capture_output=True).returncode == 0:
        return
    # Resolved, so that .venv breaks visibly, and is made anew, where an upgrade brings another python3.
    interpreter = Path(sys.executable).resolve()
    if importlib.util.find_spec("ensurepip") is None:  # Debian keeps it apart from python3
        default = Path("/usr/bin/python3").resolve() == interpreter
        name = "python3-venv" if default else f"{interpreter.name}-venv"
        if not install_debian([DebianPackage(name, "", f"{interpreter} cannot make a virtual environment without it")]):
            sys.exit("No virtual environment was made.")
    subprocess.run([interpreter, "-m", "venv", "--clear", VENV], check=True)


def pip_install(*locks: str) -> None:
    """Install what the locks pin, and nothing else: they are complete, so that no dependency is looked for.

    What has no wheel is built with the pinned setuptools instead of the newest one.
    """
    command: list[str | Path] = [PYTHON, "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    command += ["--no-deps", "--require-hashes", "--no-build-isolation"]
    for lock in locks:
        command += ["--requirement", ROOT / "packaging" / lock]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def link_checkout() -> None:
    """The checkout itself as the installed `rockfill`, importable and as a command."""
    (site_packages,) = VENV.glob("lib/python3.*/site-packages")
    (site_packages / "rockfill.pth").write_text(PATH_FILE)
    script = VENV / "bin" / "rockfill"
    script.write_text(SCRIPT)
    script.chmod(0o755)


def install_from_npm(name: str, source: str) -> None:
    """Leave what the lock in `source` pins in `build/NAME`. Where that can't be, the tests that need it say so."""
    target = ROOT / "build" / name
    files = [ROOT / source / name for name in ("package.json", "package-lock.json")]
    stamp = target / "installed-from-this-lock"
    lock = files[1].read_text()
    if shutil.which("npm") is None or (stamp.exists() and stamp.read_text() == lock):
        return
    print(f"Installing {name} from npm; the first time takes up to a minute …", file=sys.stderr)
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, target)
    npm = ["npm", "ci", "--silent", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(npm, cwd=target, check=False, stdin=subprocess.DEVNULL).returncode == 0:
        stamp.write_text(lock)


def prepare(purpose: str) -> None:
    print(f"Setting up .venv to {purpose} Rockfill; the first time takes up to a minute …", file=sys.stderr)
    make_venv()
    pip_install("requirements-build.lock")
    pip_install(*LOCKS[purpose])
    link_checkout()
    for stamp in STAMPS[purpose]:
        (VENV / stamp).touch()


def main(purpose: str) -> None:
    if purpose == "debian-packages":
        if missing := [package for package in TEST_PACKAGES if package.missing()]:
            install_debian(missing)  # what stays missing shows itself as NOT RUN lines
        for name, source in NPM_TOOLS.items():
            install_from_npm(name, source)
        return
    try:
        prepare(purpose)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Setting up .venv failed: {' '.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main(sys.argv[1])
