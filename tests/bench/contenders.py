"""The servers that are compared, made of the daemon's own parts, and what their engines did.

``python -m tests.bench.contenders SETTINGS serve …`` is the daemon, ``python -m tests.bench.contenders SETTINGS FD``
the worker that it starts. Both are the product's own but for what `Contender` says, and the worker notes each run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rockfill.completion import cache, scheduler, service
from rockfill.completion.budget import Budget
from rockfill.completion.scheduler import Priority
from rockfill.completion.service import CompletionRequest, CompletionResult, CompletionService, Timings
from rockfill.decode import decode
from rockfill.engine.stream import TextStream
from rockfill.fim.families import BY_NAME
from rockfill.fim.output import OutputFilter, OutputRules
from rockfill.link.messages import Generate, Trimmed
from rockfill.prompting import COMPLETION_SHARE, Prompter
from rockfill.snapshots import Phase
from tests.bench.replay import Oracle, Site
from tests.fakes.rkllm_simulator import ENVIRONMENT_VARIABLE, Control, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import Self

    from rockfill.engine.supervisor import Generation, Supervisor
    from rockfill.fim.families import Order
    from rockfill.link.messages import Load
    from rockfill.session import ModelFacts, Run, Sampling, Session
    from rockfill.snapshots import Target

NAIVE_TOKENS = 1024

# It cuts by characters, and spares some, for the text that is kept may be denser than the rest.
SPARED_SHARE = 0.95
SUFFIX_SHARE = 0.25
ROOM_FOR_MARKERS = 16

CODE_TOKEN_ID = 1000  # any but a control token's: the simulator takes ids for what they are


@dataclass(frozen=True, slots=True)
class Contender:
    """One server. The defaults are Rockfill as it is.

    `queue`: its completion service is first come, first served, without a memory; `aborts` whether that ends a run
    whose client has gone, `whole_prompt` whether it sends as much as `NAIVE_TOKENS`, cut where they end. The others
    take one thing away from Rockfill, or set it: `budget_tokens` 0 and `order` None leave that to Rockfill. `guesses`:
    what an editor asks for after an offer that nobody has taken is run. `grows`:
    a prompt is made from the last one. `typing`: a request with a suffix counts as typing.
    """

    queue: bool = False
    aborts: bool = True
    whole_prompt: bool = False
    supersedes: bool = True
    shares: bool = True
    guesses: bool = False
    grows: bool = True
    remembers: bool = True
    budget_tokens: int = 0
    order: Literal["psm", "spm"] | None = None
    typing: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """What launcher and worker are told. Where `library`, the simulator, is "", the model is a real one; otherwise
    `sites` is the file of the oracle's sites, `control` the simulator's, and the rates are what it is to take."""

    contender: Contender
    first_token_target_s: float
    runs: str
    library: str = ""
    control: str = ""
    sites: str = ""
    seed: int = 0
    prefill_tok_s: float = 0.0
    decode_tok_s: float = 0.0

    @classmethod
    def read(cls, path: str) -> Settings:
        return decode(cls, json.loads(Path(path).read_text()), unknown="refuse")

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


# ---- the daemon


def serve(settings_path: str) -> None:
    from rockfill import app, config, paths
    from rockfill.cli.main import parser
    from rockfill.state import StateDir

    settings = Settings.read(settings_path)
    if settings.library:
        os.environ["ROCKFILL_RKLLM_LIBRARY"] = settings.library
        os.environ[ENVIRONMENT_VARIABLE] = settings.control
    take_apart(settings.contender)
    setattr(app, "CompletionService", _service(settings.contender))  # noqa: B010 - mypy minds the other way
    arguments = parser().parse_args()
    loaded = config.load(None)
    loaded = replace(loaded, completion=replace(loaded.completion, first_token_target_s=settings.first_token_target_s))
    worker = (sys.executable, "-m", "tests.bench.contenders", settings_path)
    options = app.Options(loaded, model=arguments.model, listen=arguments.listen, worker=worker)
    with StateDir.acquire(paths.state_dir(arguments.state_dir)) as state:
        asyncio.run(app.serve(options, state, lambda line: print(line, flush=True)))


def take_apart(contender: Contender) -> None:
    """Put lesser parts in the place of those that Rockfill's service is made of."""
    for name, part in parts(contender).items():
        assert hasattr(service, name), f"the service is no longer made of a {name}"
        setattr(service, name, part)


def parts(contender: Contender) -> dict[str, type]:
    """The service's parts, by the names that it knows them by."""

    class LesserScheduler(scheduler.Scheduler):
        def arrive(self, arrival: scheduler.Arrival) -> list[scheduler.Effect]:
            if not contender.supersedes:
                arrival = replace(arrival, session="", document="")
            return super().arrive(arrival if contender.shares else replace(arrival, key=""))

    class LesserMemory(cache.TypedAhead):
        def find(self, place: str, prefix: str) -> cache.Remembered | None:
            return super().find(place, prefix) if contender.remembers else None

    class FixedBudget(Budget):
        def tokens(self, prefill_tokens_per_second: float | None) -> int:
            return contender.budget_tokens or super().tokens(prefill_tokens_per_second)

    return {"Scheduler": LesserScheduler, "TypedAhead": LesserMemory, "Budget": FixedBudget}


