"""Who used which run, and what a wait that was broken off says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.accounting import Ask, EngineRun, Session, Stop, credited, figures, kaplan_meier


def _run(prefix: str, text: str, started_s: float, ended_s: float, suffix: str = "\n") -> EngineRun:
    return EngineRun(prefix, suffix, text, started_s, ended_s, 100, 40, 10)


def _ask(prefix: str, text: str, sent_s: float, ended_s: float | None = None, *, useful: bool = True) -> Ask:
    return Ask(prefix, "\n", sent_s, text, sent_s + 2 if ended_s is None else ended_s, useful)


def test_a_run_is_used_by_the_ask_that_it_answered() -> None:
    runs = [_run("a = ", "b + c", 1, 3)]
    assert credited([_ask("a = ", "b + c", 1)], runs) == {0}
    assert credited([_ask("a = ", "b + c", 1, useful=False)], runs) == set()


def test_a_run_that_ended_before_the_ask_is_not_used_by_one_of_its_own_run() -> None:
    runs = [_run("a = ", "b + c", 1, 3), _run("a = ", "b + c", 4, 6)]
    assert credited([_ask("a = ", "b + c", 4)], runs) == {1}


def test_what_came_from_memory_is_owed_to_the_run_that_said_it() -> None:
    runs = [_run("a = ", "b + c", 1, 3), _run("z = ", "b + c", 3, 4)]
    assert credited([_ask("a = b", " + c", 5)], runs) == {0}


def test_a_memory_that_was_continued_is_owed_to_both_runs() -> None:
    runs = [_run("a = ", "b + c", 1, 2), _run("a = b + c", " + d", 5, 6)]
    assert credited([_ask("a = b", " + c + d", 5)], runs) == {0, 1}


def test_another_suffix_is_another_place() -> None:
    assert credited([_ask("a = ", "b", 1)], [_run("a = ", "b", 1, 3, suffix=")\n")]) == set()


def test_a_shared_run_is_used_by_whoever_joined_it_later() -> None:
    runs = [_run("a = ", "b + c", 1, 5)]
    asks = [_ask("a = ", "b + c", 1, useful=False), _ask("a = ", "b + c", 2)]
    assert credited(asks, runs) == {0}


@given(st.lists(st.floats(0, 100), min_size=1))
def test_without_broken_off_waits_the_median_is_the_median(waits: list[float]) -> None:
    assert kaplan_meier([(wait, True) for wait in waits], 0.5) == sorted(waits)[(len(waits) - 1) // 2]


def test_a_wait_that_was_broken_off_early_says_nothing_and_one_late_says_much() -> None:
    ended = [(1.0, True), (2.0, True), (3.0, True)]
    assert kaplan_meier([*ended, (0.5, False)], 0.5) == 2.0
    assert kaplan_meier([*ended, (9.0, False), (9.0, False), (9.0, False)], 0.5) == 3.0
    assert kaplan_meier([*ended, *[(9.0, False)] * 4], 0.5) is None
    assert kaplan_meier([], 0.5) is None


def test_figures_of_a_small_session() -> None:
    stops = (Stop(0, 2, first_s=0.4, whole_s=1.4, exact=True, taken=True), Stop(5, 2, first_s=0.9), Stop(9, 1.2))
    runs = (_run("a = ", "b", 0, 2), _run("a = b", "c", 2, 5))
    found = figures(Session(stops, (_ask("a = ", "b", 0), _ask("q", "", 1, useful=False)), runs, 0.35))
    assert (found.stops, found.asks, found.useful, found.runs, found.taken) == (3, 2, 1, 2, 1)
    assert found.within_half_s == pytest.approx(1 / 3)
    assert found.within_1_s == pytest.approx(2 / 3)
    assert found.first_p50_s == pytest.approx(0.9 - 0.35)
    assert found.exact == 1
    assert (found.prefilled_per_useful, found.decoded_per_useful) == (80, 20)
    assert (found.busy_s, found.wasted_s) == (5, 3)
