from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.engine.history import KEPT_EVENTS, KEPT_LINE_CHARS, KEPT_LINES, History
from rockfill.engine.process import explain
from rockfill.errors import Code, ProblemInfo
from rockfill.snapshots import EngineSnapshot, Phase, Target

TARGET = Target("fake", "fake", "/fake", None)
STARTING = EngineSnapshot(Phase.STARTING, TARGET)
READY = EngineSnapshot(Phase.READY, TARGET)
BUSY = EngineSnapshot(Phase.BUSY, TARGET)
CRASH = explain(-11, ["loading", "E rkllm: the last words"])
CRASHED = replace(STARTING, problem=CRASH)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def stored(history: History) -> Any:
    """Through the file and back."""
    return json.loads(json.dumps([asdict(event) for event in history.events]))


def test_a_crash_is_told_with_its_exit_status_and_last_lines() -> None:
    history = History()
    history.record(BUSY, ())
    assert history.record(CRASHED, ("of the next worker",))
    event = history.events[-1]
    assert (event.state, event.model, event.code, event.exit_status) == ("starting", "fake", "engine_crashed", -11)
    assert event.last_lines == ("loading", "E rkllm: the last words")
    assert event.message is not None
    assert "SIGSEGV" in event.message


def test_a_problem_without_lines_of_its_own_is_told_with_the_workers() -> None:
    history = History()
    history.record(replace(BUSY, problem=ProblemInfo(Code.ENGINE_HUNG, "It hung.")), ("a", "b"))
    assert history.events[-1].last_lines == ("a", "b")


def test_lines_are_told_once_for_a_problem_that_lasts() -> None:
    history = History()
    for phase in (Phase.STARTING, Phase.LOADING, Phase.FAILED):
        history.record(replace(CRASHED, phase=phase), ())
    assert [(event.code, bool(event.last_lines)) for event in history.events] == [
        ("engine_crashed", True),
        ("engine_crashed", False),
        ("engine_crashed", False),
    ]


def test_completions_are_no_events() -> None:
    history = History()
    assert history.record(READY, ())
    assert not history.record(BUSY, ())
    assert not history.record(READY, ())
    assert not history.record(replace(READY, pinned=True), ())
    assert len(history.events) == 1


def test_events_lines_and_their_length_are_bounded() -> None:
    history = History()
    for number in range(3 * KEPT_EVENTS):
        problem = ProblemInfo(Code.ENGINE_HUNG, f"Hang {number}.", detail={"last_lines": ["x" * 4096] * 20})
        assert history.record(replace(BUSY, problem=problem), ())
    assert len(history.events) == KEPT_EVENTS
    assert history.events[-1].message == f"Hang {3 * KEPT_EVENTS - 1}."
    assert history.events[-1].last_lines == ("x" * KEPT_LINE_CHARS,) * KEPT_LINES
    assert len(History(stored(history) * 2).events) == KEPT_EVENTS


def test_what_was_stored_comes_back() -> None:
    history = History()
    history.record(READY, ())
    history.record(CRASHED, ())
    assert History(stored(history)).events == history.events


@pytest.mark.parametrize(
    "rubbish", [{"time_s": 1e300, "state": "ready"}, {"time_s": "now", "state": "ready"}, {}, [], 3]
)
def test_rubbish_among_what_was_stored_costs_only_itself(rubbish: object) -> None:
    history = History()
    history.record(READY, ())
    assert History([rubbish, *stored(history), rubbish]).events == history.events


@given(st.lists(JSON_VALUES | st.fixed_dictionaries({"time_s": JSON_VALUES, "state": JSON_VALUES})))
def test_nothing_that_was_stored_breaks_it(values: list[Any]) -> None:
    history = History(values)
    history.record(READY, ())
    assert history.events[-1].state == "ready"
