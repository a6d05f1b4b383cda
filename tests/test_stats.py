import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from repro.judging.stats import (
    Estimate,
    Sample,
    contrast_interval,
    difference_interval,
    log_sample,
    max_interval,
    mean_interval,
    paired_difference,
    proportion_interval,
    ratio_interval,
    sample,
)  # fmt: skip

REPETITIONS = 2000
FOUR_SE = 4 * math.sqrt(0.9 * 0.1 / REPETITIONS)
VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-6)


def test_mean_and_variance_by_hand():
    """1, 2, 3 have mean 2 and variance 1; a single value has no spread of its own."""
    assert sample([1.0, 2.0, 3.0]) == Sample(2.0, 1.0, 3)
    assert sample([5.0]) == Sample(5.0, math.inf, 1)
    with pytest.raises(ValueError, match="no values"):
        sample([])


def test_a_mean_by_hand():
    """The 90% interval of 1, 2, 3 is 2 ± 2.92 / sqrt(3), from the table of Student's t with two degrees."""
    found = mean_interval(sample([1.0, 2.0, 3.0]), 0.9)
    half = 2.91999 / math.sqrt(3)
    assert found == Estimate(2.0, pytest.approx(2 - half, rel=1e-5), pytest.approx(2 + half, rel=1e-5), (3,), 0.9)


def test_a_difference_by_hand():
    """Equal spreads and sizes: Welch has 2 (n - 1) = 4 degrees, t = 2.13185, and s * sqrt(2 / 3) as its error."""
    found = difference_interval(sample([4.0, 5.0, 6.0]), sample([1.0, 2.0, 3.0]), 0.9)
    assert found.value == 3
    assert found.high - 3 == pytest.approx(2.13185 * math.sqrt(2 / 3), rel=1e-5)
    assert found.n == (3, 3)


def test_a_ratio_by_hand():
    """Values that double from seed to seed: 4 times as many, with the interval of the base-2 logarithms 1, 2, 3."""
    found = ratio_interval(log_sample([8.0, 16.0, 32.0]), log_sample([2.0, 4.0, 8.0]), 0.9)
    assert found.value == pytest.approx(4)
    assert math.log2(found.high / 4) == pytest.approx(2.13185 * math.sqrt(2 / 3), rel=1e-5)
    assert found.low * found.high == pytest.approx(16)


@given(VALUES, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_mean_agrees_with_scipy(values, confidence):
    """Student's interval equals scipy.stats.t.interval for any values."""
    found = mean_interval(sample(values), confidence)
    low, high = scipy.stats.t.interval(confidence, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-7), pytest.approx(high, abs=1e-7))


@given(VALUES, VALUES, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_difference_agrees_with_scipy(of, over, confidence):
    """Welch's interval equals the one of scipy.stats.ttest_ind without equal variances, for any two arms."""
    found = difference_interval(sample(of), sample(over), confidence)
    theirs = scipy.stats.ttest_ind(of, over, equal_var=False).confidence_interval(confidence)
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=1e-6), pytest.approx(theirs.high, abs=1e-6))


def test_a_single_value_bounds_nothing():
    """One seed in an arm leaves the interval infinite, whatever the other arm holds."""
    one, three = sample([1.0]), sample([1.0, 2.0, 3.0])
    assert mean_interval(one, 0.9)[1:3] == (-math.inf, math.inf)
    assert difference_interval(one, three, 0.9)[1:3] == (-math.inf, math.inf)
    assert ratio_interval(log_sample([2.0]), log_sample([1.0]), 0.9)[:3] == (2.0, 0.0, math.inf)


@pytest.mark.parametrize("variance", [4.0, 0.0, math.inf])
def test_one_value_bounds_no_difference_whatever_its_variance_is_said_to_be(variance):
    """Nor a contrast, unless its weight is 0."""
    one, others = Sample(1.0, variance, 1), Sample(2.0, 1.0, 5)
    assert difference_interval(one, others, 0.9)[1:3] == (-math.inf, math.inf)
    assert (
        contrast_interval([others, others, one], [1, -1, 0], 0.9)[1:3] == difference_interval(others, others, 0.9)[1:3]
    )


