"""A GGUF model on the CPU, through xllamacpp's in-process llama.cpp server.

Two things about that server shape this module (both seen with b11549):

- It always opens an HTTP port. It gets loopback, a port of the kernel's choice and a random key, so that nobody else
  can use it. We use it ourselves for what the object has no call for: tokenising and the model's facts.
- It parses strings in a prompt for special tokens, in a mixed list of ids and strings too. Only ids are ever sent;
  text becomes ids with ``parse_special`` off.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rockfill.errors import Code, Problem
from rockfill.session import Finish, ModelFacts, Run, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

GGUF_MAGIC = b"GGUF"

# The KV cache is allocated for the whole context at load; more would cost memory that completing code never uses.
CONTEXT_TOKENS = 4096

# A run can be aborted between batches; small ones also keep typing responsive on two cores.
BATCH_TOKENS = 128


class LlamaSession:
    """One GGUF model, loaded. Implements `rockfill.session.Session`."""

    def __init__(self, path: str, threads: int = 0) -> None:
        """Load the model; `threads` 0 takes every core this process may use.

        Raises `engine_not_installed`, `model_missing` or `invalid_model`.
        """
        _check_file(Path(path))
        try:
            import xllamacpp
        except ImportError:
            raise Problem(
                Code.ENGINE_NOT_INSTALLED,
                "The CPU engine is not installed.",
                "Install the package rockfill-cpu, or in a checkout `pip install 'rockfill[cpu]'`.",
            ) from None
        key = secrets.token_urlsafe(24)
        parameters = _parameters(xllamacpp, path, threads or len(os.sched_getaffinity(0)), key)
        try:
            self._server: Any = xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise Problem(
                Code.INVALID_MODEL,
                f"llama.cpp could not load {Path(path).name}.",
                "The file may be damaged or incomplete, or of a kind that llama.cpp does not know; fetch it again.",
                reason=str(error),
            ) from None
        self._http = _Loopback(self._server.listening_address, key)
        self._facts = self._read_facts(xllamacpp)

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    def tokenize(self, text: str) -> list[int]:
        return self._tokens(text, special=False)

    def detokenize(self, token_ids: list[int]) -> str:
        text: str = self._http.post("/detokenize", {"tokens": token_ids})["content"]
        return text

    def token_id(self, marker: str) -> int | None:
        ids = self._tokens(marker, special=True)
        return ids[0] if len(ids) == 1 else None

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        run = _Stream(stop_ids, on_text, aborted)
        request = {
            "prompt": prompt_ids,
            "n_predict": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": -1 if sampling.seed is None else sampling.seed,
            "stream": True,
            "cache_prompt": True,
            # Ids of the tokens come only with `verbose`, calls during prefill only with `return_progress`.
            "verbose": True,
            "return_tokens": True,
            "return_progress": True,
        }
        self._server.handle_completions(request, run.chunk)
        return run.result()

    def abort(self) -> None:
        """Nothing to do: `aborted` is asked between batches and at every token."""

    def close(self) -> None:
        self._http.close()
        self._server = None

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        ids: list[int] = self._http.post("/tokenize", body)["tokens"]
        return ids

    def _read_facts(self, xllamacpp: Any) -> ModelFacts:
        meta = self._http.get("/v1/models")["data"][0]["meta"]
        properties = self._http.get("/props")
        bos_text = properties.get("bos_token") or ""
        adds = self._http.post("/tokenize", {"content": "", "add_special": True, "parse_special": False})["tokens"]
        context_tokens = min(properties["default_generation_settings"]["n_ctx"], meta["n_ctx_train"])
        return ModelFacts(
            context_tokens=context_tokens,
            vocabulary_tokens=meta["n_vocab"],
            bos_id=self.token_id(bos_text) if bos_text else None,
            adds_bos=bool(adds),
            honours=("temperature", "top_p", "top_k", "seed"),
            runtime=f"llama.cpp (xllamacpp {getattr(xllamacpp, '__version__', 'of unknown version')})",
            reuses_prefix=True,
        )


def _check_file(path: Path) -> None:
    """Name the plain mistakes before the library gets to see the file."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise Problem(
            Code.MODEL_MISSING, f"The model file {path} is not there.", "Check the path, or fetch the model again."
        ) from None
    except OSError as error:
        raise Problem(
            Code.MODEL_MISSING,
            f"The model file {path} can't be read: {error.strerror}.",
            "Give the user that runs Rockfill read access to it.",
        ) from None
    if magic != GGUF_MAGIC:
        raise Problem(
            Code.INVALID_MODEL,
            f"{path.name} is not a GGUF file.",
            "The CPU engine runs GGUF models; .rkllm files need the NPU.",
        )


def _parameters(xllamacpp: Any, path: str, threads: int, key: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = False
    parameters.fit_params = False  # it would change what we ask for to what it deems free
    parameters.cache_ram_mib = 0
    parameters.ui = False
    parameters.verbosity = 0
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_threads_http = 1
    parameters.api_keys = [key]
    return parameters


class _Stream:
    """Takes the server's chunks, on its own terms, and keeps what the run was like."""

    def __init__(
        self, stop_ids: frozenset[int], on_text: Callable[[str, int], None], aborted: Callable[[], bool]
    ) -> None:
        self._stop_ids = stop_ids
        self._on_text = on_text
        self._aborted = aborted
        self._tokens = 0
        self._finish: Finish | None = None
        self._error: dict[str, Any] | None = None
        self._prefilled: int | None = None
        self._reused: int | None = None
        self._started = time.perf_counter()
        self._first: float | None = None
        self._last = self._started

    def chunk(self, chunk: dict[str, Any]) -> bool:
        """One chunk of the stream; True ends the run."""
        if "error" in chunk:
            self._error = chunk["error"]
            return True
        if self._aborted():
            self._finish = "aborted"
            return True
        progress = chunk.get("prompt_progress")
        if progress is not None:
            self._reused = progress["cache"]
            self._prefilled = progress["total"] - progress["cache"]
            return False
        verbose = chunk["__verbose"]
        if verbose["stop"]:
            self._finish = "length" if verbose.get("stop_type") == "limit" else "stop"
            return False
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
        ids = verbose["tokens"]
        if any(token_id in self._stop_ids for token_id in ids):
            self._finish = "stop"
            return True
        self._tokens += len(ids)
        if verbose["content"]:
            self._on_text(verbose["content"], len(ids))
        return False

    def result(self) -> Run:
        if self._error is not None:
            message = str(self._error.get("message", "no reason given"))
            raise Problem(Code.ENGINE_FAILED, f"llama.cpp refused the request: {message}.", "Ask again.")
        first = self._first if self._first is not None else self._last
        return Run(
            finish=self._finish or "aborted",
            generated_tokens=self._tokens,
            prefilled_tokens=self._prefilled,
            reused_tokens=self._reused,
            prefill_s=first - self._started,
            decode_s=self._last - first,
        )


class _Loopback:
    """The server's own HTTP port, for what its object has no call for."""

    def __init__(self, address: str, key: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def get(self, path: str) -> Any:
        return self._exchange("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        return self._exchange("POST", path, json.dumps(body).encode())

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> Any:
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):  # kept-alive connections may be closed under us: once more
            self._connection.close()
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        if response.status != 200:
            raise Problem(
                Code.ENGINE_FAILED, f"llama.cpp answered {response.status} to {path}.", "Ask again; see the journal."
            )
        return json.loads(content)
