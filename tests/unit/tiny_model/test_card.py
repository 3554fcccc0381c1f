"""The bundled model's card and the README say what was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rockfill.decode import decode
from rockfill.evaluation.results import Result
from rockfill.paths import bundled_models
from rockfill.store.models import EVALUATIONS, manifest_at
from tests.appliance import ROOT

if TYPE_CHECKING:
    from rockfill.evaluation.scores import Score

MODEL = bundled_models() / "rockfill-tiny"
CARD = MODEL / "README.md"


def scores() -> dict[str, Score]:
    results = [decode(Result, value) for value in json.loads((MODEL / EVALUATIONS).read_text())["evaluations"]]
    manifest = manifest_at(MODEL)
    assert {(result.model, result.file) for result in results} == {(manifest.name, manifest.file)}
    return {score.name: score for result in results for score in result.evaluation.scores}


def percent(score: Score, share: float | None) -> str:
    assert share is not None
    return f"{100 * share:.1f} % ± {100 * score.error_of(share):.1f}"


def test_the_card_quotes_what_was_measured() -> None:
    rows = {
        row.split("|")[1].strip(): row.split("|")[2].strip(" *") for row in CARD.read_text().splitlines() if "|" in row
    }
    found = scores()
    tasks, lines, rests = found["tasks"], found["whole lines"], found["rests of lines"]
    assert (tasks.count, lines.count, rests.count) == (1033, 500, 500)
    assert rows["HumanEval single-line infilling, pass@1, all 1,033 tasks"] == percent(tasks, tasks.passed)
    assert rows["… the very line"] == percent(tasks, tasks.exact)
    assert rows["rest of a line from a word's edge, exact, 500 places"] == percent(rests, rests.exact)
    assert rows["a whole line after its indentation, exact, 500 places"] == percent(lines, lines.exact)
    assert rows["… edit similarity"] == f"{100 * lines.similarity:.1f} %"
    loops = f"{100 * tasks.loops:.1f} %, {50 * (lines.loops + rests.loops):.1f} %"
    assert rows["completions that repeat themselves, of the 1,033 and of the 1,000"] == loops


def test_the_readme_quotes_the_same() -> None:
    tasks = scores()["tasks"]
    assert tasks.passed is not None
    assert f"{100 * tasks.passed:.1f} % of the single lines" in (ROOT / "README.md").read_text().replace("\n", " ")