def test_lower_bounds_open_the_side_the_truth_may_lie_on():
    """Bounds in ``of`` open the interval above, bounds in ``over`` below; the other end stays as it is."""
    a, b = log_sample([4.0, 5.0, 6.0]), log_sample([1.0, 1.1, 1.2])
    closed = ratio_interval(a, b, 0.9)
    assert ratio_interval(a, b, 0.9, of_exact=False) == closed._replace(high=math.inf)
    assert ratio_interval(a, b, 0.9, over_exact=False) == closed._replace(low=0.0)
    assert difference_interval(a, b, 0.9, over_exact=False).low == -math.inf
    assert mean_interval(a, 0.9, exact=False).high == math.inf


def test_equal_values_are_known_no_better_than_they_were_measured():
    """Without a spread the floor takes its place, on the logarithm in proportion to the value; else it is idle."""
    assert sample([3.0, 3.0, 3.0], floor=0.5) == Sample(3.0, 0.25, 3)
    assert log_sample([4.0, 4.0], floor=0.2).variance == pytest.approx(0.05**2)
    assert sample([1.0, 3.0], floor=0.5) == sample([1.0, 3.0])
    found = ratio_interval(log_sample([6.0] * 3, 0.03), log_sample([1.0] * 3, 0.03), 0.9)
    assert found.low < 6 < found.high


def test_constant_arms_without_a_floor_have_an_interval_of_no_width():
    """Values that are exact by nature, such as counts, are known exactly."""
    assert difference_interval(sample([3.0, 3.0]), sample([1.0, 1.0]), 0.9)[:3] == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("values", [[1.0, 0.0], [-1.0, 2.0]])
def test_a_ratio_needs_values_above_zero(values):
    """A logarithm of 0 or less is refused in words."""
    with pytest.raises(ValueError, match="above 0"):
        log_sample(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 90.0])
def test_a_confidence_is_a_fraction(confidence):
    """90 is not 90%: a confidence outside 0..1 is refused."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval(sample([1.0, 2.0]), confidence)


@given(st.floats(1e-160, 1e160), st.floats(1e-160, 1e160))
def test_spreads_of_any_scale_keep_their_degrees_of_freedom(a, b):
    """The half-width in standard errors lies between Student's t for both arms together and for the smaller one."""
    found = difference_interval(Sample(0.0, a, 4), Sample(0.0, b, 3), 0.9)
    errors = found.high / math.sqrt(a / 4 + b / 3)
    assert scipy.stats.t.ppf(0.95, 5) - 1e-9 <= errors <= scipy.stats.t.ppf(0.95, 2) + 1e-9


def test_more_confidence_is_a_wider_interval():
    """Each interval holds every one of less confidence."""
    a, b = sample([1.0, 2.0, 4.0]), sample([0.0, 0.5, 3.0])
    found = [difference_interval(a, b, c) for c in (0.5, 0.8, 0.9, 0.99)]
    assert all(y.low < x.low < x.high < y.high for x, y in itertools.pairwise(found))


