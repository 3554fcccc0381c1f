"""``rockfill serve --model DIR`` with the NPU engine: what it does, what it says when something is wrong, and that it
comes back. Rockchip's runtime is simulated; the daemon, the worker and all between them are the product's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from rockfill import paths
from rockfill.link.codec import encode
from rockfill.link.messages import Load
from tests.appliance import ROOT, environment
from tests.fakes.rkllm_simulator import GENERATIONS, VERSIONS, Token, build, compiler
from tests.not_run import not_run
from tests.npu import NAME, NpuAppliance, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)

HELLO = [Token(700, b"hel"), Token(701, b"lo")]
LONG = [Token(700 + number, b"x") for number in range(8)]


def rockfill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rockfill", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )


def status(appliance: NpuAppliance) -> str:
    return rockfill("status", "--url", appliance.url, "--state-dir", str(appliance.state_dir)).stdout


def refusal(appliance: NpuAppliance, prompt: str) -> tuple[str, list[str]]:
    """The code with which a completion is refused, and the library's last lines that come with it."""
    answer = appliance.request("POST", "/v1/completions", {"prompt": prompt, "max_tokens": 32})
    assert answer.status >= 400, answer.body
    error = answer.json()["error"]
    return error["code"], error["detail"]["last_lines"]


@pytest.fixture
def npu(tmp_path: Path) -> Iterator[NpuAppliance]:
    running = NpuAppliance(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], NpuAppliance]]:
    """One daemon for each generation, over all tests: it has to come back from everything. Its model is loaded and its
    simulator well-behaved whenever it is handed out."""
    running = {generation: NpuAppliance(tmp_path_factory.mktemp("npu"), generation) for generation in GENERATIONS}
    for appliance in running.values():
        appliance.start()

    def lasting(generation: str) -> NpuAppliance:
        appliance = running[generation]
        appliance.control.reset()
        appliance.command("engine.load", model=NAME)
        return appliance

    yield lasting
    for appliance in running.values():
        appliance.stop()


# ---- good weather


def test_the_same_request_reaches_every_generation_as_the_same_ids(tmp_path: Path) -> None:
    seen = {}
    for generation in GENERATIONS:
        appliance = NpuAppliance(tmp_path / generation, generation, log_level=2)
        appliance.start()
        try:
            appliance.control.set(script=HELLO)
            value = appliance.complete("def add(a, b):\n    return # <|fim_middle|> ", "\n\n# é\n")
            assert value["choices"][0]["text"] == "hello"
            state = appliance.command("engine.get")
            assert (state["model"]["name"], state["instead_of"], state["problem"]) == (NAME, None, None)
            told = state["runtime_facts"]
            assert (told["runtime_version"], told["driver_version"], told["platform"]) == (
                VERSIONS[generation],
                "0.9.8",
                "RK3588",
            )
            assert (told["context_limit_tokens"], told["npu_cores"]) == (
                (None, None) if generation == "1.1" else ("4096", "3")
            )
            assert (state["memory_bytes"] is not None) is (generation in ("1.2.1", "1.3"))
            version = "1.1" if generation == "1.1" else VERSIONS[generation]
            assert state["runtime"] == f"RKLLM {version}"
            assert f"Running {NAME} on RKLLM {version}." in appliance.printed
            lines = appliance.command("engine.logs", lines=200)["lines"]
        finally:
            appliance.stop()
        seen[generation] = [line for line in lines if "prompt tokens" in line][-1]
    assert len(set(seen.values())) == 1
    ids = [int(number) for number in re.findall(r"\d+", seen["1.1"].partition("[")[2])]
    vocabulary = json.loads((tmp_path / "1.1" / NAME / "tokenizer.json").read_text())["added_tokens"]
    id_of = {token["content"]: token["id"] for token in vocabulary}
    assert ids[0] == id_of["<bos>"]
    for marker in ("<bos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"):
        assert ids.count(id_of[marker]) == 1, marker


