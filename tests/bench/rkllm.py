"""What Rockfill costs beside the NPU: the simulated runtime through the whole appliance, and driven by bare C.

Both do the same runs in a library that needs no time, save for reading its control file at every token; what the
appliance takes more is Rockfill's own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill import paths
from tests.bench.lab import Row, connect, rss_mb, run_python
from tests.fakes.rkllm_simulator import Token, compiler
from tests.fakes.vocabulary import sentencepiece_like
from tests.npu import NpuAppliance

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECT = Path(__file__).with_name("rkllm_direct.c")
TOKENS = 1000
RUNS = 30
CODE = "def area(width, height):\n    return width * height\n\n\n" * 4
SUFFIX = "\n\nprint(volume(1, 2, 3))\n"

TOKENIZER = """
import sys, time
from pathlib import Path
import psutil
import rockfill.rkllm.tokenizer, json
rss = lambda: psutil.Process().memory_info().rss / 1e6
before, started = rss(), time.perf_counter()
import tokenizers
imported = rss()
made = rockfill.rkllm.tokenizer.ModelTokenizer(Path({path!r}))
print(imported - before, rss() - imported, 1000 * (time.perf_counter() - started), made.vocabulary_tokens)
"""


def npu() -> Iterator[Row]:
    """The simulated NPU at no delay: what is added to the first token, to every other, and to memory."""
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        appliance = NpuAppliance(Path(folder), context_tokens=4096)
        script = [Token(700 + number, b"abcd") for number in range(8)]
        appliance.control.set(script=script, eos="never", eos_id=999)
        appliance.start()
        try:
            with connect(appliance) as client:
                runs = []
                for number in range(RUNS + 3):
                    time.sleep(0.005)  # typing leaves pauses
                    # Never the same twice: what was answered before is answered from memory.
                    prompt = f"{CODE}def volume_{number:02d}("
                    runs.append(client.complete({"prompt": prompt, "suffix": SUFFIX, "max_tokens": TOKENS}))
                runs = runs[3:]
                worker_mb = rss_mb(int(client.command("engine.get")["worker_pid"]))
        finally:
            appliance.stop()
        tokenizer_mb = sum(_tokenizer(appliance.model / "tokenizer.json")[:2])
        prompt_tokens = int(runs[-1].extension["timings"]["prompt_tokens"])
        firsts_ms, gaps_us, direct_mb = _direct(appliance, prompt_tokens)
    assert {run.extension["timings"]["generated_tokens"] for run in runs} == {TOKENS}
    first_ms, gap_us = statistics.median(firsts_ms), statistics.median(gaps_us)
    first = tuple(run.first_s * 1e3 - first_ms for run in runs)
    gap = tuple((run.total_s - run.first_s) * 1e6 / (TOKENS - 1) - gap_us for run in runs)
    note = f"{prompt_tokens}-token prompt with a suffix"
    yield Row("NPU, simulated: added to the first token", "ms", first, 1.5, note)
    yield Row("  the library driven by bare C", "ms", firsts_ms)
    yield Row("NPU, simulated: added to each other token", "us", gap, 25, f"{TOKENS} tokens of 4 characters")
    yield Row("  the library driven by bare C", "us", gaps_us)
    beside_mb = worker_mb - direct_mb - tokenizer_mb
    note = f"{worker_mb:.1f} in all, {direct_mb:.1f} as bare C has them, {tokenizer_mb:.1f} for the tokenizer"
    yield Row("memory of the NPU's worker, beside model and tokenizer", "MB", (beside_mb,), 45, note)


def tokenizer() -> Iterator[Row]:
    """What a model's tokenizer.json costs its worker, for reference."""
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder:
        large = sentencepiece_like(Path(folder, "tokenizer.json"), entries=256_000)
        for name, path in (
            ("bundled", paths.bundled_models() / "rockfill-tiny" / "tokenizer.json"),
            ("synthetic", large),
        ):
            measured = [_tokenizer(path) for _ in range(5)]
            library_mb, loaded_mb, load_ms, entries = zip(*measured, strict=True)
            note = f"{round(entries[0])} entries, {path.stat().st_size / 1e6:.1f} MB on disk"
            yield Row(f"tokenizer, {name}: memory", "MB", loaded_mb, None, note)
            yield Row("  memory of its library", "MB", library_mb)
            yield Row("  import and load", "ms", load_ms)


def _tokenizer(path: Path) -> tuple[float, ...]:
    """MB of the library, MB of the vocabulary, ms for both, entries."""
    return tuple(float(value) for value in run_python(TOKENIZER.format(path=str(path))).split())


def _direct(appliance: NpuAppliance, prompt_tokens: int) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """The same runs without Rockfill: ms to the first token, us between two, and the MB that it holds."""
    program = appliance.model.parent / "rkllm_direct"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-DGENERATION=GEN_1_2_1"]
    command = compiler()
    assert command is not None
    subprocess.run([*command, *flags, "-o", str(program), str(DIRECT), "-lm"], check=True)
    [model] = appliance.model.glob("*.rkllm")
    printed = subprocess.run(
        [program, model, str(prompt_tokens), str(TOKENS), str(RUNS + 3)],
        env={**os.environ, **appliance.control.environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    *runs, resident = [line for line in printed.splitlines() if not line.startswith("I ")]
    values = [tuple(map(float, run.split())) for run in runs[3:]]
    return tuple(first for first, _ in values), tuple(gap for _, gap in values), float(resident) / 1e6
