"""A model on the NPU, on every generation of the runtime, in good weather and in bad."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from signal import SIGABRT, SIGSEGV
from typing import TYPE_CHECKING

import pytest

from rockfill.compat.runtime import Generation
from rockfill.compat.runtime_log import problem_of
from rockfill.errors import Code, Problem
from rockfill.link.messages import Generate
from rockfill.prompting import Prompter
from rockfill.rkllm.session import RESERVED_CONTEXT_TOKENS, RkllmOptions, RkllmSession
from rockfill.session import Sampling
from tests.fakes.rkllm_simulator import VERSIONS, Control, Token, Value, build, make_model
from tests.fakes.vocabulary import FIM, SPECIAL, sentencepiece_like

from .sessions import CONTEXT_TOKENS, OPTIONS, PROMPT, generate, make_directory, open_session, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WITH_PERF = (Generation.V1_2_1, Generation.V1_3)
BEFORE_1_3 = [generation for generation in Generation if generation is not Generation.V1_3]
BOS, EOS = SPECIAL.index("<bos>"), SPECIAL.index("<eos>")
HELLO = [Token(700, b"hel"), Token(701, b"lo")]
STOP = 702
UNENDING: dict[str, Value] = {"eos": "never", "eos_id": 999}

CHILD = """
import resource, sys
from pathlib import Path
from rockfill.errors import Problem
from rockfill.rkllm.session import RkllmOptions, RkllmSession
from rockfill.session import Sampling
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    session = RkllmSession(Path(sys.argv[1]), Path(sys.argv[2]), RkllmOptions(context_tokens=512))
    said = []
    session.generate([2, 5], Sampling(), 100, frozenset(), lambda text, tokens: said.append(text), lambda: False)
    sys.stderr.write("said " + "".join(said))
except Problem as problem:
    sys.stderr.write("problem " + problem.code)
