"""When the judge refuses: what is missing, failed, unlike, doubled or unreadable is an ERROR that says so."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import ABOVE, HERE, RATES, RELU, claim, scored, spec, spread, trial, tuned

from repro.experiments import final_error, throughput
from repro.folders import default_claims
from repro.judging.judge import judge, judge_all, records
from repro.registry import load_claim
from repro.spec import Claim
from repro.store import Measurement, Trial


@pytest.mark.parametrize(("scale", "outcome"), [("paper", "ERROR"), ("reduced", "ERROR"), ("smoke", "SMOKE_BROKEN")])
def test_what_is_missing_is_an_error_with_what_there_is_so_far(scale, outcome):
    """A planned seed that was not run keeps a verdict back; the estimate of the others is shown, for nothing."""
    c = claim(RELU, scale=scale)
    found = judge(c, c.conditions["c"], [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60)[:2])])
    assert found.outcome == found.judged[0].outcome == outcome
    assert found.reason.startswith("not complete, missing seed 2 of arm tanh; so far ")
    assert found.judged[0].estimate.n == (2, 3)


def test_a_search_only_begun_is_an_error_not_an_untested_claim():
    """Once a run was asked for, what the plan lacks is missing, not untested."""
    c = claim(RELU)
    found = judge(c, c.conditions["c"], tuned("relu")[:1], [(0, 1, 2)])
    assert found.outcome == "ERROR"
    assert found.reason == (
        "not complete, missing the search of relu at 0.02, 0.04, and 7 more; nothing to estimate from yet"
    )


def test_trials_of_another_claim_do_not_begin_this_one():
    """An arm that two claims share was run for the one that asked; the other stays untested."""
    c = claim(RELU)
    found = judge(c, c.conditions["c"], [*tuned("relu"), *scored(relu=spread(10))])
    assert found.outcome == "NOT_TESTED"
    assert found.reason == "nothing was run for this claim; the trials of its arm relu were run for another"


def test_a_failed_trial_is_an_error_that_names_it():
    """What the harness could not do is named, before what is missing because of it."""
    c = claim(RELU)
    broken = Trial(spec=spec("tanh", 2, RATES[1]), data_digest="d", status="failed", message="out of memory")
    found = judge(c, c.conditions["c"], [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60)[:2]), broken])
    assert found.outcome == "ERROR"
    assert found.reason.startswith("a trial failed: seed 2 of arm tanh: out of memory; so far ")


@pytest.mark.parametrize(("key", "value"), [("torch", "2.12"), ("loader", "dali"), ("world", 2)])
def test_whatever_moves_numbers_must_be_alike(key, value):
    c = claim(RELU)
    there = [trial(spec("tanh", s, RATES[1]), t, {**HERE, key: value}) for s, t in enumerate(spread(60))]
    found = judge(c, c.conditions["c"], [*tuned("relu", "tanh"), *scored(relu=spread(10)), *there])
    assert found.outcome == "ERROR"
    assert f"{key} is " in found.reason


def test_a_condition_that_is_blocked_after_its_run_is_judged():
    """Else a claim file could hide a verdict: without a run on record it is untested, and says what blocks it."""
    c = claim(RELU)
    blocked = c.conditions["c"].model_copy(update={"blocked": "not public"})
    trials = [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(20))]
    assert judge(c, blocked, trials, [(0, 1, 2)]).outcome == "NOT_REPRODUCED"
    assert judge(c, blocked, trials).outcome == "NOT_TESTED"


def test_unlike_environments_are_refused_with_key_and_values():
    """Arms that ran on unlike hardware are not compared; the same mixture in every arm is."""
    c = claim(RELU)
    there = {**HERE, "device": "NVIDIA H200"}
    base = [*tuned("relu", "tanh"), *scored(relu=spread(10))]
    tanh = [spec("tanh", seed, RATES[1]) for seed in range(3)]
    mixed = [*base, *(trial(s, t, there) for s, t in zip(tanh, spread(60), strict=True))]
    found = judge(c, c.conditions["c"], mixed)
    assert found.outcome == "ERROR"
    assert "the arms ran in different environments: device is cpu for relu and NVIDIA H200 for tanh" in found.reason
    one = [*base, *scored(tanh=spread(60)[:2]), trial(tanh[2], 62.0, there)]
    assert "device is cpu for relu and NVIDIA H200 (1) and cpu (2) for tanh" in judge(c, c.conditions["c"], one).reason
    blocks = [t.model_copy(update={"environment": there}) if t.spec.seed == 2 else t for t in one]
    assert judge(c, c.conditions["c"], blocks).outcome == "REPRODUCED"
    elsewhere = [t.model_copy(update={"environment": {**HERE, "cpu": t.identity}}) for t in mixed]
    assert judge(c, c.conditions["c"], elsewhere).outcome == "REPRODUCED"


def test_unlike_data_are_refused_with_both_digests():
    """One spec run on two data sets, or seeds on two, has no verdict; both digests are named."""
    c = claim(RELU)
    trials = [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60))]
    twice = judge(c, c.conditions["c"], [*trials, trial(trials[-1].spec, 60.0, digest="e")])
    assert twice.outcome == "ERROR"
    assert "the same trial was run on different data: data_digest is" in twice.reason
    parted = judge(c, c.conditions["c"], [*trials[:-1], trial(trials[-1].spec, 60.0, digest="e")])
    assert parted.outcome == "ERROR"
    assert "trials were run on different data: data_digest is d for 11 and e for 1" in parted.reason


def test_a_seed_counts_once():
    """A plan that names a seed twice would count its trial twice."""
    c = claim(RELU)
    trials = [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60))]
    found = judge(c, c.conditions["c"], trials, [(0, 1, 2, 1)])
    assert found.outcome == "ERROR"
    assert found.reason.startswith("seed 1 stands twice in the plan, and a seed counts once; so far ")
    inside = c.model_copy(update={"conditions": {"c": c.conditions["c"].model_copy(update={"seeds": (0, 1, 1)})}})
    assert judge(inside, inside.conditions["c"], trials).outcome == "ERROR"


def test_two_records_of_one_trial_have_no_verdict():
    """The same trial with two results, say from two stores put together: neither is chosen."""
    c = claim(RELU)
    trials = [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60))]
    other = trial(trials[-1].spec, 20.0)
    for order in ([*trials, other], [other, *trials]):
        found = judge(c, c.conditions["c"], order)
        assert found.outcome == "ERROR"
        assert found.reason.startswith(f"the same trial, {other.identity}, was recorded twice, with different results")
    assert judge(c, c.conditions["c"], [*trials, trials[-1].model_copy()]).outcome == "REPRODUCED"


def timed(devices: list[str]) -> tuple[Claim, list[Trial]]:
    """The claim on two GPUs, timed once on each of these devices."""
    c = load_claim(default_claims() / "two-gpu-time.toml")
    condition = c.conditions[c.headline]
    found = [
        Trial(
            spec=throughput.spec(condition.arms, seed), data_digest="d", status="completed",
            measurements=tuple(
                Measurement(name=f"time-per-image/{arm}", value=1 + seed / 1000 + k / 10, unit="s")
                for k, arm in enumerate(condition.arms)
            ),
            environment={**HERE, "device": device},
        )
        for seed, device in zip(condition.seeds, devices, strict=False)
    ]  # fmt: skip
    return c.model_copy(update={"conditions": {c.headline: condition}}), found


def test_timings_of_unlike_machines_are_refused():
    """Every arm of a timing has the same mixture of machines; yet they are not one sample."""
    c, alike = timed(["NVIDIA H200"] * 5)
    looks = [tuple(t.spec.seed for t in alike)]
    assert judge(c, c.conditions[c.headline], alike, looks).outcome not in ("ERROR", "NOT_TESTED")
    c, mixed = timed(["NVIDIA H200"] * (len(alike) - 1) + ["NVIDIA A100"])
    found = judge(c, c.conditions[c.headline], mixed, looks)
    assert found.outcome == "ERROR"
    assert (
        "timings from different environments are not one sample: device is NVIDIA A100 (1) and NVIDIA H200"
        in found.reason
    )


def test_timings_that_are_missing_are_an_error_not_another_claims():
    """A timing trial holds all arms, so where one was run, the condition was begun."""
    c, alike = timed(["NVIDIA H200"] * 5)
    found = judge(c, c.conditions[c.headline], alike[:1])
    assert found.outcome == "ERROR"
    assert "not complete, missing seed " in found.reason


@pytest.mark.parametrize(("scale", "outcome"), [("paper", "ERROR"), ("reduced", "ERROR"), ("smoke", "SMOKE_BROKEN")])
def test_records_that_cannot_be_judged_are_an_error_with_the_claim_and_what_failed(scale, outcome):
    """A time of 0 for a ratio is told, and nothing raised; what says completed and holds no time is to be run again."""
    c = claim(RELU, scale=scale)
    base = [*tuned("relu", "tanh"), *scored(relu=spread(10), tanh=spread(60)[:2])]
    last = trial(spec("tanh", 2, RATES[1]), 60.0)
    empty = judge(c, c.conditions["c"], [*base, last.model_copy(update={"measurements": ()})])
    assert empty.outcome == outcome
    assert empty.reason.startswith("not complete, missing seed 2 of arm tanh; so far ")
    zero = judge_all(c, [*base, trial(last.spec, 0.0)], {})["c"]
    assert zero.outcome == outcome
    assert zero.reason == "the records of x under c cannot be judged: ValueError: a ratio needs values above 0"
    assert {arm for arm, _, _ in zero.observed.trials} == {"relu", "tanh"}


def test_a_proportion_of_anything_but_zeros_and_ones_is_an_error():
    """Half a success in a record is no verdict, and no crash."""
    c = load_claim(default_claims() / "colour-towers.toml")
    arm = next(iter(c.conditions["ilsvrc-2010"].arms))
    from repro.experiments import probe

    made = [
        Trial(
            spec=probe.spec(c.conditions["ilsvrc-2010"].arms[arm], seed), data_digest="d", status="completed",
            measurements=(Measurement(name="colours-apart", value=value, unit=""),), environment={**HERE},
        )
        for seed, value in enumerate((1.0, 0.5, 1.0))
    ]  # fmt: skip
    found = judge(c, c.conditions["ilsvrc-2010"], made, [(0, 1, 2)])
    assert found.outcome == "ERROR"
    assert found.reason.startswith("the records of colour-towers under ilsvrc-2010 cannot be judged: ValueError: ")


def converged(times: dict[str, list[float | None]], epochs_trained: float = 200.0) -> Any:
    """The verdict on dropout's epochs to convergence; None: it had not converged at its last epoch."""
    c = load_claim(default_claims() / "dropout-convergence.toml")
    arms = c.conditions["ilsvrc-2010"].arms
    made = []
    for arm, found in times.items():
        for seed, value in enumerate(found):
            measured = {"epochs-trained": epochs_trained, "top1-error-centre": 40.0, "test-images": 15e4}
            if value is not None:
                measured["epochs-to-converge"] = value
            made.append(
                Trial(
                    spec=final_error.spec(arms[arm], seed), data_digest="d", status="completed", environment={**HERE},
                    measurements=tuple(Measurement(name=n, value=v, unit="") for n, v in measured.items()),
                )
            )  # fmt: skip
    return judge(c, c.conditions["ilsvrc-2010"], made)


