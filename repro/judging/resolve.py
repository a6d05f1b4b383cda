"""What a condition's planned seeds can resolve: statistical power for the claim's band, before anything is run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from repro import experiments
from repro.datasets import DATASETS
from repro.experiments import Observed
from repro.judging import compare
from repro.judging.power import chances, required_n
from repro.judging.rules import ALPHA, SEEDS_LOOKED_AHEAD, in_words, together, unit
from repro.judging.stats import proportion_interval, sample
from repro.spec import Claim, Condition, Expectation, expectations
from repro.store import Trial

ASSUMED_LOG_SD = 0.1
"""Assumed scatter of a time over seeds, a tenth of it, until one is measured; reference simulations take the same."""

ALONE = "that of the test images alone"
WANTED = 0.8


class Resolved(NamedTuple):
    """What ``n`` seeds per arm can say about one expectation; chances in 0..1, None where nothing can be computed."""

    name: str
    n: int
    sd: float | None
    """Standard deviation over the seeds of an arm, in the metric's unit; of the logarithm for a ratio."""
    source: str
    """Where the standard deviation is from, or why there is none."""
    if_true: float | None
    """Chance of REPRODUCED (on reduced data: of the claimed direction) if the published value is the truth."""
    if_null: float | None
    """Chance of NOT_REPRODUCED if there is no effect; None also where the claim has no null or the data are reduced."""
    needed: int | None
    """Seeds per arm for a chance of 80% if the claim is true; None where even 50 are too few."""
    detects: float | None = None
    """The true value whose direction these seeds show 80 times in 100; None also without a null, or with one seed."""
    unit: str = ""
    """Unit of ``sd`` and ``detects`` with a blank before it: points for errors in percent, empty for all else."""


class _Spread(NamedTuple):
    """Standard deviation over the seeds of an arm, and the least that the judge takes; of logarithms for a ratio."""

    sd: float | None
    floor: float
    source: str


def resolves(
    claim: Claim, condition: Condition, trials: Sequence[Trial], seeds: Sequence[int],
    looks: Sequence[Sequence[int]] = (),
) -> list[Resolved]:  # fmt: skip
    """Return what the seeds resolve for each expectation of a condition, from the spreads measured so far.

    Before that, errors get the least possible spread, that of the test images, and ratios ``ASSUMED_LOG_SD``. ``looks``
    are the seed lists of the runs so far: seeds that are not among them are one more look, at its share of alpha.
    """
    wanted = [] if condition.scale == "smoke" else expectations(claim, condition.name)
    experiment = experiments.get(claim.experiment)
    done = {trial.spec.key: trial for trial in trials}
    observed = experiment.observe(condition.arms, condition.seeds, done)
    more = not set(seeds) <= {seed for look in looks for seed in look}
    level = _Level(ALPHA / max(1, len(looks) + more), together(wanted, condition))
    return [_resolved(e, condition, experiment, observed, len(seeds), level) for e in wanted]


class _Level(NamedTuple):
    """The level at which the judge will test, in the arguments of ``chances``."""

    alpha: float
    together: int


def _resolved(
    e: Expectation, condition: Condition, experiment: experiments.Experiment, observed: Observed, n: int, level: _Level
) -> Resolved:  # fmt: skip
    nothing = Resolved(in_words(e, alone=len(condition.arms) == 1), n, None, "", None, None, None)
    if condition.scale == "static":
        return nothing._replace(source="computed, so known without a spread")
    truth = e.published.number if e.published.op == "=" or e.null is None else None  # "more than 1" has no size
    if condition.scale == "reduced" and e.null is None:
        return nothing._replace(source="an absolute value is not tested on reduced data")
    if e.statistic == "proportion":
        truth = e.accept[1] if truth is None else truth  # "every run" is a share of one
        share, enough = _share(e, truth, n, level.alpha), _enough(e, truth, level.alpha)
        return nothing._replace(source="exact, of so many runs", if_true=share, needed=enough)
    if e.statistic == "max":
        return nothing._replace(source="the largest of several has no simple power")
    sd, floor, source = _spread(e, condition, experiment, observed)
    if sd is None:
        return nothing._replace(source=source)
    sds = (sd,) * (1 + e.compares)
    how = level._asdict() | {"floor": floor}
    points = unit(e, experiment.UNITS) in ("%", "points")
    nothing = nothing._replace(
        sd=sd, source=source, detects=_detects(e, sds, n, how), unit=" points" if points else ""
    )  # fmt: skip
    if truth is None:
        return nothing
    field = "shown" if condition.scale == "reduced" else "reproduced"
    if_true = getattr(chances(e, truth, sds, n, **how), field)
    needed = required_n(e, truth, sds, wanted=field, power=WANTED, **how)
    if_null = None
    if e.null is not None and condition.scale != "reduced":
        if_null = chances(e, e.null, sds, n, **how).not_reproduced
    return nothing._replace(if_true=if_true, if_null=if_null, needed=needed)


