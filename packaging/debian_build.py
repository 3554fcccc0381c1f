"""The Debian packages: which wheels go into them, and how they are built for both architectures on one machine.

`debian_build.py build [ARCHITECTURE …]` leaves the packages in ``dist/``; `unpack ARCHITECTURE PACKAGE FOLDER` is what
``debian/rules`` asks for. Every wheel is one that `requirements.lock` pins, its hash checked whenever it is used.
What Debian itself has in every suite comes from there; the rest is pure Python, or of CPython's stable ABI, so that one
package serves every Python from 3.11 on, and is built for another architecture by unpacking that one's wheels.
Runs on the standard library alone, as debian/rules has Debian's Python and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packaging" / "requirements.lock"
WHEELS = Path(".cache") / "wheels"
OUTPUT = ROOT / "dist"

# The machine's name in a wheel's.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# The newest glibc that a wheel may want is bookworm's, 2.36.
GLIBC = ("2014", "_2_17", "_2_28", "_2_34")

# What is not vendored: Depends of the package, or the dependency of one (markupsafe).
FROM_DEBIAN = frozenset({"jinja2", "markupsafe", "psutil", "pyyaml", "sdnotify"})
# Pinned for Windows and for browsers.
ELSEWHERE = frozenset({"colorama", "httpx2-jsfetch"})
IN_ROCKFILL_CPU = frozenset({"xllamacpp"})

# Of a wheel: what is said in debian/copyright, or only means something to pip, or to a compiler, or tests it.
LEFT_OUT = re.compile(
    r"\.dist-info/(RECORD|WHEEL|top_level\.txt|entry_points\.txt|zip-safe)$"
    r"|\.dist-info/(licenses/)?(.*/)?(LICEN[CS]E[^/]*|AUTHORS[^/]*)$"
    r"|\.(pyi|pyx|pxd|c|h)$|/py\.typed$|^[^/]+/tests?/|^tqdm/completion\.sh$|^tqdm/tqdm\.1$"
)

# What is compiled into this library as well, each file of it as a symbol.
LLAMA_CPP = "xllamacpp/xllamacpp.abi3.so"
PAGE_FILE = re.compile(rb"_ZL\d+asset_\d+")

# Of the checkout: what a build needs.
SOURCES = ("LICENSE", "daemon", "debian", "packaging", "systemd", "web")
JUNK = ("__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", "*.egg-info")

PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+).*\\$(?P<hashes>(?:\n    --hash=.*)+)", re.M)


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of one package, and the hashes of its files."""

    name: str
    text: str
    hashes: frozenset[str]


def vendored(package: str) -> list[Pin]:
    """What of the lock goes into `package`, ``rockfill`` or ``rockfill-cpu``."""
    cpu = package == "rockfill-cpu"
    pins = []
    for match in PIN.finditer(LOCK.read_text()):
        name = match["name"]
        if name not in FROM_DEBIAN | ELSEWHERE and (name in IN_ROCKFILL_CPU) == cpu:
            pins.append(Pin(name, match[0], frozenset(re.findall(r"sha256:([0-9a-f]{64})", match["hashes"]))))
    return pins


