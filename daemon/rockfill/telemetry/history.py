"""What the figures were: 15 minutes by the second and 24 hours by the minute, in memory that does not grow."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rockfill.hardware.sampler import Number, Value

    Columns = dict[str, list[Number | None]]

SECONDS_KEPT = 15 * 60
MINUTES_KEPT = 24 * 60

# A board has about 40. A machine with hundreds of thermal zones must not fill its memory with them.
MOST_COLUMNS = 128

_MISSING = math.nan


def columns_of(figures: Mapping[str, Value]) -> Iterator[tuple[str, Number | None]]:
    """Each number under a name of its own: ``npu.load_percent.0``, ``thermal.temp_celsius.soc-thermal``."""
    for key, value in figures.items():
        if isinstance(value, list):
            yield from ((f"{key}.{number}", inner) for number, inner in enumerate(value))
        elif isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


class Ring:
    """The last `length` rows; a column is made when it first has a value."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._next = 0
        self._times = self._column()
        self._columns: dict[str, array[float]] = {}

    def add(self, time_s: float, row: Mapping[str, Number | None]) -> None:
        self._times[self._next] = time_s
        for name, column in self._columns.items():
            value = row.get(name)
            column[self._next] = _MISSING if value is None else value
        for name, value in row.items():
            if value is not None and name not in self._columns and len(self._columns) < MOST_COLUMNS:
                self._columns[name] = self._column()
                self._columns[name][self._next] = value
        self._next = (self._next + 1) % self._length

    def rows(self, since_s: float, names: Collection[str] | None) -> Columns:
        """The columns called `names`, or that begin with one and a dot (None: all), and `time_s`, oldest row first."""
        order = [*range(self._next, self._length), *range(self._next)]
        order = [at for at in order if self._times[at] >= since_s]
        found: Columns = {"time_s": [round(self._times[at], 1) for at in order]}
        for name, column in self._columns.items():
            if names is None or any(name == wanted or name.startswith(f"{wanted}.") for wanted in names):
                found[name] = [_plain(column[at]) for at in order]
        return found

    def _column(self) -> array[float]:
        return array("d", [_MISSING]) * self._length


class History:
    """Both rings. A row of a minute is the mean of its seconds."""

    def __init__(self) -> None:
        self.seconds = Ring(SECONDS_KEPT)
        self.minutes = Ring(MINUTES_KEPT)
        self._minute: int | None = None
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, time_s: float, figures: Mapping[str, Value]) -> None:
        """Keep the figures of `time_s`, which is Unix time."""
        row = dict(columns_of(figures))
        self.seconds.add(time_s, row)
        minute = math.floor(time_s / 60)
        if minute != self._minute and self._minute is not None:
            self._end_minute(self._minute)
        self._minute = minute
        for name, value in row.items():
            if value is not None and (name in self._sums or len(self._sums) < MOST_COLUMNS):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)

    def _end_minute(self, minute: int) -> None:
        means = {name: round(total / count, 3) for name, (total, count) in self._sums.items()}
        self._sums.clear()
        self.minutes.add(minute * 60.0, means)


def _plain(value: float) -> Number | None:
    """As JSON has it: no NaN, and no ``.0`` behind whole numbers."""
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value
