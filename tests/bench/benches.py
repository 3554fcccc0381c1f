"""The benchmarks: each is a function that yields its rows, and stands in the tuple at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from tests.appliance import Appliance
from tests.bench.client import Connection, Refused, bare_server
from tests.bench.download import download
from tests.bench.figures import figures
from tests.bench.lab import Row, bundled, connect, cpu_s, rss_mb, run_python, scripted, worker_of
from tests.bench.lifecycle import lifecycle
from tests.bench.page import page
from tests.bench.rkllm import npu, tokenizer
from tests.bench.subscribers import subscribers
from tests.bench.tiny_model import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.bench.lab import BenchAppliance

LINE = "total = price * count\n"
POLL_S = 0.0005

# 64 tokens: CodeGemma's three markers, <bos>, and 60 characters at one token each (`fakes/worker.py`).
_serial = count(1)


def small(**fields: object) -> dict[str, Any]:
    """Never the same twice: what was answered before is answered from memory."""
    prompt = f"def t{next(_serial):04d}(price, count):\n    return "
    return {"prompt": prompt, "suffix": "\n\nprint(total(3, 4))\n  \n", **fields}


def first_token() -> Iterator[Row]:
    """From writing the request to the first event with text; the engine needs no time."""
    with scripted(text=LINE, tokens=8) as appliance, connect(appliance) as client:
        pid, worker = appliance.pid, worker_of(client)
        runs, daemon_us, worker_us = [], [], []
        for i in range(320):
            # Typing leaves pauses. Without one, the worker would still be gathering the last run's tokens (COALESCE_S).
            time.sleep(0.005)
            before = cpu_s(pid), cpu_s(worker)
            run = client.complete(small())
            if i >= 20:
                runs.append(run)
                daemon_us.append((cpu_s(pid) - before[0]) * 1e6)
                worker_us.append((cpu_s(worker) - before[1]) * 1e6)
    prompt_tokens = runs[-1].extension["timings"]["prompt_tokens"]
    yield Row("first token", "ms", _ms(run.first_s for run in runs), 1.5, f"{prompt_tokens}-token prompt with a suffix")
    yield Row("  whole answer of 8 tokens", "ms", _ms(run.total_s for run in runs))
    yield Row("  CPU of the daemon, per request", "us", tuple(daemon_us))
    yield Row("  CPU of the worker, per request", "us", tuple(worker_us))
    with bare_server(runs[-1].raw) as port, Connection(port) as client:
        bare = [client.complete(small()) for _ in range(220)][20:]
    yield Row(
        "  loopback and this client alone", "ms", _ms(run.first_s for run in bare), None, "contained in the first"
    )


def streaming() -> Iterator[Row]:
    """What a streamed token costs once the first is there."""
    tokens = 2000
    text = (LINE * 400)[: 4 * tokens]
    with scripted(text=text, tokens=tokens, context_tokens=4 * tokens) as appliance, connect(appliance) as client:
        runs = [_per_token(appliance, client, tokens) for _ in range(33)][3:]
        appliance.script(text=text, tokens=tokens, token_s=0.002)
        apart = [_per_token(appliance, client, 100) for _ in range(6)][1:]
    wall, daemon, worker, own = zip(*(costs for costs, _ in runs), strict=True)
    note = f"{tokens} tokens of 4 characters, gathered on the way into {round(mean(n for _, n in runs))} events"
    yield Row("streaming, an engine that needs no time, per token", "us", wall, 25, note)
    yield Row("  CPU of the daemon", "us", daemon)
    yield Row("  CPU of the worker, its engine included", "us", worker)
    yield Row("  CPU of this client", "us", own)
    _, daemon, worker, _ = zip(*(costs for costs, _ in apart), strict=True)
    note = f"100 tokens in {round(mean(n for _, n in apart))} events: what an event costs, waking up included"
    yield Row("streaming, 2 ms a token: CPU of the daemon", "us", daemon, None, note)
    yield Row("  CPU of the worker, its engine included", "us", worker)


def _per_token(
    appliance: BenchAppliance, client: Connection, tokens: int
) -> tuple[tuple[float, float, float, float], int]:
    """Microseconds a token: from first to last, then CPU of daemon, worker and client; and how many events came."""
    pids = appliance.pid, worker_of(client)
    before = *map(cpu_s, pids), time.process_time()
    run = client.complete(small(max_tokens=tokens))
    after = *map(cpu_s, pids), time.process_time()
    assert run.extension["timings"]["generated_tokens"] == tokens
    daemon, worker, own = ((b - a) / tokens * 1e6 for a, b in zip(before, after, strict=True))
    return ((run.total_s - run.first_s) / tokens * 1e6, daemon, worker, own), run.events


def start() -> Iterator[Row]:
    """From the spawn of ``rockfill serve`` to its first good answers; files and bytecode are cached."""
    times = [_start() for _ in range(6)][1:]
    yield Row("start to /health", "s", tuple(health_s for health_s, _ in times), 0.5)
    yield Row("start to /ready, bundled model", "s", tuple(ready_s for _, ready_s in times))


def _start() -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="rockfill-bench-") as folder, ThreadPoolExecutor(1) as pool:
        appliance = Appliance(Path(folder))
        started_s = time.perf_counter()
        starting = pool.submit(appliance.start)  # it returns only when the model is loaded
        try:
            _until(lambda: _answers_well(appliance.port, "/health"))
            health_s = time.perf_counter() - started_s
            _until(lambda: _answers_well(appliance.port, "/ready"))
            return health_s, time.perf_counter() - started_s
        finally:
            starting.result()
            appliance.stop()


def _answers_well(port: int, path: str) -> bool:
    try:
        with Connection(port) as client:
            return client.exchange("GET", path)[0] == 200
    except ConnectionRefusedError:
        return False


def memory() -> Iterator[Row]:
    """Resident memory, shared libraries included."""
    with bundled() as appliance, connect(appliance) as client:
        worker = worker_of(client)
        loaded_mb, worker_mb = rss_mb(appliance.pid), rss_mb(worker)
        client.command("engine.unload")
        _until(lambda: client.command("engine.get")["state"] == "stopped")
        unloaded_mb = rss_mb(appliance.pid)
    with scripted(text=LINE) as appliance, connect(appliance) as client:
        for _ in range(300):
            client.complete(small())
        used_mb = rss_mb(appliance.pid)
    yield Row("memory of the daemon, no model loaded", "MB", (unloaded_mb,), 50)
    yield Row("memory of the daemon, bundled model loaded", "MB", (loaded_mb,), 50)
    yield Row("memory of the daemon, after 300 completions", "MB", (used_mb,), 50)
    yield Row("memory of the worker, bundled model", "MB", (worker_mb,))
    tell = "import psutil; print(psutil.Process().memory_info().rss)"
    imports, hub = (
        float(run_python(f"import rockfill.app\n{also}\n{tell}")) / 1e6
        for also in ("", "from huggingface_hub import HfApi; HfApi()")
    )
    note = f"a bare process: the daemon makes no Hub call yet; {hub - imports:.1f} MB more than without"
    yield Row("  the daemon's imports and huggingface_hub", "MB", (hub,), None, note)


def idle() -> Iterator[Row]:
    """CPU of an appliance that nobody uses."""
    with bundled() as appliance:
        with connect(appliance) as client:
            pids = appliance.pid, worker_of(client)
        # cpp-httplib, inside the CPU engine, looks at a kept connection every 10 ms for 5 s after its last use.
        time.sleep(6)
        before, started_s = [cpu_s(pid) for pid in pids], time.perf_counter()
        time.sleep(10)
        wall_s = time.perf_counter() - started_s
        spent = [100 * (cpu_s(pid) - at) / wall_s for pid, at in zip(pids, before, strict=True)]
    note = f"daemon {spent[0]:.3f}, worker {spent[1]:.3f}; over 10 s"
    yield Row("CPU of the idle appliance", "%", (sum(spent),), 0.5, note)


def client_gone() -> Iterator[Row]:
    """From the close of a client's socket to an idle engine; a step is one token, 20 ms here."""
    for name, script in (
        ("mid-stream", {"text": LINE * 50, "token_s": 0.02}),
        ("in prefill", {"text": LINE, "prefill_s": 5.0}),
    ):
        with scripted(**script) as appliance, connect(appliance) as watcher:
            told, seen = zip(
                *(_leave(appliance, watcher, mid_stream="token_s" in script) for _ in range(20)), strict=True
            )
        note = "a real NPU can't be interrupted there: this is Rockfill's share" if "prefill_s" in script else ""
        yield Row(f"client gone {name} → engine idle, by engine.get", "ms", tuple(told), 20 + 20, note)
        yield Row("  by the engine's own account", "ms", tuple(seen), 20 + 20)


