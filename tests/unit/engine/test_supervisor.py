"""The supervisor with real workers: what callers get, whatever the worker does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rockfill.engine import machine
from rockfill.engine.machine import Limit
from rockfill.engine.process import Child
from rockfill.errors import Code, Problem, ProblemInfo
from rockfill.link.messages import Done, Generate, Tokenized
from rockfill.session import Run
from rockfill.snapshots import Phase, Target
from tests.engines import ENVIRONMENT, PATIENCE_S, PATIENT, WORKER, Engine, Script, ending, engine, rogue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rockfill.engine.events import Timeouts
    from rockfill.engine.process import Listener
    from rockfill.engine.supervisor import Generation

ROGUE = Target("rogue", "fake", "/nowhere", None)
SECONDS = 0.1  # a deadline that is to pass


@pytest.fixture
async def running() -> AsyncIterator[Engine]:
    """A supervisor with the scripted worker."""
    async with engine() as started:
        yield started


def request(prompt: str) -> Generate:
    return Generate(id=0, prefix=prompt, max_tokens=1000)


async def text_of(generation: Generation) -> str:
    return "".join([text async for text in generation])


async def complete(running: Engine, script: Script, prompt: str) -> str:
    return await text_of(running.supervisor.submit(script.target, request(prompt)))


async def failure_to_load(running: Engine, target: Target) -> ProblemInfo:
    with pytest.raises(Problem) as caught:
        await running.supervisor.ensure_ready(target)
    return caught.value.info


# ---- when all goes well


async def test_a_request_loads_its_model_and_is_completed(running: Engine, script: Script) -> None:
    generation = running.supervisor.submit(script.target, request("repeat me"))
    assert await text_of(generation) == "repeat me"
    assert generation.run is not None
    assert generation.run.finish == "stop"
    assert generation.tokens == generation.run.generated_tokens == len("repeat me")
    assert generation.accepted is not None
    assert generation.accepted.prompt_tokens == len("repeat me") + 1  # BOS
    await running.reaches(Phase.READY)
    phases = [snapshot.phase for snapshot in running.snapshots]
    assert phases == [Phase.STARTING, Phase.LOADING, Phase.BUSY, Phase.READY]


async def test_requests_one_after_another_get_their_own_texts(running: Engine, script: Script) -> None:
    for prompt in ("one", "two", "three"):
        assert await complete(running, script, prompt) == prompt


async def test_a_second_request_meanwhile_is_told_that_the_engine_is_busy(running: Engine, script: Script) -> None:
    script.says(text="slow", token_s=0.02)
    first = running.supervisor.submit(script.target, request("a"))
    second = running.supervisor.submit(script.target, request("b"))
    _, problem = await ending(second)
    assert problem.code is Code.MODEL_BUSY
    assert await text_of(first) == "slow"


async def test_the_snapshot_tells_what_is_loaded(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    snapshot = running.supervisor.snapshot
    assert (snapshot.phase, snapshot.target, snapshot.fim_order) == (Phase.READY, script.target, "psm")
    assert snapshot.facts is not None
    assert snapshot.facts.runtime == "fake"
    assert snapshot.worker_pid is not None
    assert os.getpgid(snapshot.worker_pid) == snapshot.worker_pid  # so that its own children die with it


async def test_unload_ends_the_worker_and_the_next_request_starts_another(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    first = running.supervisor.snapshot.worker_pid
    running.supervisor.unload()
    stopped = await running.reaches(Phase.STOPPED)
    assert (stopped.worker_pid, stopped.facts, stopped.target) == (None, None, None)
    assert await complete(running, script, "again") == "again"
    assert running.supervisor.snapshot.worker_pid != first


async def test_another_model_replaces_the_first(running: Engine, script: Script) -> None:
    other = replace(script.target, name="other")
    await running.supervisor.ensure_ready(script.target)
    await running.supervisor.ensure_ready(other)
    assert running.supervisor.snapshot.target == other


# ---- giving up


@pytest.mark.parametrize("when", ["prefill", "decode"])
async def test_a_cancelled_run_ends_early_and_the_worker_stays(running: Engine, script: Script, when: str) -> None:
    script.says(text="x" * 500, prefill_s=60 if when == "prefill" else 0, token_s=0.01)
    generation = running.supervisor.submit(script.target, request("a"))
    if when == "prefill":
        await running.reaches(Phase.BUSY)
    else:
        await anext(aiter(generation))
    generation.cancel()
    generation.cancel()
    await text_of(generation)
    assert generation.run is not None
    assert generation.run.finish == "aborted"
    assert generation.run.generated_tokens < 500
    worker = running.supervisor.snapshot.worker_pid
    script.says(text="next")
    assert await complete(running, script, "b") == "next"
    assert running.supervisor.snapshot.worker_pid == worker


async def test_a_request_cancelled_while_the_model_loads_is_over_at_once(running: Engine, script: Script) -> None:
    script.says(fault={"when": "load", "what": "hang"})
    generation = running.supervisor.submit(script.target, request("a"))
    await running.reaches(Phase.LOADING)
    generation.cancel()
    assert (await ending(generation))[1].code is Code.CANCELLED


async def test_a_cancelled_ensure_ready_leaves_nothing_behind(running: Engine, script: Script) -> None:
    waiting = asyncio.create_task(running.supervisor.ensure_ready(script.target))
    await running.reaches(Phase.STARTING)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await running.supervisor.ensure_ready(script.target)


# ---- when the worker dies

LAST_WORDS = """
import os, sys
from rockfill.worker import main
from tests.fakes.worker import FakeSession

