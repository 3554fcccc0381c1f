"""A simulator of the RKLLM runtime with a model in it: in this process, or in one that may end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from rockfill.rkllm.abi import Emission, Library
from tests.fakes.rkllm_simulator import Control, build, compiler, make_model
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rockfill.compat.runtime import Generation


CHILD = """
import resource, sys
from pathlib import Path
from rockfill.compat.runtime import Generation
from rockfill.rkllm.abi import Library
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
library = Library.open(Path(sys.argv[1]), Generation(sys.argv[2]))
def begin():
    param = library.default_param()
    param.model_path = sys.argv[3].encode()
    print("init", library.init(param, lambda emission: None), flush=True)
def attempt():
    begin()
    run()
def run():
    code = library.run(library.abi.token_input([2, 5, 6]), library.abi.infer_param())
    print("run", code, "destroy", library.destroy(), flush=True)
"""


class Load(Protocol):
    def __call__(self, generation: Generation, also: Callable[[], None] = ...) -> tuple[Library, list[Emission]]: ...


class InAProcess(Protocol):
    def __call__(
        self, path: Path, generation: Generation, then: str = ..., content: bytes | None = ...
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    made = Control(tmp_path / "control")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def load(control: Control, tmp_path: Path) -> Iterator[Load]:
    """A simulator with a model in it, and the list of what it emits; `also` is called after each emission."""
    opened: list[Library] = []

    def load(generation: Generation, also: Callable[[], None] = lambda: None) -> tuple[Library, list[Emission]]:
        library = Library.open(build(generation), generation)
        param = library.default_param()
        param.model_path = str(make_model(tmp_path / "model.rkllm")).encode()
        emitted: list[Emission] = []

        def on_emission(emission: Emission) -> None:
            emitted.append(emission)
            also()

        assert library.init(param, on_emission) == 0
        opened.append(library)
        return library, emitted

    yield load
    for library in opened:
        library.destroy()


@pytest.fixture
def in_a_process(control: Control) -> InAProcess:
    """Opens a library as a generation in a child, and runs `then` there; `content` is put in place of the model."""

    def in_a_process(
        path: Path, generation: Generation, then: str = "attempt()", content: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        model = make_model(control.path.with_name("model.rkllm"))
        if content is not None:
            model.write_bytes(content)
        return subprocess.run(
            [sys.executable, "-c", CHILD + then, str(path), generation, str(model)],
            capture_output=True,
            text=True,
            timeout=120,  # emulated, on a busy machine; natively the test has its own limit
            check=False,
            env={**os.environ, **control.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return in_a_process
