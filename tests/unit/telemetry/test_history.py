from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from rockfill.telemetry.history import MINUTES_KEPT, MOST_COLUMNS, SECONDS_KEPT, History, Ring, columns_of

if TYPE_CHECKING:
    from rockfill.hardware.sampler import Value


def test_each_number_has_a_column_of_its_own() -> None:
    figures: dict[str, Value] = {"a.b": 1, "n": [1, None], "t": {"soc-thermal": 2.5}, "x": None}
    assert dict(columns_of(figures)) == {"a.b": 1, "n.0": 1, "n.1": None, "t.soc-thermal": 2.5, "x": None}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(-9, 9)), max_size=30))
def test_a_ring_has_the_last_rows_in_order(rows: list[dict[str, int | None]]) -> None:
    ring = Ring(7)
    for number, row in enumerate(rows):
        ring.add(number, row)
    kept = list(enumerate(rows))[-7:]
    found = ring.rows(0, None)
    assert found.pop("time_s") == [number for number, _ in kept]
    for name in "abc":
        expected = [row.get(name) for _, row in kept]
        assert found.get(name, [None] * len(kept)) == expected


def test_rows_can_be_chosen_by_time_and_by_name() -> None:
    ring = Ring(10)
    for number in range(5):
        ring.add(number, {"npu.load_percent.0": number, "npu.load_percent.1": 0.5, "npu.load": 1, "ram": 2**40})
    assert ring.rows(3, ["npu.load_percent", "ram"]) == {
        "time_s": [3, 4],
        "npu.load_percent.0": [3, 4],
        "npu.load_percent.1": [0.5, 0.5],
        "ram": [2**40, 2**40],
    }


def test_a_minute_is_the_mean_of_its_seconds_and_comes_when_it_is_over() -> None:
    history = History()
    for second in range(121):
        history.add(6000.0 + second, {"a": second, "b": None if second % 2 else 4})
    rows = history.minutes.rows(0, None)
    assert rows == {"time_s": [6000, 6060], "a": [29.5, 89.5], "b": [4, 4]}


def test_seconds_go_back_fifteen_minutes_and_minutes_a_day_in_memory_that_does_not_grow() -> None:
    history = History()
    wide = {f"{number}": 1.0 for number in range(200)}
    for minute in range(MINUTES_KEPT + 1):
        history.add(minute * 60.0, wide)
    full = size(history)
    for minute in range(MINUTES_KEPT + 1, 2 * MINUTES_KEPT):
        history.add(minute * 60.0, wide)
    assert size(history) == full
    assert len(history.seconds.rows(0, None)["time_s"]) == SECONDS_KEPT == 900
    assert len(history.minutes.rows(0, None)["time_s"]) == MINUTES_KEPT == 1440
    assert len(history.minutes.rows(0, None)) == MOST_COLUMNS + 1


def size(history: History) -> int:
    return sum(
        sys.getsizeof(column) for ring in (history.seconds, history.minutes) for column in ring._columns.values()
    )
