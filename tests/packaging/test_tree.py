"""The shape of the tree, and that the locks hold what pyproject.toml asks for."""

from __future__ import annotations

import ast
import re
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    *(".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "SECURITY.md", "pyproject.toml"),
    *("daemon", "debian", "packaging", "systemd", "tests", "web"),
}
LARGEST_FILE_BYTES = 5 * 1024**2
# The bundled model may be larger, but no more than this: everybody who installs Rockfill downloads it.
LARGEST_MODEL_BYTES = 12_000_000

# Written so that this file does not hold what it looks for. A registry is whatever pip and apt are told it is; a path
# of the machine where something was made means nothing on another.
FOREIGN = re.compile(
    r"py[p]i\.org|files\.python[h]osted\.org|registry\.npm[j]s\.org|deb\.deb[i]an\.org"
    r"|(?<![\w.~/-])/(?:home/[\w-]|ro[o]t/|wo[r]k/)"
)


def _ignored(relative: str, patterns: list[str]) -> bool:
    """The part of .gitignore's language that ours uses: ``/path``, ``name`` and ``*.suffix``, with or without a ``/``
    at the end."""
    name = relative.rpartition("/")[2]
    return any(relative == pattern[1:] if pattern[0] == "/" else fnmatch(name, pattern) for pattern in patterns)


def _files() -> Iterator[Path]:
    """All that would be committed, found without git: a tree unpacked from an archive has none."""
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()] + ["/.git"]
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if _ignored(path.relative_to(ROOT).as_posix(), patterns):
                continue
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                yield path


def _texts() -> Iterator[tuple[Path, str]]:
    for path in _files():
        if path.is_symlink():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode("utf-8")


def test_the_top_level_holds_only_what_belongs_there() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in _files()} <= TOP_LEVEL


def test_no_file_is_too_large() -> None:
    sizes = {path: path.lstat().st_size for path in _files()}
    most = {path: LARGEST_MODEL_BYTES if path.suffix == ".gguf" else LARGEST_FILE_BYTES for path in sizes}
    assert [path for path in sizes if sizes[path] > most[path]] == []


def test_no_registry_and_no_path_of_another_machine_is_named() -> None:
    found = [f"{path}: {match[0]}" for path, text in _texts() for match in FOREIGN.finditer(text)]
    assert found == []


@pytest.mark.parametrize("text", ["https://py|pi.org/simple", "at /ro|ot/x", "'/ho|me/me'", "(/wo|rk/main)"])
def test_registries_and_such_paths_would_be_seen(text: str) -> None:
    assert FOREIGN.search(text.replace("|", ""))


def test_the_changelog_has_lines_of_80_columns() -> None:
    """As lintian wants them, and apt shows them."""
    assert [line for line in (ROOT / "packaging/debian/changelog").read_text().splitlines() if len(line) > 80] == []


def test_every_python_file_has_the_syntax_of_3_11() -> None:
    for path, text in _texts():
        if path.suffix == ".py":
            ast.parse(text, str(path), feature_version=(3, 11))


PIN = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; .+)? \\$((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?$)+)", re.M
)


def _lock(name: str) -> dict[str, str]:
    """Names to versions; fails on any line that is not a pin with its hashes, such as an option of pip's."""
    text = (ROOT / "packaging" / f"requirements{name}.lock").read_text()
    assert re.fullmatch(r"(\s*#.*\n|\n)*", PIN.sub("", text)), "something but pins"
    pins = [(match["name"], match["version"]) for match in PIN.finditer(text)]
    assert pins
    assert len({name for name, _ in pins}) == len(pins), "pinned twice"
    return dict(pins)


def _asked_for() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by the lock that pins it."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["cpu"]
    return {"": runtime, "-build": project["dependency-groups"]["build"], "-dev": project["dependency-groups"]["dev"]}


@pytest.mark.parametrize("name", ["", "-build", "-dev"])
def test_the_lock_pins_what_is_asked_for(name: str) -> None:
    pins = _lock(name)
    for requirement in map(Requirement, _asked_for()[name]):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, f"{requirement}: make lock"


def test_no_package_is_pinned_in_two_locks() -> None:
    assert not _lock("").keys() & _lock("-dev").keys()


def test_the_locks_are_complete() -> None:
    """pip installs them with --no-deps, so what is installed must find all that it requires among the pins."""
    left_out = {"hf-xet"}  # [tool.uv] in pyproject.toml says why
    pins = _lock("") | _lock("-dev")
    for name in pins:
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # pinned for another platform
        for requirement in map(Requirement, required):
            wanted = canonicalize_name(requirement.name)
            if wanted in left_out or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            assert pins.get(wanted, "none") in requirement.specifier, f"{name} requires {requirement}"
