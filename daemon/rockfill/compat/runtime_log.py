"""What the lines mean that Rockchip's runtime prints.

They are the only account of a failed load: `rkllm_init` returns -1 for everything, or 0 for nothing in 1.1.x. The
strings were read in the 1.2.1b1 library and in logs that people published; issues [#N] are of airockchip/rknn-llm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from rockfill.errors import Code, ProblemInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What the runtime said of itself, the machine and the model; None for what it did not say."""

    runtime_version: str | None = None
    driver_version: str | None = None
    platform: str | None = None
    toolkit_version: str | None = None
    context_limit_tokens: str | None = None
    npu_cores: str | None = None
    target_platform: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


_FACTS = (
    re.compile(
        r"rkllm-runtime version: (?P<runtime_version>[^,]+), rknpu driver version: (?P<driver_version>[^,]+), "
        r"platform: (?P<platform>\S+)"
    ),
    re.compile(
        r"rkllm-toolkit version: (?P<toolkit_version>[^,]+), max_context_limit: (?P<context_limit_tokens>\d+), "
        r"npu_core_num: (?P<npu_cores>\d+), target_platform: (?P<target_platform>[^,\s]+)"
    ),
)


@dataclass(frozen=True, slots=True)
class _Sign:
    """A line that tells what is wrong, the most telling first: a later sign is often only its consequence."""

    pattern: re.Pattern[str]
    code: Code
    message: str
    advice: str


def _sign(pattern: str, code: Code, message: str, advice: str) -> _Sign:
    return _Sign(re.compile(pattern), code, message, advice)


_FETCH_AGAIN = "Fetch it again, or choose another variant."

_SIGNS = (
    _sign(
        r"failed to open rknpu|no rknpu|open rknpu module",
        Code.NPU_UNAVAILABLE,
        "The NPU could not be opened.",
        "The kernel needs Rockchip's rknpu driver (a vendor kernel), and this user the groups render and video.",
    ),
    _sign(
        r"errno: 24\b|Too many open files",
        Code.TOO_MANY_FILES,
        "The engine's process ran out of file descriptors.",
        "Raise the limit: LimitNOFILE=102400 in the unit, or ulimit -n in a shell.",
    ),
    _sign(
        r"failed to malloc npu memory|failed to allocate handle",
        Code.OUT_OF_NPU_MEMORY,
        "There was not enough memory for the NPU.",
        "Close what else uses memory or the NPU, or choose a smaller model or variant.",
    ),
    _sign(
        r"target_platform does not match|Platform error, must be",
        Code.PLATFORM_MISMATCH,
        "The model was converted for another chip.",
        "Choose a variant whose name has this board's chip in it, such as rk3588.",
    ),
    _sign(
        r"runtime version is lower than the rkllm-toolkit|is support model version <=",
        Code.MODEL_TOO_NEW,
        "The model was converted for a newer runtime.",
        "Use a newer runtime, or a variant converted for this one.",
    ),
    _sign(
        r"The model version is too old",
        Code.MODEL_TOO_OLD,
        "The model was converted for an older runtime than this one reads.",
        "Use a variant that was converted with toolkit 1.1 or later.",
    ),
    _sign(
        r"max_context\[\d+\] must be less than|n_keep must be less than",
        Code.CONTEXT_TOO_LONG,
        "The model was converted for a shorter context than was asked for.",
        "Lower [rkllm] context_tokens in the configuration.",
    ),
    _sign(
        r"invalid rknn llm model magic|invalid rkllm model|invalid magic number"
        r"|failed to read (header|key-value|tensor)|load model file error",
        Code.INVALID_MODEL,
        "The runtime can't read the model file.",
        _FETCH_AGAIN,
    ),
    _sign(
        r"Mismatch driver version|requires driver version",
        Code.DRIVER_TOO_OLD,
        "The kernel's NPU driver is too old for this runtime.",
        "Upgrade the kernel to one with rknpu 0.9.8, or use an older runtime.",
    ),
    _sign(
        r"length of prompt is greater than max context|prompt gather than max context",
        Code.CONTEXT_TOO_LONG,
        "The prompt was longer than the model's context.",
        "Ask with less text.",
    ),
    _sign(
        r"failed to submit|job timeout|run failed",
        Code.NPU_FAILED,
        "The NPU did not finish its work.",
        "Nothing else may use the NPU at the same time; if it repeats, reboot the board.",
    ),
    # Only a warning in the library, so only an explanation where nothing better is found: runtimes want 0.9.7 [#335].
    _sign(
        r"rknpu driver version is too low",
        Code.DRIVER_TOO_OLD,
        "The kernel's NPU driver is too old for this runtime.",
        "Upgrade the kernel to one with rknpu 0.9.8.",
    ),
)

# What 1.1.x prints when rkllm_init returns 0 for a model that it did not load [#129, #156].
_FAILED_LOAD = re.compile(r"rknn_init fail|load model file error|invalid rknn llm model magic|rkllm_init failed")


def facts_of(lines: Iterable[str]) -> RuntimeFacts:
    """The facts in the lines of one load."""
    found: dict[str, str] = {}
    for line in lines:
        for pattern in _FACTS:
            if match := pattern.search(line):
                found |= {name: value.strip() for name, value in match.groupdict().items()}
    return RuntimeFacts(**{field.name: found.get(field.name) for field in fields(RuntimeFacts)})


def problem_of(lines: Sequence[str]) -> ProblemInfo | None:
    """What `lines` say went wrong, None if they say nothing that is known. Its detail has the telling line."""
    for sign in _SIGNS:
        for line in reversed(lines):
            if sign.pattern.search(line):
                return ProblemInfo(sign.code, sign.message, sign.advice, {"line": line.strip()})
    return None


def load_failed(lines: Iterable[str]) -> bool:
    """Whether the lines of a load say that it failed, whatever `rkllm_init` returned."""
    return any(_FAILED_LOAD.search(line) for line in lines)