def test_what_the_configuration_says_reaches_the_library_at_the_next_load(npu: NpuAppliance, tmp_path: Path) -> None:
    npu.control.set(script=HELLO)
    npu.complete("# nobody's business")
    assert not [line for line in npu.command("engine.logs", lines=200)["lines"] if "prompt" in line]
    config = tmp_path / "config.toml"
    config.write_text(config.read_text() + "base_domain_id = 3\nembed_flash = false\nlog_prompts = true\n")
    os.kill(npu.pid, signal.SIGHUP)
    npu.wait_for_line("the configuration was read again")
    worker = npu.command("engine.get")["worker_pid"]
    npu.command("engine.restart")
    while npu.wait_for_state("ready")["worker_pid"] == worker:
        time.sleep(0.01)
    npu.complete("# all the world's")
    lines = npu.command("engine.logs", lines=200)["lines"]
    assert {"I sim: base_domain_id 3, top_k 1", "I sim: embed_flash 0"} <= set(lines)
    assert [line for line in lines if "prompt tokens" in line]


@pytest.mark.parametrize("generation", ["1.2.1", "1.3"])
def test_what_a_release_cannot_honour_is_said(lasting: Callable[[str], NpuAppliance], generation: str) -> None:
    value = lasting(generation).complete("x = ", temperature=0.7, top_p=0.9, seed=7)
    ignored = ["seed"] if generation == "1.3" else ["temperature", "top_p", "seed"]
    assert [name for name in value["rockfill"]["ignored"] if name in ("temperature", "top_p", "seed")] == ignored


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_length_is_kept_to_where_no_end_comes(lasting: Callable[[str], NpuAppliance], generation: str) -> None:
    appliance = lasting(generation)
    appliance.control.set(script=HELLO, eos="never", eos_id=999)
    choice = appliance.complete("x = ", max_tokens=5)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("hellohello", "length")


def test_a_client_that_goes_away_ends_the_run(lasting: Callable[[str], NpuAppliance]) -> None:
    appliance = lasting("1.2.1")
    appliance.control.set(script=HELLO, eos="never", eos_id=999, decode_tok_s=0.5)
    worker = appliance.command("engine.get")["worker_pid"]
    connection = http.client.HTTPConnection("127.0.0.1", appliance.port)
    body = json.dumps({"prompt": "p", "max_tokens": 100, "stream": True})
    connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {appliance.token}"})
    assert connection.getresponse().readline()
    connection.close()
    appliance.wait_for_state("ready")
    appliance.control.reset()
    appliance.control.set(script=HELLO)
    assert appliance.complete("q")["choices"][0]["text"] == "hello"
    assert appliance.command("engine.get")["worker_pid"] == worker


def test_a_key_costs_what_was_typed_where_the_cache_is_reused(lasting: Callable[[str], NpuAppliance]) -> None:
    """The suffix stands behind the prefix in the model's prompt, and is read again only within a word."""
    code = "".join(f"value_{number} = compute({number})\n" for number in range(40))
    read = {}
    for generation in ("1.1", "1.2.1"):
        appliance = lasting(generation)
        appliance.control.set(script=HELLO, finish_on_abort=1)
        body = {"input_prefix": code, "input_suffix": "\n" + code, "n_predict": 2}
        answers = [
            appliance.request("POST", "/infill", {**body, "prompt": prompt}).json()
            for prompt in ("y = f", "y = f(", "y = f(z")
        ]
        assert [answer["content"] for answer in answers] == ["hello"] * 3
        read[generation] = [answer["timings"]["prompt_n"] for answer in answers]
    whole, behind_marker, within_word = read["1.2.1"]
    assert behind_marker <= 4
    assert behind_marker < within_word < whole / 2  # it has a quarter of the prompt
    assert min(read["1.1"]) > 100


def test_the_worker_may_open_as_many_files_as_it_is_allowed(tmp_path: Path) -> None:
    """Each buffer on the NPU is one; here nobody has raised the limit before."""
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    model = make_directory(tmp_path / NAME) / f"{NAME}.rkllm"
    load = Load("rkllm", str(model), library=str(build("1.2.1")), context_tokens=512)
    ours, theirs = socket.socketpair()
    worker = [sys.executable, "-P", "-m", "rockfill.worker", str(theirs.fileno())]
    command = ["/bin/sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *worker]
    with (
        ours,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment(), stdout=subprocess.DEVNULL) as process,
    ):
        theirs.close()
        ours.settimeout(120)
        ours.sendall(encode(load))
        said = b""
        while b'"type":"loaded"' not in said:
            more = ours.recv(65536)
            assert more, said
            said += more
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        ours.close()
    assert soft == min(102_400, hard) > 64


