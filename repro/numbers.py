"""How the judge and all pages write numbers: to how many digits, with what interval, in what unit."""

import math
from collections.abc import Sequence

USUAL = 0.9
"""The level of an interval for which none is stated: two one-sided tests at 5%, and a single look at the data."""

LEVELS = "intervals are 90% unless another level is given: a higher one where seeds were added after a first look"
"""What a table says of its intervals."""


def number_text(value: float) -> str:
    """Return an exact number as text: a whole one in full with thousands separators, another to four digits.

    Only numbers smaller than 0.00001 have an exponent.
    """
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 1e-5:
        return f"{value:.4g}"
    text = f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def estimate_texts(value: float, low: float | None, high: float | None) -> tuple[str, str, str]:
    """Return an estimate and the ends of its interval, to the same decimals: ``6.58``, ``6.28``, ``6.90``.

    They show three significant digits of the estimate, or of half the interval's width where that is larger, and all
    digits before the point, with thousands separators. An end that is None or infinite is open.
    """
    start, stop = -math.inf if low is None else low, math.inf if high is None else high
    half = (stop - start) / 2
    size = max(abs(value), half if math.isfinite(half) else 0.0)
    decimals = max(0, 2 - math.floor(math.log10(size))) if size else 0
    return _told(value, decimals), _told(start, decimals), _told(stop, decimals)


def _told(value: float, decimals: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.{decimals}f}"


def level_text(confidence: float) -> str:
    """Return the level of an interval as ``95%``; nothing for the usual one."""
    return "" if abs(confidence - USUAL) < 1e-9 else f"{100 * confidence:.3g}%"


def cell_text(
    value: float, low: float | None, high: float | None, n: Sequence[int], confidence: float, unit: str = ""
) -> str:
    """Return a measured estimate for a cell of a table: ``1.42 [1.31, 1.53] n=5+5``.

    A level that is not the usual one follows the interval: ``1.42 [1.31, 1.53], 95%, n=5+5``.
    """
    told, *ends = estimate_texts(value, low, high)
    level = level_text(confidence)
    return f"{in_full(told, value, unit)} [{', '.join(ends)}]{level and f', {level},'} n={'+'.join(map(str, n))}"


def sentence_texts(
    value: float, low: float | None, high: float | None, n: Sequence[int], confidence: float
) -> tuple[str, str]:  # fmt: skip
    """Return a measured estimate for a sentence: ``1.42``, and ``90% interval 1.31 to 1.53, n = 5 + 5``."""
    told, start, stop = estimate_texts(value, low, high)
    return told, f"{100 * confidence:.3g}% interval {start} to {stop}, n = {' + '.join(map(str, n))}"


def unit_text(unit: str) -> str:
    """Return a unit as it is read after a number: ``times`` for a ratio, ``of the runs`` for a proportion."""
    return {"ratio": "times", "proportion": "of the runs"}.get(unit, unit.removeprefix("fraction ")) or "no unit"


def with_unit(number: str, unit: str) -> str:
    """Return a number with its unit: ``6 times``, ``37.5%``, ``0.01 of the parameters``."""
    if unit == "%":
        return f"{number}%"
    return f"{number} {unit_text(unit)}" if unit else number


def in_full(number: str, value: float, unit: str) -> str:
    """Return a number with its unit, and a share of something in percent, too: ``0.0145 of the parameters (1.45%)``."""
    return with_unit(number, unit) + (f" ({100 * value:.3g}%)" if unit.startswith("fraction ") else "")


def signs(text: str) -> str:
    """Return the text with ``≤`` and ``≥`` in place of ``<=`` and ``>=``."""
    return text.replace("<=", "≤").replace(">=", "≥")