def wheels(architecture: str, package: str, root: Path = ROOT) -> list[Path]:
    """The wheels of `package`, each with a hash that the lock has. Raises LookupError where one is not there."""
    by_hash = {}
    for path in sorted((root / WHEELS / architecture).glob("*.whl")):
        by_hash[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    found = []
    for pin in vendored(package):
        match = [by_hash[digest] for digest in sorted(pin.hashes) if digest in by_hash]
        if len(match) != 1:
            raise LookupError(f"{len(match) or 'no'} wheels of {pin.name} for {architecture} in {root / WHEELS}")
        found += match
    return found


def fetch(architecture: str) -> None:
    """Have pip fetch the wheels that are not there yet, from wherever it is told to look."""
    try:
        for package in ("rockfill", "rockfill-cpu"):
            wheels(architecture, package)
    except LookupError:
        folder = ROOT / WHEELS / architecture
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        wanted = folder / "requirements.txt"
        wanted.write_text("".join(f"{pin.text}\n" for p in ("rockfill", "rockfill-cpu") for pin in vendored(p)))
        command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--dest", str(folder), "--requirement", str(wanted)]
        # The stable ABI and no other: so pip takes the pure half of what also comes compiled for each Python.
        command += ["--implementation", "cp", "--python-version", "3.11", "--abi", "abi3"]
        for glibc in GLIBC:
            command += ["--platform", f"manylinux{glibc}_{ARCHITECTURES[architecture]}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def unpack(architecture: str, package: str, folder: Path) -> None:
    """Put what is vendored in `package` into `folder`, ready to be imported from there."""
    for wheel in wheels(architecture, package):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or LEFT_OUT.search(entry.filename):
                    continue
                if ".data/" in entry.filename:
                    raise LookupError(f"{wheel.name} wants {entry.filename} somewhere that nobody has thought of")
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.read(entry)
                target.write_bytes(without_page(content) if entry.filename == LLAMA_CPP else content)
                target.chmod(0o644)


def without_page(library: bytes) -> bytes:
    """`library`, an ELF file for 64 bits, with zeros for the files of llama.cpp's chat page.

    Rockfill shows it to nobody, and it is the code of many other projects, three megabytes packed, whose terms nobody
    would be told. Raises LookupError where it is not found.
    """
    changed = bytearray(library)
    (table_at,) = struct.unpack_from("<Q", library, 0x28)
    size, count = struct.unpack_from("<HH", library, 0x3A)
    # name, type, flags, address, offset, size, link, information, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, table_at + index * size) for index in range(count)]
    found = 0
    for _, kind, _, _, at, length, link, *_ in sections:
        if kind == 2:  # SHT_SYMTAB
            names_at = sections[link][4]
            for name, _, _, section, address, content in struct.iter_unpack("<IBBHQQ", library[at : at + length]):
                start = names_at + name
                if PAGE_FILE.fullmatch(library, start, library.index(0, start)):
                    _, _, _, begins, offset, *_ = sections[section]
                    first = offset + address - begins
                    changed[first : first + content] = bytes(content)
                    found += 1
    if not found:
        raise LookupError(f"{LLAMA_CPP} has its page somewhere else now, or none any more")
    return bytes(changed)


def digest(architecture: str) -> str:
    """What the packages for `architecture` are made from, as one short word."""
    hashed = hashlib.sha256(architecture.encode())
    for name in SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]:
            if path.is_file() and not any(path.match(junk) or junk in path.parts for junk in JUNK):
                hashed.update(f"{path.relative_to(ROOT)} {path.stat().st_mode:o} ".encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def build(architecture: str, output: Path = OUTPUT, *, compression_level: int = 6) -> list[Path]:
    """Build the packages from a copy of the checkout, and return their paths below `output`."""
    fetch(architecture)
    (ROOT / "build").mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"deb-{architecture}-", dir=ROOT / "build"))
    tree = scratch / "rockfill"
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, tree / name, symlinks=True, ignore=shutil.ignore_patterns(*JUNK))
        else:
            shutil.copy2(source, tree / name, follow_symlinks=False)
    shutil.copytree(ROOT / WHEELS / architecture, tree / WHEELS / architecture)
    # Debian's Python, whatever else is called python3 here, and nothing of the user's that a build could depend on.
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(scratch)}
    environment["COMPRESSION_LEVEL"] = str(compression_level)
    if "DEB_BUILD_OPTIONS" in os.environ:
        environment["DEB_BUILD_OPTIONS"] = os.environ["DEB_BUILD_OPTIONS"]
    log = scratch / "log"
    with log.open("wb") as opened:
        done = subprocess.run(
            ["dpkg-buildpackage", "--build=binary", "--unsigned-changes", f"--host-arch={architecture}"],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        sys.exit(f"{log.read_text(errors='replace')[-4000:]}\nBuilding for {architecture} failed; all of it: {log}")
    output.mkdir(parents=True, exist_ok=True)
    for older in output.glob(f"rockfill*_{architecture}.*"):  # or the README's commands would find two versions
        older.unlink()
    # The packages, and what lintian and reprepro want beside them.
    made = sorted(path for path in scratch.iterdir() if path.suffix in (".deb", ".changes", ".buildinfo"))
    copied = [Path(shutil.copy2(path, output / path.name)) for path in made]
    shutil.rmtree(scratch)
    return copied


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["unpack"]:
        _, architecture, package, folder = arguments
        unpack(architecture, package, Path(folder))
        return
    if shutil.which("dpkg-buildpackage") is None or shutil.which("dh") is None:
        sys.exit("To build: sudo apt-get install debhelper binutils-aarch64-linux-gnu")
    for architecture in arguments[1:] or ARCHITECTURES:
        for path in build(architecture):
            if path.suffix == ".deb":
                print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
