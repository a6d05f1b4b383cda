"""Verdicts, through the real ``judge`` with trial records built in memory."""

import itertools
import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import (
    ABOUT,
    ABOVE,
    ABSOLUTE,
    AT_MOST,
    EITHER,
    HIGHER,
    LESS,
    MISS,
    RATES,
    RELU,
    SIX,
    SLIGHTLY,
    claim,
    expect,
    scored,
    spec,
    spread,
    trial,
    tuned,
    verdict,
)  # fmt: skip

from repro import numbers
from repro.experiments import epochs_to
from repro.judging.judge import judge, judge_all
from repro.judging.rules import ALPHA
from repro.outcomes import OUTCOMES, Outcome

# expectation, centre and log spread of tanh (relu is at 10), outcome, what the reason must say
TABLE = [
    (RELU, 60, 0.05, "REPRODUCED", "inside the accepted band (4 to 9)"),
    (RELU, 50, 0.05, "REPRODUCED", "the published 6 itself lies outside the interval"),
    (RELU, 30, 0.05, "NOT_REPRODUCED", "smaller than the accepted band (4 to 9), though its direction holds"),
    (RELU, 10, 0.05, "NOT_REPRODUCED", "absent"),
    (RELU, 5, 0.05, "NOT_REPRODUCED", "reversed"),
    (RELU, 150, 0.05, "DIRECTION", "larger than the accepted band (4 to 9)"),
    (RELU, 40, 0.3, "DIRECTION", "not resolved"),
    (RELU, 20, 0.9, "INCONCLUSIVE", "seeds per arm would decide"),
    (ABOVE, 20, 0.05, "REPRODUCED", "inside the accepted band (at least 1)"),
    (ABOVE, 5, 0.05, "NOT_REPRODUCED", "reversed"),
    (ABOVE, 10, 0.2, "INCONCLUSIVE", "no number of seeds up to 50"),
    (SLIGHTLY, 9, 0.01, "REPRODUCED", "slightly less time"),
    (SLIGHTLY, 5, 0.01, "DIRECTION", "larger"),
    (SLIGHTLY, 12, 0.01, "NOT_REPRODUCED", "reversed"),
    (ABOUT, 20, 0.05, "REPRODUCED", "the published about 2"),
    (ABOUT, 13, 0.03, "NOT_REPRODUCED", "smaller"),
    (LESS, -4, 0.02, "NOT_REPRODUCED", "smaller"),
    (LESS, -14, 0.02, "REPRODUCED", "1.00 times the published -14"),
    (LESS, -30, 0.02, "DIRECTION", "larger"),
    (LESS, +9, 0.02, "NOT_REPRODUCED", "reversed"),
    (ABSOLUTE, 60, 0.03, "REPRODUCED", "inside"),
    (ABSOLUTE, 90, 0.03, "NOT_REPRODUCED", "worse than the accepted band (50 to 70)"),
    (ABSOLUTE, 30, 0.03, "DIRECTION", "better"),
    (ABSOLUTE, 70, 0.05, "INCONCLUSIVE", "neither inside nor outside"),
    (HIGHER, 30, 0.03, "NOT_REPRODUCED", "worse"),
    (HIGHER, 90, 0.03, "DIRECTION", "better"),
    (EITHER, 30, 0.03, "NOT_REPRODUCED", "outside"),
    (EITHER, 90, 0.03, "NOT_REPRODUCED", "outside"),
    (AT_MOST, 40, 0.05, "REPRODUCED", "at most 60"),
    (AT_MOST, 80, 0.05, "NOT_REPRODUCED", "worse than the accepted band (at most 60)"),
]  # fmt: skip


@pytest.mark.parametrize(("e", "centre", "sd", "outcome", "words"), TABLE)
def test_the_table_of_outcomes(e, centre, sd, outcome, words):
    """Each line of the table of verdicts, for every kind of published value: outcome, and what the reason says."""
    relu = 50.0 if e is LESS else 10.0
    tanh = spread(relu + centre if e is LESS else centre, sd)
    found = verdict(e, relu=spread(relu, sd), tanh=tanh)
    print(f"{found.outcome}: {found.reason}")
    assert found.outcome == outcome, found.reason
    assert words in found.reason
    assert found.reason.split(" (90% interval ")[0] == numbers.estimate_texts(*found.judged[0].estimate[:3])[0]


def test_every_outcome_has_its_place_in_the_order():
    """The order in which outcomes of several expectations are weighed has each outcome, and what it says."""
    assert sorted(OUTCOMES) == sorted(get_args(Outcome))


