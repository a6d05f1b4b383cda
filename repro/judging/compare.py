"""Which observations an expectation compares, and the estimate that follows from them; no verdict yet."""

from collections.abc import Sequence
from typing import NamedTuple

from repro.experiments import Experiment, Observation, Observed
from repro.judging.rules import unit
from repro.judging.stats import (
    Estimate,
    Sample,
    difference_interval,
    log_sample,
    max_interval,
    mean_interval,
    proportion_interval,
    ratio_interval,
    sample,
)  # fmt: skip
from repro.spec import Condition, Expectation


class Compared(NamedTuple):
    """What an expectation compares: its arms (one or two), the observations of each, and their samples.

    For a max there is one group per metric, all of the same arm.
    """

    arms: tuple[str, ...]
    groups: tuple[tuple[Observation, ...], ...]
    samples: tuple[Sample, ...]
    """Empty where a group has no observations."""
    unit: str
    evidence: str

    @property
    def exact(self) -> tuple[bool, ...]:
        """For each group, whether all of its values are known, none of them only a bound."""
        return tuple(all(o.exact for o in group) for group in self.groups)


def groups(e: Expectation, observed: Observed) -> tuple[tuple[Observation, ...], ...]:
    """Return the observations that ``e`` compares: a group per arm, or per metric where it names several."""
    arms = (e.of,) if e.over is None else (e.of, e.over)
    return tuple(observed.values.get(name, {}).get(arm, ()) for name in e.observables for arm in arms)


def samples(e: Expectation, found: Sequence[Sequence[Observation]]) -> tuple[Sample, ...]:
    """Return the sample of each group, of logarithms for a ratio; none at all where a group is empty."""
    make = log_sample if e.statistic == "ratio" else sample
    return tuple(make([o.value for o in group], max(o.resolution for o in group)) for group in found if all(found))


def compared(e: Expectation, condition: Condition, observed: Observed, experiment: Experiment) -> Compared:
    """Return what ``e`` compares; values that are computed, not measured (scale static), get a variance of 0."""
    found = groups(e, observed)
    known = samples(e, found)
    if condition.scale == "static":
        known = tuple(s._replace(variance=0.0) for s in known)
    arms = (e.of,) if e.over is None else (e.of, e.over)
    return Compared(arms, found, known, unit(e, experiment.UNITS), experiment.EVIDENCE)


def silent(e: Expectation, compared: Compared, seeds: Sequence[int]) -> list[str]:
    """Return which seeds ended without a value that ``e`` needs: leaving them out would select among the seeds."""
    names = [f"{metric} of {arm}" for metric in e.observables for arm in compared.arms]
    found = []
    for name, group in zip(names, compared.groups, strict=True):
        said = {o.seed for o in group}
        lacks = [str(seed) for seed in seeds if group and seed not in said]
        found += [f"{name} was not measured with seed {', '.join(lacks)}"] if lacks else []
    return found


def equal(e: Expectation, compared: Compared) -> list[str]:
    """Return that all seeds agree to the last digit, by chance or by a fault, and show no spread; empty otherwise."""
    if e.statistic == "proportion" or not compared.samples or any(s.variance for s in compared.samples):
        return []
    return [f"the seeds of {' and of '.join(compared.arms)} agree to the last digit, which tells no spread"]


def estimate(e: Expectation, compared: Compared, confidence: float) -> Estimate:
    """Return the estimate for ``e``; its interval is open on the side of an arm that is not exact."""
    samples, exact = compared.samples, compared.exact
    if e.statistic == "value":
        return mean_interval(samples[0], confidence, exact=exact[0])
    if e.statistic == "max":
        return max_interval(samples, confidence, exact=all(exact))
    if e.statistic == "proportion":
        return proportion_interval(samples[0], confidence)
    find = ratio_interval if e.statistic == "ratio" else difference_interval
    return find(samples[0], samples[1], confidence, of_exact=exact[0], over_exact=exact[1])
