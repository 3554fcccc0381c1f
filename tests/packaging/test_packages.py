"""What is in the packages, and that they are made alike each time."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from importlib import metadata
from typing import TYPE_CHECKING

import debian_build
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.not_run import not_run
from tests.packaging.packages import BUILD_S, LEVEL, NAMES, built, native

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(3 * BUILD_S)

LARGEST_BYTES = {"rockfill": 40e6, "rockfill-cpu": 120e6}
MACHINES = {"amd64": 62, "arm64": 183}  # e_machine, elf.h
# Where each library that a wheel may want comes from.
PROVIDERS = {
    "libc6": {"libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    | {"ld-linux-aarch64.so.1"},
    "libgcc-s1": {"libgcc_s.so.1"},
    "libgomp1": {"libgomp.so.1"},
    "libstdc++6": {"libstdc++.so.6"},
}
# The oldest suite's, bookworm's: libc6 2.36, libstdc++6 and libgomp1 of GCC 12.
NEWEST_SYMBOLS = {
    "GLIBC": "2.36",
    "GLIBCXX": "3.4.30",
    "CXXABI": "1.3.13",
    "GOMP": "5.0.1",
    "OMP": "5.0.1",
    "GCC": "12",
}
# Whose source trees are in llama.cpp's, and what debian/copyright calls them.
LINKED = {
    "boringssl-build": "BoringSSL",
    "boringssl-src": "BoringSSL",
    "cpp-httplib": "cpp-httplib",
    "nlohmann": "JSON for Modern C++",
}


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def packages(architecture: str) -> dict[str, Path]:
    return built(architecture)


@pytest.fixture(scope="module")
def trees(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is in each package."""
    folder = tmp_path_factory.mktemp("packages")
    for name, package in packages.items():
        subprocess.run(["dpkg-deb", "--raw-extract", package, folder / name], check=True)
    return {name: folder / name for name in NAMES}


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True).stdout.strip()