def _leave(appliance: BenchAppliance, watcher: Connection, *, mid_stream: bool) -> tuple[float, float]:
    client = connect(appliance)
    client.send("POST", "/v1/completions", small(max_tokens=500, stream=True))
    if mid_stream:
        client.until_text()
    else:
        _until(lambda: watcher.command("engine.get")["state"] == "busy")
    time.sleep(0.05)
    left_s = time.monotonic()
    client.close()
    _until(lambda: watcher.command("engine.get")["state"] == "ready")
    return (time.monotonic() - left_s) * 1000, (appliance.engine_idle_at_s - left_s) * 1000


def cpu_engine() -> Iterator[Row]:
    """The bundled model on this machine's CPU, for reference."""
    cold, typed, plain = [], [], []
    with bundled() as appliance, connect(appliance) as client:
        for i in range(5):
            code = "".join(f"def area_{i}_{j}(width, height):\n    return width * height\n\n\n" for j in range(23))
            request = {"prompt": f"{code}def volume_{i}(", "suffix": "\n\nprint(volume(1, 2, 3))\n", "max_tokens": 16}
            cold.append(client.complete(request))
            typed.append(client.complete({**request, "prompt": f"{code}def volume_{i}(width"}))
            plain.append(client.complete({"prompt": code, "max_tokens": 48}))
    reused = [run.extension["reused_tokens"] for run in cold]
    note = f"{_span(run.extension['timings']['prompt_tokens'] for run in cold)}-token prompt, {_span(reused)} reused"
    yield Row("CPU engine, first token, cold", "ms", _ms(run.first_s for run in cold), None, note)
    note = f"{_span(run.extension['reused_tokens'] for run in typed)} tokens reused"
    yield Row("CPU engine, first token, 5 typed characters later", "ms", _ms(run.first_s for run in typed), None, note)
    generated = [run.extension["timings"]["generated_tokens"] for run in plain]
    speeds = tuple((n - 1) / (run.total_s - run.first_s) for n, run in zip(generated, plain, strict=True) if n > 1)
    yield Row("CPU engine, speed", "tok/s", speeds, None, f"{_span(generated)} tokens")


