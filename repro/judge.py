"""From trials to a verdict: pure, no files, no clock. The rules are the table in README.md, "Verdicts"."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from repro import experiments
from repro.experiments import Observation, Observed
from repro.spec import (
    Claim,
    Condition,
    Expectation,
    Outcome,
    band_text,
    expectations,
    name_text,
    number_text,
    published_text,
)  # fmt: skip
from repro.stats import (
    Estimate,
    Sample,
    difference_interval,
    log_sample,
    mean_interval,
    proportion_interval,
    ratio_interval,
    sample,
)  # fmt: skip
from repro.store import Trial

ALPHA = 0.05  # of each one-sided test: the interval is 1 - 2 ALPHA wide
SEEDS_LOOKED_AHEAD = 50  # how far "seeds that would decide" is searched
PRECEDENCE: tuple[Outcome, ...] = (
    "ERROR", "NOT_TESTED", "NOT_REPRODUCED", "INCONCLUSIVE", "DIRECTION", "REPRODUCED",
    "SMOKE_BROKEN", "SMOKE_OK", "TREND_CONTRARY", "TREND_UNRESOLVED", "TREND_CONSISTENT",
)  # fmt: skip
LOOSELY = "though not at the stricter level at which several expectations together are refuted"
ALIKE = ("device", "torch", "tf32", "loader")
"""What must not tell the arms apart: where these differ, so may the numbers."""


class Judged(NamedTuple):
    """One expectation, our estimate of it (None where there is nothing to estimate from), and what follows."""

    expectation: Expectation
    estimate: Estimate | None
    outcome: Outcome
    reason: str


class Verdict(NamedTuple):
    """What the trials of one condition say about the claim."""

    outcome: Outcome
    reason: str
    judged: tuple[Judged, ...]
    observed: Observed
    seeds: tuple[int, ...]
    looks: int


def judge(claim: Claim, condition: Condition, trials: Sequence[Trial], looks: Sequence[Sequence[int]] = ()) -> Verdict:
    """Return the verdict of one condition from all trials there are; those of other claims are passed over.

    ``looks`` are the seed lists this condition was run with, in order: the last is what was planned, and each one
    before it was a look that costs its share of alpha: who stops at the first of three looks (3, 5, 10 seeds) that
    decides is wrong 6 times in 100 with the truth on the band's edge, against 10 at full alpha. Without any, the
    claim file's seeds are the plan.
    """
    seeds = tuple(looks[-1]) if looks else condition.seeds
    alpha = ALPHA / max(1, len(looks))
    done, twice = _by_key(trials)
    observed = experiments.get(claim.experiment).observe(condition.arms, seeds, done)

    def verdict(outcome: Outcome, reason: str, judged: Sequence[Judged] = ()) -> Verdict:
        return Verdict(outcome, reason, tuple(judged), observed, seeds, len(looks))

    if condition.blocked or not observed.trials:
        return verdict("NOT_TESTED", _untested(claim, condition, len(seeds)))
    begun = {arm for arm, _, _ in observed.trials}
    if not looks and observed.missing and not begun >= set(condition.arms):
        return verdict("NOT_TESTED", f"nobody asked for it: only {', '.join(sorted(begun))} was run, for another claim")
    wanted = expectations(claim, condition.name)
    evidence = experiments.get(claim.experiment).EVIDENCE
    compared = [_compared(e, condition, observed, evidence) for e in wanted]
    if trouble := _trouble(observed, twice):
        broken: Outcome = "SMOKE_BROKEN" if condition.scale == "smoke" else "ERROR"
        judged = [_so_far(e, c, 1 - 2 * alpha, broken) for e, c in zip(wanted, compared, strict=True)]
        return verdict(broken, "; ".join([trouble, *(j.reason for j in judged[:1])]), judged)
    if condition.scale == "smoke":
        outcome, reason = _smoke(observed)
        judged = [_so_far(e, c, 1 - 2 * alpha, outcome) for e, c in zip(wanted, compared, strict=True)]
        return verdict(outcome, reason, [j._replace(reason=reason) for j in judged])
    if not wanted:
        return verdict("NOT_TESTED", f"the claim expects nothing under {condition.name}")
    level = _Level(alpha, ALPHA / (max(1, len(looks)) + 1), len(wanted))
    judged = [
        _judge_one(e, c, condition.scale == "reduced", observed.undecided, level)
        for e, c in zip(wanted, compared, strict=True)
    ]
    # Reduced data say nothing about an absolute value, so it has no part in what they say about the rest.
    counted = [j for j in judged if condition.scale != "reduced" or j.expectation.null is not None] or judged
    worst = min(counted, key=lambda j: PRECEDENCE.index(j.outcome))
    reason = worst.reason if len(wanted) == 1 else f"{name_text(worst.expectation)}: {worst.reason}"
    if len(looks) > 1:
        first = judge(claim, condition, trials, looks[:1])
        reason += f"; as first planned, with {_seeds(len(first.seeds))} an arm, it was {first.outcome}"
    return verdict(worst.outcome, reason, judged)


def _untested(claim: Claim, condition: Condition, seeds: int) -> str:
    """Return why nothing was run under a condition, or what a run would be."""
    if condition.blocked:
        return condition.blocked
    if not experiments.measurable(claim.experiment):
        return f"this version can judge {claim.experiment} trials, but not run them"
    dataset = condition.any_arm.dataset
    needs = "" if dataset == "none" else f" ({_seeds(seeds)} an arm on {dataset})"
    return f"nothing was run under {condition.name}{needs}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _by_key(trials: Sequence[Trial]) -> tuple[dict[str, Trial], dict[str, tuple[Trial, Trial]]]:
    """Return trials by the key of their spec, and pairs that have one key but unlike data."""
    done: dict[str, Trial] = {}
    twice = {}
    for trial in sorted(trials, key=lambda t: t.data_digest):
        key = trial.spec.key
        other = done.setdefault(key, trial)
        if other.data_digest != trial.data_digest:
            twice[key] = (other, trial)
    return done, twice


def _trouble(observed: Observed, twice: Mapping[str, tuple[Trial, Trial]]) -> str:
    """Return why no verdict can be given, in one clause; empty where nothing stands against it."""
    for _, _, trial in observed.trials if twice else ():
        if pair := twice.get(trial.spec.key):
            one, other = (t.data_digest for t in pair)
            return f"the same trial was run on unlike data: data_digest is {one} and {other}"
    if observed.failed:
        return f"a trial failed: {observed.failed[0]}{_more(observed.failed)}"
    if observed.missing:
        return f"not complete, missing {observed.missing[0]}{_more(observed.missing)}"
    digests = Counter(trial.data_digest for _, _, trial in observed.trials)
    if len(digests) > 1:
        one, other, *_ = sorted(digests)
        return (
            f"trials were run on unlike data: data_digest is {one} for {digests[one]} and {other} for {digests[other]}"
        )
    return _unlike(observed)


def _more(found: Sequence[str]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def _unlike(observed: Observed) -> str:
    """Return where the arms ran in unlike environments; empty where every arm has the same ones, as often."""
    for key in ALIKE:
        values: dict[str, Counter[str]] = {}
        for arm, role, trial in observed.trials:
            if role == "scoring":
                values.setdefault(arm, Counter())[str(trial.environment.get(key))] += 1
        first = next(iter(values), "")
        for arm, found in values.items():
            if found != values[first]:
                here, there = _counted(values[first]), _counted(found)
                return f"the arms ran in unlike environments: {key} is {here} for {first} and {there} for {arm}"
    return ""


def _counted(found: Counter[str]) -> str:
    """Return values as a reader says them: ``cpu``, or ``cpu (2) and NVIDIA H200 (1)``."""
    if len(found) == 1:
        return next(iter(found))
    return " and ".join(f"{value} ({n})" for value, n in sorted(found.items()))


class _Compared(NamedTuple):
    """What an expectation compares: its arms (one or two), the observations of each, and their samples.

    Under a max there is one group a metric, all of the same arm.
    """

    arms: tuple[str, ...]
    groups: tuple[tuple[Observation, ...], ...]
    samples: tuple[Sample, ...]
    """Empty where an arm has nothing to say."""
    evidence: str

    @property
    def exact(self) -> tuple[bool, ...]:
        return tuple(all(o.exact for o in group) for group in self.groups)


def _compared(e: Expectation, condition: Condition, observed: Observed, evidence: str) -> _Compared:
    """Return what ``e`` compares; what is computed rather than measured (scale static) is known without a spread."""
    arms = (e.of,) if e.over is None else (e.of, e.over)
    groups = tuple(observed.values.get(name, {}).get(arm, ()) for name in e.observables for arm in arms)
    if not all(groups):
        return _Compared(arms, groups, (), evidence)
    make = log_sample if e.statistic == "ratio" else sample
    samples = tuple(make([o.value for o in group], max(o.resolution for o in group)) for group in groups)
    if condition.scale == "static":
        samples = tuple(s._replace(variance=0.0) for s in samples)
    return _Compared(arms, groups, samples, evidence)


def _estimate(e: Expectation, compared: _Compared, confidence: float) -> Estimate:
    """Return the estimate of what ``e`` expects; an arm that is not exact leaves its side open."""
    samples, exact = compared.samples, compared.exact
    if e.statistic == "value":
        return mean_interval(samples[0], confidence, exact=exact[0])
    if e.statistic == "max":
        return mean_interval(max(samples), confidence)
    if e.statistic == "proportion":
        return proportion_interval(samples[0], confidence)
    find = ratio_interval if e.statistic == "ratio" else difference_interval
    return find(samples[0], samples[1], confidence, of_exact=exact[0], over_exact=exact[1])


def _smoke(observed: Observed) -> tuple[Outcome, str]:
    """Return the answer of a smoke condition: whether everything works, and nothing about the claim."""
    for arms in observed.values.values():
        for arm, found in arms.items():
            if not any(o.exact for o in found):
                return "SMOKE_BROKEN", f"{arm} did not get where it should, with any seed"
    return "SMOKE_OK", "everything ran; synthetic or tiny data say nothing about the claim"


def _so_far(e: Expectation, compared: _Compared, confidence: float, outcome: Outcome) -> Judged:
    """Return an estimate that is shown and counts for nothing."""
    if not compared.samples:
        return Judged(e, None, outcome, "nothing to estimate from yet")
    estimate = _estimate(e, compared, confidence)
    return Judged(e, estimate, outcome, f"so far {describe(e, estimate, compared.evidence)}")


class _Level(NamedTuple):
    """At what level to test: each one-sided test at ``alpha``, one more look at ``next_alpha``.

    ``together`` expectations may each refute the claim, so each does at its share of alpha; all must hold for
    REPRODUCED, so that needs no share.
    """

    alpha: float
    next_alpha: float
    together: int


def _judge_one(
    e: Expectation, compared: _Compared, reduced: bool, undecided: Sequence[str], level: _Level
) -> Judged:  # fmt: skip
    estimate = _estimate(e, compared, 1 - 2 * level.alpha) if compared.samples else None
    if reduced and e.null is None:
        return Judged(e, estimate, "NOT_TESTED", "an absolute value cannot be tested on reduced data")
    unsettled: Outcome = "TREND_UNRESOLVED" if reduced else "INCONCLUSIVE"
    ours = describe(e, estimate, compared.evidence) if estimate else "nothing to compare"
    if undecided:
        return Judged(e, estimate, unsettled, f"{ours}, as {undecided[0]}{_more(undecided)}")
    if estimate is None:
        return Judged(e, None, unsettled, ours)
    if e.compares and not any(compared.exact):
        return Judged(e, estimate, unsettled, f"both {e.of} and {e.over} have seeds that missed the target")
    if reduced:
        outcome, words = _trend(e, estimate)
    else:
        outcome, words = _outcome(e, estimate, _estimate(e, compared, 1 - 2 * level.alpha / level.together))
    for arm, group in zip(compared.arms, compared.groups, strict=e.statistic != "max"):
        if missed := sum(not o.exact for o in group):
            words += f"; {missed} of {_seeds(len(group))} of {arm} missed the target, so that side is open"
    value = e.published_value
    if value is not None and not reduced and not estimate.low <= value <= estimate.high and not _known(estimate):
        words += f"; the published {value:g} itself lies outside the interval"
    if outcome == "INCONCLUSIVE":
        words += f"; {seeds_that_decide(e, compared, level)}"
    return Judged(e, estimate, outcome, f"{ours}: {words}")


def describe(e: Expectation, estimate: Estimate, evidence: str) -> str:
    """Return ours beside the paper's: ``1.42 (90% interval 1.31 to 1.53, n = 5 + 5), 0.24 times the paper's 6``."""
    n = " + ".join(map(str, estimate.n))
    interval = f"{100 * estimate.confidence:.3g}% interval {_bound(estimate.low)} to {_bound(estimate.high)}"
    text = f"{estimate.value:.3g} ({interval}, n = {n})"
    if _known(estimate):
        text = f"{number_text(estimate.value)}, {evidence}"
    if e.published_value:
        return f"{text}, {_times(estimate.value / e.published_value)} the published {published_text(e)}"
    said = f"“{e.published.words}”" if e.published.words else published_text(e)
    return f"{text}, where the paper says {said}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if abs(ratio) < 9.995 else f"{ratio:.3g} times"


def _known(estimate: Estimate) -> bool:
    """Whether a value is computed, not measured: an interval without width."""
    return estimate.low == estimate.high


def _bound(value: float) -> str:
    return ("∞" if value > 0 else "-∞") if math.isinf(value) else f"{value:.3g}"


def _outcome(e: Expectation, i: Estimate, refuting: Estimate) -> tuple[Outcome, str]:
    """Return outcome and reason by the table: the first rule that matches."""
    low, high = e.accept
    band = f"the accepted band ({band_text(e)})"
    if low <= i.low and i.high <= high:
        return "REPRODUCED", f"{'it' if _known(i) else 'the interval'} lies inside {band}"
    below, above = refuting.high < low, refuting.low > high
    if e.null is not None:
        if below if e.null <= low else above:
            return "NOT_REPRODUCED", _shortfall(e, i)
        if _claimed_side(e, i):
            larger, smaller = (i.low > high, i.high < low) if e.null <= low else (i.high < low, i.low > high)
            size = f"but whether the size is in {band} is not resolved"
            if larger or smaller:
                size = f"and it is larger than {band}" if larger else f"but it is smaller than {band}, {LOOSELY}"
            return "DIRECTION", f"the effect has the claimed direction, {size}"
        if i.high < low or i.low > high:
            return "INCONCLUSIVE", f"the interval misses {band}, {LOOSELY}"
        return "INCONCLUSIVE", f"no effect ({e.null:g}) is not excluded, and neither is an effect in {band}"
    if {"lower": above, "higher": below, None: below or above}[e.better]:
        return "NOT_REPRODUCED", f"{'worse than' if e.better else 'outside'} {band}"
    if (e.better == "lower" and i.high < low) or (e.better == "higher" and i.low > high):
        return "DIRECTION", f"better than {band}"
    if i.high < low or i.low > high:
        return "INCONCLUSIVE", f"the interval misses {band}, {LOOSELY}"
    return "INCONCLUSIVE", f"the interval lies neither inside nor outside {band}"


def _claimed_side(e: Expectation, i: Estimate) -> bool:
    """Whether the interval excludes ``null`` on the side the claim is on."""
    if e.null is None:
        return False
    return i.low > e.null if e.null <= e.accept[0] else i.high < e.null


def _shortfall(e: Expectation, i: Estimate) -> str:
    """Return how a refuted effect falls short: smaller, absent or reversed, and whether its direction holds."""
    assert e.null is not None
    if _claimed_side(e, i):
        return f"the effect is smaller than the accepted band ({band_text(e)}), though its direction holds"
    if i.low <= e.null <= i.high:
        return (
            f"an effect in the accepted band ({band_text(e)}) is absent; no effect ({e.null:g}) is not excluded, "
            "so not even the direction is shown"
        )
    return f"the effect is reversed: the interval lies beyond no effect ({e.null:g}), so the direction does not hold"


def _trend(e: Expectation, i: Estimate) -> tuple[Outcome, str]:
    """Return the answer of a reduced condition, which can neither reproduce nor refute."""
    assert e.null is not None
    if _claimed_side(e, i):
        return "TREND_CONSISTENT", "on reduced data the effect has the claimed direction"
    if not i.low <= e.null <= i.high:
        return "TREND_CONTRARY", "on reduced data the effect has the opposite direction"
    return "TREND_UNRESOLVED", "on reduced data no direction can be told"


def seeds_that_decide(e: Expectation, compared: _Compared, level: _Level) -> str:
    """Return how many seeds an arm would decide, as one more look, if centre and spread stayed, in words."""
    counts = [s.n for s in compared.samples]
    if min(counts) < 2:
        return "at least 2 seeds an arm are needed to say more"
    for n in range(max(counts) + 1, SEEDS_LOOKED_AHEAD + 1):
        grown = compared._replace(samples=tuple(s._replace(n=n) for s in compared.samples))
        i, refuting = (_estimate(e, grown, 1 - 2 * level.next_alpha / k) for k in (1, level.together))
        if _outcome(e, i, refuting)[0] != "INCONCLUSIVE":
            return f"about {n} seeds an arm would decide, if centre and spread stayed as they are"
    return f"no number of seeds up to {SEEDS_LOOKED_AHEAD} would decide, if centre and spread stayed as they are"


def judge_all(
    claim: Claim, trials: Sequence[Trial], looks: Mapping[tuple[str, str], Sequence[Sequence[int]]]
) -> dict[str, Verdict]:
    """Return the verdict of each of the claim's conditions, by name."""
    return {name: judge(claim, c, trials, looks.get((claim.id, name), ())) for name, c in claim.conditions.items()}
