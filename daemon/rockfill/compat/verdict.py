"""Does this variant run here, on which runtime, and how fast? Pure: names and figures in, a verdict out.

Only what is known refuses; what is inferred warns. Every entry says how it is known: [manual] is Rockchip's RKLLM user
guide, [benchmark] the benchmark.md of 1.3.0 and the README of 1.1.2, [#N] an issue of airockchip/rknn-llm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rockfill.compat.runtime import OFFICIAL_BLOB_IDS
from rockfill.compat.variants import Variant
from rockfill.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


# [manual]: what the converter makes for each platform; it refuses every other pair.
QUANTISATIONS = {
    "rk3588": ("w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128"),
    "rk3576": ("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8"),
}

# Which runtime for files of which converter, best first. A runtime loads files of earlier converters of its own line
# (1.1.1's load on 1.2.3 and work, says taOS #1738; 1.3.0 takes the wrong EOS for files of 1.2.2 [#534]), and never
# those of a later one ("The rkllm-runtime version is lower than the rkllm-toolkit version").
_PREFERRED: Mapping[tuple[int, ...], tuple[str, ...]] = {
    (1, 1): ("1.2.3", "1.2.2", "1.2.1", "1.1.4"),
    (1, 2): ("1.2.3", "1.2.2", "1.2.1"),
    (1, 3): ("1.3.1", "1.3.0"),
}
_OLDEST = (1, 1)  # "incompatible with older version models", README of 1.1.0
_UNKNOWN_CONVERTER = (1, 2)

# The 1.2.1b1 library warns below 0.9.7; with 0.9.6 and older its matrix products fail [#335]. [manual] asks for 0.9.8.
DRIVER_NEEDED = (0, 9, 7)
DRIVER_ADVISED = (0, 9, 8)

# The embedding table (16 bits a value) may stay on the card from runtime 1.2 on (`embed_flash`). The largest among the
# families here are Gemma's: 256,000 tokens, so 30 % of CodeGemma 2B and 1.6 GB of the 7B.
_EMBEDDING_SHARE = 0.3
_EMBEDDING_BYTES = 1_600_000_000
_SYSTEM_BYTES = 250_000_000  # what a Debian without a desktop needs
_BESIDE_WEIGHTS_BYTES = 500_000_000  # KV cache, buffers, the system: inferred from the published memory figures

# Tokens a second on RK3588 at full clocks, w8a8 [benchmark], by the architecture that each of our models has.
_PUBLISHED: tuple[tuple[re.Pattern[str], float, str], ...] = tuple(
    (re.compile(pattern, re.I), rate, source)
    for pattern, rate, source in (
        (r"gemma[-_.]?(1\.1-|2-)?2b", 10.37, "Rockchip's figure for Gemma2 2B"),
        (r"qwen2(\.5)?[-_.](coder-)?0\.5b", 41.58, "Rockchip's figure for Qwen2 0.5B"),
        (r"qwen2(\.5)?[-_.](coder-)?1\.5b", 16.69, "Rockchip's figure for Qwen2.5 1.5B"),
        (r"tinyllama[-_.]?1\.1b", 24.43, "Rockchip's figure for TinyLlama 1.1B"),
    )
)
# Against w8a8, by the models that were published in both [benchmark]: the middle of 0.43 to 0.57, and of 0.80 to 0.83.
# Nothing was published for groups of 256.
_GROUP_FACTORS = {"w8a8": 1.0, "w8a8_g512": 0.82, "w8a8_g128": 0.5}

# Best first. On the CPU q8_0 leads, as in llama.vim's and llama.cpp's own presets for code models; then by quality.
_GGUF_ORDER = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q5_k_s", "q4_k_s", "q4_0", "iq4_xs", "q3_k_m", "f16", "bf16", "f32")
_RKLLM_ORDER = tuple(dict.fromkeys(name for names in QUANTISATIONS.values() for name in names))


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """What a verdict needs to know of a machine; None is what it does not tell.

    `platform` is "rk3588" or its like, "" for a machine that is known to have no such NPU.
    """

    platform: str | None = None
    ram_bytes: int | None = None
    driver_version: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know before fetching. `severity` "refuse" means: it can't work here."""

    severity: Literal["refuse", "warn"]
    code: Code
    message: str
    advice: str

    def value(self) -> dict[str, str]:
        """As JSON."""
        return {
            "severity": self.severity,
            "code": self.code.value,
            "message": self.message,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """The runtime to run a file with, and why that one. `installed` is whether it is here already."""

    version: str
    installed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one variant on one board."""

    variant: Variant
    problems: tuple[Finding, ...]
    runtime: RuntimeChoice | None
    tokens_per_second: float | None
    measured: bool
    source: str
    recommended: bool = False
    reason: str = ""

    @property
    def fits(self) -> bool:
        return all(finding.severity != "refuse" for finding in self.problems)


def judge(
    variants: Iterable[Variant],
    board: BoardFacts,
    installed: Sequence[str] = (),
    measured: Mapping[str, float] | None = None,
    pinned: str | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on each of `variants`, in their order; at most one is recommended.

    `installed` are the versions of the runtimes here, `pinned` the one that was chosen by hand, `measured` the tokens
    a second that the selftest saw on this board, by `Variant.file`.
    """
    verdicts = [_judge_one(variant, board, installed, pinned, measured or {}) for variant in variants]
    best = best_of(verdicts)
    return tuple(_with_reason(verdict, len(verdicts) if verdict is best else None) for verdict in verdicts)


def choose_runtime(
    converter_version: str | None, installed: Sequence[str], pinned: str | None = None
) -> RuntimeChoice | None:
    """The runtime for a file of that converter (None: not known); None if no known runtime can load it.

    A pin wins over everything; else the first of the preference table that is installed, else what the table would
    have installed.
    """
    if pinned is not None:
        return RuntimeChoice(pinned, pinned in installed, "chosen by hand")
    converter = parse_version(converter_version)
    line = converter[:2] if converter is not None else _UNKNOWN_CONVERTER
    whose = f"files of converter {converter_version}" if converter is not None else "files of an unknown converter"
    known = _PREFERRED.get(line, ())
    later = [version for version in {*installed, *OFFICIAL_BLOB_IDS} if _release(version)[:2] >= line]
    others = sorted(set(later) - set(known), key=lambda version: (_release(version)[:2] != line, _release(version)))
    able = [version for version in (*known, *others) if converter is None or _release(version) >= converter]
    for version in able:
        if version in installed:
            best = version == next((name for name in able if name in OFFICIAL_BLOB_IDS), version)
            return RuntimeChoice(
                version, installed=True, reason=f"{'the best' if best else 'the best one here'} for {whose}"
            )
    to_fetch = next((version for version in able if version in OFFICIAL_BLOB_IDS), None)
    if to_fetch is None:
        return None
    return RuntimeChoice(to_fetch, installed=False, reason=f"the best for {whose}")


def parse_version(text: str | None) -> tuple[int, ...] | None:
    """``1.2.1b1`` as (1, 2, 1); None for what is no version."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:b\d*)?", text or "")
    return tuple(int(part) for part in match.groups("0")) if match else None


def _release(version: str) -> tuple[int, ...]:
    return parse_version(version) or (0,)


def _judge_one(
    variant: Variant,
    board: BoardFacts,
    installed: Sequence[str],
    pinned: str | None,
    measured: Mapping[str, float],
) -> Verdict:
    runtime = choose_runtime(variant.converter_version, installed, pinned) if variant.engine == "rkllm" else None
    findings = [finding for check in _CHECKS for finding in check(variant, board, runtime)]
    rate, source = measured.get(variant.file), "measured on this board"
    if rate is None:
        refused = any(finding.severity == "refuse" for finding in findings)
        rate, source = (None, "") if refused else _published(variant, board)
    return Verdict(variant, tuple(findings), runtime, rate, variant.file in measured, source)


def _published(variant: Variant, board: BoardFacts) -> tuple[float | None, str]:
    factor = _GROUP_FACTORS.get(variant.quantisation or "")
    if variant.engine == "rkllm" and factor is not None and "rk3588" in (board.platform, variant.platform):
        for pattern, rate, source in _PUBLISHED:
            if pattern.search(variant.model):
                scaled = "" if factor == 1 else f", times {factor:g} for groups"
                return round(rate * factor, 1), f"{source}{scaled}, at full clocks"
    return None, ""


def best_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The one to take: of those that fit, else of all; None of none."""
    ranked = sorted(verdicts, key=lambda verdict: (not verdict.fits, *_preference(verdict)))
    if not ranked:
        return None
    tried = [verdict for verdict in ranked if verdict.measured and verdict.fits]
    if ranked[0] in tried:  # this board's own word stands above the table, where it knows both
        return max(tried, key=lambda verdict: verdict.tokens_per_second or 0.0)
    return ranked[0]


def _preference(verdict: Verdict) -> tuple[object, ...]:
    variant = verdict.variant
    order = _RKLLM_ORDER if variant.engine == "rkllm" else _GGUF_ORDER
    return (
        len(verdict.problems),
        _rank(order, variant.quantisation),
        variant.optimisation if variant.optimisation is not None else 9,
        variant.hybrid_ratio if variant.hybrid_ratio is not None else 9.0,
        variant.file,
    )


def _rank(order: Sequence[str], name: str | None) -> int:
    return order.index(name) if name in order else len(order)


def _with_reason(verdict: Verdict, best_among: int | None) -> Verdict:
    """`best_among` is among how many this one is the best, None if it is not."""
    if not verdict.fits:
        refusal = next(finding for finding in verdict.problems if finding.severity == "refuse")
        return replace(verdict, reason=refusal.message)
    if best_among is None:
        return verdict
    variant = verdict.variant
    reasons = ["the only one that there is" if best_among == 1 else "fits this machine"]
    if verdict.measured:
        reasons.append(f"{verdict.tokens_per_second:g} tokens a second were measured here")
    elif best_among > 1 and variant.quantisation is not None:
        fastest = variant.engine == "rkllm" and variant.quantisation == _RKLLM_ORDER[0]
        reasons.append(f"{variant.quantisation} is the fastest kind" if fastest else variant.quantisation)
    return replace(verdict, recommended=True, reason=", ".join(reasons))


# ---- the checks: each yields what it finds


def _check_parts(variant: Variant, board: BoardFacts, runtime: RuntimeChoice | None) -> Iterable[Finding]:
    if variant.parts > 1:
        yield Finding(
            "refuse",
            Code.UNSUPPORTED,
            f"The model is split into {variant.parts} files.",
            "Choose a variant in one file.",
        )


def _check_platform(variant: Variant, board: BoardFacts, runtime: RuntimeChoice | None) -> Iterable[Finding]:
    if variant.engine != "rkllm":
        return
    if board.platform == "":
        yield Finding(
            "refuse",
            Code.NPU_UNAVAILABLE,
            "This machine has no NPU that runs .rkllm files.",
            "Choose a GGUF variant, which runs on the CPU.",
        )
    elif board.platform and variant.platform and board.platform != variant.platform:
        yield Finding(
            "refuse",
            Code.PLATFORM_MISMATCH,
            f"The file was converted for {variant.platform.upper()}, this board is {board.platform.upper()}.",
            f"Choose a variant for {board.platform.upper()}.",
        )
    elif variant.platform is None:
        yield Finding(
            "warn",
            Code.PLATFORM_MISMATCH,
            "The file's name does not tell for which platform it was converted.",
            "Look at the repository's page whether it is for this board.",
        )
    platform = board.platform or variant.platform
    allowed = QUANTISATIONS.get(platform or "")
    if allowed is not None and variant.quantisation is not None and variant.quantisation not in allowed:
        yield Finding(
            "refuse",
            Code.PLATFORM_MISMATCH,
            f"{variant.quantisation} does not run on {(platform or '').upper()}.",
            f"Choose one of {', '.join(allowed)}.",
        )


def _check_memory(variant: Variant, board: BoardFacts, runtime: RuntimeChoice | None) -> Iterable[Finding]:
    size, ram = variant.size_bytes, board.ram_bytes
    if size is None or ram is None:
        return
    least = float(size)
    if variant.engine == "rkllm":
        least = max(size * (1 - _EMBEDDING_SHARE), size - _EMBEDDING_BYTES)
    if least + _SYSTEM_BYTES > ram:
        yield Finding(
            "refuse",
            Code.OUT_OF_NPU_MEMORY if variant.engine == "rkllm" else Code.OUT_OF_MEMORY,
            f"The model needs at least {least / 1e9:.1f} GB of memory, this machine has {ram / 1e9:.1f} GB.",
            "Choose a smaller model.",
        )
    elif size + _BESIDE_WEIGHTS_BYTES > ram:
        yield Finding(
            "warn",
            Code.OUT_OF_NPU_MEMORY if variant.engine == "rkllm" else Code.OUT_OF_MEMORY,
            f"The model takes most of this machine's {ram / 1e9:.1f} GB of memory.",
            "Run nothing else beside it, and keep [rkllm] embed_flash switched on.",
        )


def _check_runtime(variant: Variant, board: BoardFacts, runtime: RuntimeChoice | None) -> Iterable[Finding]:
    if variant.engine != "rkllm":
        return
    converter = parse_version(variant.converter_version)
    if converter is None:
        yield Finding(
            "warn",
            Code.MODEL_TOO_NEW,
            "Neither file nor repository tells which converter made the file.",
            "If it does not load, try a newer runtime.",
        )
    elif converter[:2] < _OLDEST:
        yield Finding(
            "refuse",
            Code.MODEL_TOO_OLD,
            f"The file was made by converter {variant.converter_version}; runtimes from 1.1 on do not load it.",
            "Choose a file that was converted with 1.1 or newer.",
        )
    elif runtime is None:
        yield Finding(
            "refuse",
            Code.MODEL_TOO_NEW,
            f"The file was made by converter {variant.converter_version}; no runtime known here is that new.",
            "Choose a file of an earlier converter, or install a newer runtime from a file.",
        )
    elif _release(runtime.version) < converter:
        yield Finding(
            "refuse",
            Code.MODEL_TOO_NEW,
            f"The file was made by converter {variant.converter_version}, and the chosen runtime is {runtime.version}.",
            "Let the runtime be chosen again: `rockfill runtime use auto`.",
        )
    elif _release(runtime.version)[:2] != converter[:2] and _release(runtime.version)[:2] >= (1, 3):
        yield Finding(
            "warn",
            Code.RUNTIME_UNSUPPORTED,
            f"Runtime {runtime.version} takes the wrong end-of-text token for some files of earlier converters.",
            "Install 1.2.3 beside it: `rockfill runtime install 1.2.3`.",
        )


def _check_driver(variant: Variant, board: BoardFacts, runtime: RuntimeChoice | None) -> Iterable[Finding]:
    driver = parse_version(board.driver_version)
    if variant.engine != "rkllm" or driver is None:
        return
    if driver < DRIVER_NEEDED:
        yield Finding(
            "refuse",
            Code.DRIVER_TOO_OLD,
            f"The kernel's rknpu driver is {board.driver_version}; runtimes from 1.1 on need 0.9.7.",
            "Install a vendor kernel with rknpu 0.9.8.",
        )
    elif driver < DRIVER_ADVISED:
        yield Finding(
            "warn",
            Code.DRIVER_TOO_OLD,
            f"The kernel's rknpu driver is {board.driver_version}; Rockchip asks for 0.9.8.",
            "If the model fails, install a vendor kernel with rknpu 0.9.8.",
        )


_CHECKS: tuple[Callable[[Variant, BoardFacts, RuntimeChoice | None], Iterable[Finding]], ...] = (
    _check_parts,
    _check_platform,
    _check_memory,
    _check_runtime,
    _check_driver,
)