def test_lintian_finds_nothing(packages: dict[str, Path]) -> None:
    """And nothing is overridden."""
    if shutil.which("lintian") is None:
        not_run("lintian", "it is not installed")
    (changes,) = next(iter(packages.values())).parent.glob("*.changes")
    done = subprocess.run(
        ["lintian", "--allow-root", "--no-override", "--fail-on", "error,warning", changes],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_they_are_small(trees: dict[str, Path]) -> None:
    for name, tree in trees.items():
        size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
        # Installation doubles the Python: what is compiled of it is about as large as the source.
        compiled = sum(path.lstat().st_size for path in tree.rglob("*.py"))
        assert 0 < size + compiled < LARGEST_BYTES[name]


def test_their_libraries_are_of_the_architecture_and_find_what_they_want_in_every_suite(
    architecture: str, packages: dict[str, Path], trees: dict[str, Path]
) -> None:
    for name, tree in trees.items():
        depends = {entry.split()[0] for entry in field(packages[name], "Depends").split(", ")}
        libraries = list(tree.rglob("*.so*"))
        assert len(libraries) == 1
        for library in libraries:
            assert library.name.endswith(".abi3.so"), "it would serve only one Python"
            assert struct.unpack_from("<H", library.read_bytes(), 18)[0] == MACHINES[architecture]
            told = subprocess.run(["readelf", "-dVW", library], capture_output=True, text=True, check=True).stdout
            wanted = set(re.findall(r"\(NEEDED\).*\[(.+)\]", told))
            assert wanted
            providers = {provider for provider, provided in PROVIDERS.items() if provided & wanted}
            assert wanted <= set().union(*PROVIDERS.values())
            assert providers <= depends
            for symbols, version in re.findall(r"Name: (\w+?)_([0-9.]+)", told):
                assert Version(version) <= Version(NEWEST_SYMBOLS[symbols]), f"{symbols}_{version}"


def test_everything_that_is_imported_is_vendored_or_a_dependency(packages: dict[str, Path]) -> None:
    """The locks' own completeness is another test's; this is that none of their pins falls between."""
    pins = set(re.findall(r"(?m)^([a-z0-9.-]+)==", debian_build.LOCK.read_text()))
    vendored = {pin.name for name in NAMES for pin in debian_build.vendored(name)}
    assert vendored | debian_build.FROM_DEBIAN | debian_build.ELSEWHERE == pins
    depends = field(packages["rockfill"], "Depends")
    for name in debian_build.FROM_DEBIAN - {"markupsafe"}:  # jinja2's own
        assert f"python3-{name.removeprefix('py')}" in depends or f"python3-{name}" in depends
    for name in debian_build.ELSEWHERE:
        markers = [line for line in debian_build.LOCK.read_text().splitlines() if line.startswith(f"{name}==")]
        assert len(markers) == 1
        marker = Requirement(markers[0].rstrip("\\ ")).marker
        assert marker is not None
        assert not marker.evaluate({"sys_platform": "linux"})


def test_the_licence_of_everything_that_is_vendored_is_told(trees: dict[str, Path]) -> None:
    told = (trees["rockfill"] / "usr/share/doc/rockfill/copyright").read_text()
    assert told == (trees["rockfill-cpu"] / "usr/share/doc/rockfill-cpu/copyright").read_text()
    paragraphs = [part for part in told.split("\n\n") if part.startswith("Files:")]
    for tree in trees.values():
        vendor = tree / "usr/lib/rockfill/vendor"
        for entry in sorted(vendor.iterdir()):
            if entry.suffix != ".dist-info":
                files = f"vendor/{entry.name}" + ("/*" if entry.is_dir() else "")
                assert any(files in part.split("\nCopyright")[0].split() for part in paragraphs), files
    for licence in set(re.findall(r"(?m)^License: (.+)$", told)):
        for name in re.split(r" and | or ", licence):
            assert re.search(rf"(?m)^License: {re.escape(name)}\n ", told), f"the text of {name}"
    # What is compiled into the tokenizer, as its makers list it, and what is bundled for the page.
    (bill,) = trees["rockfill"].glob("usr/lib/rockfill/vendor/tokenizers-*.dist-info/sboms/*.json")
    (paragraph,) = [part for part in paragraphs if "vendor/tokenizers/*" in part]
    for component in json.loads(bill.read_text())["components"]:
        assert re.search(rf"[ \n]{re.escape(component['name'])}[,;.]", paragraph), component["name"]
    page = trees["rockfill"] / "usr/share/rockfill/web/static/vendor/VERSIONS.json"
    for package in json.loads(page.read_text())["packages"] if page.exists() else []:
        assert re.search(rf"[ \n]{re.escape(package['name'])}[,;.]", told), package["name"]


def test_what_is_linked_into_the_cpu_engine_is_told(architecture: str) -> None:
    """The library as it comes says so itself: where its sources were is in what helps to debug it."""
    paragraphs = (debian_build.ROOT / "packaging/debian/copyright").read_text().split("\n\n")
    (paragraph,) = [part for part in paragraphs if part.startswith(f"Files: vendor/{debian_build.LLAMA_CPP}\n")]
    (wheel,) = debian_build.wheels(architecture, "rockfill-cpu")
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read(debian_build.LLAMA_CPP)
    crates = {name.decode() for name in re.findall(rb"/(?:index\.crates\.io-\w+|rust/deps)/([a-z0-9_-]+)-\d", library)}
    assert {"llguidance", "toktrie", "serde", "miniz_oxide"} - crates == {
        "llguidance",
        "toktrie",
    }  # built where they are
    for name in crates:
        assert re.search(rf"[ \n]{re.escape(name)}[,;.]", paragraph), f"the crate {name}"
    others = {name.decode() for name in re.findall(rb"/llama\.cpp/(?:vendor|build/_deps)/([a-z0-9_-]+)", library)}
    assert others == LINKED.keys()
    for name in LINKED.values():
        assert f"({name})" in paragraph, name


def test_the_chat_page_of_others_is_not_in_the_cpu_engine(trees: dict[str, Path]) -> None:
    (library,) = trees["rockfill-cpu"].rglob("xllamacpp.abi3.so")
    content = library.read_bytes()
    for packed in re.finditer(rb"\x1f\x8b\x08", content):
        with contextlib.suppress(zlib.error):  # as other bytes may look like a beginning
            page = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content[packed.start() :], 100)
            assert len(page) < 100, page


