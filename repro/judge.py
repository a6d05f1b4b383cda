"""From trials to a verdict: pure, no files, no clock. The rules are the table in README.md, "Verdicts"."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from repro import experiments
from repro.experiments import Observation, Observed
from repro.spec import Claim, Condition, Expectation, Outcome, band_text, expectations, published_text
from repro.stats import Estimate, difference_interval, mean_interval, ratio_interval
from repro.store import Trial

ALPHA = 0.05  # of each one-sided test: the interval is 1 - 2 ALPHA wide
SEEDS_LOOKED_AHEAD = 50  # how far "seeds that would decide" is searched
PRECEDENCE: tuple[Outcome, ...] = (
    "ERROR", "NOT_TESTED", "NOT_REPRODUCED", "INCONCLUSIVE", "DIRECTION", "REPRODUCED",
    "SMOKE_BROKEN", "SMOKE_OK", "TREND_CONTRARY", "TREND_UNRESOLVED", "TREND_CONSISTENT",
)  # fmt: skip
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
    before it was a look that costs its share of alpha. Without any, the claim file's seeds are the plan.
    """
    seeds = tuple(looks[-1]) if looks else condition.seeds
    alpha = ALPHA / max(1, len(looks))
    done, doubled = _by_key(trials)
    observed = experiments.get(claim.experiment).observe(condition.arms, seeds, done)

    def verdict(outcome: Outcome, reason: str, judged: Sequence[Judged] = ()) -> Verdict:
        return Verdict(outcome, reason, tuple(judged), observed, seeds, len(looks))

    if not observed.trials:
        return verdict("NOT_TESTED", f"nothing was run under {condition.name}")
    wanted = expectations(claim, condition.name)
    judged = [_judge_one(e, condition, observed, alpha, len(wanted)) for e in wanted]
    used = {trial.spec.key for _, _, trial in observed.trials}
    if trouble := _trouble(observed, [pair for key, pair in doubled.items() if key in used]):
        broken: Outcome = "SMOKE_BROKEN" if condition.scale == "smoke" else "ERROR"
        return verdict(broken, trouble, [j._replace(outcome=broken) for j in judged])
    worst = min(judged, key=lambda j: PRECEDENCE.index(j.outcome))
    return verdict(worst.outcome, worst.reason, judged)


def _by_key(trials: Sequence[Trial]) -> tuple[dict[str, Trial], dict[str, tuple[Trial, Trial]]]:
    """Return trials by the key of their spec, and pairs that have one key but unlike data."""
    done: dict[str, Trial] = {}
    doubled = {}
    for trial in sorted(trials, key=lambda t: t.identity):
        if trial.spec.key in done:
            doubled[trial.spec.key] = (done[trial.spec.key], trial)
        done[trial.spec.key] = trial
    return done, doubled


def _trouble(observed: Observed, doubled: Sequence[tuple[Trial, Trial]]) -> str:
    """Return why no verdict can be given, in one sentence; empty where nothing stands against it."""
    for one, other in doubled:
        return f"the same trial was run on unlike data: {one.data_digest} and {other.data_digest}"
    if observed.failed:
        return f"a trial failed: {observed.failed[0]}"
    if observed.missing:
        count = len(observed.missing)
        return f"not complete, missing {observed.missing[0]}" + (f" and {count - 1} more" if count > 1 else "")
    for key in ALIKE:
        values: dict[str, list[str]] = {}
        for arm, role, trial in observed.trials:
            if role == "scoring":
                values.setdefault(arm, []).append(str(trial.environment.get(key)))
        for arm, found in values.items():
            first = next(iter(values))
            if sorted(found) != sorted(values[first]):
                return (
                    f"the arms ran in unlike environments: {key} is {values[first]} for {first} and {found} for {arm}"
                )
    return ""


