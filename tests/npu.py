"""The appliance with a simulator of Rockchip's runtime, and the model's directory as people fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.appliance import Appliance
from tests.fakes.rkllm_simulator import Control, build, compiler, make_model
from tests.fakes.vocabulary import sentencepiece_like
from tests.not_run import not_run

if TYPE_CHECKING:
    from pathlib import Path

NAME = "codegemma-2b-w8a8-rk3588"

# Long enough for a busy machine to do what is right, short enough to wait for what never comes.
CONFIG = """
[engine]
load_timeout_s = {load_timeout_s}
first_token_timeout_s = 3
token_gap_timeout_s = {token_gap_timeout_s}
abort_timeout_s = 2
ping_s = 1
recycle_growth_mib = 64
[rkllm]
context_tokens = {context_tokens}
"""


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
        load_timeout_s: float = 20,
        token_gap_timeout_s: float = 2,
        context_tokens: int = 512,
        log_level: int = 0,
    ) -> None:
        if compiler() is None:
            not_run("rkllm-simulator", "there is no C compiler")
        self.model = make_directory(directory / NAME)
        self.control = Control(directory / "control")
        config = directory / "config.toml"
        config.write_text(
            CONFIG.format(
                load_timeout_s=load_timeout_s, token_gap_timeout_s=token_gap_timeout_s, context_tokens=context_tokens
            )
        )
        used = build(generation) if library is None else library
        variables = {
            **self.control.environment,
            "ROCKFILL_RKLLM_LIBRARY": str(used),
            "RKLLM_LOG_LEVEL": str(log_level),
        }
        arguments = ["--model", str(self.model), "--config", str(config)]
        super().__init__(directory / "state", arguments, variables=variables)
