"""`rockfill.rkllm.abi` against the simulator of every generation.

What goes well runs in this process; what may end one has one of its own.
"""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from rockfill.compat.runtime import Generation, identify, probe_generation, settle
from rockfill.errors import Problem
from rockfill.rkllm.abi import CallState, Library
from tests.fakes.rkllm_simulator import VERSIONS, Control, Token, build, compiler

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import InAProcess, Load
FROM_1_2 = list(Generation)[1:]
SCRIPT = [
    Token(100, b"return"),
    Token(101, b" caf"),
    Token(102, b"\xc3"),  # half of an e with acute accent
    Token(103, b"\xa9"),
    Token(104, None),
    Token(105, b"<|fim_middle|>", special=True),
    Token(106, b"\n"),
]


def run(library: Library, ids: list[int]) -> int:
    return library.run(library.abi.token_input(ids), library.abi.infer_param())


@pytest.mark.parametrize("generation", list(Generation))
def test_a_library_is_identified_with_and_without_its_version_string(control: Control, generation: Generation) -> None:
    plain = build(generation)
    identity = identify(plain.read_bytes())
    assert (identity.version, identity.generation) == (
        None if generation is Generation.V1_1 else VERSIONS[generation],
        generation,
    )
    assert settle(identity, Library.probe(plain)) is generation

    nameless = build(generation, version_string=False)
    identity = identify(nameless.read_bytes())
    assert (identity.version, identity.found_by) == (None, "symbols")
    settled = settle(identity, Library.probe(nameless))
    # without its version 1.2.0 can't be told from 1.2.1b1, which has all that 1.2.0 has in the same places
    assert settled is (Generation.V1_2_1B1 if generation is Generation.V1_2_0 else generation)


def check_defaults(library: Library) -> None:
    param = library.default_param()
    assert (param.max_context_len, param.max_new_tokens, param.top_k) == (512, -1, 40)
    assert getattr(param, "n_keep", -1) == -1
    sampling = (param.top_p, param.temperature, param.repeat_penalty, param.mirostat_tau, param.mirostat_eta)
    assert sampling == pytest.approx((0.9, 0.8, 1.1, 5.0, 0.1))
    assert (param.frequency_penalty, param.presence_penalty, param.mirostat) == (0, 0, 0)
    assert (param.model_path, param.skip_special_token, param.is_async) == (None, True, False)
    extend = param.extend_param
    assert not any(extend.reserved)
    if library.abi.generation is not Generation.V1_1:
        assert (extend.embed_flash, extend.enabled_cpus_num, extend.enabled_cpus_mask) == (1, 4, 0xF0)
    if hasattr(extend, "n_batch"):
        assert (extend.n_batch, extend.use_cross_attn) == (1, 0)


@pytest.mark.parametrize("generation", list(Generation))
def test_the_defaults_are_read_right(control: Control, generation: Generation) -> None:
    check_defaults(Library.open(build(generation), generation))


@pytest.mark.parametrize("generation", list(Generation))
def test_a_field_that_moved_is_noticed(in_a_process: InAProcess, generation: Generation) -> None:
    moved = build(generation, move_field=True)
    assert probe_generation(Library.probe(moved)) == ()
    check = f"from {__name__} import check_defaults; check_defaults(library)"
    for path, status in ((moved, 1), (build(generation), 0)):
        child = in_a_process(path, generation, check)
        assert (child.returncode, "AssertionError" in child.stderr) == (status, status == 1), child.stderr


@pytest.mark.parametrize("generation", FROM_1_2)
def test_the_cpu_mask_is_set_where_the_library_leaves_it(control: Control, generation: Generation) -> None:
    control.set(cpus=6)
    extend = Library.open(build(generation), generation).default_param().extend_param
    assert extend.enabled_cpus_mask.bit_count() == extend.enabled_cpus_num == 4