def _service(contender: Contender) -> Callable[..., object]:
    if contender.queue:
        return lambda *arguments, **limits: Queue(contender, *arguments, **limits)

    class Lesser(CompletionService):
        def start(self, request: CompletionRequest) -> service.Completion:
            return super().start(request if contender.typing else replace(request, priority=Priority.PLAIN))

        def is_guess(self, request: CompletionRequest) -> bool:
            return not contender.guesses and super().is_guess(request)

    return Lesser


class Queue:
    """The completion service of the baselines: one after another, as they came."""

    def __init__(
        self,
        contender: Contender,
        supervisor: Supervisor,
        find_model: Callable[[str], Target],
        *,
        first_token_target_s: float,
        **_limits: object,
    ) -> None:
        self.contender = contender
        self.supervisor = supervisor
        self.find_model = find_model
        self.turn = asyncio.Lock()  # lets in whoever waits longest
        self.budget = Budget(first_token_target_s)
        self.running: set[asyncio.Task[None]] = set()
        self.queue_depth = 0
        self.first_token_s = None
        self.paused = False

    def is_guess(self, request: CompletionRequest) -> bool:
        return False

    def start(self, request: CompletionRequest) -> Queued:
        return Queued(self, request, self.find_model(request.model))

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self.turn:
            yield


class Queued:
    """One request of a `Queue`; used as `service.Completion` is."""

    def __init__(self, queue: Queue, request: CompletionRequest, target: Target) -> None:
        self.request = request
        self.target = target
        self.result: CompletionResult | None = None
        self._queue = queue
        self._stream = TextStream()
        self._arrived_s = time.perf_counter()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        self._queue.running.add(self._task)
        self._task.add_done_callback(self._queue.running.discard)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._queue.contender.aborts and self._task is not None:
            self._task.cancel()

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        async for text in self._stream.reader():
            if text:
                yield text

    async def _run(self) -> None:
        request, queue = self.request, self._queue
        async with queue.turn:
            started_s = time.perf_counter()
            tokens = queue.budget.tokens(queue.supervisor.prefill_tokens_per_second)
            generate = Generate(
                id=0,
                prefix=request.prefix,
                suffix=request.suffix,
                files=request.files,
                max_tokens=request.max_tokens,
                budget_tokens=NAIVE_TOKENS if queue.contender.whole_prompt else tokens,
                sampling=request.sampling,
            )
            generation = queue.supervisor.submit(self.target, generate)
            over = asyncio.get_running_loop().create_future()
            generation.when_over(lambda: over.set_result(None))
            output = OutputFilter(self._rules())
            first_s = None
            try:
                async for text in generation:
                    first_s = first_s or time.perf_counter()
                    line, ended, _ = text.partition("\n")
                    in_time = request.predict_s is None or time.perf_counter() - first_s < request.predict_s
                    self._stream.push(output.feed(text if in_time else line))
                    if output.finished is not None or (ended and not in_time):
                        break
                self._stream.push(output.flush())
                self.result = self._report(generation, started_s, first_s)
            finally:
                self._stream.close(generation.problem)
                generation.cancel()
                if queue.supervisor.snapshot.phase is not Phase.CLOSED:
                    await asyncio.shield(over)  # the engine is not free before that

    def _report(self, generation: Generation, started_s: float, first_s: float | None) -> CompletionResult:
        first_ms = None if first_s is None else 1e3 * (first_s - self._arrived_s)
        total_ms = 1e3 * (time.perf_counter() - self._arrived_s)
        return CompletionResult(
            model=self.target.name,
            ended="model",
            stop="",
            prompt_tokens=generation.accepted.prompt_tokens if generation.accepted else 0,
            generated_tokens=generation.tokens,
            reused_tokens=None,
            from_memory=0,
            trimmed=generation.accepted.trimmed if generation.accepted else Trimmed(),
            ignored=(),
            timings=Timings(1e3 * (started_s - self._arrived_s), first_ms, None, None, total_ms),
        )

    def _rules(self) -> OutputRules:
        request, family = self.request, BY_NAME.get(self.target.family or "")
        return OutputRules(
            mode=request.mode,
            stops=request.stops + (family.stop_texts if family is not None else ()),
            suffix=request.suffix or "",
            line_prefix=request.prefix.rpartition("\n")[2],
            n_indent=request.n_indent,
        )


# ---- the worker


