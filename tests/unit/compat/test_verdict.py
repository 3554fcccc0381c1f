from __future__ import annotations

import pytest

from rockfill.compat.variants import RepoFile, Variant, variants_of
from rockfill.compat.verdict import BoardFacts, Verdict, best_of, choose_runtime, judge
from rockfill.errors import Code

GB = 10**9
BOARD = BoardFacts("rk3588", 16 * GB, "0.9.8")
CODEGEMMA = "c01zaut/codegemma-2b-rk3588-1.1.2"


def variants(*names: str, repository: str = CODEGEMMA, size_bytes: int = 3_580_000_000) -> tuple[Variant, ...]:
    return variants_of(repository, [RepoFile(name, size_bytes) for name in names])


def npu_file(quantisation: str = "w8a8", optimisation: int = 0, platform: str = "rk3588") -> str:
    return f"codegemma-2b-{platform}-{quantisation}-opt-{optimisation}-hybrid-ratio-0.0.rkllm"


def found(verdict: Verdict) -> list[tuple[str, Code]]:
    return [(finding.severity, finding.code) for finding in verdict.problems]


def one(variant: Variant, board: BoardFacts = BOARD, installed: tuple[str, ...] = ("1.2.3",)) -> Verdict:
    [verdict] = judge([variant], board, installed)
    return verdict


def test_what_is_known_to_work_has_no_problem_and_a_published_speed() -> None:
    verdict = one(variants(npu_file())[0])
    assert (verdict.fits, found(verdict), verdict.recommended) == (True, [], True)
    assert verdict.tokens_per_second == 10.4
    assert "Gemma2 2B" in verdict.source


@pytest.mark.parametrize(
    ("file", "repository", "size_gb", "board", "expected"),
    [
        # platform
        (npu_file(platform="rk3576"), "u/x-1.1.2", 1, BOARD, [("refuse", Code.PLATFORM_MISMATCH)]),
        (npu_file("w4a16"), "u/x-1.1.2", 1, BOARD, [("refuse", Code.PLATFORM_MISMATCH)]),
        ("m-w8a8.rkllm", "u/x-1.1.2", 1, BOARD, [("warn", Code.PLATFORM_MISMATCH)]),
        (npu_file(), "u/x-1.1.2", 1, BoardFacts(""), [("refuse", Code.NPU_UNAVAILABLE)]),
        (npu_file(), "u/x-1.1.2", 1, BoardFacts(), []),
        # memory: 3.58 GB load on 4 GB with the embedding on the disk; 10.1 do not on 8
        (npu_file(), "u/x-1.1.2", 3.58, BoardFacts("rk3588", 4 * GB), [("warn", Code.OUT_OF_NPU_MEMORY)]),
        (npu_file(), "u/x-1.1.2", 3.58, BoardFacts("rk3588", 2 * GB), [("refuse", Code.OUT_OF_NPU_MEMORY)]),
        (npu_file(), "u/x-1.1.2", 10.1, BoardFacts("rk3588", 8 * GB), [("refuse", Code.OUT_OF_NPU_MEMORY)]),
        ("m-q8_0.gguf", "u/x", 1.6, BoardFacts("", 4 * GB), []),
        ("m-q8_0.gguf", "u/x", 3.6, BoardFacts("", 4 * GB), [("warn", Code.OUT_OF_MEMORY)]),
        ("m-q8_0.gguf", "u/x", 3.9, BoardFacts("", 4 * GB), [("refuse", Code.OUT_OF_MEMORY)]),
        ("m-q8_0-00001-of-00002.gguf", "u/x", 1, BOARD, [("refuse", Code.UNSUPPORTED)]),
        # converter
        (npu_file(), "u/x", 1, BOARD, [("warn", Code.MODEL_TOO_NEW)]),
        (npu_file(), "u/x-1.0.1", 1, BOARD, [("refuse", Code.MODEL_TOO_OLD)]),
        (npu_file(), "u/x-1.3.9", 1, BOARD, [("refuse", Code.MODEL_TOO_NEW)]),
        (npu_file(), "u/x-1.4.0", 1, BOARD, [("refuse", Code.MODEL_TOO_NEW)]),
        # driver
        (npu_file(), "u/x-1.1.2", 1, BoardFacts("rk3588", None, "0.9.8"), []),
        (npu_file(), "u/x-1.1.2", 1, BoardFacts("rk3588", None, "0.9.7"), [("warn", Code.DRIVER_TOO_OLD)]),
        (npu_file(), "u/x-1.1.2", 1, BoardFacts("rk3588", None, "0.9.6"), [("refuse", Code.DRIVER_TOO_OLD)]),
        (npu_file(), "u/x-1.1.2", 1, BoardFacts("rk3588", None, "0.8.2"), [("refuse", Code.DRIVER_TOO_OLD)]),
        ("m-q8_0.gguf", "u/x", 1, BoardFacts("rk3588", None, "0.8.2"), []),
    ],
)
def test_what_is_known_refuses_and_what_is_inferred_warns(
    file: str, repository: str, size_gb: float, board: BoardFacts, expected: list[tuple[str, Code]]
) -> None:
    [variant] = variants(file, repository=repository, size_bytes=int(size_gb * GB))
    verdict = one(variant, board)
    assert found(verdict) == expected
    assert verdict.fits is all(severity == "warn" for severity, _ in expected)
    assert verdict.recommended is verdict.fits
    for finding in verdict.problems:
        assert finding.advice
    if not verdict.fits:
        assert verdict.reason == verdict.problems[-1].message
        assert verdict.tokens_per_second is None