# ---- loads that fail


LOAD_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"init": "no_device"}, "npu_unavailable", "failed to open rknpu module"),
    ({"init": "no_npu_memory"}, "out_of_npu_memory", "failed to malloc npu memory"),
    ({"init": "newer_model"}, "model_too_new", "rkllm-runtime version is lower"),
    ({"init": "old_model"}, "model_too_old", "model version is too old"),
    ({"init": "platform_mismatch"}, "platform_mismatch", "does not match the real platform"),
    ({"init": "unknown_platform"}, "platform_mismatch", "Your platform is unknown"),
    ({"init": "crash"}, "engine_crashed", ""),
    ({"init": "assert"}, "engine_crashed", "GGML_ASSERT"),
    ({"init": "exit"}, "engine_crashed", ""),
    ({"init": "hang"}, "engine_hung", ""),
    ({"run": "error"}, "npu_failed", "run failed"),
    ({"run": "crash"}, "engine_crashed", "rkllm-runtime version"),
    ({"run": "hang"}, "engine_hung", "rkllm-runtime version"),
    ({"leak_fds_per_run": 200_000}, "too_many_files", "errno: 24"),
]
ON_1_1 = {"no_npu_memory", "old_model", "platform_mismatch", "hang"}  # there the first three seem to succeed


@pytest.mark.parametrize(
    ("generation", "fault", "code", "line"),
    [
        pytest.param(generation, *fault, id=f"{generation}-{'-'.join(map(str, fault[0].values()))}")
        for generation in ("1.2.1", "1.1", "1.3")
        for fault in LOAD_FAULTS
        if generation == "1.2.1" or fault[0].get("init") in ON_1_1
    ],
)
def test_a_load_that_fails_is_told_with_its_reason_and_works_once_that_is_gone(
    lasting: Callable[[str], NpuAppliance], generation: str, fault: dict[str, Any], code: str, line: str
) -> None:
    appliance = lasting(generation)
    appliance.command("engine.unload")
    appliance.control.set(**fault)
    with appliance.hasty() if "hang" in fault.values() else contextlib.nullcontext():
        answer = appliance.request("POST", "/api/command/engine.load", {"model": NAME})
        assert answer.json()["error"]["code"] == code
        state = appliance.wait_for_state("failed")
        assert state["problem"]["code"] == code
        last_lines = state["problem"]["detail"]["last_lines"]
        assert [told for told in last_lines if line in told] if line else True, last_lines
        assert state["problem"]["advice"]
        assert appliance.request("GET", "/health").status == 200
        appliance.control.reset()
        appliance.control.set(script=HELLO)
    appliance.command("engine.load", model=NAME)
    assert appliance.complete("x")["choices"][0]["text"] == "hello"
    assert appliance.command("engine.get")["problem"] is None


def test_more_context_than_the_model_has_is_told(lasting: Callable[[str], NpuAppliance]) -> None:
    appliance = lasting("1.2.1")
    appliance.command("engine.unload")
    appliance.control.set(max_context_limit=256)
    answer = appliance.request("POST", "/api/command/engine.load", {"model": NAME})
    assert answer.json()["error"]["code"] == "context_too_long"
    assert "context_tokens" in answer.json()["error"]["advice"]


def test_a_second_load_in_one_process_would_crash_and_never_happens(lasting: Callable[[str], NpuAppliance]) -> None:
    appliance = lasting("1.3")
    appliance.control.set(init="crash", init_from=2, script=HELLO)
    for prompt in ("a", "b"):
        worker = appliance.command("engine.get")["worker_pid"]
        appliance.command("engine.restart")
        while appliance.wait_for_state("ready")["worker_pid"] == worker:
            time.sleep(0.01)
        assert appliance.complete(prompt)["choices"][0]["text"] == "hello"
    assert appliance.command("engine.get")["problem"] is None


