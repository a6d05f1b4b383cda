"""Figures: one function each that takes data and axes and returns the axes; ``repro.report.svg`` makes them text.

Lines, markers and labels tell the arms apart as well as colours do (Okabe and Ito's palette).
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import seaborn as sns
from matplotlib.axes import Axes

from repro.report.svg import INK

PALETTE = sns.color_palette(["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]).as_hex()
DASHES = ((), (5, 2), (1, 1.5), (6, 1.5, 1.5, 1.5))
MARKERS = ("o", "s", "D", "v", "^", "P")
POINTS = 100  # at most per curve: more than the width of the picture can show
POINTS_TOGETHER = 320  # at most in all curves of a figure, unless that leaves fewer than 20 per curve
LETTERS = 56  # characters of a row's label that fit into the width of a figure
COLUMNS = 16  # kernels in a row, as in the paper's Figure 3


class Curve(NamedTuple):
    """The training of one seed of an arm: ``error`` (0..1) after ``epochs``."""

    arm: str
    seed: int
    epochs: Sequence[float]
    error: Sequence[float]


class Tried(NamedTuple):
    """A learning rate that was tried; ``result`` is where it was given up if the target was not ``reached``."""

    arm: str
    rate: float
    result: float
    reached: bool
    chosen: bool


def training_error(curves: Sequence[Curve], ax: Axes, *, target: float | None) -> Axes:
    """Draw running training error against epochs, one line per seed; with a target, as in the paper's Figure 1.

    Curves hold only whole windows, so the lines begin at epoch 1.
    """
    most = max(20, min(POINTS, POINTS_TOGETHER // len(curves)))
    arms = sorted({curve.arm for curve in curves})
    for arm, colour, dashes in zip(arms, _cycled(PALETTE, len(arms)), _cycled(DASHES, len(arms)), strict=True):
        own = [curve for curve in curves if curve.arm == arm]
        for i, curve in enumerate(own):
            shown = _thinned(len(curve.epochs), most)
            ax.plot(
                [curve.epochs[j] for j in shown], [curve.error[j] for j in shown], color=colour, linewidth=1.2,
                linestyle=(0, dashes) if dashes else "-", label=None if i else f"{arm} (n = {len(own)})", clip_on=False,
            )  # fmt: skip
    low = min(max(min(min(curve.error) for curve in curves), 1e-4), 0.65)  # no less than two ticks
    if target is not None:
        low = min(low, target) * 0.9  # room for the target's name
        ax.axhline(target, color=INK, linewidth=0.8, alpha=0.6)
        ax.annotate(
            f"target {100 * target:g}%", (0, target), (4, -3), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="top",
        )  # fmt: skip
    ax.legend(loc="upper right" if low < 0.5 else "lower left")  # where no line goes
    ax.set_yscale("log")
    ax.set(xlabel="epochs", ylabel="training error (log scale)", xlim=(0, None), ylim=(low * 0.97, 1))
    _log_ticks(ax, "y", (0.001, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 0.9), low * 0.97, 1.0,
               percent=True)  # fmt: skip
    return ax


def _thinned(length: int, most: int) -> list[int]:
    """Return the indices of at most ``most`` rows of a curve, evenly spaced, including the first and the last."""
    if length <= most:
        return list(range(length))
    return [round(i * (length - 1) / (most - 1)) for i in range(most)]


def learning_rates(tried: Sequence[Tried], ax: Axes, *, unit: str) -> Axes:
    """Draw the search for each arm's learning rate: the result of every rate tried, in ``unit``; chosen ones ringed."""
    arms = sorted({one.arm for one in tried})
    for arm, colour, marker, dashes in zip(
        arms, _cycled(PALETTE, len(arms)), _cycled(MARKERS, len(arms)), _cycled(DASHES, len(arms)), strict=True
    ):
        own = sorted(one for one in tried if one.arm == arm)
        reached, lost = ([one for one in own if one.reached is so] for so in (True, False))
        ax.plot([one.rate for one in reached], [one.result for one in reached], marker=marker, color=colour,
                linewidth=1.2, markersize=5, clip_on=False, linestyle=(0, dashes) if dashes else "-",
                label=f"{arm} ({len(own)} rates)")  # fmt: skip
        ax.plot([one.rate for one in lost], [one.result for one in lost], linestyle="none", marker=marker,
                markerfacecolor="none", color=colour, clip_on=False)  # fmt: skip
        best = [one for one in own if one.chosen]
        ax.plot([one.rate for one in best], [one.result for one in best], linestyle="none", marker="o", markersize=11,
                markerfacecolor="none", color=INK, clip_on=False)  # fmt: skip
    ax.legend(loc="best")
    ax.set_xscale("log")
    rates = sorted({one.rate for one in tried})
    shown = rates[:: 1 + len(rates) // 7]
    ax.set(xlabel="learning rate", ylabel=unit, ylim=(0, 1.1 * max(one.result for one in tried)),
           xlim=(rates[0] / 1.3, rates[-1] * 1.3))  # fmt: skip
    ax.set_xticks(shown, [f"{rate:g}" for rate in shown])
    ax.minorticks_off()
    return ax


def forest(rows: Sequence[Mapping[str, Any]], ax: Axes, *, xlabel: str, log: bool) -> Axes:
    """Draw one estimate per row, with its interval and seeds, over its accepted band, published value and no effect.

    ``rows``, the top one first, hold label, value, low, high (None for an open end), seeds, accept, published, null and
    ``missing``, which says why a row has no estimate and is empty where it has one.
    """
    named = ("value", "low", "high", "published", "null")
    ends = [x for row in rows for x in (*(row[name] for name in named), *row["seeds"], *row["accept"])]
    ends = [x for x in ends if x is not None and abs(x) < float("inf")]
    if log:
        ax.set_xscale("log")
        left, right = min(ends) * 0.85, max(ends) * 1.18
    else:
        margin = 0.08 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 1.0
        left, right = min(ends) - margin, max(ends) + margin
    for y, row in enumerate(rows):
        _forest_row(ax, y, row, left, right)
    for name, words in (("published", "paper"), ("null", "no effect")):
        if (x := rows[0][name]) is not None and all(row[name] == x for row in rows):
            ax.annotate(words, (x, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                        ha="left" if x == left else "center", va="bottom")  # fmt: skip
    ax.set_yticks([])
    ax.set(xlabel=xlabel, xlim=(left, right), ylim=(len(rows) - 0.4, -0.75))
    if log:
        _log_ticks(ax, "x", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 9, 15, 30, 60, 100), left, right)
    ax.spines["left"].set_visible(False)
    return ax


def label(row: Mapping[str, Any]) -> str:
    """Return the label above a row of ``forest``, wrapped to the width of the figure."""
    return textwrap.fill(f"{row['label']}: {row['missing']}" if row["missing"] else row["label"], LETTERS)


def _forest_row(ax: Axes, y: int, row: Mapping[str, Any], left: float, right: float) -> None:
    if row["missing"]:
        ax.text(0, y - 0.1, label(row), transform=ax.get_yaxis_transform(), va="center", style="italic")
        return
    low, high = row["accept"]
    if max(low, left) < min(high, right):
        ax.fill_betweenx(
            [y - 0.28, y + 0.42], max(low, left), min(high, right), color=PALETTE[2], alpha=0.18, linewidth=0
        )
    for x, colour, dash in ((row["published"], PALETTE[2], "-"), (row["null"], INK, (0, (3, 2)))):
        if x is not None:
            ax.plot([x, x], [y - 0.28, y + 0.42], color=colour, linewidth=1.3, linestyle=dash, clip_on=False)
    ax.text(0, y - 0.32, label(row), transform=ax.get_yaxis_transform(), va="bottom", linespacing=1.1)
    ends = [
        left if row["low"] is None else max(row["low"], left),
        right if row["high"] is None else min(row["high"], right),
    ]
    ax.plot(ends, [y, y], color=PALETTE[0], linewidth=2.2, solid_capstyle="butt", clip_on=False)
    ax.plot([row["value"]], [y], "o", color=PALETTE[0], markersize=6, clip_on=False)
    if row["seeds"]:
        ax.plot(row["seeds"], [y + 0.24] * len(row["seeds"]), "|", color=INK, markersize=6, alpha=0.8, clip_on=False)


def kernels(pictures: Any, ax: Axes, *, towers: int) -> Axes:
    """Draw first-layer kernels as in the paper's Figure 3: one square each, a gap between the towers.

    ``pictures`` are the kernels (K, k, k, 3) scaled to 0..1, the first tower's first.
    """
    import numpy as np

    count, side = len(pictures), pictures.shape[1]
    columns = COLUMNS
    rows = kernel_rows(count)
    sheet = np.ones((rows * (side + 1) + (towers - 1) * 2, columns * (side + 1), 4))
    sheet[..., 3] = 0
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        y = row * (side + 1) + 2 * (i * towers // count)
        sheet[y : y + side, column * (side + 1) : column * (side + 1) + side, :3] = picture
        sheet[y : y + side, column * (side + 1) : column * (side + 1) + side, 3] = 1
    ax.imshow(sheet, interpolation="none")
    ax.set_axis_off()
    return ax


def kernel_rows(count: int) -> int:
    """Return the number of rows in which ``kernels`` draws ``count`` kernels."""
    return -(-count // COLUMNS)


def _cycled(values: Sequence[Any], n: int) -> list[Any]:
    return [values[i % len(values)] for i in range(n)]


def _log_ticks(
    ax: Axes, axis: str, candidates: Sequence[float], low: float, high: float, *, percent: bool = False
) -> None:  # fmt: skip
    """Put round numbers as ticks on a logarithmic axis: the candidates within its range, if at least two."""
    ticks = [t for t in candidates if low <= t <= high]
    if len(ticks) >= 2:
        getattr(ax, f"set_{axis}ticks")(ticks, [f"{100 * t:.3g}%" if percent else f"{t:g}" for t in ticks])
        ax.minorticks_off()
