"""Timing what belongs together in turn, round after round: ours, its peers, ours again. The clock is an argument."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from repro.problem import Problem, told

SLICE_S = 0.25
"""Seconds that a side is timed at a time, at least: long beside what else a machine does now and then."""

MOST_CALLS = 100_000
"""Of a side at a time: a clock that stands still ends the looking for a number."""


def nothing() -> None:
    """Do nothing: what a side needs around its clock, where it needs nothing."""


class Side(NamedTuple):
    """What is timed: ``call`` does ``units`` of work (images, steps); the first of a case's sides is ours.

    ``before`` is called before the clock of every slice, say to take what a queue holds ready, and ``after`` behind it,
    say to let the queue fill while nobody is timed. ``foreign``: none of this package's code, so that where it changed
    from one run to another, the machine did.
    """

    name: str
    call: Callable[[], object]
    units: float
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing
    foreign: bool = False


OURS, AGAIN = "ours", "ours again"
"""The names of the first side's two rates."""


def why(error: Exception) -> str:
    """Return why something cannot be timed: what a Problem says, of anything else the kind and the first line."""
    return str(error) if isinstance(error, Problem) else told(error)


def working(sides: Sequence[Side], wait: Callable[[], object] = nothing) -> tuple[list[Side], dict[str, str]]:
    """Call each side once; return those that work here, and why the others, by name, do not. ``wait`` as in ``rates``.

    The first, ours, has to work: what it raises is raised.
    """
    found: list[Side] = []
    missing: dict[str, str] = {}
    for side in sides:
        try:
            seconds(side, 1, lambda: 0.0, wait)
        except Exception as error:
            if not found:
                raise
            missing[side.name] = why(error)
            continue
        found.append(side)
    return found, missing


def rates(
    sides: Sequence[Side], rounds: int, *, clock: Callable[[], float], wait: Callable[[], object] = nothing,
    slice_s: float = SLICE_S,
) -> dict[str, list[float]]:  # fmt: skip
    """Return the units a second of each side, one a round, and under AGAIN those of the first side once more.

    Every side is warmed up, and its number of calls a slice found, before the first round. ``wait`` returns once a
    device has done all it was given: each clock is read behind it. A round times the first side, the others, and the
    first again, and every other round goes backwards: a machine that slowly gets slower slows all of them alike.
    """
    calls = [calls_a_slice(side, clock, wait, slice_s) for side in sides]
    order = [*enumerate(side.name for side in sides), (0, AGAIN)]
    order[0] = (0, OURS)
    found: dict[str, list[float]] = {name: [] for _, name in order}
    for number in range(rounds):
        for at, name in order if number % 2 == 0 else reversed(order):
            side = sides[at]
            found[name].append(calls[at] * side.units / seconds(side, calls[at], clock, wait))
    return found


def calls_a_slice(side: Side, clock: Callable[[], float], wait: Callable[[], object], slice_s: float) -> int:
    """Return how many calls fill a slice, having warmed the side up by as many at least.

    By the quicker of two slices: one that something else held up would settle on too few, for all rounds.
    """
    seconds(side, 1, clock, wait)  # what is built, compiled or read on the first call
    calls = 1
    while (took := min(seconds(side, calls, clock, wait) for _ in range(2))) < slice_s and calls < MOST_CALLS:
        more = min(10.0, 1.1 * slice_s / took) if took > 0 else 10.0
        calls = min(MOST_CALLS, math.ceil(calls * more))
    return calls


def seconds(side: Side, calls: int, clock: Callable[[], float], wait: Callable[[], object]) -> float:
    """Return the seconds of so many calls, what the side does around its clock left out."""
    try:
        side.before()
        wait()
        start = clock()
        for _ in range(calls):
            side.call()
        wait()
        return clock() - start
    finally:
        side.after()