def test_a_training_that_had_not_converged_counts_with_its_limit():
    """Left out, the slow seeds would make dropout look quick."""
    without: list[float | None] = [60.0, 61.0, 62.0]
    assert converged({"with": [120.0, 122.0, 121.0], "without": without}).outcome == "REPRODUCED"
    found = converged({"with": [120.0, None, 121.0], "without": without})
    assert found.judged[0].estimate.high == math.inf
    assert found.judged[0].estimate.n == (3, 3)
    assert "1 of 3 seeds of with missed the target" in found.reason
    same = converged({"with": [120.0] * 3, "without": [60.0] * 3}).judged[0].estimate
    assert same.low < 2 < same.high
    neither = converged({"with": [None] * 3, "without": [None] * 3})
    assert (neither.outcome, neither.reason) == ("INCONCLUSIVE", "nothing to compare")


def test_a_smoke_condition_where_an_arm_only_diverges_is_broken():
    """Errors of diverged trainings are no observations, so what is not there must be seen too."""
    c = load_claim(default_claims() / "lrn-error.toml")
    made = [
        Trial(
            spec=final_error.spec(p, 0), data_digest="d", environment={**HERE}, status=status,
            measurements=tuple(
                Measurement(name=name, value=value, unit="")
                for name, value in (("top1-error-ten", 40.0), ("test-images", 512.0))
                if status == "completed"
            ),
        )
        for p, status in zip(c.conditions["smoke"].arms.values(), ("completed", "diverged"), strict=True)
    ]  # fmt: skip
    found = judge(c, c.conditions["smoke"], made, [(0,)])
    assert (found.outcome, found.reason) == (
        "SMOKE_BROKEN", f"{list(c.conditions['smoke'].arms)[1]} diverged, with every seed"
    )  # fmt: skip
    ran = [made[0], made[0].model_copy(update={"spec": made[1].spec})]
    assert judge(c, c.conditions["smoke"], ran, [(0,)]).outcome == "SMOKE_OK"


