"""Builds the simulator of Rockchip's runtime (`librkllmrt.c`), and tells a running one what to do.

    library = build("1.2.1")
    control = Control(tmp_path / "control", speed="codegemma-2b-rk3588")
    model = make_model(tmp_path / "model.rkllm")
    …start a process that loads `library`, with `control.environment` in its environment…
    control.set(run="hang")

A C compiler (`cc`, or what $CC names) is all it needs; `compiler()` is None where there is none.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCE = Path(__file__).with_name("librkllmrt.c")
_MACROS = {
    "1.1": "GEN_1_1",
    "1.2.0": "GEN_1_2_0",
    "1.2.1b1": "GEN_1_2_1B1",
    "1.2.1": "GEN_1_2_1",
    "1.3": "GEN_1_3",
}
GENERATIONS = tuple(_MACROS)
# The version that each one says it is
VERSIONS: Mapping[str, str] = {"1.1": "1.1.4", "1.2.0": "1.2.0", "1.2.1b1": "1.2.1b1", "1.2.1": "1.2.3", "1.3": "1.3.0"}
_FLAGS = ("-std=c11", "-O1", "-s", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread")
ENVIRONMENT_VARIABLE = "RKLLM_SIM_CONTROL"

_MAGIC = bytes.fromhex("daeeb336")  # "GGUF" behind the vendor's mask


def compiler() -> list[str] | None:
    """The C compiler's command, or None if this machine has none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if shutil.which(command[0]) else None


def build(
    generation: str,
    *,
    version_string: bool = True,
    move_field: bool = False,
    buffered_lines: bool = False,
    directory: Path | None = None,
) -> Path:
    """The compiled simulator of a generation (one of `GENERATIONS`), named ``librkllmrt.so`` in a folder of its own.

    Built once per source and options, below `directory` or the user's folder for temporary files; builds running at
    the same time do not disturb each other. `version_string` False leaves the version string out (1.1 has none
    anyway), `move_field` lays RKLLMParam out wrongly, `buffered_lines` leaves lines in stdio's buffer.
    Raises CalledProcessError if the compiler refuses.
    """
    command = compiler()
    assert command is not None, "no C compiler; ask compiler() first"
    arguments = [*_FLAGS, f"-DGENERATION={_MACROS[generation]}", "-Wl,-soname,librkllmrt.so"]
    arguments += [] if version_string else ["-DNO_VERSION_STRING"]
    arguments += ["-DMOVE_FIELD"] if move_field else []
    arguments += ["-DBUFFERED_LINES"] if buffered_lines else []
    source = SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join([source, *map(str.encode, [*command, *arguments])])).hexdigest()[:16]
    top = directory or Path(tempfile.gettempdir()) / f"rockfill-rkllm-simulator-{os.getuid()}"
    library = top / f"{generation}-{key}" / "librkllmrt.so"
    if not library.exists():
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch) / library.name
            subprocess.run([*command, *arguments, "-o", str(made), str(SOURCE)], check=True)
            made.replace(library)
    return library


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a script. `text` None: the library gives NULL. A special one is not in the text unless asked for."""

    id: int
    text: bytes | None
    special: bool = False


Value: TypeAlias = "str | float | bytes | Sequence[Token]"


class Control:
    """The control file of a simulator; the keys, their defaults and meanings stand at KEYS in `librkllmrt.c`.

    A change is seen by a running simulator at its next call or decoding step.
    """

    def __init__(self, path: Path, **keys: Value) -> None:
        self.path = path
        self._keys: dict[str, Value] = {}
        self.set(**keys)

    @property
    def environment(self) -> dict[str, str]:
        """What the process that loads the simulator needs in its environment."""
        return {ENVIRONMENT_VARIABLE: str(self.path)}

    def set(self, **keys: Value) -> None:
        """Change these keys, keep the others."""
        self._keys |= keys
        lines = "".join(f"{key}={_encode(value)}\n" for key, value in self._keys.items())
        scratch = self.path.with_name(f"{self.path.name}.new")
        scratch.write_text(lines, encoding="utf-8")
        scratch.replace(self.path)

    def reset(self) -> None:
        """Every key back to its default."""
        self._keys.clear()
        self.set()


def _encode(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes):
        return value.hex()
    return ",".join(
        f"{token.id}{'s' if token.special else ''}:{'-' if token.text is None else token.text.hex()}" for token in value
    )


def make_model(path: Path) -> Path:
    """A file that the simulator takes for a model: the header of a .rkllm file (version 3, no tensors, no keys)."""
    path.write_bytes(_MAGIC + (3).to_bytes(4, "little") + bytes(16))
    return path
