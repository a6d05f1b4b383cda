"""What is left to run and what it takes: trials, hours and disk of every condition, on one machine or on many."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from repro import experiments
from repro.datasets import DATASETS
from repro.planning import plan, reuse
from repro.spec import Claim, Condition
from repro.store import Trial

STATE_BYTES = 16
"""Bytes on disk per parameter of a trial under way: weight and velocity in single precision, in two checkpoints."""

PARAMETERS = {
    "alexnet": 60_965_224, "alexnet-32": 417_672, "batch-norm-clone": 62_381_096, "conv-local-13pct": 1_116_490,
    "18pct": 89_578, "19pct": 89_578,
}  # fmt: skip
"""Trainable parameters of each net, with one output for each class of its usual data set."""

PICTURE_BYTES = 28_000
"""Bytes of a prepared picture of 256 x 256 pixels: the mean over the 13,394 of imagenette160 is 27,747."""


class Left(NamedTuple):
    """One condition of a claim: what is done, what is left, and what that takes on one device of one machine."""

    claim: str
    condition: str
    scale: str
    done: int
    planned: int
    """Trials, done or left, that are known so far; a search for a learning rate may ask for more."""
    stale: int
    seconds: float
    measured: bool
    """Whether the speed behind ``seconds`` was measured here, rather than assumed by the claim file."""
    disk: int
    """Bytes of the state of a trial under way, and of the prepared pictures that are not there yet."""
    against: str
    """Why it cannot be run here; empty where it can."""
    tasks: tuple[tuple[str, float], ...]
    """The spec key of each trial that is left, and its seconds."""


class Machines(NamedTuple):
    """What trials are spread over: ``machines``, each with so many ``gpus``, or with its one CPU where that is 0."""

    machines: int
    gpus: int

    @property
    def workers(self) -> int:
        return self.machines * max(1, self.gpus)


def left(
    claims: Mapping[str, Claim], trials: Sequence[Trial], asked: reuse.Demand, *, scales: Sequence[str], device: str,
    gpus: int, data: Path | None, seeds: int | None = None, condition: str | None = None,
) -> list[Left]:  # fmt: skip
    """Return what is left of each condition of these scales (or of the one named), in the registry's order.

    ``asked`` is all that the registry asks for, so that a trial is not called stale where another claim uses it.
    """
    apart = [reuse.stale(trial, asked) for trial in trials]
    wasted: dict[tuple[str, str], int] = {}
    for one in apart:
        if one is not None and one.nearest is not None:
            place = (one.nearest.claim, one.nearest.condition)
            wasted[place] = wasted.get(place, 0) + 1
    found = []
    for claim in claims.values():
        for c in claim.conditions.values():
            if c.name == condition or (condition is None and c.scale in scales):
                stale = wasted.get((claim.id, c.name), 0)
                found.append(_left(claim, c, trials, device, gpus, data, c.seeds[:seeds], stale))
    return found


def _left(
    claim: Claim, condition: Condition, trials: Sequence[Trial], device: str, gpus: int, data: Path | None,
    seeds: Sequence[int], stale: int,
) -> Left:  # fmt: skip
    experiment = experiments.get(claim.experiment)
    done = {trial.spec.key: trial for trial in trials}
    against = condition.blocked or plan.lacks(condition, gpus) or ""
    todo = [] if condition.blocked else experiment.pending(condition.arms, seeds, done)
    open_ = {planned.spec.key for planned in todo}
    seen = {t.spec.key for _, _, t in experiment.observe(condition.arms, seeds, done).trials}
    cost = plan.cost(claim, condition, seeds, trials, device)
    images = plan.training_images(claim, condition)
    each = [p.limit * images / cost.images_per_s if cost.images_per_s else 0.0 for p in todo]
    rest = cost.seconds - sum(each)  # of trials of a search that are not known yet: spread over those that are
    more = rest / len(each) if each and 0 < rest < float("inf") else 0.0
    if rest < 0:  # seeds are scored in less time than they may take at most
        each = [seconds * cost.seconds / sum(each) for seconds in each]
    return Left(
        claim.id, condition.name, condition.scale, len(seen - open_), len(seen | open_), stale,
        0.0 if condition.blocked else cost.seconds, cost.measured, _disk(condition, len(todo), data), against,
        tuple((p.spec.key, seconds + more) for p, seconds in zip(todo, each, strict=True)),
    )  # fmt: skip


def _disk(condition: Condition, trials: int, data: Path | None) -> int:
    """Return the bytes a condition takes besides its records: the state of a trial under way, pictures to prepare."""
    p = condition.any_arm
    state = STATE_BYTES * PARAMETERS.get(getattr(p, "net", ""), 0) if trials else 0
    lacking = trials and plan.lacks_data(condition, data) and getattr(p, "stored", 0) == 256
    return state + (PICTURE_BYTES * DATASETS[p.dataset].train if lacking else 0)


def makespan(tasks: Iterable[float], workers: int) -> float:
    """Return the seconds that ``workers`` need for trials that cannot be split, if they begin with the longest.

    That is at most 4/3 of what the best schedule takes. Source: Graham (1969), SIAM J. Appl. Math. 17.
    """
    ends = [0.0] * max(1, workers)
    for seconds in sorted(tasks, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


FEWEST_SEEDS = 3
"""With two seeds, Student's factor is 6.3 at 90% and an interval says next to nothing: no budget is met with those."""


