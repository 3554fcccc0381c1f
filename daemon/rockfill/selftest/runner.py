"""Runs the selftest on the loaded model, through the same path as every completion."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from rockfill.engine.supervisor import NOT_LOADED
from rockfill.errors import Code, Problem
from rockfill.hardware.process import resident_bytes
from rockfill.link.messages import Generate
from rockfill.selftest.result import EXAMPLE_ANSWER, EXAMPLE_PREFIX, EXAMPLE_SUFFIX, Example, SelfTestResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rockfill.engine.supervisor import Generation, Supervisor
    from rockfill.session import Run
    from rockfill.snapshots import Target

# Some 300 tokens of any vocabulary: long enough to time a prefill, and a few seconds on a board.
_LINES = 24
_DECODED_TOKENS = 32

# A prefill shorter than this is mostly overhead, and says nothing of a cache.
_TELLING_S = 0.1


class SelfTest:
    """Needs the engine for itself; whoever calls `run` sees to that."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def run(self, target: Target) -> SelfTestResult:
        """Load `target` if need be and find out what it does. Raises the `Problem` that ends it."""
        await self._supervisor.ensure_ready(target)
        facts = self._supervisor.snapshot.facts
        if facts is None:  # it was unloaded again before we could look
            raise NOT_LOADED.raised()
        examples = {order: await self._example(target, order) for order in ("psm", "spm")}
        fresh, prompt_tokens = await self._complete(target, _text("fresh"))
        again, _ = await self._complete(target, _text("fresh") + "again = ")
        answered = [example for example in examples.values() if example is not None]
        return SelfTestResult(
            model=target.name,
            runtime=facts.runtime,
            when_s=int(time.time()),
            runtime_adds_bos=facts.runtime_adds_bos,
            reuses_prefix=_reuses(fresh, again),
            prefill_tokens_per_second=_rate(fresh.prefilled_tokens or prompt_tokens, fresh.prefill_s),
            decode_tokens_per_second=_rate(fresh.generated_tokens - 1, fresh.decode_s),
            abort_in_prefill_ms=await self._abort(target, _text("prefill"), tokens=0),
            abort_in_decode_ms=await self._abort(target, _text("decode"), tokens=1),
            stops_by_itself=any(example.finish == "stop" for example in answered),
            worker_rss_bytes=resident_bytes(self._supervisor.snapshot.worker_pid),
            psm=examples["psm"],
            spm=examples["spm"],
            memory_bytes=self._supervisor.memory_bytes,
        )

    async def _example(self, target: Target, order: Literal["psm", "spm"]) -> Example | None:
        request = Generate(0, EXAMPLE_PREFIX, EXAMPLE_SUFFIX, max_tokens=_DECODED_TOKENS, fim_order=order)
        try:
            async with self._run(target, request) as generation:
                text = "".join([part async for part in generation])
        except Problem as problem:
            if problem.code is Code.FIM_UNSUPPORTED:
                return None
            raise
        assert generation.run is not None
        return Example(text, generation.run.finish, text.strip().startswith(EXAMPLE_ANSWER))

    async def _complete(self, target: Target, text: str) -> tuple[Run, int]:
        """How the run went, and how many tokens its prompt had."""
        async with self._run(target, Generate(0, text, max_tokens=_DECODED_TOKENS)) as generation:
            async for _ in generation:
                pass
        assert generation.run is not None
        assert generation.accepted is not None
        return generation.run, generation.accepted.prompt_tokens

    async def _abort(self, target: Target, text: str, *, tokens: int) -> float:
        """Milliseconds from the abort to a free engine, given after so many tokens."""
        async with self._run(target, Generate(0, text, max_tokens=256)) as generation:
            if tokens:
                async for _ in generation:
                    break
            else:
                await generation.taken_up()
            started = time.perf_counter()
        if generation.problem is not None:
            raise generation.problem.raised()
        return round((time.perf_counter() - started) * 1000, 1)

    @asynccontextmanager
    async def _run(self, target: Target, request: Generate) -> AsyncGenerator[Generation, None]:
        """One run; the engine is free of it afterwards, whatever happened meanwhile."""
        generation = self._supervisor.submit(target, request)
        over = asyncio.Event()
        generation.when_over(over.set)
        try:
            yield generation
        finally:
            generation.cancel()
            await over.wait()


def _text(name: str) -> str:
    """Plain code that differs from its first line on, so that nothing of it is cached."""
    lines = [f"# {name}: what this file is for"]
    lines += [f"{name}_{number} = compute_{name}(first={number}, second={number * 7})" for number in range(_LINES)]
    return "\n".join(lines) + "\n"


def _reuses(fresh: Run, again: Run) -> bool | None:
    if fresh.prefilled_tokens is not None and again.prefilled_tokens is not None:
        return again.prefilled_tokens * 2 < fresh.prefilled_tokens
    # RKLLM before 1.3 tells its figures only of runs that nobody cut short; the time shows it as well.
    if fresh.prefill_s is None or again.prefill_s is None or fresh.prefill_s < _TELLING_S:
        return None
    return again.prefill_s * 2 < fresh.prefill_s


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return round(tokens / seconds, 1) if tokens and tokens > 0 and seconds else None
