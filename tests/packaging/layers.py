"""The layer rule of ARCHITECTURE.md as a checker over source files: nothing is imported, so nothing has to work yet."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "rockfill"

# A row may import the rows above it, never its own. Where one layer of the drawing has an order within, it has rows.
LAYERS = (
    "errors",
    "decode session disk unbroken",
    "config paths snapshots bus state link fim compat",
    "rkllm llama hub store hardware prompting",
    "engine watchdog",
    "completion downloads clocks telemetry access doctor selftest evaluation",
    "api client",
    "app worker",
    "cli",
    "__main__",
)
LEVEL = {unit: level for level, row in enumerate(LAYERS) for unit in row.split()}

# Who alone may import these: the daemon never loads a native engine, and the web framework stays at the edges.
ONLY_IN = {
    "ctypes": {"rkllm", "worker"},
    "aiohttp": {"api", "client", "hub", "app", "cli"},
    "rockfill.rkllm": {"worker"},
    "rockfill.llama": {"worker"},
}
# Ships to those who drive an appliance from afar, so nothing of the daemon comes with it.
HIGHEST_FOR = {"client": LEVEL["config"]}

PURE = {
    *("errors", "decode", "session", "link", "fim", "compat"),
    *("evaluation.tasks", "evaluation.places", "evaluation.scores", "evaluation.results"),
    *("engine.machine", "completion.scheduler", "completion.cache", "completion.guesses", "completion.budget"),
}
VAGUE = {"utils", "helpers", "common", "manager"}
# The sandbox mounts a /proc of its own, so that its programs do not see the machine's.
KERNEL_PATHS_IN = {"hardware", "evaluation.sandbox"}
KERNEL_PATH = re.compile(r"/(sys|proc)(/|$)")


@dataclass(frozen=True, slots=True)
class Import:
    """`target` is absolute and names the module, or the name taken from a package, which may be its submodule."""

    line: int
    target: str

    def within(self, package: str) -> bool:
        return self.target == package or self.target.startswith(f"{package}.")


def violations(root: Path) -> list[str]:
    """Every breach in the package at `root`, as ``engine/machine.py:12: what is wrong``."""
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found += (f"{path.relative_to(root)}:{line}: {what}" for line, what in _breaches(module, tree, path))
    return found


def _breaches(module: str, tree: ast.Module, path: Path) -> Iterator[tuple[int, str]]:
    unit = module.partition(".")[0]
    if unit and unit not in LEVEL:
        yield 1, f"{unit} has no place in the table of layers"
        return
    for word in VAGUE & set(module.split(".")):
        yield 1, f"{word} says nothing of what is in it"
    pure = any(module == name or module.startswith(f"{name}.") for name in PURE)
    for imported in _imports(module, tree, is_package=path.name == "__init__.py"):
        if pure and imported.within("asyncio"):
            yield imported.line, "a pure module imports asyncio"
        for package, allowed in ONLY_IN.items():
            if imported.within(package) and unit not in {*allowed, package.removeprefix(f"{PACKAGE}.")}:
                yield imported.line, f"only {', '.join(sorted(allowed))} may import {package}"
        if imported.within(PACKAGE) and (problem := _wrong_way(unit, imported)):
            yield imported.line, problem
    if not KERNEL_PATHS_IN & {unit, module}:
        for line, text in _strings(tree):
            if KERNEL_PATH.match(text):
                yield line, f"only hardware opens {text}"


def _wrong_way(unit: str, imported: Import) -> str | None:
    target = imported.target.split(".")[1] if "." in imported.target else ""
    if target in ("", unit) or (target.startswith("__") and target not in LEVEL):
        return None  # within one unit, or the package itself and what it holds, such as __version__
    if target not in LEVEL:
        return f"imports {imported.target}, which has no place in the table of layers"
    if not unit:
        return f"the package itself imports {target}"
    if LEVEL[target] == LEVEL[unit]:
        return f"imports its sibling {target}"
    if LEVEL[target] > LEVEL[unit]:
        return f"imports {target}, which is above it"
    if LEVEL[target] > HIGHEST_FOR.get(unit, len(LAYERS)):
        return f"{unit} may not import {target}"
    return None


def _imports(module: str, tree: ast.Module, *, is_package: bool) -> Iterator[Import]:
    """All of them: inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *filter(None, module.split("."))]
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield from (Import(node.lineno, f"{base}.{name.name}") for name in node.names)


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants but docstrings, which may speak of anything."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value