@pytest.mark.parametrize(
    ("tanh", "sigmoid", "each", "whole"),
    [
        (spread(60), spread(40, 0.3), ["REPRODUCED", "DIRECTION"], "DIRECTION"),
        (spread(60), spread(20, 0.9), ["REPRODUCED", "INCONCLUSIVE"], "INCONCLUSIVE"),
        (spread(30), spread(20, 0.9), ["NOT_REPRODUCED", "INCONCLUSIVE"], "NOT_REPRODUCED"),
        (spread(30), spread(40, 0.3), ["NOT_REPRODUCED", "DIRECTION"], "NOT_REPRODUCED"),
    ],
)
def test_the_worst_of_several_outcomes_is_the_claims(tanh, sigmoid, each, whole):
    two = [RELU, expect(of="sigmoid", **SIX)]
    found = verdict(two, relu=spread(10), tanh=tanh, sigmoid=sigmoid)
    assert ([j.outcome for j in found.judged], found.outcome) == (each, whole)
    trend = verdict(two, scale="reduced", relu=spread(10), tanh=spread(5), sigmoid=spread(60))
    assert trend.outcome == "TREND_CONTRARY"


@pytest.mark.parametrize(
    ("tanh", "outcome"),
    [(60, "TREND_CONSISTENT"), (200, "TREND_CONSISTENT"), (5, "TREND_CONTRARY"), (10, "TREND_UNRESOLVED")],
)
def test_a_reduced_condition_tells_a_trend(tanh, outcome):
    """Reduced data answer for the direction alone, on whichever side of the band the size lies."""
    assert verdict(RELU, scale="reduced", relu=spread(10), tanh=spread(tanh)).outcome == outcome


def test_a_reduced_condition_says_nothing_about_absolute_values():
    """An absolute value is not tested on reduced data, and does not hide what they say about the rest."""
    assert verdict(ABSOLUTE, scale="reduced", relu=spread(10), tanh=spread(60)).outcome == "NOT_TESTED"
    both = verdict([ABSOLUTE, RELU], scale="reduced", relu=spread(10), tanh=spread(60))
    assert both.outcome == "TREND_CONSISTENT"
    assert [j.outcome for j in both.judged] == ["NOT_TESTED", "TREND_CONSISTENT"]


SCALES_APART = {
    "smoke": {"SMOKE_OK", "SMOKE_BROKEN", "NOT_TESTED"},
    "reduced": {"TREND_CONSISTENT", "TREND_CONTRARY", "TREND_UNRESOLVED", "NOT_TESTED", "ERROR"},
}
TIME = st.one_of(st.floats(10, 999), st.just(MISS))
TIMES = st.lists(TIME, min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([RELU, ABOVE, LESS, ABSOLUTE, EITHER]), st.sampled_from([*SCALES_APART]), TIMES, TIMES)
def test_smoke_and_reduced_conditions_never_reproduce_or_refute(e, scale, relu, tanh):
    """Whatever was measured, drawn or reduced data answer in words of their own."""
    found = verdict(e, scale=scale, relu=relu, tanh=tanh)
    assert {found.outcome, *(j.outcome for j in found.judged)} <= SCALES_APART[scale]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([RELU, ABOVE, LESS, ABSOLUTE, EITHER]), TIMES, TIMES, st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_change_a_verdict(e, relu, tanh, chance):
    """Shuffled records, foreign ones among them, give the same verdict, reason and estimate."""
    c = claim(e, n=max(len(relu), len(tanh)))
    foreign = trial(spec("sigmoid", 0, 0.5), 3.0)
    trials = [*tuned("relu", "tanh"), *scored(relu=relu, tanh=tanh), foreign]
    shuffled = list(trials)
    chance.shuffle(shuffled)
    one, other = judge(c, c.conditions["c"], trials), judge(c, c.conditions["c"], shuffled)
    assert (one.outcome, one.reason, one.judged) == (other.outcome, other.reason, other.judged)


@settings(max_examples=40, deadline=None)
@given(TIMES.filter(lambda t: len(t) > 1), TIMES.filter(lambda t: len(t) > 1))
def test_the_order_of_arms_does_not_change_a_verdict(relu, tanh):
    """A claim that names its arms the other way round gets the same answer."""
    n = min(len(relu), len(tanh))
    one = verdict(RELU, relu=relu[:n], tanh=tanh[:n])
    other = verdict(RELU, tanh=tanh[:n], relu=relu[:n])
    assert (one.outcome, one.judged) == (other.outcome, other.judged)