def test_notices_are_passed_on(trees: dict[str, Path]) -> None:
    """Section 4(d) of the Apache licence."""
    vendored = {pin.name for name in NAMES for pin in debian_build.vendored(name)}
    for name in sorted(vendored):
        for file in metadata.files(name) or []:
            if file.name == "NOTICE":
                passed_on = trees["rockfill"] / "usr/lib/rockfill/vendor" / str(file)
                assert passed_on.is_file(), file


def test_the_configuration_differs_from_the_example_in_where_it_listens(trees: dict[str, Path]) -> None:
    example = (debian_build.ROOT / "packaging/rockfill.toml").read_text().splitlines()
    shipped = (trees["rockfill"] / "etc/rockfill/config.toml").read_text().splitlines()
    changed = [line for line in difflib.ndiff(example, shipped) if line[0] in "+-"]
    assert changed == ['- #listen = "127.0.0.1:8012"', '+ listen = "0.0.0.0:8012"']
    conffiles = (trees["rockfill"] / "DEBIAN/conffiles").read_text().split()
    assert sorted(conffiles) == ["/etc/avahi/services/rockfill.service", "/etc/rockfill/config.toml"]


def test_the_manual_has_every_command_and_every_setting(trees: dict[str, Path]) -> None:
    for page in ("man1/rockfill.1", "man5/rockfill.toml.5"):
        path = trees["rockfill"] / f"usr/share/man/{page}.gz"
        text = subprocess.run(["gzip", "-dc", path], capture_output=True, text=True, check=True).stdout
        text = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
        if page == "man1/rockfill.1":
            said = ["rockfill serve", "rockfill engine load", "--state-dir", "ROCKFILL_TOKEN", "configuration", "78"]
        else:
            example = (debian_build.ROOT / "packaging/rockfill.toml").read_text()
            said = re.findall(r"(?m)^(?:#(?=\w+ = ))?(\w+ = .*|\[\w+\])$", example)
        assert said
        for words in said:
            assert words in text


def test_bash_completes_commands_options_and_files(trees: dict[str, Path], tmp_path: Path) -> None:
    script = trees["rockfill"] / "usr/share/bash-completion/completions/rockfill"
    (tmp_path / "model.gguf").touch()
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rockfill; echo "${COMPREPLY[@]}"'
    for typed, offered in {
        "ser": ["serve"],
        "engine re": ["restart", "resume"],
        "engine load --j": ["--json"],
        "--vers": ["--version"],
        "runtime inspect mod": ["model.gguf"],
    }.items():
        words = ["rockfill", *typed.split(" ")]
        done = subprocess.run(
            ["bash", "-c", ask, script, *words], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.split() == offered, done.stderr


def test_a_second_build_makes_the_same_bytes(tmp_path: Path) -> None:
    """At another time, in another folder, with another umask."""
    before = os.umask(0o077)
    try:
        again = debian_build.build(native(), tmp_path, compression_level=LEVEL)
    finally:
        os.umask(before)
    first = built(native())
    again_by_name = {path.name.partition("_")[0]: path for path in again if path.suffix == ".deb"}
    assert again_by_name.keys() == first.keys()
    for name, path in again_by_name.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(first[name].read_bytes()).hexdigest()