@pytest.mark.parametrize("generation", list(Generation))
def test_a_run_emits_what_the_library_says(load: Load, control: Control, generation: Generation) -> None:
    control.set(script=SCRIPT)
    library, emitted = load(generation)
    assert run(library, [2, 67, 1000, 69, 68]) == 0
    assert [(e.state, e.token_id, e.text) for e in emitted[:-1]] == [
        (CallState.NORMAL, 100, b"return"),
        (CallState.NORMAL, 101, b" caf"),
        (CallState.WAITING, 102, None),
        (CallState.NORMAL, 103, "é".encode()),
        (CallState.NORMAL, 104, None),
        (CallState.NORMAL, 105, b""),
        (CallState.NORMAL, 106, b"\n"),
    ]
    assert all(e.perf is None for e in emitted[:-1])
    finish = emitted[-1]
    assert (finish.state, finish.text) == (CallState.FINISH, None)
    if generation in (Generation.V1_2_1, Generation.V1_3):
        assert finish.perf is not None
        assert (finish.perf.prefill_tokens, finish.perf.generate_tokens) == (5, 7)
        assert finish.perf.memory_mb > 0
    else:
        assert finish.perf is None


@pytest.mark.parametrize("generation", list(Generation))
def test_an_abort_from_another_thread_ends_a_run_that_would_not_end(
    load: Load, control: Control, generation: Generation
) -> None:
    control.set(eos="never", decode_tok_s=1000)
    started = threading.Event()
    while_running: list[bool] = []
    library, emitted = load(generation, also=started.set)

    def abort() -> None:
        started.wait()
        while_running.append(library.is_running())
        library.abort()

    aborter = threading.Thread(target=abort)
    aborter.start()
    assert run(library, [2, 5]) == 0
    aborter.join()
    assert while_running == [True]
    assert not library.is_running()
    assert emitted[-1].state != CallState.FINISH  # it need not come after an abort


@pytest.mark.parametrize("generation", FROM_1_2)
def test_the_kv_cache_is_reused_until_it_is_cleared(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    generation: Generation,
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    library, _ = load(generation)

    def matched() -> str:
        run(library, [2, 5, 6, 7])
        return next(line for line in capfd.readouterr().out.splitlines() if "kv cache matches" in line)

    assert [matched(), matched()] == [
        "I rkllm: kv cache matches 0 / 4 tokens of prompt",
        "I rkllm: kv cache matches 3 / 4 tokens of prompt",
    ]
    assert library.clear_kv_cache() == 0
    assert "matches 0 / 4" in matched()
    assert library.set_chat_template("", "", "") == 0
    assert "matches 0 / 4" in matched()


def test_1_3_limits_each_run(load: Load, control: Control) -> None:
    control.set(script=SCRIPT)
    library, emitted = load(Generation.V1_3)
    sampling = library.abi.structures["RKLLMSamplingParam"](top_k=1, top_p=1.0, repeat_penalty=1.0)
    assert library.run(library.abi.token_input([2]), library.abi.infer_param(2, sampling)) == 0
    assert [e.token_id for e in emitted if e.state == CallState.NORMAL] == [100, 101]


@pytest.mark.parametrize("generation", list(Generation))
def test_after_destroy_nothing_is_called_any_more(
    load: Load, capfd: pytest.CaptureFixture[str], generation: Generation
) -> None:
    library, emitted = load(generation)
    assert library.destroy() == 0
    assert (library.destroy(), run(library, [2]), library.abort(), library.is_running()) == (-1, -1, -1, False)
    assert emitted == []
    assert "ABI violation" not in capfd.readouterr().err


WRONG_PAIRS = [
    (library, taken_for)
    for library in Generation
    for taken_for in Generation
    if library is not taken_for and {library, taken_for} != {Generation.V1_2_0, Generation.V1_2_1B1}
]


@pytest.mark.parametrize(("library", "taken_for"), WRONG_PAIRS)
def test_a_library_taken_for_another_generation_never_seems_to_work(
    in_a_process: InAProcess, library: Generation, taken_for: Generation
) -> None:
    child = in_a_process(build(library), taken_for)
    assert "run 0" not in child.stdout, child.stdout + child.stderr


def test_an_unsupported_library_is_refused_before_it_is_opened(control: Control, tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text("int rkllm_init(void) { return 0; }\nint rkllm_run(void) { return 0; }\n")
    old = tmp_path / "librkllmrt.so"
    subprocess.run([*(compiler() or ()), "-shared", "-fPIC", "-o", old, source], check=True)
    with pytest.raises(Problem, match=r"1\.0\.x is too old"):
        identify(old.read_bytes())