"""


@pytest.fixture(params=list(Generation))
def generation(request: pytest.FixtureRequest, control: Control) -> Generation:
    assert isinstance(request.param, Generation)
    return request.param


@pytest.fixture
def session(generation: Generation, tmp_path: Path) -> Iterator[RkllmSession]:
    opened = open_session(tmp_path / "model", generation)
    yield opened
    opened.close()


def in_a_process(library: Path, control: Control) -> subprocess.CompletedProcess[str]:
    """Load and run once in a child that may end. Its stderr says how it went, its stdout is a pipe as a worker's is."""
    model = make_directory(control.path.with_name("model"))
    environment = {**os.environ, **control.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTHONUNBUFFERED", None)  # Python would pass that on to C's standard output
    command = [sys.executable, "-c", CHILD, str(model), str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


# ---- what goes in


def test_the_same_request_gives_the_same_ids_on_every_generation(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    request = Generate(1, "# <|fim_middle|> <bos>\ndef add(a, b):\n    return ", "\n# <|fim_suffix|>é\n")
    seen = {}
    for generation in Generation:
        session = open_session(tmp_path / generation, generation)
        prompter = Prompter(session, None)
        ids, max_tokens, _ = prompter.prompt(request)
        generate(session, ids, max_tokens=max_tokens, stop_ids=prompter.stop_ids)
        session.close()
        _, seen[generation] = prompts(capfd.readouterr().out)
        assert seen[generation] == ids
        assert ids.count(BOS) == 1
        assert ids[0] == BOS
        assert [ids.count(session.token_id(name) or 0) for name in FIM] == [1, 1, 1]
        assert not {EOS, SPECIAL.index("<|file_separator|>")} & set(ids)
    assert len({tuple(ids) for ids in seen.values()}) == 1


@pytest.mark.parametrize("fim_special", [True, False])
def test_no_text_of_a_user_becomes_a_control_token(control: Control, tmp_path: Path, *, fim_special: bool) -> None:
    """Where the vocabulary marks the markers as special, and where it does not, as Qwen's."""
    model = make_directory(tmp_path / "model")
    sentencepiece_like(model.with_name("tokenizer.json"), fim_special=fim_special)
    session = RkllmSession(model, build(Generation.V1_2_1), OPTIONS)
    prompter = Prompter(session, "codegemma")
    everything = "".join(f"x{name}{name} " for name in (*FIM, *SPECIAL))
    ids, _, _ = prompter.prompt(Generate(1, everything, everything))
    session.close()
    control_ids = {session.token_id(name) for name in (*FIM, *SPECIAL)}
    assert sorted(token_id for token_id in ids if token_id in control_ids) == sorted(
        [BOS, *(session.token_id(name) or 0 for name in FIM)]
    )


def test_1_3_takes_the_length_and_the_sampling_of_each_run(
    control: Control, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    control.set(script=HELLO, abort="ignored", **UNENDING)
    session = open_session(tmp_path / "model", Generation.V1_3)  # without its own limit the warm-up would never end
    assert generate(session, max_tokens=3).run is not None
    with pytest.raises(Problem):
        generate(session, sampling=Sampling(temperature=1.0, top_p=2.0))
    assert "sampling_params.top_p is 2" in capfd.readouterr().err
    generate(session, sampling=Sampling(temperature=1.0, top_p=0.0), max_tokens=1)
    session.close()
    assert session.facts.honours == ("temperature", "top_p", "top_k")


@pytest.mark.parametrize("generation", BEFORE_1_3)
def test_earlier_releases_sample_as_they_were_loaded(control: Control, tmp_path: Path, generation: Generation) -> None:
    control.set(script=HELLO)
    session = open_session(tmp_path / "model", generation)
    assert generate(session, sampling=Sampling(temperature=1.0, top_p=2.0)).text == "hello"
    session.close()
    assert session.facts.honours == ()


def test_the_chosen_cpus_are_used_where_there_are_enough_of_them(
    control: Control, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for mask, cpus in ((0b1110000, "4, 5, 6"), (0b110000, "4, 5, 6, 7"), (0, "4, 5, 6, 7")):
        session = open_session(tmp_path / "model", Generation.V1_2_1, replace(OPTIONS, cpu_mask=mask))
        session.close()
        assert f"Enabled cpus: [{cpus}]" in capfd.readouterr().out


# ---- what comes out


def test_a_run_says_its_text_and_how_it_went(session: RkllmSession, control: Control, generation: Generation) -> None:
    control.set(script=[*HELLO, Token(703, None), Token(704, b" you")])
    heard = generate(session)
    run = heard.run
    assert run is not None
    assert heard.text == "hello you"
    assert heard.tokens == 4
    assert (run.finish, run.generated_tokens) == ("stop", 4)
    # the warm-up left its BOS in the cache
    assert (run.prefilled_tokens, run.reused_tokens) == ((2, 1) if generation in WITH_PERF else (None, None))
    again = generate(session).run
    assert again is not None
    assert again.reused_tokens == (2 if generation in WITH_PERF else None)
    assert session.facts.runtime == f"RKLLM {_version(generation)}"
    assert session.facts.context_tokens == CONTEXT_TOKENS - RESERVED_CONTEXT_TOKENS


def _version(generation: Generation) -> str:
    """What is known of it: a 1.1 library does not tell more."""
    return "1.1" if generation is Generation.V1_1 else VERSIONS[generation]


def test_the_length_is_kept_to(session: RkllmSession, control: Control) -> None:
    control.set(script=HELLO, **UNENDING)
    heard = generate(session, max_tokens=5)
    assert heard.run is not None
    assert (heard.run.finish, heard.run.generated_tokens) == ("length", 5)
    assert heard.text == "hellohello"  # the third is the end token, which comes as any other and has no text


@pytest.mark.parametrize("abort", ["ok", "ignored"])
def test_a_stop_token_ends_the_text_even_where_the_run_goes_on(
    session: RkllmSession, control: Control, abort: str
) -> None:
    control.set(script=[*HELLO, Token(STOP, b"<stop>"), *HELLO], abort=abort)
    heard = generate(session, stop_ids=frozenset({STOP}))
    assert heard.run is not None
    assert (heard.text, heard.run.finish, heard.run.generated_tokens) == ("hello", "stop", 2)


def test_the_vocabularys_own_ends_need_not_be_named(session: RkllmSession, control: Control) -> None:
    control.set(script=[*HELLO, Token(SPECIAL.index("<end_of_turn>"), b"<end_of_turn>"), *HELLO])
    assert generate(session).text == "hello"
    control.set(script=HELLO, eos="never", eos_id=EOS)
    assert generate(session).text == "hello"


def test_a_character_that_was_cut_is_said_whole_or_not_at_all(session: RkllmSession, control: Control) -> None:
    for waiting in ("hold", "partial"):
        control.set(waiting=waiting, script=[Token(700, b"\xe2"), Token(701, b"\x82"), Token(702, b"\xac.")])
        assert generate(session).texts == ["€."]
        control.set(script=[Token(700, b"x\xe2"), Token(701, b"\x82")])
        assert generate(session).text == ("" if waiting == "hold" else "x")  # the library itself loses what it holds


# ---- aborts


def test_an_abort_from_another_thread_ends_a_run_and_leaves_the_next_one_alone(
    session: RkllmSession, control: Control
) -> None:
    control.set(script=HELLO, decode_tok_s=1000, **UNENDING)
    begun, ended = threading.Event(), threading.Event()

    def abort() -> None:
        begun.wait()
        ended.set()
        session.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    heard = generate(session, max_tokens=1_000_000, aborted=ended.is_set, also=begun.set)
    thread.join()
    assert heard.run is not None
    assert heard.run.finish == "aborted"
    control.set(eos="stop")
    assert generate(session).text == "hello"


@pytest.mark.parametrize("finish_on_abort", [0, 1])
def test_an_abort_that_came_too_late_costs_the_next_run_nothing(
    session: RkllmSession, control: Control, finish_on_abort: int
) -> None:
    control.set(script=HELLO, abort="sticky", finish_on_abort=finish_on_abort)
    session._running = True  # the other thread saw the run before, which has ended by now
    session.abort()
    session._running = False
    assert generate(session).text == "hello"
    session.abort()  # this one comes while nothing runs at all
    assert generate(session).text == "hello"


def test_a_run_that_was_aborted_before_its_first_token_is_not_tried_again(
    session: RkllmSession, control: Control, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    control.set(script=HELLO)
    heard = generate(session, aborted=lambda: True)
    assert heard.run is not None
    assert (heard.text, heard.run.finish, heard.run.generated_tokens) == ("", "aborted", 0)
    assert len(prompts(capfd.readouterr().out)) == 1


def test_an_end_at_once_is_an_empty_completion_and_not_tried_again(
    session: RkllmSession, control: Control, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    control.set(script=[Token(EOS, b"<eos>", special=True)])
    heard = generate(session)
    assert heard.run is not None
    assert (heard.text, heard.run.finish, heard.run.generated_tokens) == ("", "stop", 0)
    assert len(prompts(capfd.readouterr().out)) == 1


# ---- what fails


def test_a_failing_run_is_a_problem(session: RkllmSession, control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    control.set(script=HELLO, run="error", run_from_token=1)
    with pytest.raises(Problem, match="rkllm_run returned -1") as caught:
        generate(session)
    assert caught.value.code is Code.ENGINE_FAILED
    known = problem_of(capfd.readouterr().err.splitlines())
    assert known is not None
    assert known.code is Code.NPU_FAILED


def test_a_prompt_beyond_the_context_is_a_problem_that_the_lines_explain(
    session: RkllmSession, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(session, [5] * session.facts.context_tokens, max_tokens=1)
    with pytest.raises(Problem):
        generate(session, [5] * CONTEXT_TOKENS)
    known = problem_of(capfd.readouterr().err.splitlines())
    assert known is not None
    assert known.code is Code.CONTEXT_TOO_LONG


def test_more_context_than_the_model_has_is_refused_at_load(
    control: Control, generation: Generation, tmp_path: Path
) -> None:
    with pytest.raises(Problem) as caught:
        open_session(tmp_path / "model", generation, RkllmOptions(context_tokens=4096 + 32))
    assert caught.value.code is (Code.CONTEXT_TOO_LONG if generation is Generation.V1_1 else Code.ENGINE_FAILED)


@pytest.mark.parametrize(
    ("init", "code"),
    [
        ("no_device", Code.NPU_UNAVAILABLE),
        ("no_npu_memory", Code.OUT_OF_NPU_MEMORY),
        ("newer_model", Code.MODEL_TOO_NEW),
        ("old_model", Code.MODEL_TOO_OLD),
        ("platform_mismatch", Code.PLATFORM_MISMATCH),
        ("unknown_platform", Code.PLATFORM_MISMATCH),
        ("crash", None),
        ("assert", None),
        ("exit", None),
    ],
)
def test_what_a_failed_load_prints_says_why(
    control: Control, generation: Generation, init: str, code: Code | None
) -> None:
    control.set(init=init)
    child = in_a_process(build(generation), control)
    known = problem_of(child.stderr.splitlines() + child.stdout.splitlines())
    assert (known.code if known else None) is code, child.stderr
    broken = generation is Generation.V1_1 and init not in ("no_device", "unknown_platform")
    died = {"crash": -SIGSEGV, "assert": -SIGABRT, "exit": 1}.get(init, -SIGABRT if broken else 0)
    assert child.returncode == died, child.stderr
    assert ("problem engine_failed" in child.stderr) == (died == 0)


def test_a_field_that_moved_is_noticed_before_a_request_is_run(control: Control, generation: Generation) -> None:
    control.set(script=HELLO)
    assert in_a_process(build(generation), control).stderr == "said hello"
    moved = in_a_process(build(generation, move_field=True), control)
    assert "said" not in moved.stderr
    assert "problem" in moved.stderr or moved.returncode < 0


def test_lines_that_stdio_holds_back_are_not_lost_in_a_crash(control: Control, generation: Generation) -> None:
    control.set(run="crash")
    child = in_a_process(build(generation, buffered_lines=True), control)
    assert child.returncode == -SIGSEGV
    assert "rkllm-runtime version" in child.stdout


def _empty_directory(model: Path) -> None:
    model.with_name("tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda model: model.unlink(), Code.MODEL_MISSING),
        (lambda model: model.write_bytes(b""), Code.INVALID_MODEL),
        (lambda model: model.write_bytes(bytes(1000)), Code.INVALID_MODEL),
        (lambda model: model.write_bytes(b"<!DOCTYPE html>"), Code.INVALID_MODEL),
        (lambda model: model.write_bytes(b"GGUF\3\0\0\0"), Code.INVALID_MODEL),
        (lambda model: model.write_bytes(b"version https://git-lfs.github.com/spec/v1"), Code.INVALID_MODEL),
        (_empty_directory, Code.TOKENIZER_MISSING),
    ],
    ids=["missing", "empty", "zeros", "web page", "gguf", "pointer", "no tokenizer"],
)
def test_plain_mistakes_are_named_before_the_library_sees_the_model(
    tmp_path: Path, spoil: Callable[[Path], object], code: Code
) -> None:
    model = make_directory(tmp_path / "model")
    spoil(model)
    with pytest.raises(Problem) as caught:
        RkllmSession(model, tmp_path / "no library is looked at", OPTIONS)
    assert caught.value.code is code


def test_a_library_that_is_not_there_or_none_is_a_problem(tmp_path: Path) -> None:
    model = make_directory(tmp_path / "model")
    with pytest.raises(Problem) as caught:
        RkllmSession(model, tmp_path / "librkllmrt.so", OPTIONS)
    assert caught.value.code is Code.RUNTIME_MISSING
    with pytest.raises(Problem) as caught:
        RkllmSession(model, make_model(tmp_path / "librkllmrt.so"), OPTIONS)
    assert caught.value.code is Code.RUNTIME_UNSUPPORTED


def test_a_library_for_another_machine_is_refused_by_name(control: Control, tmp_path: Path) -> None:
    image = bytearray(build(Generation.V1_2_1).read_bytes())
    image[18:20] = (243).to_bytes(2, "little")  # e_machine: RISC-V, which no machine of ours is
    library = tmp_path / "librkllmrt.so"
    library.write_bytes(image)
    with pytest.raises(Problem, match=r"is for riscv64, and this machine is \w+") as caught:
        RkllmSession(make_directory(tmp_path / "model"), library, OPTIONS)
    assert caught.value.code is Code.RUNTIME_UNSUPPORTED


def test_two_prompts_never_mix(session: RkllmSession) -> None:
    first, second = generate(session, [*PROMPT, 5]), generate(session, [*PROMPT, 6])
    assert first.text != second.text
    assert generate(session, [*PROMPT, 5]).text == first.text