def test_a_seed_that_lacks_the_metric_is_named_not_dropped():
    """Two of three records with the metric are not three, and may be the better two."""
    c = load_claim(default_claims() / "lrn-error.toml")
    arms = c.conditions["ilsvrc-2012"].arms
    made = [
        Trial(
            spec=final_error.spec(arms[arm], seed), data_digest="d", status="completed", environment={**HERE},
            measurements=tuple(
                Measurement(name=name, value=value, unit="")
                for name, value in (("top1-error-ten", 40 + seed / 10 + 1.4 * (arm == "none")), ("test-images", 5e4))
                if not (name == "top1-error-ten" and arm == "none" and seed == 2)
            ),
        )
        for arm in arms
        for seed in range(3)
    ]  # fmt: skip
    found = judge(c, c.conditions["ilsvrc-2012"], made, [(0, 1, 2)])
    assert found.judged[0].outcome == "INCONCLUSIVE"
    assert "as top1-error-ten of none was not measured with seed 2" in found.judged[0].reason


def test_seeds_that_agree_to_the_last_digit_tell_no_spread():
    """Where nothing says how well a metric is measured, equal seeds are a chance or a fault, not certainty."""
    c = load_claim(default_claims() / "nearest-neighbours.toml")
    (arm, p), *_ = c.conditions["ilsvrc-2010"].arms.items()
    from repro.experiments import probe

    def found(values):
        made = [
            Trial(
                spec=probe.spec(p, seed), data_digest="d", status="completed", environment={**HERE},
                measurements=(Measurement(name=c.expect[0].metrics[0], value=value, unit=""),),
            )
            for seed, value in enumerate(values)
        ]  # fmt: skip
        return judge(c, c.conditions["ilsvrc-2010"], made, [(0, 1, 2)])

    assert found([20.0, 20.1, 20.2]).outcome == "REPRODUCED"
    same = found([20.0] * 3)
    assert same.outcome == "INCONCLUSIVE"
    assert f"the seeds of {arm} agree to the last digit, which tells no spread" in same.reason


