"""The page: one HTML file, made and read without a network, no scripts, from the summary and the raw curves."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from repro import store
from repro.report import tables
from repro.report.summary import counts_line

HERE = Path(__file__).parent


def render(summary: Mapping[str, Any], root: Path) -> str:
    """Return the page for a summary whose trials lie under ``root``. Same records and libraries, same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    environment.globals.update(ours=tables.ours, result=tables.result)
    pictures = {claim["id"]: _pictures(claim, root) for claim in summary["claims"]}
    return environment.get_template("page.html.j2").render(
        summary=summary, pictures=pictures, counts=counts_line(summary["claims"]), css=(HERE / "page.css").read_text()
    )


def _code(text: str) -> Markup:
    """Return the text escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _pictures(claim: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Return a claim's figures as SVG by name: ``forest``, and one curve figure a condition that was run."""
    found = {}
    if forest := _forest(claim):
        found["forest"] = forest
    for condition in claim["conditions"]:
        if picture := _curves(condition, root):
            found[condition["name"]] = picture
    return found


def _forest(claim: Mapping[str, Any]) -> str | None:
    from repro.report import figures

    measured = [c for c in claim["conditions"] if c["evidence"] == "measured"]
    rows = [
        {"name": c["name"], "value": e["value"], "low": e["low"], "high": e["high"], "n": " + ".join(map(str, e["n"]))}
        for c in measured
        for e in c["estimates"][:1]
        if e["value"] is not None
    ]
    if not rows:
        return None
    first = next(e for c in measured for e in c["estimates"][:1])
    low, high = (x if x is not None else s * float("inf") for x, s in zip(first["accept"], (-1, 1), strict=True))
    draw = partial(
        figures.forest, rows, accept=(low, high), published=first["published"], null=first["null"],
        xlabel=first["name"], log=first["unit"] == "ratio",
    )  # fmt: skip
    title = f"Our estimates of {first['name']} with 90% intervals, beside the paper's {first['published_text']}"
    return figures.svg(lambda ax: draw(ax=ax), title=title, height=0.9 + 0.55 * len(rows))


def _curves(condition: Mapping[str, Any], root: Path) -> str | None:
    import pandas as pd

    from repro.report import figures

    parameters = condition["parameters"]
    if "target" not in parameters:
        return None
    frames = []
    for trial in condition["trials"]:
        if trial["role"] != "scoring":
            continue
        rows = pd.DataFrame(store.load_curve(root, trial["digest"]))
        if rows.empty:
            continue
        frames.append(rows[rows["window"] == rows["window"].max()].assign(arm=trial["arm"], seed=trial["seed"]))
    if not frames:
        return None
    curves = pd.concat(frames, ignore_index=True)
    target = parameters["target"]
    title = f"{parameters['net']}, {condition['protocol']}, {condition['dataset']}"
    spoken = f"Training error against epochs for {', '.join(sorted(curves['arm'].unique()))}: {title}, every seed"
    return figures.svg(lambda ax: figures.training_error(curves, ax, target=target, title=title), title=spoken)