@pytest.mark.parametrize("n", [3, 5])
def test_a_mean_covers_the_truth_as_often_as_it_says(n):
    """Of 2,000 simulated arms, 90% of the 90% intervals hold the true mean, within four standard errors."""
    rng = np.random.default_rng(n)
    arms = rng.normal(7.0, 2.0, (REPETITIONS, n)).tolist()
    held = [low <= 7.0 <= high for _, low, high, *_ in (mean_interval(sample(v), 0.9) for v in arms)]
    print(f"mean, n={n}: {np.mean(held):.3f}")
    assert abs(np.mean(held) - 0.9) < FOUR_SE


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("statistic", ["difference", "ratio"])
def test_two_arms_cover_the_truth_as_often_as_they_say(n, spread, statistic):
    """Of 2,000 simulated pairs, 90% of the 90% intervals hold the true value, with equal and unequal spreads.

    Welch's degrees of freedom are an approximation, known to err by a point or two to the careful side at n = 3.
    """
    rng = np.random.default_rng([n, int(spread)])
    of = rng.normal(math.log(6), 0.1, (REPETITIONS, n)).tolist()
    over = rng.normal(0, 0.1 * spread, (REPETITIONS, n)).tolist()
    if statistic == "ratio":
        found = [ratio_interval(log_sample(np.exp(a)), log_sample(np.exp(b)), 0.9)
                 for a, b in zip(of, over, strict=True)]  # fmt: skip
    else:
        found = [difference_interval(sample(a), sample(b), 0.9) for a, b in zip(of, over, strict=True)]
    truth = 6.0 if statistic == "ratio" else math.log(6)
    share = np.mean([i.low <= truth <= i.high for i in found])
    print(f"{statistic}, n={n}, spread 1:{spread:g}: {share:.3f}")
    assert 0.9 - FOUR_SE < share < 0.9 + FOUR_SE + 0.025


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("cut", [0.0, 0.5, 1.0])
def test_a_censored_arm_still_bounds_the_ratio_from_below(n, cut):
    """With ``of`` cut off ``cut`` SDs from its centre, the lower end exceeds the truth in at most 5% of the cases."""
    rng = np.random.default_rng([n, int(10 * cut)])
    of = rng.normal(math.log(6), 0.2, (REPETITIONS, n))
    over = rng.normal(0, 0.1, (REPETITIONS, n))
    limit = math.log(6) + 0.2 * cut
    wrong = []
    for a, b in zip(of, over, strict=True):
        exact = bool((a <= limit).all())
        kept = log_sample(np.exp(np.minimum(a, limit)).tolist(), 0.01)
        wrong.append(ratio_interval(kept, log_sample(np.exp(b).tolist()), 0.9, of_exact=exact).low > 6)
    print(f"censored at {cut:+g} SD, n={n}: low end too high in {np.mean(wrong):.3f}")
    assert np.mean(wrong) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / REPETITIONS)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.sampled_from([0.8, 0.9, 0.95]))
def test_a_proportion_has_the_exact_interval(values, confidence):
    """Clopper and Pearson's interval is scipy's own, down to all and none."""
    found = proportion_interval(sample(values), confidence)
    theirs = scipy.stats.binomtest(int(sum(values)), len(values)).proportion_ci(confidence, method="exact")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_a_proportion_is_of_zeros_and_ones():
    """Half a success is no success."""
    with pytest.raises(ValueError, match="zeros and ones"):
        proportion_interval(sample([0.5, 1.0]), 0.9)


def test_a_maximum_by_hand():
    """Of one sample it is its mean; of known values the largest; several ends each get a part of the error."""
    one, other = sample([1.0, 2.0, 3.0]), sample([4.0, 5.0, 9.0])
    assert max_interval([one], 0.9) == mean_interval(one, 0.9)
    assert max_interval([Sample(0.3, 0.0, 1), Sample(0.5, 0.0, 1)], 0.9)[:3] == (0.5, 0.5, 0.5)
    found = max_interval([one, other], 0.9)
    assert found.value == 6.0
    assert found.high == mean_interval(other, 0.9).high
    assert found.low == pytest.approx(mean_interval(one, 0.95).low)  # the narrower sample bounds the maximum better
    assert max_interval([one, other], 0.9, exact=False).high == math.inf
    with pytest.raises(ValueError, match="no values"):
        max_interval([], 0.9)


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_a_maximum_covers_the_truth_with_both_ends(apart):
    """Each end lies on the wrong side of the true maximum in at most 5%, also where several means are the largest."""
    rng = np.random.default_rng(int(apart))
    values = rng.normal(0.0, 1.0, (REPETITIONS, 4, 4)) - apart * np.array([0, 1, 2, 3])[None, :, None]
    found = [max_interval([sample(v) for v in world], 0.9) for world in values.tolist()]
    low, high = np.mean([i.low > 0 for i in found]), np.mean([i.high < 0 for i in found])
    print(f"apart {apart:g}: low end too high in {low:.3f}, high end too low in {high:.3f}")
    assert max(low, high) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / REPETITIONS)


