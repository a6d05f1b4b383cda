"""What a plan can resolve: the computed chances against counting, against known numbers, and their limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import LRN, RELU, TOP1, World, errors, simulate, times

from repro.judging.power import Chances, chances, required_n
from repro.spec import Expectation

REPETITIONS = 500
UP_TO = Expectation(
    metric="m", statistic="value", of="a", published={"op": "<=", "value": 1.0}, accept=(-math.inf, 1.0),
    better="lower", because="for a test",
)  # fmt: skip


@pytest.mark.parametrize(
    "world",
    [
        errors("difference", LRN, 1.4, (0.35, 0.35), 5),
        errors("difference", LRN, 0.7, (0.1, 0.5), 3),
        errors("difference", LRN, 0.0, (0.5, 0.5), 3),
        errors("value", TOP1, 38.3, (0.5,), 4),
        times("ratio", {"tanh": 6.0}, (0.2, 0.2), 3),
        times("ratio", {"tanh": 3.0}, (0.1, 0.2), 3),
    ],
    ids=lambda world: world.label,
)
def test_computed_chances_are_what_the_judge_does(world: World) -> None:
    """The shares of outcomes among simulated claims lie within four standard errors of the computed chances."""
    e = world.claim.expect[0]
    found = simulate(world, REPETITIONS)
    expected = chances(e, world.truth, world.sds, world.n)
    shown = found.share("REPRODUCED") + found.share("DIRECTION")
    for share, chance in (
        (found.share("REPRODUCED"), expected.reproduced),
        (found.share("NOT_REPRODUCED"), expected.not_reproduced),
        *([(shown, expected.shown)] if e.null is not None and expected.not_reproduced < 1e-3 else []),
    ):
        print(f"{world.label}: {share:.3f}, computed {chance:.3f}")
        assert abs(share - chance) <= 4 * math.sqrt(max(chance * (1 - chance), 1 / REPETITIONS) / REPETITIONS)


@pytest.mark.parametrize(
    ("truth", "sd", "n", "field", "chance"),
    [
        (1.4, 0.2, 3, "reproduced", 0.88),
        (1.4, 0.35, 3, "reproduced", 0.31),
        (1.4, 0.35, 5, "reproduced", 0.76),
        (1.4, 0.5, 10, "reproduced", 0.83),
        (0.0, 0.35, 5, "not_reproduced", 0.88),
        (0.7, 0.35, 10, "reproduced", 0.05),
        (0.7, 0.35, 10, "not_reproduced", 0.05),
    ],
)
def test_chances_counted_elsewhere(truth: float, sd: float, n: int, field: str, chance: float) -> None:
    """The claim of 1.4 points, by scipy's Welch intervals of normal draws: counted here, without our own statistics."""
    from scipy.stats import ttest_ind

    rng = np.random.default_rng([int(100 * truth), int(100 * sd), n])
    of, over = rng.normal(truth, sd, (n, 20_000)), rng.normal(0.0, sd, (n, 20_000))
    interval = ttest_ind(of, over, equal_var=False).confidence_interval(0.9)
    inside = (interval.low >= 0.7) & (interval.high <= 2.1)
    counted = float(np.mean(inside if field == "reproduced" else interval.high < 0.7))
    computed = getattr(chances(LRN, truth, (sd, sd), n), field)
    assert computed == pytest.approx(chance, abs=0.006)
    assert computed == pytest.approx(counted, abs=4 * math.sqrt(0.25 / 20_000))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 3.0), st.floats(0.01, 3.0), st.integers(2, 12))
def test_on_the_edge_chances_of_error_are_near_five_in_a_hundred_at_most(of: float, over: float, n: int) -> None:
    """For any two spreads: Welch's approximation is known to go a little past its level, most at the fewest seeds."""
    found = chances(LRN, 0.7, (of, over), n)
    most = 0.0571 if n == 2 else 0.0541 if n == 3 else 0.0526
    assert found.reproduced <= most
    assert found.not_reproduced <= most