def _estimate(e: Expectation, observed: Observed, confidence: float) -> Estimate | None:
    """Return our estimate of what ``e`` expects; None where an arm has nothing to say."""
    arms = observed.values.get(e.metric, {})
    of, over = arms.get(e.of, ()), arms.get(e.over or e.of, ())
    if not of or not over:
        return None
    a, b = [o.value for o in of], [o.value for o in over]
    if e.statistic == "ratio":
        return ratio_interval(a, b, confidence, of_exact=_exact(of), over_exact=_exact(over))
    if e.statistic == "difference":
        return difference_interval(a, b, confidence)
    return mean_interval(a, confidence)


def _exact(observations: Sequence[Observation]) -> bool:
    return all(o.exact for o in observations)


def _judge_one(e: Expectation, condition: Condition, observed: Observed, alpha: float, together: int) -> Judged:
    estimate = _estimate(e, observed, 1 - 2 * alpha)
    if condition.scale == "smoke":
        return Judged(e, estimate, "SMOKE_OK", "everything ran; drawn or tiny data say nothing about the claim")
    if estimate is None:
        return Judged(e, None, "INCONCLUSIVE", "no arm has an observation to estimate from")
    ours = describe(e, estimate)
    blunt = [arm for arm in (e.of, e.over) if arm and not _exact(observed.values[e.metric][arm])]
    if len(blunt) > 1:
        return Judged(e, estimate, "INCONCLUSIVE", f"neither {e.of} nor {e.over} reached the target within its limit")
    if observed.undecided:
        return Judged(e, estimate, "INCONCLUSIVE", f"{ours}, but {observed.undecided[0]}")
    if condition.scale == "reduced":
        return Judged(e, estimate, *_trend(e, estimate, ours))
    refuting = _estimate(e, observed, 1 - 2 * alpha / together) or estimate
    outcome, words = _outcome(e, estimate, refuting)
    if outcome == "INCONCLUSIVE":
        words += f"; {seeds_that_decide(e, observed, alpha, together)}"
    value = e.published_value
    if value is not None and not estimate.low <= value <= estimate.high:
        words += "; the published value itself lies outside our interval"
    return Judged(e, estimate, outcome, f"{ours}: {words}")


def describe(e: Expectation, estimate: Estimate) -> str:
    """Return ours beside the published value: ``1.42 (90% 1.31 to 1.53, n = 5 + 5) against 6, 0.24 times it``."""
    n = " + ".join(map(str, estimate.n))
    text = (
        f"{estimate.value:.3g} ({estimate.confidence:.0%} {_bound(estimate.low)} to {_bound(estimate.high)}, n = {n})"
    )
    text += f" against {published_text(e)}"
    if e.published_value:
        text += f", {estimate.value / e.published_value:.2f} times it"
    return text


def _bound(value: float) -> str:
    return ("∞" if value > 0 else "-∞") if math.isinf(value) else f"{value:.3g}"


def _outcome(e: Expectation, i: Estimate, refuting: Estimate) -> tuple[Outcome, str]:
    """Return outcome and reason by the table: the first rule that matches."""
    low, high = e.accept
    if low <= i.low and i.high <= high:
        return "REPRODUCED", f"the interval lies inside {band_text(e)}"
    below, above = refuting.high < low, refuting.low > high
    if e.null is not None:
        if (below and e.null <= low) or (above and e.null >= high):
            return "NOT_REPRODUCED", _shortfall(e, i)
        if _claimed_side(e, i):
            return "DIRECTION", _size(e, i)
        return "INCONCLUSIVE", f"the interval leaves open whether it is in {band_text(e)}"
    worse = {"lower": above, "higher": below, None: below or above}[e.better]
    if worse:
        return "NOT_REPRODUCED", f"{'worse than' if e.better else 'outside'} {band_text(e)}"
    if (e.better == "lower" and i.high < low) or (e.better == "higher" and i.low > high):
        return "DIRECTION", f"better than {band_text(e)}"
    return "INCONCLUSIVE", f"the interval leaves open whether it is in {band_text(e)}"


