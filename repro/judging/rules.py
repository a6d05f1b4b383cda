"""Which outcome an interval has, and the words for it: the table in README.md, "Verdicts", for one expectation."""

import re
from collections.abc import Mapping, Sequence

from repro.judging.stats import Estimate
from repro.numbers import in_full, number_text, sentence_texts
from repro.outcomes import Outcome
from repro.spec import Condition, Expectation, band_text, published_text

ALPHA = 0.05  # level of each one-sided test; the two-sided interval has confidence 1 - 2 ALPHA
SEEDS_LOOKED_AHEAD = 50  # how far the number of seeds that would decide is searched
LOOSELY = "though not at the stricter level that holds where several expectations could each refute the claim"


_SAID = {
    "std": "standard deviation", "top1": "top-1", "top5": "top-5", "lrn": "LRN", "gpu": "GPU", "imagenet": "ImageNet",
    "ilsvrc": "ILSVRC", "runner up": "runner-up", "multiply adds": "multiply-adds",
    "epochs to$": "epochs to the target",
}  # fmt: skip
"""How to write the parts of metric names that are not plain words."""


def in_words(e: Expectation, *, alone: bool = False) -> str:
    """Return in words what an expectation is about: ``top-1 error (ten views), none minus lrn``.

    ``alone``: the condition has a single arm, which need not be named.
    """
    of = _together(e.metrics) + {"centre": " (centre view)", "ten": " (ten views)", None: ""}[e.view]
    if e.over is not None:
        return f"{of}, {e.of} {'over' if e.statistic == 'ratio' else 'minus'} {e.over}"
    said = {"max": f"largest {of}", "proportion": f"share of the runs with {of}"}.get(e.statistic, of)
    return said if alone else f"{said}, {e.of}"


def _together(metrics: Sequence[str]) -> str:
    """Return metrics in words; one quantity of several layers is named once, before the layers."""
    found = [re.fullmatch(r"(.+?)-((?:conv|fc)\d)(-per-gpu)?", metric) for metric in metrics]
    quantities = {(match[1], match[3]) if match else None for match in found}
    if len(quantities) > 1 or None in quantities:
        return " and ".join(map(_worded, metrics))
    layers = [match[2] for match in found if match]
    listed = f"{', '.join(layers[:-1])} and {layers[-1]}" if len(layers) > 1 else layers[0]
    ((name, per),) = (quantity for quantity in quantities if quantity)
    return f"{_worded(name)} of {listed}{_worded(per or '')}"


def _worded(metric: str) -> str:
    text = metric.replace("-", " ")
    for part, said in _SAID.items():
        text = re.sub(rf"\b{part}(?!\w)", said, text)
    return text


def outcome(e: Expectation, i: Estimate, refuting: Estimate) -> tuple[Outcome, str]:
    """Return outcome and reason by the table: the first rule that matches.

    ``i`` is the interval shown. ``refuting`` decides whether the claim is refuted; it is wider than ``i`` where several
    expectations could each refute it.
    """
    low, high = e.accept
    band = f"the accepted band ({band_text(e)})"
    if low <= i.low and i.high <= high and not _on_a_strict_bound(e, i):
        return "REPRODUCED", f"{'it' if known(i) else 'the interval'} lies inside {band}"
    below, above = refuting.high < low, refuting.low > high
    if _on_a_strict_bound(e, i):  # "more than 1" was claimed and the value is exactly 1: on the edge counts as outside
        below, above = i.high <= low, i.low >= high
    if e.null is not None:
        if below if e.null <= low else above:
            return "NOT_REPRODUCED", _shortfall(e, i)
        if claimed_side(e, i):
            larger, smaller = (i.low > high, i.high < low) if e.null <= low else (i.high < low, i.low > high)
            size = f"but whether the size is in {band} is not resolved"
            if larger or smaller:
                size = f"and it is larger than {band}" if larger else f"but it is smaller than {band}, {LOOSELY}"
            return "DIRECTION", f"the effect has the claimed direction, {size}"
        if i.high < low or i.low > high:
            return "INCONCLUSIVE", f"the interval misses {band}, {LOOSELY}"
        return "INCONCLUSIVE", f"no effect ({e.null:g}) is not excluded, and neither is an effect in {band}"
    if {"lower": above, "higher": below, None: below or above}[e.better]:
        return "NOT_REPRODUCED", f"{'worse than' if e.better else 'outside'} {band}"
    if (e.better == "lower" and i.high < low) or (e.better == "higher" and i.low > high):
        return "DIRECTION", f"better than {band}"
    if i.high < low or i.low > high:
        return "INCONCLUSIVE", f"the interval misses {band}, {LOOSELY}"
    return "INCONCLUSIVE", f"the interval lies neither inside nor outside {band}"


