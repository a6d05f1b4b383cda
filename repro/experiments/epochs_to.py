"""Experiment ``epochs-to``: how many epochs an arm needs until its training error reaches a target.

Learning rates are "chosen independently to make training as fast as possible" (Figure 1): each arm searches the
same grid with a seed that is kept for the search, then fresh seeds are scored at the arm's best rate. A rate is
given up as soon as it cannot win: its trial is stopped at the best time found so far, which cannot change which
rate is best. Where the best rate of any arm is the first or the last of the grid, the grid grows on that side for
all arms alike. Where an arm reached the target at no rate, it grows on both sides.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from repro import choices, paper
from repro.experiments import TRAINED, CommonParameters, Observation, Observed, Planned, Shown, repeated
from repro.store import Trial, TrialSpec

NAME = "epochs-to"
NUMERICS = 1
UNITS = {"epochs-to": "epochs"}
VIEWED = ()
EVIDENCE = "measured"
TIMED = False
EXAMINED = None
MEASUREMENT = "epochs-to"
SLACK = 1.5  # planned time of a scored seed over the search's best: its seed is fresh, and it goes on past the target


class Parameters(CommonParameters):
    """Parameters of one arm under one condition; errors are in 0..1, learning rates are for a batch's mean loss."""

    net: Literal["conv-local-13pct", "18pct", "19pct"]
    activation: choices.Activation
    dataset: Literal["cifar10", "embedded"]
    protocol: Literal["code", "modern"]
    target: Annotated[float, Field(gt=0, lt=1)] = paper.FIGURE_1_TARGET
    batch: Annotated[int, Field(ge=1, le=4096)] = paper.BATCH
    checks_per_epoch: Annotated[int, Field(ge=1, le=1000)] = 10
    precision: choices.Precision = "fp32"
    max_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    rates: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=3)]
    widenings: Annotated[int, Field(ge=0)] = 4
    tuning_seed: int = 1000


FACTORS = ("net", "activation", "precision")
"""The parameters in which arms may differ; all others belong to the condition."""

NOT_DECISIVE = ("max_epochs", "rates", "widenings", "tuning_seed")
"""They decide which trials are run and how far, not what a trial measures."""


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:
    """Return the faults of a condition's scoring seeds and of its grid, each as "key: why"."""
    found = repeated(seeds)
    if parameters.tuning_seed in seeds:
        found.append(f"seeds: {parameters.tuning_seed} is the tuning seed; score on fresh ones")
    if len(set(parameters.rates)) < len(parameters.rates):
        found.append("rates: one stands twice; a grid of equal rates cannot grow")
    return found


def spec(parameters: Parameters, seed: int, rate: float) -> TrialSpec:
    """Return the spec of one trial at one learning rate.

    Parameters at their default are left out, so that a new parameter leaves old identities as they are. Whoever
    changes a default has to raise NUMERICS.
    """
    config = parameters.model_dump(mode="json", exclude=set(NOT_DECISIVE), exclude_defaults=True) | {"rate": rate}
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config=config, seed=seed)


def grid(rates: Sequence[float], lower: int, upper: int) -> list[float]:
    """Return the rates in ascending order, with ``lower`` more below them and ``upper`` more above.

    Each end grows by the ratio of the two given rates that lie next to it.
    """
    values = sorted(rates)
    down, up = values[1] / values[0], values[-1] / values[-2]
    below = [_round(values[0] / down**k) for k in range(lower, 0, -1)]
    above = [_round(values[-1] * up**k) for k in range(1, upper + 1)]
    return [*below, *values, *above]


def _round(rate: float) -> float:
    return float(f"{rate:.6g}")  # so that a grown grid gives the same identity on every machine


class Search(NamedTuple):
    """The state of the learning-rate search: the grid, which all arms share, and the results of each arm on it."""

    rates: tuple[float, ...]
    tried: Mapping[str, Mapping[float, Trial]]
    """arm -> rate -> trial on the tuning seed, ended or not."""
    times: Mapping[str, Mapping[float, float]]
    """arm -> rate -> epochs to the target, for the rates that reached it."""
    limits: Mapping[str, float]
    """arm -> how many epochs a further rate may take before it has lost."""
    unfinished: Mapping[str, tuple[float, ...]]
    """arm -> the rates still to be tried, from the middle of the first grid outwards."""

    @property
    def complete(self) -> bool:
        return not any(self.unfinished.values())

    def best(self, arm: str) -> float | None:
        """Return the arm's fastest rate, None while none has reached the target."""
        times = self.times[arm]
        return min(times, key=lambda rate: (times[rate], rate)) if times else None