class Talkative(FakeSession):
    def generate(self, *arguments):
        print("E fake: about to crash", flush=True)
        return super().generate(*arguments)

main(sys.argv, {"fake": lambda load: Talkative(load.path)})
"""


async def test_a_crash_ends_the_run_with_its_last_words_and_the_next_request_works(script: Script) -> None:
    once = script.path.with_name("once")
    once.touch()
    script.says(text="abcdef", token_s=0.01, once=str(once), fault={"when": 3, "what": "segv"})
    async with engine((sys.executable, "-c", LAST_WORDS)) as running:
        text, problem = await ending(running.supervisor.submit(script.target, request("a")))
        assert text == "abc"
        assert problem.code is Code.ENGINE_CRASHED
        assert "SIGSEGV" in problem.message
        assert problem.detail == {"exit_status": -signal.SIGSEGV, "last_lines": ["E fake: about to crash"]}
        assert running.lines == ["E fake: about to crash"]
        assert await complete(running, script, "b") == "abcdef"


@pytest.mark.parametrize(
    ("fault", "code"), [("segv", Code.ENGINE_CRASHED), ("exit", Code.ENGINE_CRASHED), ("raise", Code.ENGINE_FAILED)]
)
@pytest.mark.parametrize("when", ["prefill", 0, 2])
async def test_whenever_a_run_breaks_it_is_told_why(
    running: Engine, script: Script, fault: str, when: str | int, code: Code
) -> None:
    script.says(text="abcdef", token_s=0.01, fault={"when": when, "what": fault})
    text, problem = await ending(running.supervisor.submit(script.target, request("a")))
    assert problem.code is code
    assert text == "abcdef"[: when if isinstance(when, int) else 0]


async def test_a_request_that_took_two_workers_with_it_is_not_run_again(running: Engine, script: Script) -> None:
    script.says(text="abc", fault={"when": 1, "what": "segv"})
    codes = []
    for _ in range(3):
        await running.reaches(Phase.READY, Phase.STOPPED, Phase.STARTING, Phase.LOADING)
        codes.append((await ending(running.supervisor.submit(script.target, request("bad"), "bad")))[1].code)
    assert codes == [Code.ENGINE_CRASHED, Code.ENGINE_CRASHED, Code.REQUEST_CRASHES_ENGINE]


async def test_who_is_told_of_a_crash_does_not_find_the_engine_busy_with_it(script: Script) -> None:
    """However long the next worker takes to be started."""
    spawned = 0

    async def spawn(listener: Listener) -> Child:
        nonlocal spawned
        spawned += 1
        if spawned > 1:
            await asyncio.wait([told], timeout=0.1)
        return await Child.spawn(WORKER, listener, ENVIRONMENT)

    async def phase_when_told() -> Phase:
        await ending(running.supervisor.submit(script.target, request("a")))
        return running.supervisor.snapshot.phase

    script.says(fault={"when": "prefill", "what": "segv"})
    async with engine(spawn=spawn) as running:
        told = asyncio.create_task(phase_when_told())
        assert await told is not Phase.BUSY


async def test_an_idle_worker_that_is_killed_is_replaced(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    first = running.supervisor.snapshot.worker_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await running.reaches(Phase.STARTING)
    assert await complete(running, script, "a") == "a"
    assert running.supervisor.snapshot.worker_pid != first


async def test_a_crash_while_loading_is_tried_again_at_once_for_those_who_wait(running: Engine, script: Script) -> None:
    once = script.path.with_name("once")
    once.touch()
    script.says(text="fine", once=str(once), fault={"when": "load", "what": "segv"})
    assert await complete(running, script, "a") == "fine"
    assert not once.exists()


async def test_a_model_that_is_none_is_told_as_such_and_not_tried_again(running: Engine, script: Script) -> None:
    script.says(fault={"when": "load", "what": "problem"})
    problem = await failure_to_load(running, script.target)
    assert (problem.code, problem.message) == (Code.INVALID_MODEL, "The fake model is broken.")
    assert running.supervisor.snapshot.phase is Phase.FAILED
    assert running.supervisor.snapshot.next_retry_at_s is None
    script.says()
    await running.supervisor.ensure_ready(script.target)  # a person mended it and asks again


async def test_a_worker_that_cannot_be_started_says_so_and_when_it_is_tried_again() -> None:
    async with engine(("/nonexistent/worker",)) as running:
        problem = await failure_to_load(running, ROGUE)
        assert problem.code is Code.ENGINE_START_FAILED
        retry_at_s = running.supervisor.snapshot.next_retry_at_s
        assert retry_at_s is not None
        assert retry_at_s > asyncio.get_running_loop().time()


# ---- when it hangs


async def check_hang(running: Engine, script: Script, limit: str) -> None:
    _, problem = await ending(running.supervisor.submit(script.target, request("a")))
    assert problem.code is Code.ENGINE_HUNG
    assert (problem.detail or {})["limit"] == limit


@pytest.mark.parametrize(
    ("when", "limit", "timeouts"),
    [
        ("load", "load", replace(PATIENT, load_s=SECONDS)),
        ("prefill", "first_token", replace(PATIENT, first_token_s=SECONDS)),
        (3, "token_gap", replace(PATIENT, token_gap_s=SECONDS)),
    ],
)
@pytest.mark.parametrize("what", ["hang", "stop"])
async def test_a_hang_is_found_by_its_deadline(
    script: Script, when: str | int, limit: str, timeouts: Timeouts, what: str
) -> None:
    """SIGSTOP is the harder one: a stopped process does not heed SIGTERM, and its link thread is silent too."""
    script.says(text="abcdef", fault={"when": when, "what": what})
    async with engine(timeouts=timeouts) as running:
        await check_hang(running, script, limit)


async def test_a_worker_that_does_not_take_up_a_request_is_found(script: Script) -> None:
    async with engine(timeouts=replace(PATIENT, accepted_s=SECONDS)) as running:
        await running.supervisor.ensure_ready(script.target)
        assert running.supervisor.snapshot.worker_pid is not None
        os.kill(running.supervisor.snapshot.worker_pid, signal.SIGSTOP)
        await check_hang(running, script, "accepted")


async def test_a_worker_that_does_not_heed_an_abort_is_found(script: Script) -> None:
    script.says(text="x" * 100, token_s=60, deaf=60, waits="it waits")
    async with engine(timeouts=replace(PATIENT, first_token_s=1, abort_s=SECONDS)) as running:
        generation = running.supervisor.submit(script.target, request("a"))
        await running.hears("it waits")
        generation.cancel()
        assert (await ending(generation))[1].code is Code.ENGINE_HUNG


async def test_an_idle_worker_that_answers_no_ping_is_replaced(script: Script) -> None:
    async with engine(timeouts=replace(PATIENT, ping_s=SECONDS, pong_s=SECONDS)) as running:
        await running.supervisor.ensure_ready(script.target)
        first = running.supervisor.snapshot.worker_pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await running.reaches(Phase.STOPPING)
        await running.reaches(Phase.READY)
        assert running.supervisor.snapshot.worker_pid != first


async def test_an_idle_worker_that_answers_its_pings_stays(script: Script) -> None:
    async with engine(timeouts=replace(PATIENT, ping_s=0.01)) as running:
        await running.supervisor.ensure_ready(script.target)
        worker = running.supervisor.snapshot.worker_pid
        before = running.supervisor._state.serial
        while running.supervisor._state.serial < before + 10:  # noqa: ASYNC110 - of pings nothing is published
            await asyncio.sleep(0.01)
        assert await complete(running, script, "a") == "a"
        assert running.supervisor.snapshot.worker_pid == worker


async def test_a_stopped_worker_is_killed_at_the_end(script: Script) -> None:
    async with engine(timeouts=replace(PATIENT, stop_s=SECONDS)) as running:
        await running.supervisor.ensure_ready(script.target)
        assert running.supervisor.snapshot.worker_pid is not None
        os.kill(running.supervisor.snapshot.worker_pid, signal.SIGSTOP)


# ---- when it breaks the rules


@pytest.mark.parametrize(
    ("mode", "code", "says"),
    [
        ("garbage", Code.LINK_BROKEN, "not JSON"),
        ("unknown", Code.LINK_BROKEN, "unknown type"),
        ("malformed", Code.LINK_BROKEN, "malformed token message: id: must be an integer"),
        ("endless", Code.LINK_BROKEN, "a line of more than"),
        ("version", Code.LINK_BROKEN, "link version 99"),
        ("deaf", Code.LINK_BROKEN, "ended its link"),
        ("half", Code.ENGINE_CRASHED, "exit status 0"),
        ("127", Code.ENGINE_CRASHED, "exit status 127"),
        ("last words", Code.ENGINE_CRASHED, "exit status 9"),
        ("silent", Code.ENGINE_HUNG, "did not start"),
    ],
)
async def test_every_broken_rule_ends_in_its_problem(mode: str, code: Code, says: str) -> None:
    timeouts = replace(PATIENT, hello_s=SECONDS) if mode == "silent" else PATIENT
    async with engine(rogue(mode), timeouts, linger_s=SECONDS if mode == "deaf" else PATIENCE_S) as running:
        problem = await failure_to_load(running, ROGUE)
    assert problem.code is code
    assert says in problem.message
    if mode == "last words":
        assert problem.detail == {"exit_status": 9, "last_lines": ["E rkllm: the last words"]}


OUT_OF_TURN = """
import json, socket, sys, time
link = socket.socket(fileno=int(sys.argv[1]))
figures = ("generated_tokens", "prefilled_tokens", "reused_tokens", "prefill_s", "decode_s")
run = {"finish": "stop", **dict.fromkeys(figures, 0)}
facts = {"context_tokens": 9, "vocabulary_tokens": 9, "bos_id": 0, "adds_bos": True, "honours": [], "runtime": "x"}
said = [
    {"type": "hello", "version": 1, "pid": 1},
    {"type": "accepted", "id": 1, "prompt_tokens": 1, "trimmed": {}},
    {"type": "token", "id": 1, "text": "x", "tokens": 1},
    {"type": "done", "id": 1, "run": run},
    {"type": "loaded", "facts": facts, "fim_order": None},
]
for message in said:
    link.sendall(json.dumps(message).encode() + b"\\n")
    time.sleep(0.05)