def _on_a_strict_bound(e: Expectation, i: Estimate) -> bool:
    """Whether a known value equals a published bound that it should lie beyond: "more than 1", and the value is 1."""
    edge = {">": e.accept[0], "<": e.accept[1]}.get(e.published.op)
    return known(i) and edge is not None and i.value == edge == e.published.value


def claimed_side(e: Expectation, i: Estimate) -> bool:
    """Whether the interval lies wholly on the claimed side of ``null``; False where there is no ``null``."""
    if e.null is None:
        return False
    return i.low > e.null if e.null <= e.accept[0] else i.high < e.null


def _shortfall(e: Expectation, i: Estimate) -> str:
    """Return how a refuted effect falls short: smaller, absent or reversed, and whether its direction holds."""
    assert e.null is not None
    if claimed_side(e, i):
        return f"the effect is smaller than the accepted band ({band_text(e)}), though its direction holds"
    if i.low <= e.null <= i.high:
        return (
            f"an effect in the accepted band ({band_text(e)}) is absent; no effect ({e.null:g}) is not excluded, "
            "so not even the direction is shown"
        )
    return f"the effect is reversed: the interval lies beyond no effect ({e.null:g}), so the direction does not hold"


def trend(e: Expectation, i: Estimate, refuting: Estimate) -> tuple[Outcome, str]:
    """Return the answer of a reduced condition, which can neither reproduce nor refute; ``e`` has a ``null``.

    ``i`` is the interval shown. ``refuting`` must lie on the opposite side for TREND_CONTRARY; it is wider than ``i``
    where several expectations could each contradict the claim.
    """
    assert e.null is not None
    if claimed_side(e, i):
        return "TREND_CONSISTENT", "on reduced data the effect has the claimed direction"
    if not refuting.low <= e.null <= refuting.high:
        return "TREND_CONTRARY", "on reduced data the effect has the opposite direction"
    if not i.low <= e.null <= i.high:
        return "TREND_UNRESOLVED", f"on reduced data the interval has the opposite direction, {LOOSELY}"
    return "TREND_UNRESOLVED", "on reduced data no direction can be told"


def describe(e: Expectation, estimate: Estimate, unit: str, evidence: str, *, asked: bool = False) -> str:
    """Return our value beside the paper's: ``1.42 (90% interval 1.31 to 1.53, n = 5 + 5), 0.24 times the published 6``.

    ``unit`` is the value's, as the function ``unit`` returns it. It is left out for a ratio, and where the words for
    the expectation hold it already. ``asked``: the paper does not say it; its readers ask it.
    """
    shown = "" if unit == "ratio" or unit in in_words(e) else unit
    if known(estimate):
        text = f"{in_full(number_text(estimate.value), estimate.value, shown)}, {evidence}"
    else:
        number, spread = sentence_texts(*estimate)
        text = f"{in_full(number, estimate.value, shown)} ({spread})"
    if e.published_value:
        ratio, whose = estimate.value / e.published_value, "expected" if asked else "published"
        if known(estimate) and ratio == 1:
            return f"{text}, as {whose}"
        beside = f"{_times(ratio)} the {whose}"
        if known(estimate) and abs(ratio - 1) < 0.005:  # the ratio would read 1.00, so show the difference
            more = estimate.value - e.published_value
            beside = f"{'+' if more > 0 else ''}{number_text(more)} from the {whose}"
        return f"{text}, {beside} {published_text(e)}"
    said = f"“{e.published.words}”" if e.published.words else published_text(e)
    return f"{text}, where {'the question says' if asked else 'the paper says'} {said}"


def unit(e: Expectation, units: Mapping[str, str]) -> str:
    """Return the unit of what is expected, points for a difference of %; ``units`` maps each metric to its unit."""
    of = units[e.metrics[0]]
    if e.statistic == "difference" and of == "%":
        return "points"
    return e.statistic if e.statistic in ("ratio", "proportion") else of


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if abs(ratio) < 9.995 else f"{ratio:.3g} times"


def together(wanted: Sequence[Expectation], condition: Condition) -> int:
    """Return how many of a condition's expectations could each refute the claim, or contradict its direction."""
    return max(1, sum(e.null is not None or condition.scale != "reduced" for e in wanted))


def known(estimate: Estimate) -> bool:
    """Whether a value is computed, not measured: an interval without width."""
    return estimate.low == estimate.high
