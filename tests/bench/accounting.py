"""What the clients saw and what the engine did, made into figures: pure.

Times are seconds of the typist, whatever the scale of the replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(slots=True)
class Ask:
    """A request of a client's. `text` is what had come of its answer; `useful` once that stood there at a stop.

    `answered`: it was told a completion, be it an empty one.
    """

    prefix: str
    suffix: str
    sent_s: float
    text: str = ""
    ended_s: float | None = None
    useful: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class EngineRun:
    """A run as the engine's process saw it: `prefix` and `suffix` before any trimming."""

    prefix: str
    suffix: str
    text: str
    started_s: float
    ended_s: float
    prompt_tokens: int
    prefilled_tokens: int
    decoded_tokens: int


@dataclass(slots=True)
class Stop:
    """The typist stopped at `at_s` for `length_s`. The first text of an offer for this very document stood there
    `first_s` after the last key, all of it `whole_s` after; None if the typist went on before that.

    `exact`: whether all of it was what the file says there, None if there was not all of it.
    """

    at_s: float
    length_s: float
    first_s: float | None = None
    whole_s: float | None = None
    exact: bool | None = None
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """One client's work on one server. A client never asks before `debounce_s` without a key."""

    stops: tuple[Stop, ...]
    asks: tuple[Ask, ...]
    runs: tuple[EngineRun, ...]
    debounce_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares are of 1. A quantile is None where it lies beyond the longest stop. Times to an offer count from when the
    client would first ask (the last key and its debounce), the shares of stops from the last key.

    `wasted_s` is the engine's time for runs whose text nobody saw at a stop.
    """

    stops: int
    first_p50_s: float | None
    first_p90_s: float | None
    whole_p50_s: float | None
    whole_p90_s: float | None
    within_half_s: float
    within_1_s: float
    exact: float | None
    taken: int
    asks: int
    useful: int
    runs: int
    prefilled_per_useful: float | None
    decoded_per_useful: float | None
    busy_s: float
    wasted_s: float


def figures(session: Session) -> Figures:
    """The figures of one session."""
    stops = session.stops
    used = credited(session.asks, session.runs)
    useful = sum(ask.useful for ask in session.asks)
    seen = [stop.exact for stop in stops if stop.exact is not None]

    def quantile(share: float, name: str) -> float | None:
        waits = [_wait(stop, getattr(stop, name), session.debounce_s) for stop in stops]
        return kaplan_meier(waits, share)

    def per_useful(tokens: Iterable[int]) -> float | None:
        return sum(tokens) / useful if useful else None

    return Figures(
        stops=len(stops),
        first_p50_s=quantile(0.5, "first_s"),
        first_p90_s=quantile(0.9, "first_s"),
        whole_p50_s=quantile(0.5, "whole_s"),
        whole_p90_s=quantile(0.9, "whole_s"),
        within_half_s=_share(stop.first_s is not None and stop.first_s <= 0.5 for stop in stops),
        within_1_s=_share(stop.first_s is not None and stop.first_s <= 1.0 for stop in stops),
        exact=_share(seen) if seen else None,
        taken=sum(stop.taken for stop in stops),
        asks=len(session.asks),
        useful=useful,
        runs=len(session.runs),
        prefilled_per_useful=per_useful(run.prefilled_tokens for run in session.runs),
        decoded_per_useful=per_useful(run.decoded_tokens for run in session.runs),
        busy_s=sum(run.ended_s - run.started_s for run in session.runs),
        wasted_s=sum(run.ended_s - run.started_s for number, run in enumerate(session.runs) if number not in used),
    )


def _wait(stop: Stop, seen_s: float | None, debounce_s: float) -> tuple[float, bool]:
    waited_s = stop.length_s if seen_s is None else seen_s
    return max(0.0, waited_s - debounce_s), seen_s is not None


def _share(values: Iterable[bool]) -> float:
    counted = [bool(value) for value in values]
    return sum(counted) / len(counted) if counted else 0.0


def kaplan_meier(waits: Sequence[tuple[float, bool]], share: float) -> float | None:
    """The time by which `share` of the waits would have ended, None if that is later than any was observed.

    A wait is its length and whether it ended by itself; one that was broken off says only that it would have taken
    longer (the product-limit estimator: Kaplan and Meier 1958). A median of the finished ones alone would flatter
    whoever answers only those who wait long.
    """
    waiting = 1.0
    ordered = sorted(waits, key=lambda wait: (wait[0], not wait[1]))
    for position, (seconds, ended) in enumerate(ordered):
        if ended:
            at_risk = len(ordered) - position
            waiting *= 1 - 1 / at_risk
            if waiting <= 1 - share + 1e-9:
                return seconds
    return None


def credited(asks: Sequence[Ask], runs: Sequence[EngineRun]) -> set[int]:
    """The numbers of those `runs` whose text went into what somebody saw at a stop.

    A run belongs to an ask if it has its suffix, was under way between its sending and its end, and its prefix is the
    ask's, or that and what the server already knew. What of a useful answer no such run has made came from a server's
    memory; the latest earlier run that said it has the credit.
    """
    used: set[int] = set()
    for ask in asks:
        if not ask.useful:
            continue
        whole = ask.prefix + ask.text
        ended_s = float("inf") if ask.ended_s is None else ask.ended_s
        known_until = len(whole)
        for number, run in enumerate(runs):
            if run.suffix != ask.suffix or run.started_s > ended_s or run.ended_s < ask.sent_s:
                continue
            made_some = len(run.prefix) < len(whole)
            if made_some and run.prefix.startswith(ask.prefix) and whole.startswith(run.prefix):
                used.add(number)
                known_until = min(known_until, len(run.prefix))
        if known_until > len(ask.prefix):
            used |= _remembered(ask, whole[:known_until], runs)
    return used


def _remembered(ask: Ask, known: str, runs: Sequence[EngineRun]) -> set[int]:
    for number in range(len(runs) - 1, -1, -1):
        run = runs[number]
        said = run.prefix + run.text
        if run.suffix == ask.suffix and run.started_s <= ask.sent_s and len(run.prefix) <= len(ask.prefix):
            agrees = said[: len(known)] == known[: len(said)]
            if agrees and len(said) > len(ask.prefix):
                return {number}
    return set()
