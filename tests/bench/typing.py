"""``make bench-typing``: somebody edits real files, and three servers on the same engine try to keep up.

Rockfill, a naive server (1,024 tokens cut where they end, first come, first served, nothing is aborted or remembered)
and the middle ground (Rockfill's budget, first come, first served, aborts). All three are the daemon with its HTTP,
its worker and its post-processing; in line mode all three stop the engine at the line's end. The NPU is the simulator
of its library at CodeGemma-2b's speed, with a KV cache that is reused (1.2 and later) and without (1.1); there the
model is an oracle that is right as often as a good one. The CPU engine runs the bundled model, and shows what a short
prompt costs.

Figures are in the typist's seconds. The NPU's rates, the first-token target and the editors' delays are scaled with
the typing, so Rockfill's own time counts as many times as the scale says. Not one of them is ever asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.appliance import ROOT, Appliance
from tests.bench.accounting import EngineRun, Figures, Session, figures
from tests.bench.contenders import NAIVE_TOKENS, Contender, Settings, runs_of
from tests.bench.editors import (
    EDITORS,
    Clock,
    Continue,
    Editor,
    LlamaVim,
    Patient,
    Server,
    ThreeAtOnce,
    Wire,
    body,
)
from tests.bench.lab import ACCELERATED, Machine
from tests.bench.replay import WORTH_CHARS, Replay, replay
from tests.fakes import rkllm_simulator as simulator

if TYPE_CHECKING:
    from collections.abc import Sequence

# As the simulator's preset "codegemma-2b-rk3588" has it, whose source is given there.
PREFILL_TOK_S, DECODE_TOK_S = 200.0, 10.0
FIRST_TOKEN_TARGET_S = 1.0

ENGINES = {"NPU": "1.2.1", "NPU, no KV reuse": "1.1", "CPU": ""}
BUNDLED = ROOT / "daemon/rockfill/bundled/rockfill-tiny"

SERVERS = {
    "Rockfill": Contender(),
    "middle": Contender(queue=True),
    "naive": Contender(queue=True, aborts=False, whole_prompt=True),
}
# What each part of Rockfill brings, in the editors that can show it: llama.vim waits for every answer and the next two
# hang up, so that none of these makes a request of its own pointless; one asks for the same thing more than once.
NO_MEMORY = {"  no memory": Contender(remembers=False)}
TRIMS_ANEW = {"  trims anew": Contender(grows=False)}
PROMPTS = {
    "  1,024 tokens": Contender(budget_tokens=NAIVE_TOKENS),
    "  384 tokens": Contender(budget_tokens=384),
    "  suffix first": Contender(order="spm"),
}
ABLATIONS: dict[type[Editor], dict[str, Contender]] = {
    LlamaVim: {"  runs guesses": Contender(guesses=True), **NO_MEMORY, **TRIMS_ANEW, **PROMPTS},
    Continue: {**NO_MEMORY, **TRIMS_ANEW, "  not as typing": Contender(typing=False)},
    ThreeAtOnce: {"  no sharing": Contender(shares=False), **NO_MEMORY},
    Patient: {"  no supersede": Contender(supersedes=False), **TRIMS_ANEW},
}

WORD = re.compile(r"\w+")
PROMPT_TOKENS = (96, 192, 288, 384, 576, 960)  # the bundled model's context has 1,024

# The project's own sources, and modules of the standard library as people write them. Never shipped, only read.
STDLIB = (
    "argparse bisect calendar configparser csv difflib fractions ftplib gettext heapq imaplib mailbox netrc optparse "
    "pathlib queue sched shlex statistics textwrap"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One editor's session on one server with one engine."""

    engine: str
    editor: type[Editor]
    server: str
    contender: Contender


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: sites typed on the simulated NPU and on the CPU, whether parts are taken away, and how many
    sessions run at once on the simulator, which sleeps. `places` is where prompts of several lengths are compared."""

    npu_sites: int
    cpu_sites: int
    engines: tuple[str, ...]
    ablations: bool
    scale: float
    places: int
    at_once: int = 12


FULL = Extent(npu_sites=14, cpu_sites=2, engines=tuple(ENGINES), ablations=True, scale=6, places=160)
QUICK = Extent(npu_sites=7, cpu_sites=0, engines=("NPU", "CPU"), ablations=False, scale=6, places=60)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.typing", description="Replay editing.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two minutes: less of it, and nobody types on the CPU",
    )
    parser.add_argument("--seed", type=int, default=1, help="which sites, keys and pauses (default 1)")
    parser.add_argument("--scale", type=float, metavar="N", help="how many times faster than life the NPU's part goes")
    parser.add_argument("--sites", type=int, metavar="N", help="how many places are edited on the NPU")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    parser.add_argument("--editor", choices=[editor.name for editor in EDITORS], help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    arguments = parser.parse_args()
    for name in ACCELERATED:  # what ships
        os.environ.setdefault(f"{name.upper()}_NO_EXTENSIONS", "1")

    extent = QUICK if arguments.quick else FULL
    extent = replace(
        extent,
        scale=arguments.scale or extent.scale,
        npu_sites=arguments.sites or extent.npu_sites,
        engines=(arguments.engine,) if arguments.engine else extent.engines,
    )
    if simulator.compiler() is None:
        say("NOT RUN: the NPU's part: no C compiler for the simulator")
        extent = replace(extent, engines=tuple(engine for engine in extent.engines if not ENGINES[engine]))
    machine = Machine()
    editors = [editor for editor in EDITORS if arguments.editor in (None, editor.name)]
    results = asyncio.run(measure(extent, editors, arguments.seed))
    show(results)
    lengths = asyncio.run(by_length(extent, arguments.seed)) if "CPU" in extent.engines else {}
    say("machine: " + ", ".join(f"{name} {value}" for name, value in machine.report().items()))
    if arguments.json:
        rows = [
            {"engine": job.engine, "editor": job.editor.name, "server": job.server.strip(), **asdict(figure)}
            for job, figure in results.items()
        ]
        value = {"seed": arguments.seed, **asdict(extent), "rows": rows, "exact_by_prompt_tokens": lengths}
        arguments.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


# ---- measuring


async def measure(extent: Extent, editors: Sequence[type[Editor]], seed: int) -> dict[Job, Figures]:
    """Every session: those on the simulator side by side; those on the CPU one after another, in one editor, since they
    take as long as typing does."""
    texts = sources()
    npu, cpu = replay(texts, seed, extent.npu_sites), replay(texts, seed + 1, extent.cpu_sites)
    say(
        f"seed {seed}: {len(npu.sites)} sites, {len(npu.events)} keys, {npu.seconds:.0f} s of typing on the NPU at "
        f"{extent.scale:g} times their speed; {len(cpu.sites)} sites, {cpu.seconds:.0f} s on the CPU in real time"
    )
    turns = asyncio.Semaphore(extent.at_once)

    async def session(job: Job) -> tuple[Job, Figures]:
        scale, work = (extent.scale, npu) if ENGINES[job.engine] else (1.0, cpu)
        async with turns:
            found = figures(await run(job, work, scale, seed))
        sys.stderr.write(f"{job.engine}, {job.editor.name}, {job.server.strip()}: done\n")
        return job, found

    jobs = [
        Job(engine, editor, name, contender)
        for engine in extent.engines
        for editor in (editors if ENGINES[engine] else [editor for editor in editors if editor is LlamaVim])
        if ENGINES[engine] or extent.cpu_sites
        for name, contender in {
            **SERVERS,
            **(ABLATIONS[editor] if extent.ablations and engine == "NPU" else {}),
        }.items()
    ]
    results = dict(await asyncio.gather(*(session(job) for job in jobs if ENGINES[job.engine])))
    for job in jobs:
        if job not in results:
            results |= dict([await session(job)])
    return {job: results[job] for job in jobs}


def sources() -> list[str]:
    """The texts that are edited."""
    own = sorted((ROOT / "daemon" / "rockfill").rglob("*.py"))
    library = Path(sysconfig.get_path("stdlib"))
    paths = (*own, *(library / f"{name}.py" for name in STDLIB.split()))
    texts = [path.read_text() for path in paths if path.is_file()]
    return [text for text in texts if text.isascii() and text.count("\n") >= 40]


async def run(job: Job, work: Replay, scale: float, seed: int) -> Session:
    """One session, with a server of its own."""
    with tempfile.TemporaryDirectory(prefix="rockfill-typing-") as name:
        folder = Path(name)
        appliance = prepare(folder, job, work, scale, seed)
        await asyncio.to_thread(appliance.start)
        try:
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as http:
                server = Server(appliance.url, appliance.token, http)
                clock = Clock(time.monotonic(), scale)
                editor = job.editor(server, clock, await infill_path(server))
                await editor.work(work)
                ended_s = clock.now_s()
        finally:
            await asyncio.to_thread(appliance.stop, signal.SIGKILL)  # nobody waits for what a naive server still has
        runs = [
            EngineRun(**{**noted, "started_s": clock.at_s(noted["started_s"]), "ended_s": clock.at_s(noted["ended_s"])})
            for noted in runs_of(folder / "runs")
        ]
        while_typing = tuple(run for run in runs if 0 <= run.started_s < ended_s)
        return Session(tuple(editor.screen.stops), tuple(editor.asks), while_typing, editor.debounce_s)


def prepare(folder: Path, job: Job, work: Replay, scale: float, seed: int) -> Appliance:
    """The server, not yet started, with its model."""
    state = folder / "state"
    settings = Settings(job.contender, FIRST_TOKEN_TARGET_S / scale, str(folder / "runs"))
    arguments: list[str] = []
    if ENGINES[job.engine]:
        model = state / "models" / "codegemma-2b"
        model.mkdir(parents=True)
        simulator.make_model(model / "model.rkllm")
        # The vocabulary is a small one, 3.1 characters a token where Gemma's has 3.6: the same text costs more here.
        shutil.copy(BUNDLED / "tokenizer.json", model)
        manifest = {"name": "codegemma-2b", "engine": "rkllm", "file": "model.rkllm", "family": "codegemma"}
        (model / "manifest.json").write_text(json.dumps(manifest))
        (folder / "sites").write_text(json.dumps([astuple(site) for site in work.sites]))
        settings = replace(
            settings,
            library=str(simulator.build(ENGINES[job.engine])),
            control=str(folder / "control"),
            sites=str(folder / "sites"),
            seed=seed,
            prefill_tok_s=PREFILL_TOK_S * scale,
            decode_tok_s=DECODE_TOK_S * scale,
        )
        arguments = ["--model", "codegemma-2b"]
    settings.write(folder / "settings")
    launcher = [sys.executable, "-m", "tests.bench.contenders", str(folder / "settings")]
    return Appliance(state, arguments, launcher=launcher)


async def by_length(extent: Extent, seed: int) -> dict[int, tuple[float, float]]:
    """By how long its prompt may be: how often the bundled model has the rest of the line right, and how often the next
    word, at the same places. It is a small model, which has few whole lines right."""
    work = replay(sources(), seed + 2, extent.places)
    places = [index for index in range(len(work.events)) if before_word(work, index)]
    places = sorted(random.Random(seed).sample(places, min(extent.places, len(places))))

    async def right(tokens: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory(prefix="rockfill-typing-") as name:
            job = Job("CPU", LlamaVim, f"{tokens} tokens", Contender(budget_tokens=tokens, remembers=False))
            appliance = prepare(Path(name), job, work, 1, seed)
            await asyncio.to_thread(appliance.start)
            try:
                async with aiohttp.ClientSession() as http:
                    server = Server(appliance.url, appliance.token, http)
                    pairs = [await offered(server, work, index) for index in places]
            finally:
                await asyncio.to_thread(appliance.stop)
        lines = sum(text.rstrip() == real.rstrip() for text, real in pairs)
        words = sum(WORD.findall(text)[:1] == WORD.findall(real)[:1] for text, real in pairs)
        return lines / len(places), words / len(places)

    say(f"\nCPU, lines (and next words) right at {len(places)} beginnings of words, by the prompt's most tokens:")
    shares = {tokens: await right(tokens) for tokens in PROMPT_TOKENS}
    say("  ".join(f"{tokens}: {100 * line:.1f} % ({100 * word:.1f} %)" for tokens, (line, word) in shares.items()))
    return shares


def before_word(work: Replay, index: int) -> bool:
    """Whether the cursor stands where a word of the line begins; there the bundled model is right often enough."""
    event, rest = work.events[index], work.rest(work.events[index]) or ""
    return len(rest) >= WORTH_CHARS and rest[0].isalnum() and not event.typed[-1:].isalnum()


async def offered(server: Server, work: Replay, index: int) -> tuple[str, str]:
    """The line that is offered at event `index`, and what the file has."""
    event = work.events[index]
    site = work.sites[event.site]
    wire = Wire("/v1/completions", stream=False, max_tokens=48, line=True)
    request = body(wire.path, wire, site.head + event.typed, site.tail, 1)
    text = "".join([text async for text in server.answers(wire.path, request)])
    return text, work.rest(event) or ""


async def infill_path(server: Server) -> str:
    """The path for editors that speak llama.cpp's dialect; the other dialect's as long as there is no such."""
    request = {**body("/infill", LlamaVim.wire, "", "", 1), "n_predict": 0}
    async with server.http.post(
        f"{server.url}/infill", json=request, headers={"Authorization": f"Bearer {server.token}"}
    ) as response:
        return "/infill" if response.status == 200 else "/v1/completions"


# ---- telling

HEAD = "first-p50 p90 line-p50 p90 <.5s% <1s% exact% taken asks useful runs prefill decode busy wasted"


def show(results: dict[Job, Figures]) -> None:
    """The tables, one for each engine and editor."""
    tables: dict[tuple[str, str], dict[str, Figures]] = {}
    for job, figure in results.items():
        tables.setdefault((job.engine, job.editor.name), {})[job.server] = figure
    say(LEGEND)
    for (engine, editor), rows in tables.items():
        say(f"\n{engine}, {editor}: {rows['Rockfill'].stops} stops")
        say(f"{'':16}" + "".join(f"{title:>9}" for title in HEAD.split()))
        for server, figure in rows.items():
            say(f"{server:16}" + "".join(f"{cell:>9}" for cell in cells(figure)))
        if ENGINES[engine]:  # the CPU engine has a prompt read before anybody would notice
            say("floors: " + "; ".join(floors(rows["Rockfill"], rows["naive"])))


LEGEND = """
first, line: from when the editor would ask to the first text and to the whole line, over all stops of 0.6 s and more;
a stop that ended first counts as broken off (Kaplan-Meier), - is beyond the longest. <.5s, <1s: stops answered so soon
after the last key. exact: of the whole lines seen, those that the file has. taken: offers accepted. useful: answers
seen at a stop. prefill, decode: tokens for each of these. busy, wasted: the engine's seconds, and those for nothing.
"not as typing": as if a suffix, or the dialect, did not tell that somebody types."""


def cells(figure: Figures) -> list[str]:
    """One row, in the order of `HEAD`."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f}"

    def tokens(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    return [
        *map(seconds, (figure.first_p50_s, figure.first_p90_s, figure.whole_p50_s, figure.whole_p90_s)),
        *map(percent, (figure.within_half_s, figure.within_1_s, figure.exact)),
        *map(str, (figure.taken, figure.asks, figure.useful, figure.runs)),
        *map(tokens, (figure.prefilled_per_useful, figure.decoded_per_useful)),
        *(f"{value:.0f}" for value in (figure.busy_s, figure.wasted_s)),
    ]


def floors(ours: Figures, naive: Figures) -> list[str]:
    """What the project set itself against the naive server, and whether it is so."""
    unknown = ours.first_p50_s is None
    first = "-" if unknown or not naive.first_p50_s else f"{(ours.first_p50_s or 0) / naive.first_p50_s:.2f}"
    first_met = not unknown and (naive.first_p50_s is None or (ours.first_p50_s or 0) <= naive.first_p50_s / 3)
    wasted = f"{ours.wasted_s / naive.wasted_s:.2f}" if naive.wasted_s else "-"
    within = f"{100 * ours.within_1_s:.0f} % after {100 * naive.within_1_s:.0f} %"
    return [
        f"first p50 {first} of naive's (at most 0.33) {verdict(met=first_met)}",
        f"wasted {wasted} (at most 0.20) {verdict(met=ours.wasted_s <= naive.wasted_s / 5)}",
        f"<1s {within} (doubled, or 90 %) "
        + verdict(met=ours.within_1_s >= 0.9 or ours.within_1_s >= 2 * naive.within_1_s),
    ]


def verdict(*, met: bool) -> str:
    return "met" if met else "NOT MET"


def say(line: str) -> None:
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
