"""Experiment ``epochs-to``: how many epochs an arm needs until its training error reaches a target.

Learning rates are "chosen independently to make training as fast as possible" (Figure 1): each arm gets a
search over the same grid on a seed of its own, then fresh seeds are scored at the rate it chose. A rate is
given up as soon as it cannot win: its trial is stopped at the best time found so far, which leaves the
choice of the best rate untouched. Where an arm's best rate is the grid's first or last, the grid grows on that
side for all arms alike.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from repro import paper
from repro.experiments import CommonParameters, Observation, Observed, Planned
from repro.store import Trial, TrialSpec

NAME = "epochs-to"
NUMERICS = 1
METRICS = ("epochs-to",)
UNIT = "epochs"
MEASUREMENT = "epochs-to"
TRAINED = "epochs-trained"


class Parameters(CommonParameters):
    """Parameters of one arm under one condition; errors are fractions in 0..1, rates per the protocol's batch."""

    net: Literal["conv-local-13pct", "18pct", "19pct"]
    activation: Literal["relu", "tanh", "sigmoid"]
    dataset: Literal["cifar10", "embedded"]
    protocol: Literal["code", "modern"]
    target: Annotated[float, Field(gt=0, lt=1)] = paper.FIGURE_1_TARGET
    batch: Annotated[int, Field(ge=1)] = paper.BATCH
    checks_per_epoch: Annotated[int, Field(ge=1)] = 10
    precision: Literal["fp32"] = "fp32"
    max_epochs: Annotated[float, Field(gt=1)]
    rates: Annotated[tuple[float, ...], Field(min_length=3)]
    widenings: Annotated[int, Field(ge=0)] = 4
    tuning_seed: int = 1000
    hopeless_epochs: Annotated[float, Field(gt=0)] = 12
    """A tuning trial still at chance after so many epochs is given up."""


FACTORS = ("net", "activation")
"""What may tell one arm from another; everything else is the condition's."""

NOT_DECISIVE = ("max_epochs", "rates", "widenings", "tuning_seed", "hopeless_epochs")
"""They decide which trials are run and how far, not what a trial measures."""


def seed_faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a condition's scoring seeds."""
    faults = [] if len(set(seeds)) == len(seeds) else ["a seed stands twice"]
    if parameters.tuning_seed in seeds:
        faults.append(f"{parameters.tuning_seed} is the tuning seed; score on fresh ones")
    return faults


def spec(parameters: Parameters, seed: int, rate: float) -> TrialSpec:
    """Return the spec of one trial at one learning rate.

    Parameters at their default stay out of it, so that a new parameter leaves old identities as they are; a
    changed default needs a raised NUMERICS.
    """
    config = parameters.model_dump(mode="json", exclude=set(NOT_DECISIVE), exclude_defaults=True) | {"rate": rate}
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config=config, seed=seed)


def grid(rates: Sequence[float], lower: int, upper: int) -> list[float]:
    """Return the rates, ascending, grown by ``lower`` and ``upper`` steps in the ratio of their end pairs."""
    values = sorted(rates)
    down, up = values[1] / values[0], values[-1] / values[-2]
    below = [_round(values[0] / down**k) for k in range(lower, 0, -1)]
    above = [_round(values[-1] * up**k) for k in range(1, upper + 1)]
    return [*below, *values, *above]


def _round(rate: float) -> float:
    return float(f"{rate:.6g}")  # so that a grown grid gives the same identity on every machine


