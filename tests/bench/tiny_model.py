"""What the bundled model takes of a machine of two cores, beside its limits."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from rockfill import paths
from tests.bench.lab import Row, bundled, connect, rss_mb, run_python, worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES = 2
RUNS = 20

# As the worker does it, but for the link; the library is loaded before, as the engine's and not the model's.
LOAD = """
import time
import psutil
import rockfill.worker
from rockfill.llama.session import LlamaSession
rss = lambda: psutil.Process().memory_info().rss / 1e6
bare, started = rss(), time.perf_counter()
import xllamacpp
library, imported = rss(), time.perf_counter()
session = LlamaSession({path!r})
print(bare, library, 1000 * (imported - started), 1000 * (time.perf_counter() - imported))
"""


def tiny_model() -> Iterator[Row]:
    """Loading the bundled model, the memory it takes, and a line completed behind a prompt of 500 tokens."""
    path = paths.bundled_models() / "rockfill-tiny" / "rockfill-tiny-q8_0.gguf"
    with _two_cores():
        loads = [tuple(map(float, run_python(LOAD.format(path=str(path))).split())) for _ in range(7)][1:]
        bare_mb, library_mb, library_ms, load_ms = zip(*loads, strict=True)
        with bundled() as appliance, connect(appliance) as client:
            runs = [client.complete(_request(number)) for number in range(RUNS + 2)]
            worker_mb = rss_mb(worker_of(client))
    timings = [run.extension["timings"] for run in runs[2:]]
    yield Row("bundled model: load", "ms", load_ms, 100, "its file in the page cache")
    yield Row("  import of the engine's library", "ms", library_ms)
    note = f"{worker_mb:.1f} after {len(runs)} completions; {min(library_mb) - min(bare_mb):.1f} are the library's"
    yield Row("bundled model: memory beside the bare worker", "MB", (worker_mb - min(bare_mb),), 60, note)
    asked, written = ([each[f"{kind}_tokens"] for each in timings] for kind in ("prompt", "generated"))
    reused = max(run.extension["reused_tokens"] for run in runs[2:])
    note = f"{min(asked)} to {max(asked)} tokens, {reused} known at most; {min(written)} to {max(written)} written"
    times_ms = tuple(run.total_s * 1000 for run in runs[2:])
    yield Row("bundled model: a line behind a prompt of 500 tokens", "ms", times_ms, 150, note)


def _request(number: int) -> dict[str, object]:
    """Code that was never asked with, of 500 tokens, the cursor in its last line.

    As work that may take its time, since of what is typed less is read where the machine is slow.
    """
    code = "".join(f"def area_{number}_{each}(width, height):\n    return width * height\n\n\n" for each in range(25))
    suffix = "\n    return width * height * depth\n\n\nprint(volume(1, 2, 3))\n"
    extension = {"mode": "line", "priority": "background"}
    return {"prompt": f"{code}def volume_{number}(", "suffix": suffix, "rockfill": extension}


@contextlib.contextmanager
def _two_cores() -> Iterator[None]:
    """For this process and those that it starts."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)
