"""Times the sides of a case in turn, round after round: ours, its peers, ours again. The clock is an argument."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from repro.problem import Problem, told

SLICE_S = 0.25
"""The least seconds of a slice, in which one side is timed: long against a machine's brief interruptions."""

MOST_CALLS = 100_000
"""The most calls in a slice: even with a clock that stands still, the search for a number of calls ends."""


def nothing() -> None:
    """Do nothing: what a side does before and after its clock by default."""


class Side(NamedTuple):
    """What is timed: ``call`` does ``units`` of work (images, steps); the first of a case's sides is ours.

    ``before`` is called before the clock of every slice starts, say to empty a queue, and ``after`` once it stops,
    say to let the queue fill while nothing is timed. A ``foreign`` side runs none of this package's code, so where its
    rate changed from one run to another, the machine did.
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
    """Return why something cannot be timed: a Problem's message, or the kind and first line of another error."""
    return str(error) if isinstance(error, Problem) else told(error)


def working(sides: Sequence[Side], wait: Callable[[], object] = nothing) -> tuple[list[Side], dict[str, str]]:
    """Call each side once; return those that work here, and why the others, by name, do not. ``wait`` as in ``rates``.

    The first, ours, must work: its error is raised.
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
    """Return each side's units a second, one a round; the first side has a second list, under AGAIN.

    Before the first round every side is warmed up, and its number of calls a slice is found. ``wait`` returns once a
    device has done all it was given; the clock is always read after it. A round times the first side, the others, and
    the first again. Every other round goes backwards, so a machine that slowly gets slower slows all sides alike.
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
    """Return how many calls fill a slice, after warming the side up with at least as many.

    The quicker of two slices decides: one that something else delayed would give too few calls, for all rounds.
    """
    seconds(side, 1, clock, wait)  # what is built, compiled or read on the first call
    calls = 1
    while (took := min(seconds(side, calls, clock, wait) for _ in range(2))) < slice_s and calls < MOST_CALLS:
        more = min(10.0, 1.1 * slice_s / took) if took > 0 else 10.0
        calls = min(MOST_CALLS, math.ceil(calls * more))
    return calls


def seconds(side: Side, calls: int, clock: Callable[[], float], wait: Callable[[], object]) -> float:
    """Return the seconds of so many calls, without what the side does before and after its clock."""
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