class Observed:
    """A session that notes what each run was for, what it said and what it cost, one JSON line per run."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.settings = settings
        self.request: Generate | None = None  # whose prompt was made last
        self._session = session
        self._log = Path(settings.runs).open("a", buffering=1)  # noqa: SIM115 - as long as the process
        self._oracle: Oracle | None = None
        if settings.library:
            sites = [Site(*site) for site in json.loads(Path(settings.sites).read_text())]
            self._oracle = Oracle(sites, settings.seed)
            self._control = Control(
                Path(settings.control),
                prefill_tok_s=settings.prefill_tok_s,
                decode_tok_s=settings.decode_tok_s,
                finish_on_abort=1,  # for its figures; what a run costs is the same without
            )

    @property
    def facts(self) -> ModelFacts:
        facts, contender = self._session.facts, self.settings.contender
        return facts if contender.grows and not contender.queue else replace(facts, reuses_prefix=False)

    def tokenize(self, text: str) -> list[int]:
        return self._session.tokenize(text)

    def detokenize(self, token_ids: list[int]) -> str:
        return self._session.detokenize(token_ids)

    def token_id(self, marker: str) -> int | None:
        return self._session.token_id(marker)

    def abort(self) -> None:
        self._session.abort()

    def close(self) -> None:
        self._session.close()

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        request = self.request
        assert request is not None
        if self._oracle is not None:
            text = self._oracle.says(request.prefix, request.suffix or "")
            self._control.set(script=_tokens(text, self.tokenize, min(stop_ids)))
        said: list[str] = []

        def tell(text: str, tokens: int) -> None:
            said.append(text)
            on_text(text, tokens)

        started_s = time.monotonic()
        run = self._session.generate(prompt_ids, sampling, max_tokens, stop_ids, tell, aborted)
        ended_s = time.monotonic()
        prefilled = run.prefilled_tokens if run.prefilled_tokens is not None else len(prompt_ids)
        noted = {
            "prefix": request.prefix,
            "suffix": request.suffix or "",
            "text": "".join(said),
            "started_s": started_s,
            "ended_s": ended_s,
            "prompt_tokens": len(prompt_ids),
            "prefilled_tokens": prefilled,
            "decoded_tokens": run.generated_tokens,
        }
        self._log.write(json.dumps(noted) + "\n")
        return run


def _tokens(text: str, tokenize: Callable[[str], list[int]], end_id: int) -> list[Token]:
    """A script that says `text` in about as many pieces as the vocabulary cuts it into, then ends."""
    count = max(1, len(tokenize(text)))
    cuts = [len(text) * part // count for part in range(count + 1)]
    pieces = [text[begin:end].encode() for begin, end in pairwise(cuts) if begin < end]
    return [*(Token(CODE_TOKEN_ID, piece) for piece in pieces), Token(end_id, b"<eos>", special=True)]


class ObservedPrompter(Prompter):
    """Tells the session whose prompt it makes, in the contender's order and length."""

    def __init__(self, session: Session, family: str | None, order: Order | None = None) -> None:
        assert isinstance(session, Observed)
        self._observed = session
        super().__init__(session, family, session.settings.contender.order or order)

    def prompt(self, request: Generate) -> tuple[list[int], int, Trimmed]:
        self._observed.request = request
        if self._observed.settings.contender.whole_prompt and request.suffix is not None:
            request = self._cut(request, request.suffix)
        return super().prompt(request)

    def _cut(self, request: Generate, suffix: str) -> Generate:
        """As who never thought of caches does: so much from the cursor in both directions, to the character."""
        context_tokens = self._observed.facts.context_tokens
        most = min(NAIVE_TOKENS, context_tokens - min(request.max_tokens, int(context_tokens * COMPLETION_SHARE)))
        most -= ROOM_FOR_MARKERS
        suffix = suffix[: self._chars(suffix, int(most * SUFFIX_SHARE))]
        prefix_chars = self._chars(request.prefix, most - len(self.tokenize(suffix)))
        return replace(request, prefix=request.prefix[len(request.prefix) - prefix_chars :], suffix=suffix)

    def _chars(self, text: str, room: int) -> int:
        tokens = len(self.tokenize(text))
        return len(text) if tokens <= room else int(len(text) * room / tokens * SPARED_SHARE)


def work(settings_path: str, link: str) -> None:
    from rockfill import worker

    settings = Settings.read(settings_path)

    def observed(opener: Callable[[Load], Session]) -> Callable[[Load], Session]:
        return lambda load: Observed(opener(load), settings)

    setattr(worker, "Prompter", ObservedPrompter)  # noqa: B010 - as above
    worker.main([sys.argv[0], link], {name: observed(opener) for name, opener in worker.ENGINES.items()})


def runs_of(path: Path) -> list[dict[str, Any]]:
    """What an `Observed` session noted."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    path, what = sys.argv[1:3]
    if what == "serve":
        del sys.argv[1]  # the rest is a command line as `rockfill` has it
        serve(path)
    else:
        work(path, what)