def killed() -> Iterator[Row]:
    """From SIGKILL of the worker in the middle of a run to the first token of the next request."""
    code = "def area(width, height):\n    return width * height\n\n\n" * 20
    times, refusals = [], 0
    with bundled() as appliance:
        for i in range(5):
            with connect(appliance) as victim:
                worker = worker_of(victim)
                # Never the same text twice: a request that takes two workers with it is not run again.
                request = {"prompt": f"# {i}\n{code}", "max_tokens": 1024, "stream": True}
                victim.send("POST", "/v1/completions", request)
                victim.until_text()
                killed_s = time.perf_counter()
                os.kill(worker, signal.SIGKILL)
                while True:
                    with connect(appliance) as client, contextlib.suppress(Refused):
                        run = client.complete(small())
                        break
                    refusals += 1
                times.append(time.perf_counter() - killed_s - run.total_s + run.first_s)
    note = f"{refusals} requests were refused meanwhile"
    yield Row("worker killed mid-run → next first token", "ms", _ms(times), None, note)


def _until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


def _ms(seconds: Iterable[float]) -> tuple[float, ...]:
    return tuple(value * 1000 for value in seconds)


def _span(values: Iterable[int]) -> str:
    *_, most = ordered = sorted(values)
    return f"{most}" if ordered[0] == most else f"{ordered[0]} to {most}"


BENCHES = (
    first_token,
    streaming,
    start,
    memory,
    idle,
    client_gone,
    cpu_engine,
    tiny_model,
    killed,
    lifecycle,
    figures,
    subscribers,
    npu,
    tokenizer,
    download,
    page,
)