def test_nothing_run_is_not_tested():
    """Without a trial of this condition the answer is NOT_TESTED, under every scale, with what is missing."""
    for scale in ("paper", "reduced", "smoke"):
        c = claim(RELU, scale=scale)
        found = judge_all(c, [trial(spec("sigmoid", 0, 0.5), 3.0)], {})["c"]
        assert found.outcome == "NOT_TESTED"
        assert found.reason == "nothing was run under c (planned: 3 seeds per arm on cifar10)"
        assert found.judged == ()


def test_a_run_that_was_begun_and_left_nothing_is_no_claim_that_nobody_ran():
    """Its plan is there and its records are not: taken away, or never written. Either way something was asked for."""
    found = judge_all(claim(RELU), [], {("x", "c"): [(0, 1, 2)]})["c"]
    assert (found.outcome, found.looks) == ("ERROR", 1)
    assert found.reason.startswith("not complete, missing ")


def test_a_censored_arm_leaves_its_side_open():
    """A missed target counts with its limit: it can show a direction, never a size; a diverged one alike."""
    found = verdict(RELU, relu=spread(10), tanh=[500.0, 520.0, MISS])
    assert found.outcome == "DIRECTION"
    assert found.judged[0].estimate.high == math.inf
    assert "1 of 3 seeds of tanh missed the target" in found.reason
    other = verdict(RELU, tanh=spread(500), relu=[500.0, 520.0, MISS])
    assert other.outcome == "NOT_REPRODUCED"
    assert other.judged[0].estimate.low == 0
    assert verdict(ABOVE, relu=spread(10), tanh=[500.0, 520.0, MISS]).outcome == "REPRODUCED"
    assert verdict(LESS, relu=[500.0, 520.0, MISS], tanh=spread(490)).judged[0].estimate.low == -math.inf
    assert verdict(ABSOLUTE, relu=spread(10), tanh=[60.0, 61.0, MISS]).judged[0].estimate.high == math.inf


@pytest.mark.parametrize(("scale", "outcome"), [("paper", "INCONCLUSIVE"), ("reduced", "TREND_UNRESOLVED")])
def test_two_censored_arms_decide_nothing(scale, outcome):
    """Where both arms missed their target with some seed, no ratio can be bounded on either side."""
    found = verdict(RELU, scale=scale, relu=[10.0, 10.0, MISS], tanh=[500.0, 520.0, MISS])
    assert (found.outcome, found.reason) == (outcome, "both tanh and relu have seeds that missed the target")


def test_an_undecided_search_decides_nothing():
    """A best rate on the edge of the grid leaves the size open, and the reason names arm and rate."""
    c = claim(RELU)
    edge = [t for t in tuned("relu", "tanh") if (t.spec.config["activation"], t.spec.config["rate"]) != ("tanh", 0.01)]
    grown = epochs_to.grid(RATES, 4, 0)
    steps = [
        trial(spec(a, 1000, r), t) for a in ("relu", "tanh") for r, t in zip(grown[:5], range(60, 65), strict=True)
    ]
    low = [
        trial(spec(a, seed, grown[0]), t)
        for a, times in (("relu", spread(10)), ("tanh", spread(60)))
        for seed, t in enumerate(times)
    ]
    relu_edge = [t for t in edge if t.spec.config["rate"] != 0.01]
    found = judge(c, c.conditions["c"], [*relu_edge, *steps, *low])
    assert found.outcome == "INCONCLUSIVE"
    assert "as the best learning rate of relu, 0.000625, is on the edge of the grid, and 1 more" in found.reason


def test_a_smoke_condition_is_broken_where_an_arm_gets_nowhere():
    """It says that everything ran; an arm that never reached the target shows that something does not work."""
    assert verdict(RELU, scale="smoke", relu=[10.0, 11.0], tanh=[MISS, 60.0]).outcome == "SMOKE_OK"
    assert verdict(RELU, scale="smoke", relu=[10.0, 11.0], tanh=[MISS, MISS]).outcome == "SMOKE_BROKEN"


def test_a_smoke_condition_is_broken_where_an_arm_only_diverges():
    """A trial that diverged did not work; in an arm where all did, there is nothing that did."""
    c = claim(RELU, scale="smoke", n=1)
    relu, tanh = (trial(spec(arm, 0, RATES[1]), 20.0) for arm in ("relu", "tanh"))
    diverged = tanh.model_copy(update={"status": "diverged", "measurements": (), "limit": 50.0})
    base = [*tuned("relu", "tanh"), relu]
    assert judge(c, c.conditions["c"], [*base, tanh]).outcome == "SMOKE_OK"
    assert judge(c, c.conditions["c"], [*base, diverged]).outcome == "SMOKE_BROKEN"


