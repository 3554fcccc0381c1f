"""The appliance with a simulator of Rockchip's runtime, and the model's directory as people fetch it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.appliance import START_S, Appliance
from tests.fakes.rkllm_simulator import Control, build, compiler, make_model
from tests.fakes.vocabulary import sentencepiece_like
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "codegemma-2b-w8a8-rk3588"

# Long enough for any machine to do what is right. A test that waits for what never comes makes them short for itself.
CONFIG = """
[engine]
load_timeout_s = 60
first_token_timeout_s = 60
token_gap_timeout_s = 60
abort_timeout_s = 60
pong_timeout_s = 30
ping_s = 1
recycle_growth_mib = 64
[rkllm]
context_tokens = {context_tokens}
"""
SHORT_S = 2


def make_directory(directory: Path) -> Path:
    """A folder with one ``.rkllm`` file and its tokenizer.json."""
    directory.mkdir(parents=True)
    make_model(directory / f"{NAME}.rkllm")
    sentencepiece_like(directory / "tokenizer.json")
    return directory


class NpuAppliance(Appliance):
    """A daemon with the model in a simulator of `generation`, not started yet.

    `control` tells the simulator what to do. `library` replaces it; "" names none.
    """

    def __init__(
        self,
        directory: Path,
        generation: str = "1.2.1",
        *,
        library: Path | str | None = None,
        context_tokens: int = 512,
        log_level: int = 0,
    ) -> None:
        if compiler() is None:
            not_run("rkllm-simulator", "there is no C compiler")
        self.model = make_directory(directory / NAME)
        self.control = Control(directory / "control")
        self.config = directory / "config.toml"
        self._text = CONFIG.format(context_tokens=context_tokens)
        self.config.write_text(self._text)
        used = build(generation) if library is None else library
        variables = {
            **self.control.environment,
            "ROCKFILL_RKLLM_LIBRARY": str(used),
            "RKLLM_LOG_LEVEL": str(log_level),
        }
        arguments = ["--model", str(self.model), "--config", str(self.config)]
        super().__init__(directory / "state", arguments, variables=variables)

    @contextmanager
    def hasty(self) -> Iterator[None]:
        """What takes longer than `SHORT_S` counts as hung, if it begins inside."""
        self._reconfigure(self._text.replace("_s = 60", f"_s = {SHORT_S}"))
        try:
            yield
        finally:
            self._reconfigure(self._text)

    def _reconfigure(self, text: str) -> None:
        self.config.write_text(text)
        told = len(self.printed)
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + START_S
        while not any("the configuration was read again" in line for line in self.printed[told:]):
            assert time.monotonic() < deadline, self.printed[told:]
            time.sleep(0.01)