@settings(max_examples=25, deadline=None)
@given(st.floats(0.8, 2.0), st.floats(0.05, 1.0), st.integers(2, 10))
def test_noise_never_helps_a_true_claim(truth: float, sd: float, n: int) -> None:
    """With the truth inside the band, a larger spread makes REPRODUCED less likely, and so does one seed less.

    Where it is hardly ever REPRODUCED, two seeds may do better than three: they agree by chance more often.
    """
    here = chances(LRN, truth, (sd, sd), n).reproduced
    assert chances(LRN, truth, (1.3 * sd, 1.3 * sd), n).reproduced <= here + 1e-4
    assert here < 0.1 or chances(LRN, truth, (sd, sd), n + 1).reproduced >= here - 1e-6


def test_both_sides_of_a_claim_are_alike() -> None:
    """A difference named the other way round, and a ratio turned over, have the same chances."""
    turned = LRN.model_copy(update={"accept": (-2.1, -0.7), "published": LRN.published})
    assert chances(turned, -1.0, (0.3, 0.2), 4) == pytest.approx(chances(LRN, 1.0, (0.3, 0.2), 4))
    sixth = RELU.model_copy(update={"accept": (1 / 9, 1 / 4)})
    assert chances(sixth, 1 / 5, (0.3, 0.2), 4) == pytest.approx(chances(RELU, 5.0, (0.3, 0.2), 4))


def test_an_absolute_claim_counts_what_is_better_apart() -> None:
    """At most 1, and it is far below: reproduced; with both ends, wholly below is better, not refuted."""
    assert chances(UP_TO, 0.0, (0.1,), 3).reproduced == pytest.approx(1.0, abs=1e-3)
    assert chances(UP_TO, 2.0, (0.1,), 3).not_reproduced == pytest.approx(1.0, abs=1e-2)
    assert chances(TOP1, 35.0, (0.1,), 5) == pytest.approx(Chances(0.0, 0.0, 1.0), abs=1e-3)
    either = TOP1.model_copy(update={"better": None})
    assert chances(either, 35.0, (0.1,), 5) == pytest.approx(Chances(0.0, 1.0, 0.0), abs=1e-3)


def test_a_floor_and_a_stricter_level_widen_the_interval() -> None:
    """A floor above the spread costs power; refuting beside other expectations costs more of it, reproducing none."""
    free, floored = (chances(LRN, 1.4, (0.2, 0.2), 3, floor=f) for f in (0.0, 0.4))
    assert floored.reproduced < 0.5 * free.reproduced
    alone, beside = (chances(LRN, 0.0, (0.35, 0.35), 3, together=k) for k in (1, 2))
    assert beside.not_reproduced < alone.not_reproduced - 0.1
    assert beside.reproduced == alone.reproduced
    assert chances(LRN, 1.4, (0.35, 0.35), 3, alpha=0.025).reproduced < chances(LRN, 1.4, (0.35, 0.35), 3).reproduced


def test_the_seeds_a_claim_needs() -> None:
    """One less is too few; where no number up to the limit will do, the answer is None; a sign needs fewer."""
    pooling = LRN.model_copy(update={"accept": (0.2, 0.6)})
    n = required_n(pooling, 0.4, (0.2, 0.2))
    assert n == 18
    assert chances(pooling, 0.4, (0.2, 0.2), n).reproduced >= 0.8 > chances(pooling, 0.4, (0.2, 0.2), n - 1).reproduced
    assert required_n(pooling, 0.4, (0.2, 0.2), wanted="shown") == 5
    assert required_n(pooling, 0.4, (0.5, 0.5)) is None
    assert required_n(LRN, 0.7, (0.2, 0.2)) is None  # on the edge of the band no number of seeds shows it inside
    assert required_n(LRN, 1.4, (0.2, 0.2), power=0.95) > required_n(LRN, 1.4, (0.2, 0.2))


def test_one_seed_resolves_nothing() -> None:
    """Its interval is infinite."""
    assert chances(LRN, 1.4, (0.01, 0.01), 1) == Chances(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sds", "statistic"), [((0.1,), "difference"), ((0.1, 0.0), "difference"), ((1.0,), "proportion")]
)
def test_what_has_no_such_chances_is_refused(sds: tuple[float, ...], statistic: str) -> None:
    """A spread an arm, above 0; a proportion is not a mean of normal draws."""
    with pytest.raises(ValueError, match="standard deviations above 0" if statistic == "difference" else "proportion"):
        chances(LRN.model_copy(update={"statistic": statistic}), 1.0, sds, 3)
