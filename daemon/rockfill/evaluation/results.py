"""The results that were kept, and which of them speak of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rockfill.decode import DecodeError, decode
from rockfill.evaluation.scores import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable

# Some hundred bytes each; nobody evaluates more models than that on one board.
MOST_RESULTS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """An evaluation, of which model file on which runtime, and when it was kept (seconds since 1970).

    `repository` is where on the Hub the file is from, None where it is not.
    """

    model: str
    file: str
    repository: str | None
    engine: str
    runtime: str
    rockfill: str
    when_s: int
    evaluation: Evaluation

    @property
    def lines(self) -> list[str]:
        """For people: on which questions and runtime, and below it the scores, each in a line."""
        scores = (f"  {score.line}" for score in self.evaluation.scores)
        return [f"{self.evaluation.questions} on {self.runtime}", *scores]

    @property
    def subject(self) -> Result:
        """What two results of the same measurement share; the later one takes the place of the earlier."""
        return replace(self, when_s=0, rockfill="", evaluation=replace(self.evaluation, scores=()))


class Results:
    """All that is kept, oldest first."""

    def __init__(self, stored: Iterable[Any]) -> None:
        """`stored` as `values` gave it. What can't be read any more, as after an upgrade, is left out."""
        self._results: list[Result] = []
        for value in stored:
            try:
                self._results.append(decode(Result, value))
            except DecodeError:
                continue

    def add(self, result: Result) -> None:
        """Keep `result`, in place of an earlier one of the same measurement."""
        others = [kept for kept in self._results if kept.subject != result.subject]
        self._results = [*others, result][-MOST_RESULTS:]

    def of(self, repository: str | None, file: str, brought: Iterable[Any] = ()) -> list[Result]:
        """Those of one model file: files of the same name from elsewhere are others.

        `brought` are values that the model came with, in whose place what was kept of the same measurement stands.
        """
        found = Results(())
        for result in (*Results(brought)._results, *self._results):
            if (result.repository, result.file) == (repository, file):
                found.add(result)
        return found._results

    @property
    def values(self) -> list[dict[str, Any]]:
        """All of them as JSON values."""
        return [asdict(result) for result in self._results]
