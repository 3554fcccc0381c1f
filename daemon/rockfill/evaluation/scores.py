"""What answers are worth, and what an evaluation's result is. Pure."""

from __future__ import annotations

import difflib
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rockfill.decode import MaxLength, Range
from rockfill.fim.output import OutputFilter, OutputRules

if TYPE_CHECKING:
    from collections.abc import Sequence

Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion beside what was wanted. `passed` is None where no program told; `duration_s` is its whole time."""

    expected: str
    given: str
    duration_s: float
    passed: bool | None = None

    @property
    def exact(self) -> bool:
        """Whether it is the text that was wanted; whitespace at the end does not count."""
        return self.given.rstrip() == self.expected.rstrip()

    @property
    def similarity(self) -> float:
        """How alike it is, 0 to 1, by the standard library's difflib."""
        return difflib.SequenceMatcher(None, self.given.rstrip(), self.expected.rstrip(), autojunk=False).ratio()

    @property
    def loops(self) -> bool:
        """Whether it fell into repeating itself, by the rule that ends such completions (`fim.output`)."""
        output = OutputFilter(OutputRules("line"))
        output.feed(self.given)
        return output.finished is not None and output.finished.reason == "repetition"


@dataclass(frozen=True, slots=True)
class Score:
    """What one set of questions came to. Shares are 0 to 1; `passed` is None where there was no program to run."""

    name: Annotated[str, MaxLength(200)]
    count: Annotated[int, Range(1, 10_000_000)]
    passed: Share | None
    exact: Share
    similarity: Share
    loops: Share
    median_s: Annotated[float, Range(0, 1e6)]

    @classmethod
    def of(cls, name: str, answers: Sequence[Answer]) -> Score:
        """The score of at least one answer."""
        verdicts = [answer.passed for answer in answers if answer.passed is not None]
        return cls(
            name=name,
            count=len(answers),
            passed=statistics.fmean(verdicts) if verdicts else None,
            exact=statistics.fmean(answer.exact for answer in answers),
            similarity=statistics.fmean(answer.similarity for answer in answers),
            loops=statistics.fmean(answer.loops for answer in answers),
            median_s=statistics.median(answer.duration_s for answer in answers),
        )

    def error_of(self, share: float) -> float:
        """The standard error of a share of yes and no among `count`."""
        return math.sqrt(share * (1 - share) / self.count)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.name}, {self.count} places",
            *(f"  {label:18}{100 * share:5.1f} %  ± {100 * self.error_of(share):.1f}" for label, share in self._shares),
            f"  {'edit similarity':18}{100 * self.similarity:5.1f} %",
            f"  {'a completion':18}{1000 * self.median_s:5.0f} ms (median)",
        ]

    @property
    def line(self) -> str:
        """For people, in short: ``tasks: pass@1 28.1 % ± 1.4, exact 21.5 % ± 1.3, loops 0.2 % ± 0.1, of 1033``."""
        shares = (f"{label} {100 * share:.1f} % ± {100 * self.error_of(share):.1f}" for label, share in self._shares)
        return f"{self.name}: {', '.join(shares)}, of {self.count}"

    @property
    def _shares(self) -> list[tuple[str, float]]:
        shares = [("pass@1", self.passed), ("exact", self.exact), ("loops", self.loops)]
        return [(label, share) for label, share in shares if share is not None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A result as it is kept: on what, with which settings, and the scores.

    `questions` names the files and `sha256` their content, so that two results can be compared only if they are alike.
    """

    questions: Annotated[str, MaxLength(500)]
    sha256: Annotated[str, MaxLength(64)]
    seed: int
    limit: int | None
    scores: Annotated[tuple[Score, ...], MaxLength(16)]