def test_a_paired_difference_by_hand():
    """Of 100 images one network misses 20 and the other 12 of these and 3 more: McNemar's 8 against 3."""
    of, over = np.zeros((1, 100), bool), np.zeros((1, 100), bool)
    of[0, :20] = over[0, :12] = over[0, 20:23] = True
    found = paired_difference(of, over, 0.9)
    assert found.value == pytest.approx(0.05)
    error = math.sqrt((8 + 3 - 5**2 / 100) / 99) / 10  # of the mean of 8 ones, 3 minus ones and 89 zeros
    assert found.high - found.value == pytest.approx(scipy.stats.t.ppf(0.95, 99) * error)
    assert found.n == (100,)
    swapped = paired_difference(over, of, 0.9)
    assert (-swapped.high, -swapped.low) == pytest.approx((found.low, found.high))


def test_pairing_helps_where_networks_miss_the_same_images():
    """Two networks that err alike are told apart by fewer images than two that err independently."""
    rng = np.random.default_rng(0)
    hard = rng.random((1, 2000)) < 0.3
    alike = paired_difference(hard ^ (rng.random((1, 2000)) < 0.02), hard ^ (rng.random((1, 2000)) < 0.02), 0.9)
    apart = paired_difference(rng.random((1, 2000)) < 0.3, rng.random((1, 2000)) < 0.3, 0.9)
    assert alike.high - alike.low < 0.5 * (apart.high - apart.low)


def covered_by_images(seed_sd):
    """How often the interval over images holds the true difference, 0, of arms whose seeds also drift by this SD."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(600):
        hard = rng.beta(0.5, 1.0, 400)
        of, over = (
            rng.random((2, 400)) < np.clip(hard[None, :] + seed_sd * rng.standard_normal((2, 1)), 0, 1) for _ in "ab"
        )
        found = paired_difference(of, over, 0.9)
        held.append(found.low <= 0 <= found.high)
    return np.mean(held)


def test_a_contrast_of_two_is_their_difference():
    a, b = Sample(5.0, 4.0, 3), Sample(2.0, 0.5, 4)
    assert contrast_interval([a, b], [1, -1], 0.9)[1:3] == pytest.approx(difference_interval(a, b, 0.9)[1:3])


def test_a_paired_interval_is_over_images_not_over_seeds():
    """It holds the truth in 90% where seeds differ by their images alone, and in far fewer where they also drift."""
    still, drifting = covered_by_images(0.0), covered_by_images(0.1)
    print(f"covers {still:.3f} without a scatter of seeds, {drifting:.3f} with one")
    assert still > 0.9 - 4 * math.sqrt(0.09 / 600)
    assert drifting < 0.75


def test_images_that_tell_nothing_apart_leave_a_spread():
    """Two networks that miss the very same images are not known to be equal beyond one image."""
    same = np.ones((2, 50), bool)
    found = paired_difference(same, same, 0.9)
    assert found.value == 0
    assert found.high == pytest.approx(scipy.stats.t.ppf(0.95, 49) / 50)


@pytest.mark.parametrize(("of", "over"), [((1, 4), (1, 5)), ((4,), (4,)), ((0, 4), (1, 4)), ((1, 1), (1, 1))])
def test_a_paired_difference_needs_the_same_images(of, over):
    """Unlike lengths would pair unlike images."""
    with pytest.raises(ValueError, match="images"):
        paired_difference(np.zeros(of, bool), np.zeros(over, bool), 0.9)