link.recv(1 << 20)
while link.recv(1 << 20):
    pass
"""


async def test_a_worker_that_ends_a_run_before_it_begins_does_not_end_the_supervisor() -> None:
    async with engine((sys.executable, "-c", OUT_OF_TURN), replace(PATIENT, accepted_s=SECONDS)) as running:
        _, problem = await ending(running.supervisor.submit(ROGUE, request("a")))
        assert problem.code is Code.ENGINE_HUNG


# ---- output, races, end


async def test_a_token_gap_that_ends_with_the_run_itself_is_none(running: Engine, script: Script) -> None:
    """The worker's `Done` and the timer may come in the same turn of the loop."""
    script.says(text="x" * 500, token_s=0.01)
    supervisor = running.supervisor
    generation = supervisor.submit(script.target, request("a"))
    await anext(aiter(generation))
    await supervisor.heartbeat()  # the first token has been taken up
    gap = supervisor._armed
    assert gap is not None
    assert gap.limit is Limit.TOKEN_GAP
    supervisor.heard(supervisor._state.epoch, Done(generation.request.id, Run("stop", 1, None, None, None, None)))
    supervisor._expire(gap)
    assert generation.run is not None
    assert (await running.reaches(Phase.READY)).problem is None


async def test_a_request_behind_questions_is_given_their_time(running: Engine, script: Script) -> None:
    await running.supervisor.ensure_ready(script.target)
    supervisor = running.supervisor
    pid = supervisor.snapshot.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    generation = supervisor.submit(script.target, request("a"))
    await running.reaches(Phase.BUSY)
    armed = supervisor._armed
    assert armed is not None
    assert armed.limit is Limit.ACCEPTED
    supervisor.heard(supervisor._state.epoch, Tokenized(1 << 20, ()))  # one that nobody waits for any more
    supervisor._expire(armed)
    await supervisor.heartbeat()
    assert supervisor.snapshot.phase is Phase.BUSY
    os.kill(pid, signal.SIGCONT)
    assert await text_of(generation) == "a"
    assert supervisor.snapshot.worker_pid == pid