def test_one_seed_decides_nothing():
    """A single seed has no spread: the interval is infinite and the answer asks for more seeds."""
    found = verdict(RELU, relu=[10.0], tanh=[60.0])
    assert found.outcome == "INCONCLUSIVE"
    assert found.judged[0].estimate[1:3] == (0.0, math.inf)
    assert "at least 2 seeds per arm are needed" in found.reason


def test_equal_times_have_an_interval_as_wide_as_the_clock_is_coarse():
    """Seeds that agree to the last digit are not known better than the checks are apart."""
    found = verdict(RELU, relu=[10.0] * 3, tanh=[60.0] * 3)
    assert found.judged[0].estimate.low < 6 < found.judged[0].estimate.high


@pytest.mark.parametrize(
    ("tanh", "outcome"), [(60.0, "REPRODUCED"), (30.0, "NOT_REPRODUCED"), (5.0, "NOT_REPRODUCED"), (150.0, "DIRECTION")]
)
def test_what_is_computed_is_known_exactly(tanh, outcome):
    """A static condition has no spread: one value decides, and is told as exact."""
    found = verdict(RELU, scale="static", relu=[10.0], tanh=[tanh])
    assert found.outcome == outcome
    assert found.reason.startswith(f"{tanh / 10:g}, measured, ")
    assert verdict(ABSOLUTE, scale="static", relu=[10.0], tanh=[60.5]).reason.startswith("60.5, measured, 1.01 times")


@pytest.mark.parametrize(
    ("op", "accept", "better", "value", "outcome"),
    [
        (">", (10.0, 20.0), "higher", 10.0, "NOT_REPRODUCED"),
        (">=", (10.0, 20.0), "higher", 10.0, "REPRODUCED"),
        (">", (10.0, 20.0), "higher", 10.001, "REPRODUCED"),
        ("<", (5.0, 10.0), "lower", 10.0, "NOT_REPRODUCED"),
        ("<=", (5.0, 10.0), "lower", 10.0, "REPRODUCED"),
        ("<", (5.0, 10.0), None, 10.0, "NOT_REPRODUCED"),
    ],
)
def test_more_than_ten_is_not_ten(op, accept, better, value, outcome):
    """A computed value on the very bound meets "at least" and not "more than"."""
    e = expect(statistic="value", over=None, published={"op": op, "value": 10.0}, accept=accept, better=better)
    assert verdict(e, scale="static", relu=[30.0], tanh=[value]).outcome == outcome


def test_more_than_no_effect_is_not_none():
    """A computed ratio of exactly 1 refutes "more than 1", where it is also no effect."""
    found = verdict(ABOVE, scale="static", relu=[10.0], tanh=[10.0])
    assert found.outcome == "NOT_REPRODUCED"
    assert "absent" in found.reason


def test_no_expectation_is_no_verdict():
    """A condition for which the claim expects nothing is not tested, whatever was run; a smoke condition answers."""
    elsewhere = expect(**SIX, conditions=("d",))
    assert verdict(elsewhere, relu=spread(10), tanh=spread(60)).outcome == "NOT_TESTED"
    assert verdict(elsewhere, scale="smoke", relu=spread(10), tanh=spread(60)).outcome == "SMOKE_OK"


def test_several_expectations_take_the_weaker_and_name_it():
    """With two expectations the outcome and the reason are those of the worse one."""
    two = [RELU, expect(of="sigmoid", **SIX)]
    found = verdict(two, relu=spread(10), tanh=spread(60), sigmoid=spread(20))
    assert [j.outcome for j in found.judged] == ["REPRODUCED", "NOT_REPRODUCED"]
    assert found.outcome == "NOT_REPRODUCED"
    assert found.reason.startswith("epochs to the target, sigmoid over relu: 2.00 (90% interval")


def test_with_two_expectations_refuting_needs_half_alpha():
    """An arm refuted alone, but not at half alpha, is not refuted beside another expectation."""
    relu, tanh = spread(10, 0.1), spread(32.1, 0.12)
    alone = verdict(RELU, relu=relu, tanh=tanh)
    assert alone.outcome == "NOT_REPRODUCED"
    two = verdict([RELU, expect(of="sigmoid", **SIX)], relu=relu, tanh=tanh, sigmoid=spread(60))
    assert two.judged[0].outcome == "DIRECTION"
    assert "smaller than the accepted band (4 to 9), though not at the stricter level" in two.judged[0].reason
    assert two.judged[0].estimate == alone.judged[0].estimate


