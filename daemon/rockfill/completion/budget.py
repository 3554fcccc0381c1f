"""How long a prompt may be for somebody who is waiting at the keyboard. Pure."""

from __future__ import annotations

# Three quarters of it are for the prefix, which is to have 128 tokens (`fim.context`) and to begin with a line: less
# makes completions worse than their speed is worth.
LEAST_TOKENS = 224

# What an engine is taken to prefill until it has been measured: an RK3588 with a model of 2B (rkllm's benchmark.md).
UNMEASURED_TOKENS_PER_S = 200.0

# A budget that followed every measurement would move the prompt's beginning, and lose the engine's cache, each time.
STEP = 1.5


class Budget:
    """The most tokens of a prompt, so that its first token comes within a target time even with nothing cached."""

    def __init__(self, first_token_target_s: float) -> None:
        self.target_s = first_token_target_s
        self._tokens = 0.0

    def tokens(self, prefill_tokens_per_second: float | None) -> int:
        """The budget at this rate; it stays as it was until the rate has clearly changed."""
        wanted = max(LEAST_TOKENS, (prefill_tokens_per_second or UNMEASURED_TOKENS_PER_S) * self.target_s)
        if not self._tokens / STEP <= wanted <= self._tokens * STEP:
            self._tokens = wanted
        return int(self._tokens)
