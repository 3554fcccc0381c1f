"""A `.rkllm` model on the NPU, through Rockchip's runtime.

Prompts go in as token ids only: no chat template is applied to those, no text is parsed for control tokens, and the
same ids mean the same on every release. Ends are ours: stop tokens and the length are enforced by an abort, since
before 1.3 the length can only be set for good, and 1.3.0 misses the end token of some models. A stream ends when
`rkllm_run` returns, as FINISH may never come. Issues [#N] are of airockchip/rknn-llm.
"""

from __future__ import annotations

import codecs
import ctypes
import platform
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rockfill.compat.runtime import Generation, identify, settle
from rockfill.errors import Code, Problem
from rockfill.rkllm.abi import CallState, Emission, Library, Perf
from rockfill.rkllm.tokenizer import ModelTokenizer
from rockfill.session import Finish, ModelFacts, Run, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rockfill.rkllm.abi import Struct

# "prompt: 1299 tokens, max context: 1020" was printed for a context of 1,024; whether it is always 4 is not known.
RESERVED_CONTEXT_TOKENS = 8

# 1.1.x takes more without a word, and answers with nonsense then [#93].
MOST_CONTEXT_TOKENS_OF_1_1 = 4096

# Fewer CPUs than the model has NPU cores are refused by `rkllm_init`; the RK3588 has the most, three.
FEWEST_CPUS = 3

_LINE_BUFFERED = 1  # _IOLBF, stdio.h


@dataclass(frozen=True, slots=True)
class RkllmOptions:
    """How to load.

    `cpu_mask` has a bit for each CPU core that the runtime's threads may use; fewer than `FEWEST_CPUS` of them, or a
    release that does not take any, leave the choice to the runtime.
    """

    context_tokens: int = 2048
    base_domain_id: int = 0
    embed_flash: bool = True
    cpu_mask: int = 0