class Search:
    """The state of the learning-rate search, read off the trials done so far."""

    def __init__(self, arms: Mapping[str, Parameters], done: Mapping[str, Trial]) -> None:
        first = next(iter(arms.values()))
        self.arms, self.done = arms, done
        lower = upper = 0
        while True:
            self.rates = grid(first.rates, lower, upper)
            best = {arm: self.best(arm) for arm in arms}
            self.complete = all(not self.unfinished(arm) for arm in arms)
            self.at_edge = tuple(a for a, rate in best.items() if rate in (self.rates[0], self.rates[-1]))
            grow_down = any(rate == self.rates[0] for rate in best.values()) and lower < first.widenings
            grow_up = any(rate == self.rates[-1] for rate in best.values()) and upper < first.widenings
            if not self.complete or not (grow_down or grow_up):
                return
            lower, upper = lower + grow_down, upper + grow_up

    def trial(self, arm: str, rate: float) -> Trial | None:
        parameters = self.arms[arm]
        return self.done.get(spec(parameters, parameters.tuning_seed, rate).key)

    def times(self, arm: str) -> dict[float, float]:
        """Return epochs to the target of each rate that reached it."""
        found = {rate: self.trial(arm, rate) for rate in self.rates}
        return {rate: t.value(MEASUREMENT) for rate, t in found.items() if t and t.status == "completed"}

    def best(self, arm: str) -> float | None:
        """Return the arm's fastest rate, None while none has reached the target."""
        times = self.times(arm)
        return min(times, key=lambda rate: (times[rate], rate)) if times else None

    def limit(self, arm: str) -> float:
        """Return how many epochs a further rate may take before it has lost."""
        return min([self.arms[arm].max_epochs, *self.times(arm).values()])

    def unfinished(self, arm: str) -> list[float]:
        """Return the rates still to be tried, from the middle of the first grid outwards."""
        limit = self.limit(arm)
        rates = [rate for rate in self.rates if not _settled(self.trial(arm, rate), limit)]
        middle = sorted(self.arms[arm].rates)[(len(self.arms[arm].rates) - 1) // 2]
        return sorted(rates, key=lambda rate: abs(math.log(rate / middle)))


def _settled(trial: Trial | None, limit: float) -> bool:
    """Whether a trial's outcome stands: a failed one is tried again, a censored one if it may now go further."""
    if trial is None or trial.status in ("running", "failed"):
        return False
    return trial.status != "censored" or trial.limit is None or trial.limit >= limit - 1e-9


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
    """Return the trials that can be run now, most useful first; empty when the condition is complete.

    ``done`` maps spec keys to trials. The list changes as trials end: scoring waits for the search.
    """
    search = Search(arms, done)
    if not search.complete:
        queues = {arm: search.unfinished(arm) for arm in arms}
        plan = []
        for turn in range(max(map(len, queues.values()))):  # arms in turn, so that parallel workers serve both
            for arm, rates in queues.items():
                if turn < len(rates):
                    parameters = arms[arm]
                    trial = spec(parameters, parameters.tuning_seed, rates[turn])
                    plan.append(Planned(arm, trial, "tuning", search.limit(arm)))
        return plan
    plan = []
    for seed in seeds:
        for arm, parameters in arms.items():
            rate = search.best(arm)
            if rate is None:
                continue  # no rate reached the target; observe() reports the bound
            trial = spec(parameters, seed, rate)
            if not _settled(done.get(trial.key), parameters.max_epochs):
                plan.append(Planned(arm, trial, "scoring", parameters.max_epochs))
    return plan


def planned_epochs(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
    """Return an upper estimate of the epochs still to be trained: what is pending at its limit.

    Before the search has found a time, every rate counts in full; afterwards only up to the best one.
    """
    search = Search(arms, done)
    left = sum(len(search.unfinished(arm)) * search.limit(arm) for arm in arms)
    for arm, parameters in arms.items():
        rate = search.best(arm)
        scored = [s for s in seeds if rate and _settled(done.get(spec(parameters, s, rate).key), parameters.max_epochs)]
        left += (len(seeds) - len(scored)) * search.limit(arm)
    return left


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what the trials of a condition say about ``epochs-to``, and what is missing."""
    search = Search(arms, done)
    shown = [(arm, "tuning", t) for arm in arms for rate in search.rates if (t := search.trial(arm, rate))]
    values: dict[str, tuple[Observation, ...]] = {}
    missing: list[str] = []
    failed = [
        f"{arm}, tuning, rate {t.spec.config['rate']}: {t.message}" for arm, _, t in shown if t.status == "failed"
    ]
    undecided: list[str] = []
    for arm, parameters in arms.items():
        rates = search.unfinished(arm)
        if rates:
            missing.append(f"{arm}: search at {', '.join(f'{rate:g}' for rate in rates)}")
        best = search.best(arm)
        if search.complete and best is None:
            bound = Observation(parameters.tuning_seed, parameters.max_epochs, exact=False, identity="")
            values[arm] = (bound,) * len(seeds)
            continue
        found = []
        for seed in seeds:
            trial = done.get(spec(parameters, seed, best).key) if best is not None and search.complete else None
            if trial is None or trial.status == "running" or not _settled(trial, parameters.max_epochs):
                missing.append(f"{arm}: seed {seed}")
                continue
            shown.append((arm, "scoring", trial))
            if trial.status == "failed":
                failed.append(f"{arm}, seed {seed}: {trial.message}")
            elif trial.status == "completed":
                found.append(Observation(seed, trial.value(MEASUREMENT), exact=True, identity=trial.identity))
            else:
                limit = parameters.max_epochs if trial.limit is None else trial.limit
                found.append(Observation(seed, limit, exact=False, identity=trial.identity))
        values[arm] = tuple(found)
    if search.complete:
        undecided += [f"the best learning rate of {arm} is on the edge of the grid" for arm in search.at_edge]
        coarse = [
            f"{arm} is timed in steps of 1/{parameters.checks_per_epoch} epoch, too coarse for its time"
            for arm, parameters in arms.items()
            if any(o.value < 10 / parameters.checks_per_epoch for o in values[arm])
        ]
        undecided += coarse
    return Observed({MEASUREMENT: values}, tuple(missing), tuple(failed), tuple(undecided), tuple(shown))
