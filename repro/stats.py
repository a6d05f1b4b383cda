"""Intervals, plainly: numbers in, an Estimate out. No claim, no file, no chance."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A value with its two-sided interval; ``n`` counts the observations of each arm that went in.

    ``low`` or ``high`` is infinite where the data set no bound on that side.
    """

    value: float
    low: float
    high: float
    n: tuple[int, ...]
    confidence: float


def mean_interval(values: Sequence[float], confidence: float) -> Estimate:
    """Return the mean with Student's interval, infinite for a single value. Raises ValueError if empty."""
    centre, variance = _moments(values)
    half = _half(variance / len(values), len(values) - 1, confidence)
    return Estimate(centre, centre - half, centre + half, (len(values),), confidence)


def difference_interval(of: Sequence[float], over: Sequence[float], confidence: float) -> Estimate:
    """Return mean(of) - mean(over) with Welch's interval, degrees of freedom after Satterthwaite.

    Source: Welch (1947), Biometrika 34. Raises ValueError where an arm is empty.
    """
    (a, va), (b, vb) = _moments(of), _moments(over)
    ea, eb = va / len(of), vb / len(over)
    degrees = min(len(of), len(over)) - 1.0
    if ea + eb > 0 and degrees >= 1:
        degrees = (ea + eb) ** 2 / (ea**2 / (len(of) - 1) + eb**2 / (len(over) - 1))
    half = _half(ea + eb, degrees, confidence)
    return Estimate(a - b, a - b - half, a - b + half, (len(of), len(over)), confidence)


def ratio_interval(
    of: Sequence[float], over: Sequence[float], confidence: float, *, of_exact: bool = True, over_exact: bool = True
) -> Estimate:
    """Return the ratio of the geometric means, of/over, with Welch's interval on the logarithms; values above 0.

    An arm that is not exact holds lower bounds: the interval is then open on the side the truth may lie on
    (``high`` infinite for ``of``, ``low`` 0 for ``over``). Raises ValueError for an empty arm or a value <= 0.
    """
    if any(value <= 0 for value in (*of, *over)):
        raise ValueError("a ratio needs values above 0")
    log = difference_interval([math.log(v) for v in of], [math.log(v) for v in over], confidence)
    low = math.exp(log.low) if over_exact else 0.0
    high = _exp(log.high) if of_exact else math.inf
    return Estimate(math.exp(log.value), low, high, log.n, confidence)


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)  # beyond a double's range


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and variance (n - 1); a single value has no spread of its own, so its variance is infinite."""
    if not values:
        raise ValueError("no values to estimate from")
    centre = math.fsum(values) / len(values)
    if len(values) == 1:
        return centre, math.inf
    return centre, math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)


def _half(variance_of_mean: float, degrees: float, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    if math.isinf(variance_of_mean) or degrees < 1:
        return math.inf
    return float(stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance_of_mean)
