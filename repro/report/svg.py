"""Figures as inline SVG, in the page's own colours and fonts, at a third of the size that matplotlib writes.

No layout is computed twice and nothing invisible is written: a large registry has a thousand figures.
"""

import io
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import matplotlib as mpl

mpl.use("svg")  # no screen is needed, and the picture is text

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's own text colour until ``compact`` puts that in
WIDTH = 4.6  # inches
FONT = 10.5  # points: at this width still 10 pixels on a phone
STYLE: Any = sns.axes_style("ticks") | {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": FONT, "axes.labelsize": FONT,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.12, "legend.frameon": False, "legend.fontsize": FONT,
    "xtick.labelsize": FONT, "ytick.labelsize": FONT, "xtick.major.size": 0.0, "ytick.major.size": 0.0,
    "svg.image_inline": True,
}  # fmt: skip
CLASSES = {
    "fill:none;stroke:currentColor;stroke-opacity:0.12;stroke-width:0.8": "g",
    "fill:none;stroke:currentColor;stroke-width:0.8": "s",
    "fill:currentColor;stroke:currentColor;stroke-width:0.8": "t",
    "stroke:currentColor;stroke-width:0.8": "w",
    "text-anchor:start;fill:currentColor": "a",
    "text-anchor:middle;fill:currentColor": "m",
    "text-anchor:end;fill:currentColor": "e",
}
"""Styles that occur dozens of times in a figure, and the CSS classes that replace them in the page."""

CSS = "\n".join(f"figure svg .{name} {{ {style} }}" for style, name in CLASSES.items())


def render(
    draw: Callable[[Axes], Axes], *, title: str, height: float = 2.8, left: float = 0.62, top: float = 0.15,
    bottom: float = 0.5,
) -> str:  # fmt: skip
    """Return the figure that ``draw`` draws, as an SVG element; ``title`` is what a screen reader says.

    ``height`` and the margins ``left``, ``top`` and ``bottom`` are in inches. The same data and libraries give the same
    text.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):  # ids that no other figure of the page has
        figure = Figure(figsize=(WIDTH, height))
        draw(figure.subplots())
        # Fixed margins: a layout engine draws every figure twice, and a large registry has hundreds.
        figure.subplots_adjust(left=left / WIDTH, right=0.98, bottom=bottom / height, top=1 - top / height)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return compact(text[text.index("<svg") :]).replace("<svg ", f'<svg role="img" aria-label="{_attribute(title)}" ', 1)


def compact(text: str) -> str:
    """Return an SVG element written by matplotlib in a third of the bytes, looking the same."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\b(d|x|y|transform)="([^"]*)"', _shortened, text)
    text = re.sub(r"font-family: [^;\"]*(; |(?=\"))|font: [^;\"]*(; |(?=\"))|font-size: 10.5px; ", "", text)
    text = re.sub(r"; stroke-linecap: (?:square|round)|stroke-dashoffset: 0; ", "", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"| xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    text = text.replace(INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r'style="([^"]*)"', _styled, text)
    text = re.sub(r'<path d="[^"]*"( clip-path="[^"]*")? style="fill:none"/>', "", text)  # invisible patches
    text = re.sub(r' clip-path="[^"]*" class="g"', ' class="g"', text)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r">\s+<", "><", text).replace("<defs></defs>", "")
    return _without_bare_groups(text)


def _shortened(found: re.Match[str]) -> str:
    """Return coordinates to a tenth of a point, which is finer than a screen; those of a line as relative steps."""
    name, text = found[1], re.sub(r"\s+", " ", found[2]).strip()
    points = re.fullmatch(r"M ([-\d.]+ [-\d.]+(?: L [-\d.]+ [-\d.]+)+)", text)
    if name != "d" or points is None:
        rounded = re.sub(r"(\.\d)\d+", r"\1", text)
        return f'{name}="{rounded}"'
    tenths = [[round(10 * float(x)) for x in point.split()] for point in points[1].split(" L ")]
    steps = [(x - x0, y - y0) for (x0, y0), (x, y) in pairwise(tenths)]
    return f'd="M{_tenths(*tenths[0])}l{" ".join(_tenths(*step) for step in steps)}"'


def _tenths(*values: int) -> str:
    return " ".join(f"{value / 10:g}" for value in values)


def _styled(found: re.Match[str]) -> str:
    style = re.sub(r"([;:]) ", r"\1", found[1]).rstrip(";")
    return f'class="{CLASSES[style]}"' if style in CLASSES else f'style="{style}"'


def _without_bare_groups(text: str) -> str:
    """Return an SVG without its groups that have no attributes."""
    text = re.sub(r"<g(?: [^>]*)?/>", "", text)
    kept: list[bool] = []

    def keep(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return found[0] if kept.pop() else ""
        kept.append(found[0] != "<g>")
        return found[0] if kept[-1] else ""

    return re.sub(r"<g(?: [^>]*)?>|</g>", keep, text)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
