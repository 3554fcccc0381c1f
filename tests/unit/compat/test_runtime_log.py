"""What the runtime's lines mean. They are quoted as the library prints them, or as people published them."""

from __future__ import annotations

import pytest

from rockfill.compat.runtime_log import facts_of, load_failed, problem_of
from rockfill.errors import Code

GOOD_LOAD = (
    "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588",
    "I rkllm: loading rkllm model from /m/codegemma.rkllm",
    (
        "I rkllm: rkllm-toolkit version: unknown, max_context_limit: 4096, npu_core_num: 3, target_platform: RK3588, "
        "model_dtype: W8A8"
    ),
    "I rkllm: Enabled cpus: [4, 5, 6, 7]",
)
# rknn-llm issue 129: 1.1.2 with a file that it can't read, and rkllm_init returns 0
BROKEN_LOAD_OF_1_1 = (
    "I rkllm: rkllm-runtime version: 1.1.2, rknpu driver version: 0.9.8, platform: RK3588",
    "E RKNN: invalid rknn llm model magic",
    "load model file error!",
    "rknn_init fail! ret=-1",
    "rkllm init success",
)
LOW_DRIVER = "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"


def test_a_good_load_tells_its_facts_and_no_problem() -> None:
    facts = facts_of(GOOD_LOAD)
    assert (facts.runtime_version, facts.driver_version, facts.platform) == ("1.2.3", "0.9.8", "RK3588")
    assert (facts.toolkit_version, facts.context_limit_tokens, facts.npu_cores) == ("unknown", "4096", "3")
    assert facts.target_platform == "RK3588"
    assert problem_of(GOOD_LOAD) is None
    assert not load_failed(GOOD_LOAD)


def test_what_was_not_said_is_not_known() -> None:
    facts = facts_of(["I rkllm: rkllm-runtime version: 1.1.4, rknpu driver version: 0.9.6, platform: RK3576", "noise"])
    assert (facts.runtime_version, facts.toolkit_version, facts.npu_cores) == ("1.1.4", None, None)
    assert facts_of([]) == facts_of(["nothing of interest"])


def test_a_load_that_1_1_calls_a_success_is_seen_to_have_failed() -> None:
    assert load_failed(BROKEN_LOAD_OF_1_1)
    problem = problem_of(BROKEN_LOAD_OF_1_1)
    assert problem is not None
    assert problem.code is Code.INVALID_MODEL


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("E RKNN: failed to open rknpu module, need to insmod rknpu dirver!", Code.NPU_UNAVAILABLE),
        ("E RKNN: failed to allocate handle, ret: -1, errno: 24, errstr: Too many open files", Code.TOO_MANY_FILES),
        ("E RKNN: failed to allocate handle, ret: -1, errno: 14, errstr: Bad address", Code.OUT_OF_NPU_MEMORY),
        ("E RKNN: failed to malloc npu memory, size: 4022272000, flags: 0x2", Code.OUT_OF_NPU_MEMORY),
        ("E rkllm: the model's target_platform does not match the real platform", Code.PLATFORM_MISMATCH),
        (
            "E rkllm: Platform error, must be either RK3588, RK3576, RV1126B or RK3562. Your platform is unknown",
            Code.PLATFORM_MISMATCH,
        ),
        (
            (
                "E rkllm: The rkllm-runtime version is lower than the rkllm-toolkit version. "
                "Please update rkllm-runtime to 1.2.0 or higher."
            ),
            Code.MODEL_TOO_NEW,
        ),
        (
            "E rkllm: The model version is too old, please use the latest toolkit to reconvert the model!",
            Code.MODEL_TOO_OLD,
        ),
        (
            "E rkllm: max_context[16384] must be less than the model's max_context_limit[4096]",
            Code.CONTEXT_TOO_LONG,
        ),
        ("E rkllm: invalid magic number, got 70e6a99d", Code.INVALID_MODEL),
        ("E rkllm: failed to read tensor data", Code.INVALID_MODEL),
        ("Mismatch driver version, librknnrt version requires driver version >= 0.9.2", Code.DRIVER_TOO_OLD),
        (
            "E rkllm: the length of prompt is greater than max context (prompt: 1299 tokens, max context: 1020)",
            Code.CONTEXT_TOO_LONG,
        ),
        ("E rkllm: prompt gather than max context (prompt: 1299 tokens, max context: 1020)", Code.CONTEXT_TOO_LONG),
        ("E rkllm: matmul(w8a8) run failed", Code.NPU_FAILED),
        ("E RKNN: failed to submit!, op id: 35, op name: MatMul, flags: 0x5", Code.NPU_FAILED),
        (LOW_DRIVER, Code.DRIVER_TOO_OLD),
    ],
)
def test_a_line_that_tells_what_is_wrong_is_found_among_others(line: str, code: Code) -> None:
    problem = problem_of([*GOOD_LOAD, line, "E rkllm: rkllm_init failed"])
    assert problem is not None
    assert problem.code is code
    assert problem.advice
    assert problem.detail == {"line": line}


def test_the_cause_is_preferred_to_its_consequences() -> None:
    consequence = "load model file error!"
    for cause, code in (
        ("E RKNN: failed to malloc npu memory, size: 1, flags: 0x2", Code.OUT_OF_NPU_MEMORY),
        ("E rkllm: the model's target_platform does not match the real platform", Code.PLATFORM_MISMATCH),
        ("E rkllm: matmul(w8a8) run failed", Code.NPU_FAILED),
    ):
        problem = problem_of([LOW_DRIVER, cause])
        assert problem is not None
        assert problem.code is code
    problem = problem_of(["E RKNN: failed to malloc npu memory, size: 1, flags: 0x2", consequence])
    assert problem is not None
    assert problem.code is Code.OUT_OF_NPU_MEMORY
