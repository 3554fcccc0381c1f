"""What answers are worth, and which results stand for the same measurement."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from rockfill.evaluation.results import MOST_RESULTS, Result, Results
from rockfill.evaluation.scores import Answer, Evaluation, Score

RIGHT = Answer("return a + b", "return a + b  ", 0.1, passed=True)
WRONG = Answer("return a + b", "", 0.3, passed=False)


def test_all_right_is_one_and_all_wrong_is_nothing() -> None:
    right, wrong = Score.of("tasks", [RIGHT]), Score.of("tasks", [WRONG, WRONG])
    assert (right.passed, right.exact, right.similarity, right.loops) == (1, 1, 1, 0)
    assert (wrong.passed, wrong.exact, wrong.similarity, wrong.loops) == (0, 0, 0, 0)


def test_shares_are_of_all_answers_and_have_their_standard_error() -> None:
    score = Score.of("tasks", [RIGHT, RIGHT, RIGHT, WRONG])
    assert (score.count, score.passed, score.exact) == (4, 0.75, 0.75)
    assert score.median_s == pytest.approx(0.1)
    assert score.error_of(0.75) == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert score.lines()[1].split() == ["pass@1", "75.0", "%", "±", "21.7"]
    assert score.line == "tasks: pass@1 75.0 % ± 21.7, exact 75.0 % ± 21.7, loops 0.0 % ± 0.0, of 4"


def test_without_programs_nothing_is_said_of_passing() -> None:
    score = Score.of("lines", [replace(RIGHT, passed=None)])
    assert score.passed is None
    assert not any("pass@1" in line for line in [*score.lines(), score.line])


def test_similarity_is_between_nothing_and_the_same() -> None:
    assert 0.5 < Answer("return a + b", "return a - b", 0).similarity < 1


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("self._attr_attr_attr_attr_attr_attr_attr", True),
        ("return a + b", False),
        ("[0, 0, 0, 0, 0, 0, 0, 0, 0]", False),
    ],
)
def test_a_loop_is_what_the_output_filter_takes_for_one(text: str, *, loops: bool) -> None:
    assert Answer("", text, 0).loops is loops


SCORE = Score.of("t", [RIGHT])
EVALUATION = Evaluation("tasks.jsonl", "ab", 0, None, (SCORE,))
RESULT = Result("m", "m-q8_0.gguf", "user/m", "llama", "llama.cpp", "0.1", 1, EVALUATION)


def test_a_later_result_of_the_same_measurement_takes_the_place_of_the_earlier() -> None:
    results = Results([])
    later = replace(RESULT, when_s=2, rockfill="0.2")
    other = replace(RESULT, evaluation=replace(RESULT.evaluation, seed=1))
    for result in (RESULT, other, later):
        results.add(result)
    assert results.of("user/m", "m-q8_0.gguf") == [other, later]
    for repository, file in (("user/m", "another"), ("else/m", "m-q8_0.gguf"), (None, "m-q8_0.gguf")):
        assert results.of(repository, file) == []


def test_what_a_model_came_with_stands_until_it_is_measured_here() -> None:
    came = [replace(RESULT, when_s=0), replace(RESULT, file="another")]
    brought = [*json.loads(json.dumps([asdict(result) for result in came])), {"broken": True}]
    results = Results([])
    assert results.of("user/m", "m-q8_0.gguf", brought) == [replace(RESULT, when_s=0)]
    other = replace(RESULT, runtime="another")
    results.add(other)
    assert results.of("user/m", "m-q8_0.gguf", brought) == [replace(RESULT, when_s=0), other]
    results.add(RESULT)
    assert results.of("user/m", "m-q8_0.gguf", brought) == [other, RESULT]
    assert len(results.values) == 2


def test_results_are_kept_as_values_and_broken_ones_are_left_out() -> None:
    stored = json.loads(json.dumps(asdict(RESULT)))
    results = Results([stored, {"model": 1}, None])
    assert json.loads(json.dumps(results.values)) == [stored]
    assert results.of("user/m", "m-q8_0.gguf") == [RESULT]


def test_the_oldest_give_way() -> None:
    results = Results([])
    for number in range(MOST_RESULTS + 5):
        results.add(replace(RESULT, file=str(number)))
    assert len(results.values) == MOST_RESULTS
    assert results.of("user/m", "4") == []
    assert results.of("user/m", "5") != []
