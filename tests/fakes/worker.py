"""A real worker whose engine does as a script says: the process, the link and its threads are the product's own.

The "model" is a JSON file that is read again at each run, so that a running worker can be told to behave otherwise:

    text        what a run says, or None to repeat the prompt's last line (which shows any mixing of requests)
    answers     [{"has", "text"}]: the text of the first one whose `has` is in the prompt is what the run says
    prints      a line on standard output at the beginning of a run
    tokens      how many tokens it is cut into (default: one a character)
    load_s      how long a load takes
    tokenize_s  for how long it computes whenever it splits a text into tokens
    prefill_s   before the first token; token_s: before each
    holds       {"before": N, "while": path}: token N waits while that file exists, or until an abort; PATH.reached is
                there once one waits
    decode_s    how long it says that its tokens took
    tells_prefilled   false: not how much of a prompt was read; reuses_prefix: what it says of itself
    deaf        an abort is heard only so many seconds later; waits: a line printed once that is so of every abort
    fault       {"when": "load" | "prefill" | N (before token N), "what": one of FAULTS}
    once        a path: the fault happens only while this file exists, and removes it
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockfill.errors import Code, Problem
from rockfill.session import Finish, ModelFacts, Run, Sampling
from rockfill.worker import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.link.messages import Load

CONTROL_TOKENS = ("<bos>", "<eos>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>")
FIRST_TEXT_ID = 256
FAULTS = ("segv", "exit", "hang", "raise", "problem", "flood", "stop")


class FakeSession:
    """Speaks one token a character; its control tokens are CodeGemma's."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._hurry = threading.Event()
        time.sleep(self._script().get("load_s", 0))
        self._misbehave("load")

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            context_tokens=int(self._script().get("context_tokens", 4096)),
            vocabulary_tokens=FIRST_TEXT_ID + sys.maxunicode,
            bos_id=0,
            adds_bos=True,
            honours=("temperature",),
            runtime="fake",
            reuses_prefix=bool(self._script().get("reuses_prefix")),
        )

    def tokenize(self, text: str) -> list[int]:
        computes_until_s = time.monotonic() + self._script().get("tokenize_s", 0)
        while time.monotonic() < computes_until_s:
            pass
        return [FIRST_TEXT_ID + ord(character) for character in text]

    def detokenize(self, token_ids: list[int]) -> str:
        return "".join(CONTROL_TOKENS[i] if i < FIRST_TEXT_ID else chr(i - FIRST_TEXT_ID) for i in token_ids)

    def token_id(self, marker: str) -> int | None:
        return CONTROL_TOKENS.index(marker) if marker in CONTROL_TOKENS else None

    def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        stop_ids: frozenset[int],
        on_text: Callable[[str, int], None],
        aborted: Callable[[], bool],
    ) -> Run:
        script = self._script()
        self._hurry.clear()
        if "prints" in script:
            print(script["prints"], flush=True)
        started = time.perf_counter()
        self._misbehave("prefill")
        parts = _parts(script, prompt_ids)[:max_tokens]
        finish: Finish = "length" if len(parts) == max_tokens else "stop"
        said = 0
        first = None
        if not aborted():
            self._wait(script.get("prefill_s", 0), script)
        for part in parts:
            self._hold(said, script, aborted)
            if aborted():
                finish = "aborted"
                break
            if said == 0 and "waits" in script:
                print(script["waits"], flush=True)
            self._misbehave(said)
            self._wait(script.get("token_s", 0), script)
            if first is None:
                first = time.perf_counter()
            on_text(part, 1)
            said += 1
        ended = time.perf_counter()
        first = first if first is not None else ended
        told = script.get("tells_prefilled", True)
        prefilled, reused = (len(prompt_ids), 0) if told else (None, None)
        return Run(finish, said, prefilled, reused, first - started, script.get("decode_s", ended - first))

    def abort(self) -> None:
        self._hurry.set()

    def close(self) -> None:
        pass

    def _script(self) -> dict[str, Any]:
        script: dict[str, Any] = json.loads(self._path.read_bytes())
        return script

    def _wait(self, seconds: float, script: dict[str, Any]) -> None:
        if seconds and self._hurry.wait(seconds):
            time.sleep(script.get("deaf", 0))

    def _hold(self, said: int, script: dict[str, Any], aborted: Callable[[], bool]) -> None:
        holds = script.get("holds")
        if not holds or holds["before"] != said:
            return
        gate = Path(holds["while"])
        if gate.exists():
            gate.with_suffix(".reached").touch()
        while gate.exists() and not aborted():
            time.sleep(0.005)

    def _misbehave(self, when: str | int) -> None:
        script = self._script()
        fault = script.get("fault")
        if not fault or fault["when"] != when:
            return
        if "once" in script:
            try:
                Path(script["once"]).unlink()
            except FileNotFoundError:
                return
        match fault["what"]:
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3600)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise RuntimeError("a defect")
            case "problem":
                raise Problem(Code.INVALID_MODEL, "The fake model is broken.", "Mend it.")
            case "flood":
                sys.stdout.write("noise\n" * 20_000 + "x" * 100_000)
                sys.stdout.flush()
            case unknown:
                raise ValueError(unknown)


def _parts(script: dict[str, Any], prompt_ids: list[int]) -> list[str]:
    prompt = "".join(chr(i - FIRST_TEXT_ID) if i >= FIRST_TEXT_ID else "\n" for i in prompt_ids)
    known = [answer["text"] for answer in script.get("answers", ()) if answer["has"] in prompt]
    text = known[0] if known else script.get("text")
    if text is None:
        text = prompt.rstrip("\n").rpartition("\n")[2]
    count = int(script.get("tokens", len(text)) or 1)
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _open(load: Load) -> FakeSession:
    return FakeSession(load.path)


if __name__ == "__main__":
    main(sys.argv, {"fake": _open})