class RkllmSession:
    """One model in one library. Implements `rockfill.session.Session`."""

    def __init__(self, model: Path, library: Path, options: RkllmOptions) -> None:
        """Load `model` (a ``.rkllm`` file with its tokenizer.json beside it) and see it produce a token.

        Raises `tokenizer_missing`, `model_missing`, `invalid_model`, `runtime_missing`, `runtime_unsupported`,
        `context_too_long`, or `engine_failed` where the library refuses the model; what it printed then says why.
        """
        _check_model(model)
        self._tokenizer = ModelTokenizer(model.with_name("tokenizer.json"))
        generation, version = _generation(library)
        if generation is Generation.V1_1 and options.context_tokens > MOST_CONTEXT_TOKENS_OF_1_1:
            raise Problem(
                Code.CONTEXT_TOO_LONG,
                f"Runtimes before 1.2 have at most {MOST_CONTEXT_TOKENS_OF_1_1} tokens of context.",
                "Lower [rkllm] context_tokens in the configuration, or use a newer runtime.",
            )
        _let_lines_through()
        self._library = Library.open(library, generation)
        self._generation = generation
        self._run: _Run | None = None
        self._running = False
        self._abort_may_linger = False
        if self._library.init(self._parameters(model, options), self._on_emission) != 0:
            raise Problem(
                Code.ENGINE_FAILED,
                "The RKLLM runtime refused the model.",
                "Its last lines say why; `rockfill status` shows them.",
            )
        self._facts = ModelFacts(
            context_tokens=options.context_tokens - RESERVED_CONTEXT_TOKENS,
            vocabulary_tokens=self._tokenizer.vocabulary_tokens,
            bos_id=self._tokenizer.bos_id,
            adds_bos=self._tokenizer.adds_bos,
            honours=("temperature", "top_p", "top_k") if generation is Generation.V1_3 else (),
            runtime=f"RKLLM {version or generation}",
            reuses_prefix=generation is not Generation.V1_1,  # "kv cache matches" [#520]
        )
        self._warm_up()

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    def tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def detokenize(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids)

    def token_id(self, marker: str) -> int | None:
        return self._tokenizer.token_id(marker)

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        stop_ids |= self._tokenizer.eos_ids
        infer = self._library.abi.infer_param(max_tokens, self._sampling(sampling))
        run = _Run(stop_ids, max_tokens, on_text, aborted)
        after_abort, self._abort_may_linger = self._abort_may_linger, False
        code = self._carry_out(run, prompt_ids, infer)
        if code == 0 and run.tokenless and (after_abort or not run.finished) and not aborted():
            # An abort that came as the last run ended may have ended this one before it began; whether the library
            # forgets it is not documented. Nothing has been said yet, so asking once more is safe.
            run = _Run(stop_ids, max_tokens, on_text, aborted)
            code = self._carry_out(run, prompt_ids, infer)
        if code != 0 or run.error is not None:
            raise Problem(
                Code.ENGINE_FAILED,
                f"The RKLLM runtime failed in the run (rkllm_run returned {code}).",
                "Ask again; if it repeats, `rockfill status` shows its last lines.",
                text=run.error or "",
            )
        return run.result(len(prompt_ids))

    def abort(self) -> None:
        if self._running:
            self._abort_may_linger = True  # the run may end just before the library hears of it
            self._library.abort()

    def close(self) -> None:
        self._library.destroy()

    def _carry_out(self, run: _Run, ids: Sequence[int], infer: Struct) -> int:
        self._run = run
        run.abort = self._library.abort
        self._running = True
        try:
            return self._library.run(self._library.abi.token_input(ids), infer)
        finally:
            self._running = False

    def _on_emission(self, emission: Emission) -> None:
        if self._run is not None:
            self._run.emission(emission)

    def _parameters(self, model: Path, options: RkllmOptions) -> Struct:
        param = self._library.default_param()
        param.model_path = str(model).encode()
        param.max_context_len = options.context_tokens
        param.max_new_tokens = -1
        # Greedy, and no penalty for repeating: code repeats itself, and 1.1, the default, distorts it.
        param.top_k, param.top_p, param.temperature = 1, 1.0, 1.0
        param.repeat_penalty, param.frequency_penalty, param.presence_penalty = 1.0, 0.0, 0.0
        param.skip_special_token = True
        param.is_async = False  # hangs or loses its text in several releases [#208, #320, #396]
        extend = param.extend_param
        extend.base_domain_id = options.base_domain_id
        if hasattr(extend, "embed_flash"):
            extend.embed_flash = int(options.embed_flash)
        if options.cpu_mask.bit_count() >= FEWEST_CPUS and hasattr(extend, "enabled_cpus_mask"):
            extend.enabled_cpus_mask = options.cpu_mask
            extend.enabled_cpus_num = options.cpu_mask.bit_count()
        return param

    def _sampling(self, sampling: Sampling) -> Struct | None:
        """From 1.3 on each run may be sampled its own way; greedy is what `init` was given."""
        if self._generation is not Generation.V1_3 or sampling.temperature == 0:
            return None
        made = self._library.abi.structures["RKLLMSamplingParam"]()
        made.top_k = sampling.top_k or 40
        made.top_p = sampling.top_p or 1e-6  # a caller's 0 means the one best token; what 0 means here is not known
        made.temperature = sampling.temperature
        made.repeat_penalty = 1.0
        made.mirostat_tau, made.mirostat_eta = 5.0, 0.1
        return made

    def _warm_up(self) -> None:
        """One token: 1.1.x says that a broken model was loaded and dies only now [#129]."""
        ids = self.tokenize("def")
        if self._facts.bos_id is not None:
            ids.insert(0, self._facts.bos_id)
        run = _Run(frozenset(), 1, lambda text, tokens: None, lambda: False)
        code = self._carry_out(run, ids, self._library.abi.infer_param(1))
        _flush_lines()
        prefilled = run.result(len(ids)).prefilled_tokens
        if prefilled is not None:
            # The first run after a load finds no cache: what it prefilled beyond our ids, the runtime had put there.
            # Only then: later the cache may hold that BOS, and a count tells nothing of it.
            adds = prefilled > len(ids)
            self._facts = replace(self._facts, runtime_adds_bos=adds, bos_id=None if adds else self._facts.bos_id)
        if code != 0 or run.tokenless:
            raise Problem(
                Code.ENGINE_FAILED,
                "The model was loaded but gives no tokens.",
                "Its last lines may say why; `rockfill status` shows them.",
            )