def _spread(e: Expectation, condition: Condition, experiment: experiments.Experiment, observed: Observed) -> _Spread:
    """Return the spread over seeds to plan with and its source; ``source`` says why, where there is no spread."""
    ratio = e.statistic == "ratio"
    groups = compare.groups(e, observed)
    if all(len(group) > 1 for group in groups):
        floors = [max(o.resolution for o in group) for group in groups]
        try:
            found = compare.samples(e, groups)
        except ValueError:  # the judge says what is wrong with them
            return _Spread(None, 0.0, "the records cannot be judged")
        sd = math.sqrt(sum(s.variance for s in found) / len(found))
        least = max(floor / (math.exp(s.mean) if ratio else 1) for s, floor in zip(found, floors, strict=True))
        if not math.isfinite(sd):
            return _Spread(None, 0.0, "a record does not say how finely it was measured")
        return _Spread(sd or None, least, "measured" if sd else "seeds agree to the last digit")
    if ratio:
        return _Spread(ASSUMED_LOG_SD, 0.0, "assumed until measured")
    known = DATASETS.get(condition.any_arm.dataset)
    images = known.test if known and known.exact else None
    if experiment.UNITS[e.metrics[0]] in ("%", "points") and images:
        images = min(images, experiment.EXAMINED or images)
        alone = 100 * math.sqrt(0.25 / (2 * images))  # between trainings: repro.experiments.final_error.resolution
        return _Spread(alone, alone, f"{ALONE}: {images:,} at an error of one half")
    return _Spread(None, 0.0, "no spread known before it is measured")


def _detects(e: Expectation, sds: tuple[float, ...], n: int, how: Mapping[str, Any]) -> float | None:
    """Return the value nearest to ``null`` whose direction is shown four times in five, found by bisection."""
    if e.null is None or n < 2:
        return None
    side = 1.0 if e.null <= e.accept[0] else -1.0
    near, far = 0.0, 20 * max(sds)
    for _ in range(14):  # to about a thousandth of a standard deviation
        middle = (near + far) / 2
        truth = e.null * math.exp(side * middle) if e.statistic == "ratio" else e.null + side * middle
        seen = chances(e, truth, sds, n, **how).shown >= WANTED
        near, far = (near, middle) if seen else (middle, far)
    return e.null * math.exp(side * far) if e.statistic == "ratio" else e.null + side * far


def _share(e: Expectation, truth: float, n: int, alpha: float) -> float:
    """Return the chance that the interval of a share of ``n`` runs lies inside the band, given the true share."""
    low, high = e.accept
    inside = 0.0
    for k in range(n + 1):
        ones = [1.0] * k + [0.0] * (n - k)
        i = proportion_interval(sample(ones), 1 - 2 * alpha)
        chance = math.comb(n, k) * truth**k * (1 - truth) ** (n - k)
        inside += chance if low <= i.low and i.high <= high else 0.0
    return inside


def _enough(e: Expectation, truth: float, alpha: float) -> int | None:
    return next((n for n in range(1, SEEDS_LOOKED_AHEAD + 1) if _share(e, truth, n, alpha) >= WANTED), None)


def sentence(r: Resolved, scale: str) -> str:
    """Return in one sentence what the seeds resolve."""
    seeds = f"{r.n} seed{'s' if r.n != 1 else ''} per arm"
    if r.if_true is None and r.detects is None:
        return f"{r.name}: {r.source}"
    spread = f", with an SD of {r.sd:.2g}{r.unit} ({r.source})," if r.sd is not None else f" ({r.source})"
    parts = []
    if r.if_true is not None:
        what = "show the claimed direction" if scale == "reduced" else "say REPRODUCED"
        told = f"{what} {_of_100(r.if_true)} if the claim is true as published"
        if r.if_true < WANTED:
            far = f"not even {SEEDS_LOOKED_AHEAD} would"
            told += f" ({f'{r.needed} would' if r.needed else far} 80 times)"
        parts.append(told)
    if r.if_null is not None:
        parts.append(f"say NOT_REPRODUCED {_of_100(r.if_null)} if there is no effect")
    if r.detects is not None:
        what, digits = ("effect", 2) if r.unit or r.sd is None else ("ratio", 3)  # with two, 1.03 would be no effect
        parts.append(f"show the direction of a true {what} of {r.detects:.{digits}g}{r.unit} 80 times in 100")
    if r.source.startswith(ALONE):
        parts.append("this is the best case, as seeds scatter by more than their test images")
    return f"{r.name}: {seeds}{spread} {'; '.join(parts)}"


def _of_100(chance: float) -> str:
    return f"{100 * chance:.0f} times in 100" if 0.01 <= chance <= 0.99 else (
        "less than once in 100" if chance < 0.01 else "more than 99 times in 100"
    )  # fmt: skip