async def test_a_flood_of_output_does_not_block_the_run(running: Engine, script: Script) -> None:
    script.says(text="fine", fault={"when": "prefill", "what": "flood"})
    assert await complete(running, script, "a") == "fine"
    assert running.supervisor.last_lines


async def test_a_worker_that_kill_does_not_end_is_told_and_none_is_started_beside_it(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in state D, which no test can make for real."""
    async with engine(timeouts=replace(PATIENT, stop_s=SECONDS)) as running:
        await running.supervisor.ensure_ready(script.target)
        child = running.supervisor._child
        assert child is not None
        with monkeypatch.context() as deaf:
            deaf.setattr(machine, "REAP_S", SECONDS)
            deaf.setattr(child, "terminate", lambda: None)
            deaf.setattr(child, "kill", lambda: None)
            running.supervisor.restart()
            failed = await running.reaches(Phase.FAILED)
            assert failed.problem is not None
            assert (failed.problem.code, failed.next_retry_at_s) == (Code.NPU_WEDGED, None)
            assert "Reboot" in failed.problem.advice
            running.supervisor.restart()
            _, problem = await ending(running.supervisor.submit(script.target, request("a")))
            assert problem.code is Code.NPU_WEDGED
            assert (await failure_to_load(running, script.target)).code is Code.NPU_WEDGED
            assert running.supervisor._child is child
        child.kill()  # it goes after all
        await running.reaches(Phase.STOPPED)
        assert await complete(running, script, "b") == "b"


async def test_the_worker_of_an_earlier_daemon_is_waited_for(script: Script) -> None:
    spawned = 0

    async def spawn(listener: Listener) -> Child:
        nonlocal spawned
        spawned += 1
        if spawned <= 2:
            raise Problem(Code.NPU_WEDGED, "An earlier one is in the way.")
        return await Child.spawn(WORKER, listener, ENVIRONMENT)

    async with engine(spawn=spawn) as running:
        assert (await failure_to_load(running, script.target)).code is Code.NPU_WEDGED
        assert running.supervisor.snapshot.next_retry_at_s is not None
        _, problem = await ending(running.supervisor.submit(script.target, request("a")))
        assert problem.code is Code.NPU_WEDGED
        await running.reaches(Phase.READY)  # by itself
        assert spawned == 3


async def test_everybody_who_waits_is_told_when_the_supervisor_closes(script: Script) -> None:
    script.says(text="x" * 500, token_s=0.01)
    async with engine() as running:
        generation = running.supervisor.submit(script.target, request("a"))
        await anext(aiter(generation))
        waiting = asyncio.create_task(running.supervisor.ensure_ready(replace(script.target, name="other")))
        await running.reaches(Phase.STOPPING)
    assert (await ending(generation))[1].code is Code.ENGINE_STOPPED
    with pytest.raises(Problem) as caught:
        await waiting
    assert caught.value.code is Code.ENGINE_STOPPED
    assert running.supervisor.snapshot.phase is Phase.CLOSED


async def test_what_is_wished_while_it_closes_is_answered(script: Script) -> None:
    async with engine() as running:
        await running.supervisor.ensure_ready(script.target)
        running.supervisor.close()
        late = running.supervisor.submit(script.target, request("a"))
        assert (await ending(late))[1].code is Code.ENGINE_STOPPED


async def test_closing_one_that_never_began_is_immediate_and_whoever_comes_too_late_is_told(script: Script) -> None:
    async with engine(WORKER) as running:
        running.supervisor.close()
        late = running.supervisor.submit(script.target, request("a"))  # behind the very last event
        assert (await ending(late))[1].code is Code.ENGINE_STOPPED
    assert [snapshot.phase for snapshot in running.snapshots] == [Phase.CLOSED]


async def test_what_the_engine_may_have_had_in_its_cache_does_not_make_it_faster(
    running: Engine, script: Script
) -> None:
    """An engine that does not tell how much it read, as RKLLM before 1.3 does not of runs that we end."""
    script.says(text="x", prefill_s=0.05, tells_prefilled=False, reuses_prefix=True)
    code = "def f():\n" * 20
    for keys in range(20):  # as many as the rate is taken of, and more
        generation = running.supervisor.submit(script.target, Generate(0, code + "x" * keys, max_tokens=4))
        assert "".join([text async for text in generation]) == "x"
        script.says(text="x", tells_prefilled=False, reuses_prefix=True)
    rate = running.supervisor.prefill_tokens_per_second
    assert rate is not None
    assert rate <= (len(code) + 1) / 0.05  # the first one's, its BOS included