def search(arms: Mapping[str, Parameters], done: Mapping[str, Trial]) -> Search:
    """Return the state of the search, from the trials done so far (spec key to trial).

    Once every arm has finished the grid, it grows for all arms by one step on each side where some arm has its best
    rate, at most ``widenings`` times a side. Where an arm has no best rate it grows on both sides, since rates that
    all missed the target may be too low or too high.
    """
    first = next(iter(arms.values()))
    find = cache(lambda arm, rate: _whole(done.get(spec(arms[arm], arms[arm].tuning_seed, rate).key)))
    lower = upper = 0
    while True:
        found = _on(grid(first.rates, lower, upper), arms, find)
        best = [found.best(arm) for arm in arms]
        down = lower < first.widenings and any(rate in (None, found.rates[0]) for rate in best)
        up = upper < first.widenings and any(rate in (None, found.rates[-1]) for rate in best)
        if not found.complete or not (down or up):
            return found
        lower, upper = lower + down, upper + up


def _on(rates: Sequence[float], arms: Mapping[str, Parameters], find: Callable[[str, float], Trial | None]) -> Search:
    """Return the state of the search on one grid."""
    tried, times, limits, unfinished = {}, {}, {}, {}
    for arm, p in arms.items():
        trials = {rate: trial for rate in rates if (trial := find(arm, rate))}
        tried[arm] = trials
        times[arm] = {rate: t.value(MEASUREMENT) for rate, t in trials.items() if t.status == "completed"}
        limits[arm] = min([p.max_epochs, *times[arm].values()])
        left = [r for r in rates if not (_settled(trials.get(r), limits[arm]) or _given_up(trials.get(r)))]
        middle = sorted(p.rates)[(len(p.rates) - 1) // 2]
        unfinished[arm] = tuple(sorted(left, key=lambda rate, middle=middle: abs(math.log(rate / middle))))  # type: ignore[misc]
    return Search(tuple(rates), tried, times, limits, unfinished)


def _whole(trial: Trial | None) -> Trial | None:
    """Return the trial, or None for a completed one whose record lacks the time, so that it is run again."""
    timed = trial is not None and any(m.name == MEASUREMENT for m in trial.measurements)
    return trial if trial is None or timed or trial.status != "completed" else None


def _settled(trial: Trial | None, limit: float) -> bool:
    """Whether a trial's outcome is final: a failed one is tried again, and a censored one if it may now go further."""
    if trial is None or trial.status in ("running", "failed"):
        return False
    return trial.status != "censored" or (trial.limit is not None and trial.limit >= limit - 1e-9)


def _given_up(trial: Trial | None) -> bool:
    """Whether a rate was given up as hopeless: that settles it in a search, but gives no bound for a score."""
    return trial is not None and trial.status == "censored" and trial.limit is None


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
    """Return the trials that can be run now, most useful first; empty when the condition is complete.

    ``done`` maps spec keys to trials. The list changes as trials end: scoring waits for the search. An arm that
    reached the target at no rate has no rate to score; observe() says so.
    """
    state = search(arms, done)
    if not state.complete:
        return [
            Planned(arm, spec(p, p.tuning_seed, state.unfinished[arm][turn]), "tuning", state.limits[arm])
            for turn in range(max(map(len, state.unfinished.values())))  # so parallel workers serve all arms
            for arm, p in arms.items()
            if turn < len(state.unfinished[arm])
        ]
    return [
        Planned(arm, trial, "scoring", p.max_epochs)
        for seed in seeds
        for arm, p in arms.items()
        if (rate := state.best(arm)) is not None
        and not _settled(_whole(done.get((trial := spec(p, seed, rate)).key)), p.max_epochs)
    ]


def planned_epochs(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
    """Return an upper estimate of the epochs still to be trained: more only if the grid grows, or a seed is very slow.

    A rate still to be tried counts with the arm's best time so far, and a seed to be scored with SLACK times that.
    While no rate has reached the target, both count in full.
    """
    state = search(arms, done)
    left = 0.0
    for arm, p in arms.items():
        left += len(state.unfinished[arm]) * state.limits[arm]
        rate = state.best(arm)
        if rate is None:
            left += 0.0 if state.complete else len(seeds) * p.max_epochs
        else:
            open_ = [s for s in seeds if not _settled(_whole(done.get(spec(p, s, rate).key)), p.max_epochs)]
            left += len(open_) * min(p.max_epochs, SLACK * state.times[arm][rate])
    return left


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what the trials of a condition say about ``epochs-to``, and what is missing."""
    state = search(arms, done)
    shown = [Shown(arm, "tuning", trial) for arm in arms for trial in state.tried[arm].values()]
    failed = [
        f"{arm} at the learning rate {t.spec.config['rate']:g} of the search: {t.message}"
        for arm, _, t in shown
        if t.status == "failed"
    ]
    values: dict[str, tuple[Observation, ...]] = {}
    missing = [  # the search first: scoring waits for it
        f"the search of {arm} at {', '.join(f'{rate:g}' for rate in sorted(rates))}"
        for arm, rates in state.unfinished.items()
        if rates
    ]
    for arm, p in arms.items():
        best = state.best(arm)
        if state.complete and best is None:
            values[arm] = ()
            continue
        scored = {s: _whole(done.get(spec(p, s, best).key)) if state.complete and best else None for s in seeds}
        shown += [Shown(arm, "scoring", trial) for trial in scored.values() if trial]
        failed += [f"seed {s} of arm {arm}: {t.message}" for s, t in scored.items() if t and t.status == "failed"]
        settled = {s: t for s, t in scored.items() if t and _settled(t, p.max_epochs)}
        missing += [f"seed {s} of arm {arm}" for s in seeds if s not in settled]
        values[arm] = tuple(_observation(p, s, t) for s, t in settled.items())
    undecided = _undecided(arms, state, values) if state.complete else ()
    return Observed({MEASUREMENT: values}, tuple(missing), tuple(failed), undecided, tuple(shown))


def _observation(p: Parameters, seed: int, trial: Trial) -> Observation:
    """Return what a settled trial says; one that diverged never reaches the target, so it counts as censored.

    A time lies between two checks. If it were uniform there, its standard deviation would be the interval over
    sqrt(12). Interpolation does better, so this is a careful floor of the spread.
    """
    resolution = 1 / (p.checks_per_epoch * math.sqrt(12))
    if trial.status == "completed":
        return Observation(seed, trial.value(MEASUREMENT), True, trial.identity, resolution)
    limit = p.max_epochs if trial.limit is None else trial.limit
    return Observation(seed, limit, False, trial.identity, resolution)


def _undecided(
    arms: Mapping[str, Parameters], state: Search, values: Mapping[str, Sequence[Observation]]
) -> tuple[str, ...]:
    """Return the reasons why a complete condition does not tell the size of the effect; empty where it does."""
    ends = (state.rates[0], state.rates[-1])
    span = f"{len(state.rates)} learning rates from {ends[0]:g} to {ends[1]:g}"
    none = [
        f"{arm} reached the target at none of {span}, {_tried(state.tried[arm].values(), p.max_epochs)}"
        for arm, p in arms.items()
        if state.best(arm) is None
    ]
    edge = [
        f"the best learning rate of {arm}, {best:g}, is on the edge of the grid"
        for arm in arms
        if (best := state.best(arm)) in ends
    ]
    coarse = [
        f"{arm} is timed in steps of 1/{p.checks_per_epoch} epoch, too coarse for its time"
        for arm, p in arms.items()
        if any(o.value < 10 / p.checks_per_epoch for o in values[arm])
    ]
    return (*none, *edge, *coarse)


def _tried(trials: Iterable[Trial], most: float) -> str:
    """Return how long an arm's rates were tried where all missed the target: ``given up after 12 to 100 epochs``."""
    told = [next((m.value for m in t.measurements if m.name == TRAINED), t.limit or most) for t in trials]
    ends = dict.fromkeys(f"{epochs:.3g}" for epochs in (min(told), max(told)))
    return f"given up after {' to '.join(ends)} epochs"
