"""The simulator itself: that it behaves, and misbehaves, as `librkllmrt.c` says of the real library."""

from __future__ import annotations

from signal import SIGABRT, SIGSEGV
from typing import TYPE_CHECKING

import pytest

from rockfill.compat.runtime import Generation
from rockfill.rkllm.abi import CallState, InputType, Library
from tests.fakes.rkllm_simulator import Control, Token, build

if TYPE_CHECKING:
    from .conftest import InAProcess, Load


def run(library: Library, ids: list[int]) -> int:
    return library.run(library.abi.token_input(ids), library.abi.infer_param())


@pytest.mark.parametrize("generation", list(Generation))
def test_text_gets_the_chat_template_of_the_model_from_1_2_on(
    load: Load,
    control: Control,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    generation: Generation,
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    control.set(chat_system=b"S|", chat_prefix=b"<user>", chat_postfix=b"<model>")
    library, _ = load(generation)
    prompt = library.abi.Input(input_type=InputType.PROMPT, prompt_input=b"hi")
    if hasattr(prompt, "role"):
        prompt.role = b"user"

    def seen() -> str:
        assert library.run(prompt, library.abi.infer_param()) == 0
        return next(line for line in capfd.readouterr().out.splitlines() if "prompt text" in line)

    if not library.provides("set_chat_template"):
        assert seen() == 'I rkllm: prompt text: "hi"'
        return
    assert seen() == 'I rkllm: prompt text: "S|<user>hi<model>"'
    assert library.set_chat_template("", "", "") == 0
    assert seen() == 'I rkllm: prompt text: "hi"'


@pytest.mark.parametrize("generation", list(Generation))
def test_a_prompt_fills_the_context_up_to_four_tokens(
    load: Load, capfd: pytest.CaptureFixture[str], generation: Generation
) -> None:
    library, emitted = load(generation)
    assert run(library, [5] * (512 - 4)) == 0
    emitted.clear()
    assert run(library, [5] * (512 - 3)) == -1
    assert [e.state for e in emitted] == [CallState.ERROR]
    assert "than max context (prompt: 509 tokens, max context: 508)" in capfd.readouterr().err


def test_a_character_can_come_in_parts(load: Load, control: Control) -> None:
    control.set(script=[Token(7, b"\xe2\x82"), Token(8, b"\xac")], waiting="partial")
    library, emitted = load(Generation.V1_2_1)
    assert run(library, [2]) == 0
    assert [e.text for e in emitted] == [b"\xe2\x82", b"\xac", None]


def test_an_end_of_sequence_that_does_not_end_is_a_token_like_others(load: Load, control: Control) -> None:
    control.set(script=[Token(7, b"x"), Token(8, b"y")], eos="never", eos_id=107)
    library, emitted = load(Generation.V1_3)
    assert library.run(library.abi.token_input([2]), library.abi.infer_param(6)) == 0
    assert [e.token_id for e in emitted[:-1]] == [7, 8, 107, 7, 8, 107]


def test_the_default_text_depends_on_the_prompt_only(load: Load) -> None:
    library, emitted = load(Generation.V1_2_1)
    texts = []
    for ids in ([2, 5], [2, 6], [2, 5]):
        emitted.clear()
        assert run(library, ids) == 0
        texts.append(b"".join(e.text or b"" for e in emitted).decode())
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize("sticky", [False, True])
def test_an_abort_while_nothing_runs_can_end_the_next_run(load: Load, control: Control, *, sticky: bool) -> None:
    control.set(script=[Token(7, b"x")], abort="sticky" if sticky else "ok")
    library, emitted = load(Generation.V1_2_1)
    assert (library.abort(), run(library, [2])) == (0, 0)
    assert [e.token_id for e in emitted if e.state == CallState.NORMAL] == ([] if sticky else [7])


def test_a_speed_preset_takes_its_time_and_a_key_overrides_it(load: Load, control: Control) -> None:
    control.set(script=[Token(7, b"x"), Token(8, b"y")], speed="codegemma-2b-rk3588", decode_tok_s=0)
    library, emitted = load(Generation.V1_2_1)
    assert run(library, [2, 5]) == 0
    perf = emitted[-1].perf
    assert perf is not None
    assert perf.prefill_ms >= 2 * 1000 / 200


def test_more_context_than_the_model_has_is_refused_from_1_2_on_and_nonsense_before(
    control: Control, in_a_process: InAProcess
) -> None:
    control.set(max_context_limit=256)
    refused = in_a_process(build(Generation.V1_2_0), Generation.V1_2_0)
    assert "init -1" in refused.stdout
    assert "max_context[512] must be less than the model's max_context_limit[256]" in refused.stderr
    nonsense = in_a_process(build(Generation.V1_1), Generation.V1_1)
    assert "run 0" in nonsense.stdout
    assert "E RKNN: meet unkown shape" in nonsense.stderr


def test_an_unknown_key_is_not_passed_over(control: Control, in_a_process: InAProcess) -> None:
    control.set(spede="instant")
    child = in_a_process(build(Generation.V1_3), Generation.V1_3)
    assert child.returncode == -SIGABRT
    assert "unknown key 'spede'" in child.stderr


@pytest.mark.parametrize(
    ("keys", "status", "seen"),
    [
        ({"init": "crash"}, -SIGSEGV, ""),
        ({"init": "exit"}, 1, ""),
        ({"run": "crash"}, -SIGSEGV, "init 0"),
        ({"run": "assert", "run_from_token": 3}, -SIGABRT, "init 0"),
        ({"init": "crash", "init_from": 2}, -SIGSEGV, "init 0\nrun 0 destroy 0"),
        ({"init": "no_device"}, 0, "init -1\nrun -1"),
        ({"init": "unknown_platform"}, 0, "init -1\nrun -1"),
        ({"run": "error", "run_from_token": 3}, 0, "init 0\nrun -1 destroy 0"),
        ({"leak_fds_per_run": 5000}, 0, "init 0\nrun -1 destroy 0"),
        ({"vocabulary": 6}, 0, "init 0\nrun -1 destroy 0"),
        ({"vocabulary": 6, "violations": "abort"}, -SIGABRT, "init 0"),
    ],
)
def test_the_simulator_fails_on_command(
    control: Control, in_a_process: InAProcess, keys: dict[str, str | int], status: int, seen: str
) -> None:
    control.set(**keys)
    again = "resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)); attempt(); attempt()"
    child = in_a_process(build(Generation.V1_3), Generation.V1_3, again)
    assert child.returncode == status, child.stderr
    lines = [line for line in child.stdout.splitlines() if line.startswith(("init ", "run "))]
    assert "\n".join(lines).startswith(seen), child.stdout


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize(
    "content", [b"<html>", b"GGUF\3\0\0\0", b"", b"version https://git-lfs"], ids=["html", "gguf", "empty", "lfs"]
)
def test_what_is_no_model_fails_in_init_or_on_1_1_in_the_first_run(
    in_a_process: InAProcess, generation: Generation, content: bytes
) -> None:
    child = in_a_process(build(generation), generation, content=content)
    if generation is Generation.V1_1:
        assert (child.returncode, "init 0" in child.stdout) == (-SIGABRT, True)
        assert "invalid rknn llm model magic" in child.stderr
    else:
        assert (child.returncode, "init -1" in child.stdout) == (0, True)
        assert "invalid rkllm model!" in child.stderr


def test_a_second_init_without_npu_memory_crashes_1_3(control: Control, in_a_process: InAProcess) -> None:
    control.set(init="no_npu_memory", init_from=2)
    for generation, status in ((Generation.V1_3, -SIGSEGV), (Generation.V1_2_1, 0)):
        child = in_a_process(build(generation), generation, "attempt(); attempt()")
        assert child.returncode == status
        assert "errno: 14, errstr: Bad address" in child.stderr


def test_a_hung_run_ignores_abort(control: Control, in_a_process: InAProcess) -> None:
    control.set(run="hang", run_from_token=1)
    child = in_a_process(
        build(Generation.V1_2_1),
        Generation.V1_2_1,
        """
import os, threading, time
begin()  # here: of what another thread maps, qemu does not tell the simulator that it may be executed
running = threading.Thread(target=run)
running.start()
while not library.is_running(): pass
time.sleep(1.5)  # an abort before the hang would still be heard
library.abort()
running.join(0.2)
print("still running", library.is_running(), flush=True)
os._exit(7)
""",
    )
    assert (child.returncode, "still running True" in child.stdout) == (7, True), child.stderr