ODD = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.just(0.0), st.integers(-5, 5).map(float), st.floats(1, 900)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ODD, min_size=6, max_size=6), st.sampled_from(["paper", "reduced", "smoke", "static"]), st.data())
def test_whatever_the_records_hold_a_verdict_comes_back(values, scale, data):
    """Any numbers, any status, any record left out: an outcome with a reason of one line, twice the same."""
    c = claim(data.draw(st.sampled_from([RELU, ABOVE])), scale=scale)
    statuses = st.sampled_from(["running", "completed", "completed", "completed", "censored", "diverged", "failed"])
    made = [
        trial(spec(arm, seed, RATES[1]), value).model_copy(update={"status": data.draw(statuses)})
        for (arm, seed), value in zip([(a, s) for a in ("relu", "tanh") for s in range(3)], values, strict=True)
    ]
    trials = [*tuned("relu", "tanh"), *made[: data.draw(st.integers(0, 6))]]
    one, again = judge(c, c.conditions["c"], trials), judge(c, c.conditions["c"], records(trials))
    assert one == again
    assert one.reason
    assert "\n" not in one.reason
    whole = len(trials) == 12 and all(t.status in ("completed", "censored", "diverged") for t in made)
    assert whole or one.outcome in ("ERROR", "NOT_TESTED", "SMOKE_BROKEN")
