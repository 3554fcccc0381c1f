"""What a selftest found out. Pure: values, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rockfill.decode import DecodeError, decode

if TYPE_CHECKING:
    from rockfill.link.messages import Load

# An order counts as understood when the model answers the card's own example in it.
EXAMPLE_PREFIX = """\
import datetime
def calculate_age(birth_year):
    \"\"\"Calculates a person's age based on their birth year.\"\"\"
    current_year = datetime.date.today().year
    """
EXAMPLE_SUFFIX = "\n    return age\n"
EXAMPLE_ANSWER = "age = current_year - birth_year"  # the completion that CodeGemma's model card shows


def key_of(load: Load) -> str:
    """Under what a result is stored: this model on this engine, and where that is Rockchip's, in this library."""
    return "|".join((load.engine, load.path, load.library or ""))


@dataclass(frozen=True, slots=True)
class Example:
    """The model card's example in one order: the text, how it ended, and whether it is the card's answer."""

    text: str
    finish: str
    right: bool


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """Every figure is measured here; None is what could not be seen or was not tried.

    `runtime_adds_bos`: a BOS was put before our ids. `reuses_prefix`: a prompt that shares its beginning with the last
    one is prefilled only from there on. Speeds in tokens a second, aborts in milliseconds until the engine was free.
    `memory_bytes` is the most that the worker held, by the engine's own account.
    """

    model: str
    runtime: str
    when_s: int
    runtime_adds_bos: bool | None
    reuses_prefix: bool | None
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    abort_in_prefill_ms: float
    abort_in_decode_ms: float
    stops_by_itself: bool
    worker_rss_bytes: int | None
    psm: Example | None
    spm: Example | None
    memory_bytes: int | None = None

    @classmethod
    def stored(cls, value: object) -> SelfTestResult | None:
        """The result that a stored value holds; None if it holds none, as after an upgrade that changed its shape."""
        try:
            return decode(cls, value)
        except DecodeError:
            return None

    @property
    def best_order(self) -> Literal["psm", "spm"] | None:
        """The order to prompt in; None leaves it to the family.

        SPM puts the cursor at the end of the prompt, so a key typed costs a token or two where the runtime reuses the
        shared beginning; without reuse, or if the model does not understand it, there is nothing to gain.
        """
        if self.spm is not None and self.spm.right and self.reuses_prefix:
            return "spm"
        if self.psm is not None and self.psm.right:
            return "psm"
        return None

    def report(self) -> str:
        """The result as text that can be shared: it names the model, the runtime and figures, nothing of the user."""
        lines = [f"Rockfill selftest: {self.model} on {self.runtime}"]
        for name, value, unit in (
            ("prefill", self.prefill_tokens_per_second, "tokens/s"),
            ("decode", self.decode_tokens_per_second, "tokens/s"),
            ("abort in prefill", self.abort_in_prefill_ms, "ms"),
            ("abort in decode", self.abort_in_decode_ms, "ms"),
            ("memory of the worker", self.worker_rss_bytes and round(self.worker_rss_bytes / 1e6), "MB"),
            ("  at most, as it tells", self.memory_bytes and round(self.memory_bytes / 1e6), "MB"),
        ):
            lines.append(f"  {name:24}{'not seen' if value is None else f'{value:g} {unit}'}")
        for name, answer in (
            ("runtime adds a BOS", self.runtime_adds_bos),
            ("reuses a shared prefix", self.reuses_prefix),
            ("stops by itself", self.stops_by_itself),
        ):
            lines.append(f"  {name:24}{'not seen' if answer is None else 'yes' if answer else 'no'}")
        for order, example in (("PSM", self.psm), ("SPM", self.spm)):
            if example is None:
                lines.append(f"  {order:24}no such prompt")
            else:
                verdict = "as the model card" if example.right else "not as the model card"
                lines.append(f"  {order:24}{verdict}: {example.text.strip()!r} ({example.finish})")
        return "\n".join(lines)
