"""Confidence intervals: pure functions from samples to an Estimate, without claims, files or random numbers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sample(NamedTuple):
    """What an interval needs of one arm's values: mean, variance (divisor n - 1), count."""

    mean: float
    variance: float
    n: int


class Estimate(NamedTuple):
    """A value with its two-sided interval; ``n`` counts the observations of each arm that went in.

    ``low`` or ``high`` is infinite where the data set no bound on that side.
    """

    value: float
    low: float
    high: float
    n: tuple[int, ...]
    confidence: float


def sample(values: Sequence[float], floor: float = 0.0) -> Sample:
    """Return mean, variance and count; the standard deviation is at least ``floor``, in the values' unit.

    The floor is the scatter due to measuring alone (a clock's resolution, a test set's size): values that agree by
    chance are known no better than that. A single value shows no spread, so its variance is infinite.
    Raises ValueError where there are no values.
    """
    if not values:
        raise ValueError("no values to estimate from")
    centre = math.fsum(values) / len(values)
    if len(values) == 1:
        return Sample(centre, math.inf, 1)
    variance = math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)
    return Sample(centre, max(variance, floor**2), len(values))


def log_sample(values: Sequence[float], floor: float = 0.0) -> Sample:
    """Return the sample of the logarithms; ``floor`` is in the unit of the values. Raises ValueError at 0 or below."""
    if any(value <= 0 for value in values):
        raise ValueError("a ratio needs values above 0")
    logs = sample([math.log(value) for value in values])
    return logs._replace(variance=max(logs.variance, (floor / math.exp(logs.mean)) ** 2))


def mean_interval(of: Sample, confidence: float, *, exact: bool = True) -> Estimate:
    """Return the mean with Student's interval; a sample not ``exact`` holds lower bounds, so ``high`` is infinite."""
    half = _half(of.variance / of.n, of.n - 1, confidence)
    return Estimate(of.mean, of.mean - half, of.mean + half if exact else math.inf, (of.n,), confidence)


def difference_interval(
    of: Sample, over: Sample, confidence: float, *, of_exact: bool = True, over_exact: bool = True
) -> Estimate:
    """Return mean(of) - mean(over) with Welch's interval and Satterthwaite's degrees of freedom.

    A sample that is not exact holds lower bounds, so the interval is open on the side where the truth may lie
    (``high`` for ``of``, ``low`` for ``over``). Source: Welch (1947), Biometrika 34.
    """
    found = contrast_interval((of, over), (1, -1), confidence)
    return found._replace(low=found.low if over_exact else -math.inf, high=found.high if of_exact else math.inf)


def ratio_interval(
    of: Sample, over: Sample, confidence: float, *, of_exact: bool = True, over_exact: bool = True
) -> Estimate:
    """Return the ratio of the geometric means, of/over, from two samples of logarithms, with Welch's interval on these.

    Samples that are not exact open the interval as for a difference: ``high`` is infinite, or ``low`` is 0.
    """
    log = difference_interval(of, over, confidence, of_exact=of_exact, over_exact=over_exact)
    return log._replace(value=_exp(log.value), low=_exp(log.low), high=_exp(log.high))


def contrast_interval(samples: Sequence[Sample], weights: Sequence[float], confidence: float) -> Estimate:
    """Return the weighted sum of several means with its interval, in the values' unit; one weight per sample.

    The degrees of freedom are Satterthwaite's, over all samples whose weight is not 0.
    Source: Satterthwaite (1946), Biometrics 2.
    """
    used = [(s, w) for s, w in zip(samples, weights, strict=True) if w]
    value = math.fsum(w * s.mean for s, w in used)
    parts = [w * w * s.variance / s.n for s, w in used]
    total, alone = math.fsum(parts), any(s.n < 2 for s, _ in used)
    shares = [0.0 if alone or total in (0, math.inf) else part / total for part in parts]
    spread = math.fsum(share**2 / (s.n - 1) for share, (s, _) in zip(shares, used, strict=True) if share)
    half = _half(total, 1 / spread if spread else 0.0, confidence)
    return Estimate(value, value - half, value + half, tuple(s.n for s in samples), confidence)