def _claimed_side(e: Expectation, i: Estimate) -> bool:
    """Whether the interval excludes ``null`` on the side the claim is on."""
    if e.null is None:
        return False
    return i.low > e.null if e.null <= e.accept[0] else i.high < e.null


def _shortfall(e: Expectation, i: Estimate) -> str:
    assert e.null is not None
    if _claimed_side(e, i):
        return f"smaller than {band_text(e)}, though the direction holds"
    if i.low <= e.null <= i.high:
        return f"smaller than {band_text(e)}, and no effect is not excluded"
    return f"reversed: on the other side of no effect ({e.null:g})"


def _size(e: Expectation, i: Estimate) -> str:
    low, high = e.accept
    assert e.null is not None
    larger = i.low > high if e.null <= low else i.high < low
    return (
        f"larger than {band_text(e)}" if larger else f"the direction holds, the size ({band_text(e)}) is not resolved"
    )


def _trend(e: Expectation, i: Estimate, ours: str) -> tuple[Outcome, str]:
    """Return the answer of a reduced condition, which can neither reproduce nor refute."""
    if e.null is None:
        return "NOT_TESTED", f"{ours}: an absolute value cannot be tested on reduced data"
    if _claimed_side(e, i):
        return "TREND_CONSISTENT", f"{ours}: the same direction on reduced data"
    if not i.low <= e.null <= i.high:
        return "TREND_CONTRARY", f"{ours}: the opposite direction on reduced data"
    return "TREND_UNRESOLVED", f"{ours}: no direction can be told on reduced data"


def seeds_that_decide(e: Expectation, observed: Observed, alpha: float, together: int) -> str:
    """Return how many seeds an arm would decide if centre and spread stayed what they are, in words."""
    arms = [[o.value for o in observed.values[e.metric][arm]] for arm in (e.of, e.over) if arm]
    if min(map(len, arms)) < 2:
        return "at least 2 seeds an arm are needed to say more"
    for n in range(max(map(len, arms)) + 1, SEEDS_LOOKED_AHEAD + 1):
        grown = [_grown(values, n, log=e.statistic == "ratio") for values in arms]
        find: Callable[[float], Estimate]
        if e.statistic == "ratio":
            find = lambda c, g=grown: ratio_interval(g[0], g[1], c)  # type: ignore[misc]  # noqa: E731
        elif e.statistic == "difference":
            find = lambda c, g=grown: difference_interval(g[0], g[1], c)  # type: ignore[misc]  # noqa: E731
        else:
            find = lambda c, g=grown: mean_interval(g[0], c)  # type: ignore[misc]  # noqa: E731
        if _outcome(e, find(1 - 2 * alpha), find(1 - 2 * alpha / together))[0] != "INCONCLUSIVE":
            return f"about {n} seeds an arm would decide if centre and spread stay"
    return f"no number of seeds up to {SEEDS_LOOKED_AHEAD} would decide if centre and spread stay"


def _grown(values: Sequence[float], n: int, *, log: bool) -> list[float]:
    """Return ``n`` values with the mean and standard deviation of ``values`` (of their logarithms)."""
    xs = [math.log(v) for v in values] if log else list(values)
    centre = math.fsum(xs) / len(xs)
    spread = math.sqrt(math.fsum((x - centre) ** 2 for x in xs) / (len(xs) - 1))
    shape = [math.sin(2 * math.pi * k / n) for k in range(n)] if n > 2 else [-1.0, 1.0]
    scale = spread * math.sqrt((n - 1) / math.fsum(s * s for s in shape))
    made = [centre + scale * s for s in shape]
    return [math.exp(x) for x in made] if log else made


def judge_all(
    claim: Claim, trials: Sequence[Trial], looks: Mapping[tuple[str, str], Sequence[Sequence[int]]]
) -> dict[str, Verdict]:
    """Return the verdict of each of the claim's conditions, by name."""
    return {name: judge(claim, c, trials, looks.get((claim.id, name), ())) for name, c in claim.conditions.items()}
