"""From trials to a verdict: pure, no files, no clock. The rules are the table in README.md, "Verdicts"."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from repro import datasets, experiments
from repro.experiments import TEST_IMAGES, Observed, Planned
from repro.judging import compare
from repro.judging.compare import Compared
from repro.judging.rules import ALPHA, SEEDS_LOOKED_AHEAD, describe, in_words, known, outcome, together, trend
from repro.judging.stats import Estimate
from repro.outcomes import ORDER, Outcome
from repro.spec import Claim, Condition, Expectation, expectations
from repro.store import NO_DATA, Trial

ALIKE = ("device", "torch", "loader", "world")
"""Parts of the environment that must be alike for all arms: numbers may differ where these do."""
UNSAID = {"world": 1}
"""Values assumed where a record does not give them: one process."""


class Judged(NamedTuple):
    """One expectation, our estimate of it (None where there is nothing to estimate from), its outcome and reason."""

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


class Records(NamedTuple):
    """All trials of a store, by the key of their spec: built once, read by every judgement."""

    done: Mapping[str, Trial]
    unlike: Mapping[str, Sequence[str]]
    """For each key whose records differ, their data digests, sorted."""
    refused: Collection[str] = ()
    """Identities of trials whose records exist but cannot be used."""
    digests: Collection[str] = ()
    """Data digests that the refused trials may have been measured on; empty where no record was refused."""


def records(trials: Sequence[Trial], refused: Collection[str] = (), named: Collection[str] = ()) -> Records:
    """Return the records that ``store.stored`` returned, by the key of their spec.

    Where records of one key differ, their order has no effect, and no verdict rests on any of them.
    """
    done: dict[str, Trial] = {}
    digests: dict[str, set[str]] = {}
    for trial in trials:
        key = trial.spec.key
        other = done.setdefault(key, trial)
        if other is not trial and other != trial:
            digests.setdefault(key, {other.data_digest}).add(trial.data_digest)
            done[key] = min(other, trial, key=lambda t: t.model_dump_json())
    on = {NO_DATA, *named, *(trial.data_digest for trial in trials)} if refused else ()
    return Records(done, {key: sorted(found) for key, found in digests.items()}, refused, on)


def judge(
    claim: Claim, condition: Condition, trials: Sequence[Trial] | Records, looks: Sequence[Sequence[int]] = (),
    unknown: str = "",
) -> Verdict:  # fmt: skip
    """Return the verdict of one condition from the trials of a whole store; those of other claims are ignored.

    ``looks`` are the seed lists with which this condition was run, in order. Every look costs its share of alpha: each
    test is at ALPHA divided by the number of looks. If a user stops at the first of three looks (3, 5, 10 seeds) that
    decides, and the truth lies on the band's edge, the verdict is wrong 6 times in 100, against 10 with all of alpha at
    each look (docs/error-rates.md). The seeds of every look count: none that was run is left out. Without any look, the
    plan is the claim file's seeds. ``unknown`` says why the looks are not known, where they are not. There is then no
    verdict, because the looks decide how strict it is.

    Records that cannot be judged give ERROR (SMOKE_BROKEN under a smoke condition); the reason names the claim and
    says what failed. Nothing is raised for them.
    """
    seeds = tuple(dict.fromkeys(seed for look in looks or [condition.seeds] for seed in look))
    so_far = Verdict("ERROR", "", (), Observed({}, (), (), (), ()), seeds, len(looks))
    try:
        found = trials if isinstance(trials, Records) else records(trials)
        observed = experiments.get(claim.experiment).observe(condition.arms, seeds, found.done)
        so_far = so_far._replace(observed=observed)
        return _verdict(claim, condition, found, looks, so_far, unknown)
    except Exception as error:  # noqa: BLE001 - whatever a record holds, it is no verdict, and the rest is still told
        why = " ".join(f"{type(error).__name__}: {error}".split())
        reason = f"the records of {claim.id} under {condition.name} cannot be judged: {why}"
        return so_far._replace(outcome=_broken(condition), reason=reason)


def _broken(condition: Condition) -> Outcome:
    return "SMOKE_BROKEN" if condition.scale == "smoke" else "ERROR"


def _verdict(
    claim: Claim, condition: Condition, found: Records, looks: Sequence[Sequence[int]], so_far: Verdict, unknown: str
) -> Verdict:
    """Return ``so_far``, which holds what was observed, completed by outcome and reason. May raise on odd records."""
    observed, seeds = so_far.observed, so_far.seeds

    def verdict(outcome: Outcome, reason: str, judged: Sequence[Judged] = ()) -> Verdict:
        return so_far._replace(outcome=outcome, reason=reason, judged=tuple(judged))

    lost = _lost(claim, condition, found, seeds)
    seen = (*(arms for arms, _, _ in observed.trials), *(planned.arm for planned in lost))
    begun = {arm for arms in seen for arm in arms.split(", ")}
    if (condition.blocked and not looks) or not (begun or looks or unknown):  # what was run is judged, blocked or not
        return verdict("NOT_TESTED", _untested(condition, len(seeds)))
    if not (looks or unknown) and (observed.missing or lost) and not begun >= set(condition.arms):
        arms = f"arm{'s' if len(begun) > 1 else ''} {' and '.join(sorted(begun))}"
        return verdict("NOT_TESTED", f"nothing was run for this claim; the trials of its {arms} were run for another")
    wanted, asked = expectations(claim, condition.name), not claim.statements
    compared = [compare.compared(e, condition, observed, experiments.get(claim.experiment)) for e in wanted]
    alpha = ALPHA / max(1, len(looks))
    if trouble := unknown or _trouble(observed, found.unlike, lost, looks or [condition.seeds]):
        if not begun and found.refused:
            trouble += f"; unusable records of the store may be of it: {len(found.refused)}"
        broken = _broken(condition)
        judged = [_so_far(e, c, 1 - 2 * alpha, broken, asked=asked) for e, c in zip(wanted, compared, strict=True)]
        return verdict(broken, "; ".join([trouble, *(j.reason for j in judged[:1])]), judged)
    if condition.scale == "smoke":
        answer, reason = _smoke(observed)
        judged = [_so_far(e, c, 1 - 2 * alpha, answer, asked=asked) for e, c in zip(wanted, compared, strict=True)]
        return verdict(answer, reason, [j._replace(reason=reason) for j in judged])
    if not wanted:
        return verdict("NOT_TESTED", f"the claim expects nothing under {condition.name}")
    reduced = condition.scale == "reduced"
    level = _Level(alpha, ALPHA / (max(1, len(looks)) + 1), together(wanted, condition))
    judged = []
    for e, c in zip(wanted, compared, strict=True):
        alike = [] if condition.scale == "static" else compare.equal(e, c)
        undecided = [*observed.undecided, *compare.silent(e, c, seeds), *alike]
        judged.append(_judge_one(e, c, undecided, level, reduced=reduced, asked=asked))
    # Reduced data say nothing about an absolute value, so the verdict rests on the other expectations.
    counted = [j for j in judged if not reduced or j.expectation.null is not None] or judged
    worst = min(counted, key=lambda j: ORDER.index(j.outcome))
    about = in_words(worst.expectation, alone=len(condition.arms) == 1)
    reason = worst.reason if len(wanted) == 1 else f"{about}: {worst.reason}"
    if len(looks) > 1:
        first = judge(claim, condition, found, looks[:1])
        reason += f"; at the first look, with {_seeds(len(first.seeds))} per arm, it was {first.outcome}"
    return verdict(worst.outcome, reason, judged)


def _untested(condition: Condition, seeds: int) -> str:
    """Return why nothing can be run under a condition, or else that nothing was, with what is planned."""
    if condition.blocked:
        return condition.blocked
    dataset = condition.any_arm.dataset
    needs = "" if dataset == "none" else f" (planned: {_seeds(seeds)} per arm on {dataset})"
    return f"nothing was run under {condition.name}{needs}"


def _lost(claim: Claim, condition: Condition, found: Records, seeds: Sequence[int]) -> list[Planned]:
    """Return the trials that have a record, but have to be run again because it cannot be used."""
    if not found.refused:
        return []
    pending = experiments.get(claim.experiment).pending(condition.arms, seeds, found.done)
    return [planned for planned in pending if any(planned.spec.identity(d) in found.refused for d in found.digests)]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _trouble(
    observed: Observed, unlike: Mapping[str, Sequence[str]], lost: Sequence[Planned], looks: Sequence[Sequence[int]]
) -> str:
    """Return in one clause why no verdict can be given; empty where one can."""
    for look in looks:
        if again := [seed for seed, n in Counter(look).items() if n > 1]:
            return f"seed {again[0]} stands twice in the plan, and a seed counts once"
    for _, _, trial in observed.trials if unlike else ():
        if found := unlike.get(trial.spec.key):
            if len(found) > 1:
                return f"the same trial was run on different data: data_digest is {' and '.join(found)}"
            return f"the same trial, {trial.identity}, was recorded twice, with different results"
    if observed.failed:
        return f"a trial failed: {observed.failed[0]}{_more(observed.failed)}"
    if lost:
        told = [f"{planned.arm}, {planned.role}, seed {planned.spec.seed}" for planned in lost]
        return f"the record of {told[0]}{_more(told)} cannot be used"
    if wrong := [found for _, _, trial in observed.trials if (found := _other_pictures(trial))]:
        return wrong[0]
    if observed.missing:
        return f"not complete, missing {observed.missing[0]}{_more(observed.missing)}"
    digests = Counter(trial.data_digest for _, _, trial in observed.trials)
    if len(digests) > 1:
        one, other, *_ = sorted(digests)
        both = f"{one} for {digests[one]} and {other} for {digests[other]}"
        return f"trials were run on different data: data_digest is {both}"
    return _unlike(observed)


def _other_pictures(trial: Trial) -> str:
    """Return that a trial was tested on a number of pictures its data set cannot have; empty where it can have it."""
    name = str(trial.spec.config.get("dataset"))
    tested = next((m.value for m in trial.measurements if m.name == TEST_IMAGES), None)
    if tested is None or datasets.tests_on(name, tested):
        return ""
    return f"{trial.identity} was tested on {tested:,.0f} pictures, which is not what {name} has"


def _more(found: Sequence[str]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def _unlike(observed: Observed) -> str:
    """Return how the environments of the trials differ; empty where they do not.

    Each arm must have been scored in the same environments equally often. All timings need a single environment,
    because it provides their clock.
    """
    for key in ALIKE:
        values: dict[str, Counter[str]] = {}
        for arm, role, trial in observed.trials:
            if role == "scoring":
                values.setdefault(arm, Counter())[_where(trial, key)] += 1
        first = next(iter(values), "")
        for arm, found in values.items():
            if found != values[first]:
                here, there = _counted(values[first]), _counted(found)
                return f"the arms ran in different environments: {key} is {here} for {first} and {there} for {arm}"
        timed = Counter(_where(t, key) for _, role, t in observed.trials if role == "timing")
        if len(timed) > 1:
            return f"timings from different environments are not one sample: {key} is {_counted(timed)}"
    return ""


def _where(trial: Trial, key: str) -> str:
    return str(trial.environment.get(key, UNSAID.get(key)))


def _counted(found: Counter[str]) -> str:
    """Return values in words, counted where there are several: ``cpu``, or ``cpu (2) and NVIDIA H200 (1)``."""
    if len(found) == 1:
        return next(iter(found))
    return " and ".join(f"{value} ({n})" for value, n in sorted(found.items()))


def _smoke(observed: Observed) -> tuple[Outcome, str]:
    """Return the answer of a smoke condition: whether everything works, and nothing about the claim."""
    for arms in observed.values.values():
        for arm, found in arms.items():
            if not any(o.exact for o in found):
                return "SMOKE_BROKEN", f"{arm} did not get where it should, with any seed"
    for arm in dict.fromkeys(arm for arm, _, _ in observed.trials):
        ended = [t for name, role, t in observed.trials if name == arm and role != "tuning"]
        if ended and all(trial.status == "diverged" for trial in ended):
            return "SMOKE_BROKEN", f"{arm} diverged, with every seed"
    return "SMOKE_OK", "everything ran; synthetic or tiny data say nothing about the claim"


def _so_far(e: Expectation, compared: Compared, confidence: float, answer: Outcome, *, asked: bool) -> Judged:
    """Return an estimate that is shown but decides nothing."""
    if not compared.samples:
        return Judged(e, None, answer, "nothing to estimate from yet")
    estimate = compare.estimate(e, compared, confidence)
    ours = describe(e, estimate, compared.unit, compared.evidence, asked=asked)
    return Judged(e, estimate, answer, f"so far {ours}")


class _Level(NamedTuple):
    """The levels of the one-sided tests: ``alpha`` now, ``next_alpha`` at one more look.

    Any one of ``together`` expectations can refute the claim, or contradict its direction, so each is tested for that
    at its share of alpha. REPRODUCED and TREND_CONSISTENT need all of them to hold, so they are tested at all of it.
    """

    alpha: float
    next_alpha: float
    together: int


def _judge_one(
    e: Expectation, compared: Compared, undecided: Sequence[str], level: _Level, *, reduced: bool, asked: bool
) -> Judged:  # fmt: skip
    estimate = compare.estimate(e, compared, 1 - 2 * level.alpha) if compared.samples else None
    if reduced and e.null is None:
        return Judged(e, estimate, "NOT_TESTED", "an absolute value cannot be tested on reduced data")
    unsettled: Outcome = "TREND_UNRESOLVED" if reduced else "INCONCLUSIVE"
    ours = "nothing to compare"
    if estimate:
        ours = describe(e, estimate, compared.unit, compared.evidence, asked=asked)
    if undecided:
        return Judged(e, estimate, unsettled, f"{ours}; undecided, as {undecided[0]}{_more(undecided)}")
    if estimate is None:
        return Judged(e, None, unsettled, ours)
    if e.compares and not any(compared.exact):
        return Judged(e, estimate, unsettled, f"both {e.of} and {e.over} have seeds that missed the target")
    decide = trend if reduced else outcome
    found, words = decide(e, estimate, compare.estimate(e, compared, 1 - 2 * level.alpha / level.together))
    for arm, group in zip(compared.arms, compared.groups, strict=e.statistic != "max"):
        if missed := sum(not o.exact for o in group):
            words += f"; {missed} of {_seeds(len(group))} of {arm} missed the target, so that side is open"
    value = e.published_value
    if value is not None and not reduced and not estimate.low <= value <= estimate.high and not known(estimate):
        words += f"; the {'expected' if asked else 'published'} {value:g} itself lies outside the interval"
    if found == "INCONCLUSIVE":
        words += f"; {seeds_that_decide(e, compared, level)}"
    return Judged(e, estimate, found, f"{ours}: {words}")


def seeds_that_decide(e: Expectation, compared: Compared, level: _Level) -> str:
    """Return in words how many seeds per arm would decide, as one more look, if centre and spread stayed the same."""
    counts = [s.n for s in compared.samples]
    if min(counts) < 2:
        return "at least 2 seeds per arm are needed to say more"
    share = e.statistic == "proportion"  # of n runs: only a whole number of them can agree
    for n in range(max(counts) + 1, SEEDS_LOOKED_AHEAD + 1):
        means = [round(s.mean * n) / n if share else s.mean for s in compared.samples]
        grown = compared._replace(
            samples=tuple(s._replace(n=n, mean=mean) for s, mean in zip(compared.samples, means, strict=True))
        )
        i, refuting = (compare.estimate(e, grown, 1 - 2 * level.next_alpha / k) for k in (1, level.together))
        if outcome(e, i, refuting)[0] != "INCONCLUSIVE":
            return f"about {n} seeds per arm would decide, if centre and spread stayed as they are"
    return f"no number of seeds up to {SEEDS_LOOKED_AHEAD} would decide, if centre and spread stayed as they are"


def judge_all(
    claim: Claim, trials: Sequence[Trial] | Records, looks: Mapping[tuple[str, str], Sequence[Sequence[int]]],
    unknown: Mapping[tuple[str, str], str] = {},
) -> dict[str, Verdict]:  # fmt: skip
    """Return the verdict of each condition of a claim, by name; for many claims, pass ``records(trials)``.

    ``looks`` and ``unknown`` are those of ``judge``, keyed by (claim, condition).
    """
    found = trials if isinstance(trials, Records) else records(trials)
    return {
        name: judge(claim, c, found, looks.get((claim.id, name), ()), unknown.get((claim.id, name), ""))
        for name, c in claim.conditions.items()
    }
