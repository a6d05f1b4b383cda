"""The experiments that end with an error, a proportion or a time: what is run next, and what the trials say."""

import math
from typing import Any

import pytest

from repro.experiments import Planned, final_error, probe, throughput
from repro.folders import default_claims
from repro.judging.judge import Verdict, judge
from repro.registry import load_claim
from repro.spec import Claim
from repro.store import Measurement, Trial, TrialSpec

LRN = load_claim(default_claims() / "lrn-error.toml")
HERE = {"device": "cpu", "torch": "2.11", "tf32": False, "loader": "resident"}


def trial(spec: TrialSpec, status: str = "completed", **measured: float) -> Trial:
    found = tuple(Measurement(name=name.replace("_", "-"), value=value, unit="%") for name, value in measured.items())
    return Trial(spec=spec, data_digest="d", status=status, measurements=found, environment=HERE, message="at step 7")


def errors(
    claim: Claim, name: str, top1: dict[str, list[float]], gap5: float = 20.0, images: float = 50_000
) -> list[Trial]:
    """Return a trial an arm and seed of one condition with these ten-view top-1 errors; top-5 lies ``gap5`` below."""
    arms = claim.conditions[name].arms
    return [
        trial(
            final_error.spec(arms[arm], seed), top1_error_ten=value, top5_error_ten=value - 20.0,
            top1_error_centre=value + 1.5, test_images=images,
        )
        for arm, values in top1.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip


def judged(claim: Claim, name: str, trials: list[Trial], seeds: int) -> Verdict:
    return judge(claim, claim.conditions[name], trials, [tuple(range(seeds))])


def test_arms_take_turns() -> None:
    """Each seed is run for every arm before the next, so a stop leaves them alike; what ended is not run again."""
    arms = LRN.conditions["ilsvrc-2012"].arms
    first = final_error.pending(arms, [0, 1], {})
    assert [(p.arm, p.spec.seed) for p in first] == [("none", 0), ("lrn", 0), ("none", 1), ("lrn", 1)]
    assert {p.limit for p in first} == {90.0}
    done = {
        p.spec.key: trial(p.spec, status) for p, status in zip(first, ("completed", "diverged", "failed"), strict=False)
    }
    assert [(p.arm, p.spec.seed) for p in final_error.pending(arms, [0, 1], done)] == [("none", 1), ("lrn", 1)]


@pytest.mark.parametrize(
    ("none", "outcome"),
    [([42.0, 42.1, 42.2], "REPRODUCED"), ([40.7, 40.8, 40.9], "NOT_REPRODUCED"), ([43.9, 44.0, 44.1], "DIRECTION")],
)
def test_a_difference_of_errors_is_judged_with_its_view(none: list[float], outcome: str) -> None:
    """With 40.6 to 40.8 under the normalisation, 1.4 points more without it is the claim, 0.1 is not, 3.3 is more."""
    found = judged(LRN, "ilsvrc-2012", errors(LRN, "ilsvrc-2012", {"none": none, "lrn": [40.6, 40.7, 40.8]}), 3)
    assert [j.outcome for j in found.judged] == [outcome] * 2
    assert found.outcome == outcome
    assert found.reason.startswith("top-1 error (ten views), none minus lrn: ")


def test_seeds_that_agree_by_chance_are_not_known_better_than_the_test_set_allows() -> None:
    """Three equal errors keep the spread that a test set of this size gives, sqrt(p q / 2n)."""
    same = {"none": [42.0] * 3, "lrn": [40.6] * 3}
    few, many = (
        judged(LRN, "ilsvrc-2012", errors(LRN, "ilsvrc-2012", same, images=n), 3).judged[0].estimate
        for n in (500, 50_000)
    )
    assert few.high - few.low == pytest.approx(10 * (many.high - many.low), rel=1e-6)
    assert (
        final_error.resolution(trial(final_error.spec(LRN.conditions["ilsvrc-2012"].arms["lrn"], 0)), "top1-error-ten")
        == math.inf
    )


def test_a_diverged_trial_decides_nothing_and_is_named() -> None:
    """One diverged training leaves the claim open, with the step it diverged at."""
    trials = errors(LRN, "ilsvrc-2012", {"none": [42.0, 42.1], "lrn": [40.6, 40.7, 40.8]})
    trials.append(trial(final_error.spec(LRN.conditions["ilsvrc-2012"].arms["none"], 2), "diverged"))
    found = judged(LRN, "ilsvrc-2012", trials, 3)
    assert found.outcome == "INCONCLUSIVE"
    assert "seed 2 of arm none diverged: at step 7" in found.reason


@pytest.mark.parametrize(
    ("training", "outcome"), [(99.9, "INCONCLUSIVE"), (97.9, "INCONCLUSIVE"), (97.8, "NOT_REPRODUCED")]
)
def test_networks_that_have_not_begun_to_learn_decide_nothing(training: float, outcome: str) -> None:
    """A thousand classes by chance are missed 99.9 times in 100: two such arms are alike, which says nothing."""
    arms = LRN.conditions["ilsvrc-2012"].arms
    trials = [
        trial(final_error.spec(p, seed), top1_error_ten=99.9 - shift - seed / 1000, top5_error_ten=99.5 - shift,
              top1_error_centre=99.9, training_error=training, test_images=50_000)
        for shift, p in ((0.0, arms["none"]), (0.001, arms["lrn"]))
        for seed in range(3)
    ]  # fmt: skip
    found = judged(LRN, "ilsvrc-2012", trials, 3)
    assert found.outcome == outcome
    assert ("seed 0 of arm none has not begun to learn: its training error is" in found.reason) is (
        outcome == "INCONCLUSIVE"
    )


def test_small_data_answer_with_a_trend() -> None:
    """Ten classes say nothing about 1.4 points, and have no top-5."""
    found = judged(
        LRN, "imagenette160", errors(LRN, "imagenette160", {"none": [22.0] * 3, "lrn": [18.0] * 3}, images=3925), 3
    )
    assert found.outcome == "TREND_CONSISTENT"
    assert len(found.judged) == 1


@pytest.mark.parametrize(
    ("ones", "n", "outcome"),
    [
        (14, 14, "REPRODUCED"),
        (13, 14, "DIRECTION"),
        (9, 10, "DIRECTION"),
        (2, 3, "INCONCLUSIVE"),
        (3, 3, "INCONCLUSIVE"),
        (1, 1, "INCONCLUSIVE"),
        (0, 14, "NOT_REPRODUCED"),
        (7, 14, "NOT_REPRODUCED"),
    ],
)
def test_every_run_is_a_proportion(ones: int, n: int, outcome: str) -> None:
    """Fourteen of fourteen runs put Clopper and Pearson's interval above 0.8; three of three do not."""
    claim = load_claim(default_claims() / "colour-towers.toml")
    p = claim.conditions["ilsvrc-2010"].arms["net"]
    trials = [trial(probe.spec(p, seed), colours_apart=float(seed < ones)) for seed in range(n)]
    assert judged(claim, "ilsvrc-2010", trials, n).outcome == outcome


@pytest.mark.parametrize(
    ("ones", "n", "outcome"),
    [(14, 14, "TREND_CONSISTENT"), (1, 14, "TREND_CONTRARY"), (1, 1, "TREND_UNRESOLVED"), (7, 14, "TREND_UNRESOLVED")],
)
def test_some_runs_are_no_trend_towards_every_run(ones: int, n: int, outcome: str) -> None:
    """Most runs have to show it: that one of many does is no sign that all would."""
    claim = load_claim(default_claims() / "colour-towers.toml")
    p = claim.conditions["imagenette160"].arms["net"]
    trials = [trial(probe.spec(p, seed), colours_apart=float(seed < ones)) for seed in range(n)]
    assert judged(claim, "imagenette160", trials, n).outcome == outcome


def test_a_timing_holds_all_arms() -> None:
    """One trial a seed times both nets in turn; the claim reads their ratio."""
    claim = load_claim(default_claims() / "two-gpu-time.toml")
    arms = claim.conditions["two-gpus"].arms
    planned: list[Planned] = throughput.pending(arms, range(5), {})
    assert [p.arm for p in planned] == ["two, half"] * 5
    times: list[dict[str, Any]] = [{"time_per_image/two": 0.9 + s / 1000, "time_per_image/half": 1.0} for s in range(5)]
    found = judged(claim, "two-gpus", [trial(p.spec, **t) for p, t in zip(planned, times, strict=True)], 5)
    assert found.outcome == "REPRODUCED"
    assert found.judged[0].estimate.value == pytest.approx(0.902, abs=1e-3)


# Evidence lies under these names: they change only with raised numerics, and only where other numbers are computed.
GOLDEN = {
    ("overlapping-pooling-error", "imagenette160-modern", "apart"): (2, "7afeb9de2b27a10c"),
    ("dropout-overfitting", "imagenette160", "without"): (2, "ad8116978aee23ed"),
    ("dropout-overfitting", "imagenette160", "with"): (3, "4b80153afbe196c6"),
    ("lrn-cifar10", "cifar10", "lrn"): (4, "59a418b9f63cc392"),
    ("dropout-convergence", "imagenette160", "without"): (3, "7d8f6ce9b1d81d91"),
    ("dropout-convergence", "imagenette160", "with"): (4, "6e233237068a061f"),
}


@pytest.mark.parametrize(("claim", "condition", "arm"), GOLDEN)
def test_identities_stay_what_they_are(claim: str, condition: str, arm: str) -> None:
    """Numerics were raised for what changed, as networks with dropout, since its masks are counted; no others moved."""
    arms = load_claim(default_claims() / f"{claim}.toml").conditions[condition].arms
    spec = final_error.spec(arms[arm], 0)
    assert (spec.numerics, spec.identity("d")) == GOLDEN[claim, condition, arm]
    looked = probe.spec(probe.Parameters(**arms[arm].model_dump()), 0)
    assert looked.numerics == spec.numerics + 1  # raised once before


def test_the_recipe_decides_the_identity_and_defaults_do_not() -> None:
    """Two claims that need the same training share it; a factor makes another one."""
    pooling = load_claim(default_claims() / "overlapping-pooling-error.toml").conditions["ilsvrc-2012"].arms
    lrn = LRN.conditions["ilsvrc-2012"].arms
    shared = final_error.spec(lrn["lrn"], 0)
    assert final_error.spec(pooling["overlapping"], 0) == shared
    assert final_error.spec(lrn["none"], 0) != shared