def test_lines_that_the_library_has_not_flushed_are_not_lost_with_it(tmp_path: Path) -> None:
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    appliance = NpuAppliance(tmp_path, library=build("1.2.1", buffered_lines=True))
    appliance.control.set(run="crash")
    appliance.start()
    try:
        problem = appliance.command("engine.get")["instead_of"]["problem"]
    finally:
        appliance.stop()
    assert problem["code"] == "engine_crashed"
    assert [line for line in problem["detail"]["last_lines"] if "rkllm-runtime version" in line]


# ---- runs that fail


@pytest.mark.parametrize("generation", ["1.2.1", "1.3"])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"run": "error"}, "npu_failed"),
        ({"run": "npu_timeout", "npu_timeout_s": 0.2}, "npu_failed"),
        ({"run": "crash"}, "engine_crashed"),
        ({"run": "assert"}, "engine_crashed"),
        ({"run": "exit"}, "engine_crashed"),
        ({"run": "hang"}, "engine_hung"),
        ({"leak_fds_per_run": 200_000}, "too_many_files"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_run_that_fails_ends_with_its_reason_in_a_new_worker_and_the_next_one_works(
    lasting: Callable[[str], NpuAppliance], generation: str, fault: dict[str, Any], code: str
) -> None:
    appliance = lasting(generation)
    worker, began_s = appliance.command("engine.get")["worker_pid"], round(time.time(), 3)
    appliance.control.set(script=LONG, run_from_token=3, **fault)
    with appliance.hasty() if "hang" in fault.values() else contextlib.nullcontext():
        told_code, lines = refusal(appliance, f"never the same twice: {generation} {fault}")
        assert told_code == code
        assert [line for line in lines if "rkllm" in line], lines
        appliance.control.reset()
        appliance.control.set(script=HELLO)
    appliance.wait_for_state("ready")
    assert appliance.complete("next")["choices"][0]["text"] == "hello"
    assert appliance.command("engine.get")["worker_pid"] != worker
    told = [event for event in appliance.command("engine.history")["events"] if event["time_s"] >= began_s]
    assert [line for event in told if event["code"] == code for line in event["last_lines"] if "rkllm" in line]


def test_a_fault_that_lasts_keeps_the_lines_that_explain_it_in_sight(npu: NpuAppliance) -> None:
    npu.control.set(run="error")
    assert refusal(npu, "x")[0] == "npu_failed"
    state = npu.wait_for_state("failed")
    assert state["problem"]["code"] == "npu_failed"
    assert [line for line in state["problem"]["detail"]["last_lines"] if "run failed" in line]
    assert state["next_retry_in_s"] is not None
    assert "matmul(w8a8) run failed" in status(npu)
    npu.control.reset()
    npu.wait_for_state("ready")  # by itself


def test_a_crash_long_after_a_warning_about_the_driver_is_a_crash(npu: NpuAppliance) -> None:
    """The warning comes at every load of such a board; it must not keep the engine from being started again."""
    npu.control.set(driver="0.9.6", script=LONG)
    npu.command("engine.restart")
    npu.wait_for_state("ready")
    npu.control.set(run="crash", run_from_token=3)
    assert refusal(npu, "x")[0] == "engine_crashed"
    npu.control.set(run="ok")
    npu.wait_for_state("ready")


def test_a_worker_that_grows_is_replaced(npu: NpuAppliance) -> None:
    npu.control.set(script=HELLO, leak_mib_per_run=100)
    worker = npu.command("engine.get")["worker_pid"]
    number = 0
    while npu.command("engine.get")["worker_pid"] == worker:
        number += 1  # the first one may come before the worker has been measured at all
        assert number < 20
        assert npu.complete(f"run {number}")["choices"][0]["text"] == "hello"
        time.sleep(1.1)
    npu.control.reset()
    assert npu.wait_for_state("ready")["problem"] is None


# ---- what is missing


def _spoil_architecture(appliance: NpuAppliance, directory: Path) -> str:
    image = bytearray(build("1.2.1").read_bytes())
    other = 183 if os.uname().machine != "aarch64" else 62
    image[18:20] = other.to_bytes(2, "little")  # e_machine
    library = directory / "librkllmrt.so"
    library.write_bytes(image)
    appliance.variables["ROCKFILL_RKLLM_LIBRARY"] = str(library)
    return "runtime_unsupported"


def _no_library(appliance: NpuAppliance, directory: Path) -> str:
    appliance.variables["ROCKFILL_RKLLM_LIBRARY"] = ""
    return "runtime_missing"


def _no_tokenizer(appliance: NpuAppliance, directory: Path) -> str:
    (appliance.model / "tokenizer.json").unlink()
    return "tokenizer_missing"


def _no_device(appliance: NpuAppliance, directory: Path) -> str:
    appliance.control.set(init="no_device")
    return "npu_unavailable"


def _pointer(appliance: NpuAppliance, directory: Path) -> str:
    (appliance.model / f"{NAME}.rkllm").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return "invalid_model"


@pytest.mark.parametrize("spoil", [_spoil_architecture, _no_library, _no_tokenizer, _no_device, _pointer])
def test_what_is_missing_is_said_and_the_appliance_serves_on_the_cpu(
    tmp_path: Path, spoil: Callable[[NpuAppliance, Path], str]
) -> None:
    appliance = NpuAppliance(tmp_path)
    code = spoil(appliance, tmp_path)
    appliance.start()
    try:
        state = appliance.wait_for_state("ready")
        assert state["model"]["demonstration"]
        assert state["instead_of"]["model"]["name"] == NAME
        problem = state["instead_of"]["problem"]
        assert (problem["code"], bool(problem["advice"])) == (code, True)
        said = f"The model {NAME} is not running: {problem['message']} {problem['advice']}"
        assert said in appliance.printed
        assert appliance.complete("def add(a, b):\n    return ", "\n")["choices"][0]["text"]
        shown = status(appliance)
        assert f"instead of {NAME}: {problem['message']} {problem['advice']}" in shown
        assert "demonstration" in shown
    finally:
        appliance.stop()


# ---- rockfill runtime inspect


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_library_is_identified_without_being_loaded(generation: str) -> None:
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    library = build(generation)
    told = rockfill("runtime", "inspect", str(library), "--json")
    value = json.loads(told.stdout)
    assert (told.returncode, value["generation"]) == (0, generation)
    assert value["version"] == (None if generation == "1.1" else VERSIONS[generation])
    assert value["architecture"] == os.uname().machine
    blob_id = subprocess.run(["git", "hash-object", library], capture_output=True, text=True, check=True)
    assert value["blob_id"] == blob_id.stdout.strip()
    plain = rockfill("runtime", "inspect", str(library)).stdout
    assert f"generation    {generation}\n" in plain


def test_a_library_without_its_version_says_what_it_may_be() -> None:
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    told = rockfill("runtime", "inspect", str(build("1.3", version_string=False)))
    assert told.returncode == 0
    assert "1.2.1 or 1.3" in told.stdout


@pytest.mark.parametrize("content", ["rubbish", "web page", "pointer", "empty", "truncated", "other library", "none"])
def test_what_is_no_such_library_is_named(tmp_path: Path, content: str) -> None:
    if compiler() is None:
        not_run("rkllm-simulator", "there is no C compiler")
    image = build("1.2.1").read_bytes()
    file = tmp_path / "librkllmrt.so"
    contents = {
        "rubbish": (b"\1\2\3" * 1000, "no shared library"),
        "web page": (b"<!DOCTYPE html>", "a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        "empty": (b"", "an empty file"),
        "truncated": (image[: len(image) // 2], "cut short"),
        "other library": (_some_other_library(), "exports no rkllm_init"),
        "none": (None, "can't be read"),
    }
    data, what = contents[content]
    if data is not None:
        file.write_bytes(data)
    for arguments in ([], ["--json"]):
        told = rockfill("runtime", "inspect", str(file), *arguments)
        assert (told.returncode, told.stdout) == (1, "")
        assert what in told.stderr
        assert "Traceback" not in told.stderr


def _some_other_library() -> bytes:
    """A shared library that is sure to be there."""
    import _ctypes
    from pathlib import Path

    return Path(_ctypes.__file__).read_bytes()


def test_the_bundled_models_are_where_the_fallback_looks() -> None:
    assert (paths.bundled_models() / "rockfill-tiny").is_dir()