class Fit(NamedTuple):
    """What a budget has room for: a condition of a claim, how many of its seeds, what was given up to make it fit."""

    claim: str
    condition: str
    seeds: int
    planned: int
    seconds: float
    gave_up: str


def fit(
    claims: Mapping[str, Claim], trials: Sequence[Trial], *, budget_s: float, machines: Machines, device: str,
    data: Path | None, elsewhere: bool = False,
) -> tuple[list[Fit], list[str]]:  # fmt: skip
    """Return what fits into ``budget_s`` on these machines, and a line for each claim of which nothing fits.

    ``elsewhere``: the machines do not include this one, so data that is not here is assumed to be there.

    Claims take their turns in the registry's order. Each gets its headline, or else the largest of its conditions that
    fits into the time left, with as many of its seeds as there is room for. A smoke condition answers nothing, so none
    is chosen unless it is the headline. Where `run` would take one all the same, the claim's line says so.
    """
    chosen: list[Fit] = []
    refused = []
    room = budget_s * machines.workers
    for claim in claims.values():
        against: list[str] = []
        for condition in plan.by_worth(claim):
            if condition.scale == "smoke" and condition.name != claim.headline:
                continue
            lack = None if elsewhere else plan.lacks_data(condition, data)
            found = _most_seeds(claim, condition, trials, room, device, machines.gpus, lack)
            if isinstance(found, Fit):
                gave_up = "; ".join(filter(None, [found.gave_up, *against[:1]]))
                chosen.append(found._replace(gave_up=gave_up))
                room -= found.seconds
                break
            against.append(f"{condition.name}: {found}")
        else:
            unasked = None if elsewhere else plan.choose(
                claim, trials=trials, device=device, gpus=machines.gpus, data=data, download=False, budget_s=budget_s
            ).condition  # fmt: skip
            command = f"`repro run claim {claim.id} --budget {plan.as_typed(budget_s)}`"
            refused.append(f"{claim.id}: {against[0]}" + (f"; {command} takes {unasked.name}" if unasked else ""))
    return chosen, refused


def _most_seeds(
    claim: Claim, condition: Condition, trials: Sequence[Trial], room: float, device: str, gpus: int, lack: str | None
) -> Fit | str:
    """Return a condition with as many of its seeds as there is room for, or why it is not chosen."""
    if reason := condition.blocked or plan.lacks(condition, gpus) or lack:
        return reason
    planned = len(condition.seeds)
    seconds = [plan.cost(claim, condition, condition.seeds[:n], trials, device).seconds for n in range(planned + 1)]
    for n in range(planned, min(planned, FEWEST_SEEDS) - 1, -1):
        if seconds[n] <= room:
            gave_up = f"{planned - n} of {planned} seeds ({plan.duration(seconds[planned])})" if n < planned else ""
            return Fit(claim.id, condition.name, n, planned, seconds[n], gave_up)
    fewest = f" even with {FEWEST_SEEDS} seeds" if planned > FEWEST_SEEDS else ""
    return f"takes {plan.bound(seconds[min(planned, FEWEST_SEEDS)])}{fewest}"