def max_interval(samples: Sequence[Sample], confidence: float, *, exact: bool = True) -> Estimate:
    """Return the largest of several means; samples not ``exact`` hold lower bounds, so ``high`` is infinite.

    The upper end is the largest of the single means' upper ends: it falls below the true maximum no more often than
    that of the mean that is truly the largest. Any of the lower ends could exceed the true maximum, so each is computed
    at its share of the error (Bonferroni). Raises ValueError where there are no samples.
    """
    if not samples:
        raise ValueError("no values to estimate from")
    shared = 1 - (1 - confidence) / len(samples)
    high = max(mean_interval(s, confidence).high for s in samples)
    low = max(mean_interval(s, shared).low for s in samples)
    best = max(samples)
    return Estimate(best.mean, low, high if exact else math.inf, (best.n,), confidence)


def paired_difference(of: "NDArray[np.bool_]", over: "NDArray[np.bool_]", confidence: float) -> Estimate:
    """Return the difference of two arms' errors on the same test images, of - over, as a share in -1..1.

    ``of`` and ``over`` say which images each network missed: shape (seeds, images), the same images in the same order.
    For each image, take how much more often ``of`` missed it; the interval is that of the mean over the images. With
    one seed per arm it is McNemar's: it rests on the images that only one of the networks missed. ``n`` counts images.

    The interval is descriptive: how far would these trained networks differ if the test images were drawn anew? A claim
    is about the arms, and another seed gives another network, so a verdict's interval is over seeds. This one does not
    include their scatter and would be too narrow for a verdict. The variance over the images is at least that of one
    image that tells the networks apart. Raises ValueError for unequal numbers of images, for fewer than two images, and
    for an arm without seeds.
    Source: McNemar (1947), Psychometrika 12.
    """
    if of.ndim != 2 or over.ndim != 2 or of.shape[1] != over.shape[1] or 0 in (*of.shape, *over.shape):
        raise ValueError(f"both arms need the same images, seeds x images, not {of.shape} and {over.shape}")
    images = of.shape[1]
    more = of.mean(axis=0) - over.mean(axis=0)
    if images < 2:
        raise ValueError("at least two images are needed to tell their spread")
    seen = Sample(float(more.mean()), max(float(more.var(ddof=1)), 1 / images), images)
    return mean_interval(seen, confidence)


def prediction_interval(of: Sample, confidence: float) -> Estimate:
    """Return the interval for one further value of the same kind, in the values' unit; ``value`` is the mean so far.

    mean ± t sqrt(variance (1 + 1/n)), for normal values. Source: Geisser (1993), Predictive Inference, 2.1.
    """
    half = _half(of.variance * (1 + 1 / of.n), of.n - 1, confidence)
    return Estimate(of.mean, of.mean - half, of.mean + half, (of.n,), confidence)


def proportion_interval(of: Sample, confidence: float) -> Estimate:
    """Return the share of ones in a sample of zeros and ones, with Clopper and Pearson's exact interval.

    Raises ValueError where the sample holds anything else. Source: Clopper and Pearson (1934), Biometrika 26.
    """
    ones = of.mean * of.n
    if abs(ones - round(ones)) > 1e-9 or not 0 <= of.mean <= 1:
        raise ValueError(f"a proportion is of zeros and ones, and their mean cannot be {of.mean:g} of {of.n}")
    from scipy.special import betaincinv

    k, tail = round(ones), (1 - confidence) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, of.n - k + 1, tail))
    high = 1.0 if k == of.n else float(betaincinv(k + 1, of.n - k, 1 - tail))
    return Estimate(of.mean, low, high, (of.n,), confidence)


def _exp(value: float) -> float:
    if value > 700:
        return math.inf  # beyond a double's range
    return float(f"{math.exp(value):.14g}")  # so that 60 over 10 is 6: further digits are the logarithms' rounding


def _half(variance_of_mean: float, degrees: float, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    if variance_of_mean == 0:
        return 0.0  # known exactly, even from a single value
    if math.isinf(variance_of_mean) or degrees < 1:
        return math.inf
    from scipy.special import stdtrit  # here: importing it takes longer than making a report without records

    return float(stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance_of_mean)