def test_with_two_expectations_a_contrary_trend_needs_half_alpha():
    """What is contrary alone, but not at half alpha, is unresolved beside another; the claimed direction is not."""
    two = [RELU, expect(of="sigmoid", **SIX)]
    relu, tanh = spread(10, 0.1), spread(8, 0.12)
    alone = verdict(RELU, scale="reduced", relu=relu, tanh=tanh)
    assert alone.outcome == "TREND_CONTRARY"
    both = verdict(two, scale="reduced", relu=relu, tanh=tanh, sigmoid=spread(60))
    assert [j.outcome for j in both.judged] == ["TREND_UNRESOLVED", "TREND_CONSISTENT"]
    assert "opposite direction, though not at the stricter level" in both.judged[0].reason
    assert both.judged[0].estimate == alone.judged[0].estimate
    consistent = verdict(RELU, scale="reduced", relu=relu, tanh=spread(12.5, 0.12))
    again = verdict(two, scale="reduced", relu=relu, tanh=spread(12.5, 0.12), sigmoid=spread(60))
    assert consistent.outcome == again.outcome == "TREND_CONSISTENT"


def test_an_absolute_value_costs_a_trend_no_alpha():
    """On reduced data it cannot contradict a direction, so it takes no share."""
    relu, tanh = spread(10, 0.1), spread(8, 0.12)
    found = verdict([ABSOLUTE, RELU], scale="reduced", relu=relu, tanh=tanh)
    assert [j.outcome for j in found.judged] == ["NOT_TESTED", "TREND_CONTRARY"]


def test_further_looks_cost_alpha_and_the_first_plan_is_told():
    """The third look is judged at a third of alpha, and the reason says what the first plan had found."""
    times = {"relu": spread(10, n=6), "tanh": spread(60, n=6)}
    found = verdict(RELU, looks=[(0,), (0, 1, 2), tuple(range(6))], **times)
    assert found.judged[0].estimate.confidence == pytest.approx(1 - 2 * ALPHA / 3)
    assert "(96.7% interval" in found.reason
    assert found.reason.endswith("; at the first look, with 1 seed per arm, it was INCONCLUSIVE")
    assert (found.looks, found.seeds) == (3, tuple(range(6)))


def test_no_seed_that_was_run_is_left_out():
    """A later plan with other seeds adds to the first one: who does not like a seed cannot plan it away."""
    times = {"relu": spread(10, n=6), "tanh": [*spread(60, n=5), 20.0]}
    found = verdict(RELU, looks=[(3, 4, 5), (0, 1, 2)], **times)
    assert found.seeds == (3, 4, 5, 0, 1, 2)
    assert found.judged[0].estimate.n == (6, 6)
    short = {arm: values[:4] for arm, values in times.items()}
    missing = verdict(RELU, looks=[(3, 4, 5), (0, 1, 2)], **short)
    assert missing.outcome == "ERROR"
    assert "not complete, missing seed 4 of arm " in missing.reason


@pytest.mark.parametrize("looks", [(), ((0, 1, 2),)])
def test_the_seeds_that_would_decide_do_decide(looks):
    """With that many seeds of the same centre and spread, one look later, there is a verdict; with one less, none."""
    base = {"relu": spread(10, 0.35), "tanh": spread(40, 0.9)}
    found = verdict(RELU, looks=looks, **base)
    assert found.outcome == "INCONCLUSIVE"
    n = int(found.reason.split("about ")[1].split(" ")[0])

    def grown(n: int) -> Outcome:
        steps = [tuple(range(3)), tuple(range(n))]
        return verdict(RELU, relu=spread(10, 0.35, n), tanh=spread(40, 0.9, n), looks=steps).outcome

    assert grown(n) != "INCONCLUSIVE"
    assert grown(n - 1) == "INCONCLUSIVE"


def test_all_outcomes_of_a_paper_condition_are_reached():
    """The table above has a line for each outcome that measured evidence can have."""
    told = {row[3] for row in TABLE}
    assert told == {"REPRODUCED", "NOT_REPRODUCED", "DIRECTION", "INCONCLUSIVE"}
    assert set(itertools.chain(told, *SCALES_APART.values())) == set(get_args(Outcome))
