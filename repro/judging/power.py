"""What a plan can resolve: how likely the rules are to answer, given a true effect, a spread and a number of seeds.

Nothing is simulated. Seeds are taken as normal draws (of the logarithm, for a ratio), so the mean is independent of the
sample variances, and these follow chi-square distributions. Each pair of variances fixes the width of Welch's interval,
and with it the range of means that leads to each outcome. What is left is an integral over the two variances.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

from repro.judging.rules import ALPHA, SEEDS_LOOKED_AHEAD
from repro.spec import Expectation

NODES = 64
"""Points of the Gauss-Legendre rule for each variance; twice as many would move no chance by as much as 0.002."""


class Chances(NamedTuple):
    """Probabilities of what one expectation comes to, which may overlap; where none happens, it is INCONCLUSIVE."""

    reproduced: float
    not_reproduced: float
    shown: float
    """The interval excludes ``null`` on the claimed side, whatever the size: this gives DIRECTION or REPRODUCED unless
    the effect is refuted as too small. Without a ``null``: it lies wholly on the better side of the band."""


def chances(
    e: Expectation, truth: float, sds: tuple[float, ...], n: int, *,
    alpha: float = ALPHA, together: int = 1, floor: float = 0.0,
) -> Chances:  # fmt: skip
    """Return how likely ``e`` comes to each outcome with ``n`` seeds per arm.

    ``truth`` is the true value of what ``e`` expects, in its unit. ``sds`` holds the true standard deviation over seeds
    of each arm that ``e`` names (one, or two: of and over); ``floor`` is the least that a sample may have. Both are of
    logarithms for a ratio. Each one-sided test is at ``alpha``; the refuting one is at ``alpha / together``, because so
    many expectations could each refute the claim. Raises ValueError for a maximum or a proportion, whose seeds are not
    normal, and for numbers that make no sense.
    """
    if e.statistic not in ("value", "difference", "ratio"):
        raise ValueError(f"the chances of a {e.statistic} are not those of a mean of normal draws")
    if len(sds) != 1 + e.compares or min(sds) <= 0:
        raise ValueError(f"a {e.statistic} needs {1 + e.compares} standard deviations above 0, not {sds}")
    if n < 2:
        return Chances(0.0, 0.0, 0.0)  # one seed has no spread of its own: the interval is infinite
    scale = _log if e.statistic == "ratio" else float
    low, high, centre = scale(e.accept[0]), scale(e.accept[1]), scale(truth)
    null = None if e.null is None else scale(e.null)
    weights, half, refuting = _widths(sds, n, alpha, together, floor)
    se = math.sqrt(sum(sd**2 for sd in sds) / n)

    def between(lower: Any, upper: Any) -> float:
        """Return the chance that the mean falls between two bounds, each one number or one per pair of variances."""
        import numpy as np
        from scipy.special import ndtr

        inside = ndtr((upper - centre) / se) - ndtr((lower - centre) / se)
        return float((weights * np.maximum(0.0, inside)).sum())

    below, above = between(-math.inf, low - refuting), between(high + refuting, math.inf)
    if null is not None:
        up = null <= low
        shown = between(null + half, math.inf) if up else between(-math.inf, null - half)
        worse = below if up else above
    else:
        better = {"lower": (-math.inf, low - half), "higher": (high + half, math.inf), None: (0.0, 0.0)}[e.better]
        shown = between(*better)
        worse = {"lower": above, "higher": below, None: below + above}[e.better]
    return Chances(between(low + half, high - half), worse, shown)


def required_n(
    e: Expectation, truth: float, sds: tuple[float, ...], *,
    wanted: str = "reproduced", power: float = 0.8, limit: int = SEEDS_LOOKED_AHEAD, alpha: float = ALPHA,
    together: int = 1, floor: float = 0.0,
) -> int | None:  # fmt: skip
    """Return the fewest seeds per arm for which ``wanted``, a field of ``Chances``, is at least ``power``.

    None where even ``limit`` seeds are too few. The other arguments are those of ``chances``.
    """
    for n in range(2, limit + 1):
        found = chances(e, truth, sds, n, alpha=alpha, together=together, floor=floor)
        if getattr(found, wanted) >= power:
            return n
    return None


def _log(value: float) -> float:
    return -math.inf if value == 0 else math.inf if math.isinf(value) else math.log(value)


@lru_cache(maxsize=256)
def _widths(sds: tuple[float, ...], n: int, alpha: float, together: int, floor: float) -> tuple[Any, Any, Any]:
    """Return, for each combination of sample variances, its weight, and the half-widths to show and to refute with."""
    import numpy as np
    from scipy.special import gammaincinv, stdtrit

    points, weight = np.polynomial.legendre.leggauss(NODES)
    spread = gammaincinv((n - 1) / 2, (points + 1) / 2) * 2 / (n - 1)  # quantiles of chi-square / degrees of freedom
    parts = [np.maximum(sd**2 * spread, floor**2) / n for sd in sds]
    if len(sds) == 1:
        total, weights, degrees = parts[0], weight / 2, np.full(NODES, n - 1.0)
    else:
        of, over = parts[0][:, None], parts[1][None, :]
        total, weights = of + over, np.outer(weight, weight) / 4
        degrees = total**2 * (n - 1) / (of**2 + over**2)  # Satterthwaite's, as in repro.judging.stats
    error = np.sqrt(total)
    return weights, stdtrit(degrees, 1 - alpha) * error, stdtrit(degrees, 1 - alpha / together) * error