def recommended(verdicts: tuple[Verdict, ...]) -> str:
    [best] = [verdict for verdict in verdicts if verdict.recommended]
    return best.variant.file


def test_plain_before_large_groups_before_small_then_the_lower_optimisation() -> None:
    order = [npu_file(q, o) for q in ("w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128") for o in (0, 1)]
    left = list(order)
    for file in order:
        assert recommended(judge(variants(*reversed(left)), BOARD, ["1.2.3"])) == file
        left.remove(file)


def test_what_does_not_fit_is_not_recommended() -> None:
    verdicts = judge(variants(npu_file(platform="rk3576"), npu_file("w8a8_g128")), BOARD, ["1.2.3"])
    assert recommended(verdicts) == npu_file("w8a8_g128")
    assert not any(verdict.recommended for verdict in judge(variants(npu_file(platform="rk3576")), BOARD))


def test_this_boards_own_figures_stand_above_the_table() -> None:
    fast, slow = npu_file("w8a8_g512"), npu_file()
    both = judge(variants(slow, fast), BOARD, ["1.2.3"], {slow: 5.0, fast: 8.0})
    assert recommended(both) == fast
    assert [verdict.tokens_per_second for verdict in both] == [5.0, 8.0]
    assert all(verdict.measured for verdict in both)
    # one figure says nothing of the other variant
    assert recommended(judge(variants(slow, fast), BOARD, ["1.2.3"], {fast: 8.0})) == slow


def test_a_figure_that_nobody_published_is_none() -> None:
    [g256, other] = judge(variants(npu_file("w8a8_g256"), "thing-9b-rk3588-w8a8.rkllm"), BOARD, ["1.2.3"])
    assert g256.tokens_per_second is None
    assert other.tokens_per_second is None


def test_the_cpu_takes_q8_first() -> None:
    names = [f"m-{q}.gguf" for q in ("q2_k", "f16", "q4_k_m", "q8_0")]
    assert (
        recommended(judge(variants(*names, repository="u/x", size_bytes=GB), BoardFacts("", 8 * GB))) == "m-q8_0.gguf"
    )


def test_the_best_of_what_does_not_fit_is_still_one() -> None:
    verdicts = judge(variants(npu_file("w8a8_g128"), npu_file()), BoardFacts(""))
    best = best_of(verdicts)
    assert best is not None
    assert best.variant.file == npu_file()
    assert best_of([]) is None


@pytest.mark.parametrize(
    ("converter", "installed", "pinned", "version", "here"),
    [
        ("1.1.2", (), None, "1.2.3", False),
        ("1.1.2", ("1.1.2", "1.2.3", "1.3.0"), None, "1.2.3", True),
        ("1.1.2", ("1.1.4", "1.3.0"), None, "1.1.4", True),
        ("1.1.2", ("1.3.0",), None, "1.3.0", True),
        ("1.1.2", ("1.1.1",), None, "1.2.3", False),
        ("1.2.2", ("1.2.1", "1.3.0"), None, "1.3.0", True),
        ("1.2.1b1", ("1.2.1",), None, "1.2.1", True),
        ("1.3.0", ("1.2.3", "1.3.0"), None, "1.3.0", True),
        ("1.3.0", ("1.3.1", "1.3.0"), None, "1.3.1", True),
        ("1.3.0", (), None, "1.3.0", False),
        ("1.3.1", (), None, None, None),
        ("1.3.1", ("1.3.1",), None, "1.3.1", True),
        ("1.4.0", ("1.4.0",), None, "1.4.0", True),
        (None, (), None, "1.2.3", False),
        (None, ("1.3.0",), None, "1.3.0", True),
        ("1.1.2", ("1.2.3", "1.1.4"), "1.1.4", "1.1.4", True),
    ],
)
def test_which_runtime(
    converter: str | None, installed: tuple[str, ...], pinned: str | None, version: str | None, here: bool | None
) -> None:
    choice = choose_runtime(converter, installed, pinned)
    assert (choice.version if choice else None, choice.installed if choice else None) == (version, here)
    if choice is not None:
        assert choice.reason


def test_a_runtime_of_another_line_is_warned_of() -> None:
    assert found(one(variants(npu_file())[0], installed=("1.3.0",))) == [("warn", Code.RUNTIME_UNSUPPORTED)]


def test_a_pin_that_is_too_old_refuses_and_says_how_to_undo_it() -> None:
    [variant] = variants(npu_file(), repository="u/x-1.2.3", size_bytes=GB)
    [verdict] = judge([variant], BOARD, ["1.1.4", "1.2.3"], pinned="1.1.4")
    assert found(verdict) == [("refuse", Code.MODEL_TOO_NEW)]
    assert "runtime use auto" in verdict.problems[0].advice
