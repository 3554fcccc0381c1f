"""A signed apt repository of the built packages, as a folder that any web server can hand out.

`apt_repository.py [PACKAGE …]` makes ``dist/apt`` from the packages given, or from those in ``dist/``, and prints what
goes into a board's /etc/apt/sources.list.d. It is made anew each time, and holds these packages and no older ones.

KEY names the secret key of yours that signs (any form that gpg takes), URL the address at which the folder will be
found. Without KEY a key is made and kept in ``build/``, which is enough to try it out: whoever hosts a repository for
others needs one that they keep.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "dist" / "apt"
OWN_KEY = ROOT / "build" / "repository-key"
SUITE = "stable"

DISTRIBUTIONS = """\
Origin: Rockfill
Label: Rockfill
Codename: {suite}
Suite: {suite}
Architectures: amd64 arm64
Components: main
Description: Rockfill, code completion on RK3588 boards
SignWith: {key}
"""

SOURCES = """\
Types: deb
URIs: {url}
Suites: {suite}
Components: main
Signed-By: /etc/apt/keyrings/rockfill.asc
"""


def make(packages: list[Path], output: Path, key: str | None, key_folder: Path = OWN_KEY) -> None:
    """Put `packages` into the repository at `output`, signed with `key`; None makes one in `key_folder`."""
    environment = dict(os.environ)
    if key is None:
        environment["GNUPGHOME"] = str(key_folder)
        key = _own_key(key_folder, environment)
    state = output.with_name(f"{output.name}.state")  # reprepro's own, which is nobody else's to see
    for folder in (output, state):
        shutil.rmtree(folder, ignore_errors=True)
    (state / "conf").mkdir(parents=True)
    (state / "conf/distributions").write_text(DISTRIBUTIONS.format(suite=SUITE, key=key))
    try:
        for package in packages:
            command = ["reprepro", "--silent", "--basedir", str(state), "--outdir", str(output)]
            _run([*command, "includedeb", SUITE, str(package)], environment)
        public = _run(["gpg", "--batch", "--armor", "--export", key], environment)
    finally:
        if environment.get("GNUPGHOME") == str(key_folder):  # the agent that gpg left running for it
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)
    (output / "rockfill.asc").write_text(public)


def _own_key(folder: Path, environment: dict[str, str]) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    listing = ["gpg", "--batch", "--list-secret-keys", "--with-colons"]
    if "fpr:" not in _run(listing, environment):
        name = ["--passphrase", "", "--quick-generate-key", "Rockfill, for trying out", "ed25519", "sign", "never"]
        _run(["gpg", "--batch", "--quiet", *name], environment)
    fingerprints = [line.split(":")[9] for line in _run(listing, environment).splitlines() if line.startswith("fpr:")]
    return fingerprints[0]


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:2])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str]) -> None:
    if missing := [tool for tool in ("reprepro", "gpg") if shutil.which(tool) is None]:
        sys.exit(f"{' and '.join(missing)} missing. To install: sudo apt-get install reprepro gnupg")
    packages = [Path(argument) for argument in arguments] or sorted((ROOT / "dist").glob("*.deb"))
    if not packages:
        sys.exit("There are no packages in dist/ yet: make deb")
    key = os.environ.get("KEY") or None
    make(packages, OUTPUT, key)
    url = os.environ.get("URL") or "https://example.org/rockfill"
    print(f"{OUTPUT.relative_to(ROOT)} is ready to be put on a web server. What a board needs, as root:\n")
    print(f"curl --fail --output /etc/apt/keyrings/rockfill.asc {url}/rockfill.asc")
    print(f"cat >/etc/apt/sources.list.d/rockfill.sources <<END\n{SOURCES.format(url=url, suite=SUITE)}END")
    print("apt update && apt install rockfill")
    if key is None:
        print(f"\nSigned with a key made for trying it out ({OWN_KEY.relative_to(ROOT)}); KEY=… names your own.")


if __name__ == "__main__":
    main(sys.argv[1:])
