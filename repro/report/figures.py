"""Figures: one function each that takes data and axes and returns the axes; rendered as inline SVG.

Lines, markers and labels tell the arms apart as well as colours do (Okabe and Ito's palette), and the text takes the
colour of the page around it.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")  # no screen is needed, and the picture is text

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((), (5, 2), (1, 1.5), (6, 1.5, 1.5, 1.5))
INK = "#010203"  # stands for the page's own text colour until the picture is placed
STYLE: Any = {
"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10.0,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12, "legend.frameon": False,
}  # fmt: skip


def svg(draw: Callable[[Axes], Axes], *, title: str, width: float = 6.4, height: float = 3.6) -> str:
    """Return the figure that ``draw`` draws, as an SVG element; ``title`` is what a screen reader says.

    Sizes are in inches. The same data and libraries give the same text.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):  # ids that no other figure of the page has
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r"\1", text, count=1, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def training_error(curves: pd.DataFrame, ax: Axes, *, target: float, title: str) -> Axes:
    """Draw the paper's Figure 1 from our trials: running training error against epochs, one line a seed.

    ``curves`` has columns epochs, error (0..1), arm, seed; only whole windows, so the lines begin at epoch 1.
    """
    arms = sorted(curves["arm"].unique())
    sns.lineplot(
        curves, x="epochs", y="error", hue="arm", style="arm", units="seed", estimator=None, ax=ax, hue_order=arms,
        style_order=arms, palette=list(PALETTE[: len(arms)]), dashes=list(DASHES[: len(arms)]), linewidth=1.4,
    )  # fmt: skip
    ax.axhline(target, color=INK, linewidth=0.8, alpha=0.6)
    ax.annotate(
        f"target {target:g}", (0, target), (4, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom", fontsize=9,
    )  # fmt: skip
    n = curves.groupby("arm")["seed"].nunique()
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, [f"{label} (n = {n[label]})" for label in labels])
    ax.set(xlabel="epochs", ylabel="training error (fraction)", title=title, xlim=(0, None))
    ax.set_yscale("log")
    ticks = [t for t in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 0.9) if t >= curves["error"].min() * 0.98]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    return ax


def forest(rows: Sequence[Mapping[str, Any]], ax: Axes, *, accept: tuple[float, float], published: float | None,
           null: float | None, xlabel: str, log: bool) -> Axes:  # fmt: skip
    """Draw one estimate a row with its interval, over the accepted band, the published value and no effect.

    ``rows`` hold name, value, low, high, n (None for an open end), top row first.
    """
    ends = [x for row in rows for x in (row["value"], row["low"], row["high"]) if x is not None]
    ends += [x for x in (*accept, published, null) if x is not None and abs(x) != float("inf")]
    if log:
        ax.set_xscale("log")
        left, right = min(ends) * 0.8, max(ends) * 1.25
    else:
        margin = 0.08 * (max(ends) - min(ends))
        left, right = min(ends) - margin, max(ends) + margin
    ax.axvspan(max(accept[0], left), min(accept[1], right), color=PALETTE[2], alpha=0.15, linewidth=0)
    if published is not None:
        ax.axvline(published, color=PALETTE[2], linewidth=1.5)
        ax.annotate("paper", (published, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                    ha="center", va="bottom", fontsize=9)  # fmt: skip
    if null is not None:
        ax.axvline(null, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.annotate("no effect", (null, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                    ha="center", va="bottom", fontsize=9)  # fmt: skip
    for y, row in enumerate(rows):
        low = left if row["low"] is None else max(row["low"], left)
        high = right if row["high"] is None else min(row["high"], right)
        ax.plot([low, high], [y, y], color=PALETTE[0], linewidth=2.2, solid_capstyle="butt")
        ax.plot([row["value"]], [y], "o", color=PALETTE[0], markersize=6)
    ax.set_yticks(range(len(rows)), [f"{row['name']}\n(n = {row['n']})" for row in rows])
    ax.set(xlabel=xlabel, xlim=(left, right), ylim=(len(rows) - 0.5, -0.5))
    if log:
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 9, 15, 30) if left <= t <= right]
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
    ax.grid(axis="y", visible=False)
    return ax