class _Run:
    """What one run says, until one of our ends is reached. `emission` comes from a thread of the library's choice.

    Bytes at the end that never became a character are not said.
    """

    def __init__(
        self,
        stop_ids: frozenset[int],
        max_tokens: int,
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> None:
        self._stop_ids = stop_ids
        self._max_tokens = max_tokens
        self._on_text = on_text
        self._aborted = aborted
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._untold = 0  # tokens whose text has not been passed on yet
        self._tokens = 0
        self._finish: Finish | None = None
        self._perf: Perf | None = None
        self.finished = False  # whether the library said that it is over
        self._started = time.perf_counter()
        self._first: float | None = None
        self._last = self._started
        self.error: str | None = None
        self.abort: Callable[[], object] = lambda: None

    @property
    def tokenless(self) -> bool:
        """Whether no token came, not even one that ends the run."""
        return self._first is None

    def emission(self, emission: Emission) -> None:
        if emission.state == CallState.FINISH:
            self.finished = True
            self._perf = emission.perf
        elif emission.state == CallState.ERROR:
            self.error = (emission.text or b"").decode("utf-8", "replace")
        elif emission.state in (CallState.NORMAL, CallState.WAITING) and self._finish is None:
            self._token(emission)

    def _token(self, emission: Emission) -> None:
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
        if self._aborted():
            self._end("aborted")
        elif emission.token_id in self._stop_ids:
            self._end("stop")
        else:
            self._tokens += 1
            self._untold += 1
            text = self._decoder.decode(emission.text or b"")
            if text:
                self._on_text(text, self._untold)
                self._untold = 0
            if self._tokens >= self._max_tokens:
                self._end("length")

    def _end(self, finish: Finish) -> None:
        self._finish = finish
        self.abort()

    def result(self, prompt_tokens: int) -> Run:
        perf = self._perf
        first = self._first if self._first is not None else self._last
        finish = self._finish or ("aborted" if self._aborted() else "stop")
        return Run(
            finish=finish,
            generated_tokens=self._tokens,
            prefilled_tokens=perf.prefill_tokens if perf else None,
            reused_tokens=max(0, prompt_tokens - perf.prefill_tokens) if perf else None,
            prefill_s=perf.prefill_ms / 1000 if perf else first - self._started,
            decode_s=perf.generate_ms / 1000 if perf else self._last - first,
            # VmHWM in units of 1024 kB, by what the 1.2.1b1 library reads and prints; 0 where it could not
            memory_bytes=round(perf.memory_mb * (1 << 20)) or None if perf else None,
        )


def _check_model(model: Path) -> None:
    """Name the plain mistakes before the library gets to see the file."""
    try:
        with model.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise Problem(
            Code.MODEL_MISSING,
            f"The model file {model} can't be read: {error.strerror}.",
            "Check the path, or fetch the model again.",
        ) from None
    # Two published analyses agree on the masked magic of .rkllm files; that all have it is inferred. So only what is
    # surely something else is refused here.
    for start, what in (
        (b"version https://git-lfs", "only a pointer to the model (Git LFS)"),
        (b"<", "a web page"),
        (b"GGUF", "a GGUF file, which the CPU engine runs"),
        (b"\0" * 64, "empty space"),
    ):
        if head.startswith(start) or not head:
            raise Problem(Code.INVALID_MODEL, f"{model.name} is {what if head else 'empty'}.", "Fetch the model again.")


def _generation(library: Path) -> tuple[Generation, str | None]:
    try:
        image = library.read_bytes()
    except OSError as error:
        raise Problem(
            Code.RUNTIME_MISSING,
            f"The RKLLM runtime {library} can't be read: {error.strerror}.",
            "Check [rkllm] library in the configuration, or install Rockchip's librkllmrt.so.",
        ) from None
    identity = identify(image)
    machine = platform.machine()
    if identity.architecture != machine:
        raise Problem(
            Code.RUNTIME_UNSUPPORTED,
            f"The RKLLM runtime {library} is for {identity.architecture or 'another kind of machine'}, "
            f"and this machine is {machine}.",
            "Rockchip's runtime is for boards with an RK3588, in their 64-bit system; anywhere else use a GGUF model.",
        )
    return settle(identity, Library.probe(library)), identity.version


def _let_lines_through() -> None:
    """Have C's standard output pass on every line at once: into a pipe it holds back 4 KiB, and a crash loses them."""
    libc = ctypes.CDLL(None)
    stdout = ctypes.c_void_p.in_dll(libc, "stdout")
    libc.setvbuf(stdout, None, ctypes.c_int(_LINE_BUFFERED), ctypes.c_size_t(0))


def _flush_lines() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
