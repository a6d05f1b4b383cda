"""What a claim's figures are drawn from: estimates by condition, raw curves, the search for a learning rate."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from repro import numbers, store

FOREST = (
    "Every condition that is to be measured, including those not run yet. For those that were run: our estimate (dot) "
    "with its interval (bar; 90% unless its label says otherwise), n seeds per arm (both numbers, where two arms are "
    "compared), and below it a tick for each seed (of both arms, where two are compared). Shaded: the band that counts "
    "as the paper’s value; the line in it is that value. Dashed: no effect."
)
CURVES = (
    "Running training error of every scored seed: the mean over one epoch’s batches, so a line begins after one epoch."
)
SEARCH = (
    "The search for each arm’s learning rate: one seed. Ringed: rate scored; hollow: given up, at the time to beat."
)


class Picture(NamedTuple):
    """A figure as SVG, and what stands under it."""

    svg: str
    caption: str


def of_claim(claim: Mapping[str, Any], root: Path) -> dict[str, list[Picture]]:
    """Return a claim's figures: the forest plots under "forest", those of a condition under its name.

    ``claim`` is the claim's part of the summary, ``root`` the store that holds the curves. A condition that is not
    tested has none: what trials it has were run for another claim.
    """
    found = {"forest": forests(claim)}
    for c in claim["conditions"]:
        tested = c["outcome"] != "NOT_TESTED"
        found[c["name"]] = [*curves(claim, c, root), *rates(claim, c)] if tested else []
    return found


def forests(claim: Mapping[str, Any]) -> list[Picture]:
    """Return a forest plot for each unit that the claim is measured in; none until something was measured."""
    measured = [c for c in claim["conditions"] if c["evidence"] == "measured"]
    by_unit: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for condition in measured:
        several = len(condition["expected"]) > 1
        for i, expected in enumerate(condition["expected"]):
            estimate = condition["estimates"][i] if condition["estimates"] else None
            by_unit[expected["unit"]].append(_row(condition, expected, estimate, named=several))
    return [
        _forest(claim, unit, rows) for unit, rows in by_unit.items() if any(row["value"] is not None for row in rows)
    ]


def _row(
    condition: Mapping[str, Any], expected: Mapping[str, Any], e: Mapping[str, Any] | None, *, named: bool
) -> dict[str, Any]:
    low, high = (x if x is not None else s * float("inf") for x, s in zip(expected["accept"], (-1, 1), strict=True))
    shared = {key: expected[key] for key in ("published", "null")} | {"accept": (low, high), "seeds": []}
    decides = ", decides" if condition["headline"] else ""
    label = condition["name"] + decides + (f", {expected['words']}" if named else "")
    if e is None or e["value"] is None:
        missing = {"NOT_TESTED": "not run yet", "ERROR": "not finished"}.get(condition["outcome"], "nothing to show")
        return shared | {"label": label, "value": None, "low": None, "high": None, "missing": missing}
    n = " + ".join(map(str, e["n"]))
    unfinished = "not finished" if condition["outcome"] == "ERROR" else ""
    seeds = [value for _, value in e["per_seed"]]
    level = numbers.level_text(e["confidence"])
    known = ", ".join(filter(None, (f"n = {n}", level and f"{level} interval", unfinished)))
    value, start, stop = numbers.estimate_texts(e["value"], e["low"], e["high"])
    return shared | {
        "label": f"{label} ({known})", "value": e["value"], "low": e["low"], "high": e["high"],
        "told": f"{value}, {100 * e['confidence']:.3g}% interval {start} to {stop}", "seeds": seeds, "missing": "",
    }  # fmt: skip


def _forest(claim: Mapping[str, Any], unit: str, rows: Sequence[Mapping[str, Any]]) -> Picture:
    from repro.report import figures, svg

    log = unit == "ratio" and all(x is None or x > 0 for row in rows for x in (row["value"], row["low"]))
    names = {e["words"] for c in claim["conditions"] for e in c["expected"] if e["unit"] == unit}
    xlabel = next(iter(names)) if len(names) == 1 else numbers.unit_text(unit)
    told = "; ".join(f"{row['label']}: {row['missing'] or row['told']}" for row in rows)
    title = f"{claim['title']}: our estimates with their intervals, in {numbers.unit_text(unit)}. {told}"
    draw = partial(figures.forest, rows, xlabel=xlabel, log=log)
    pitch = 0.4 + 0.16 * max(figures.label(row).count("\n") + 1 for row in rows)
    drawn = svg.render(lambda ax: draw(ax=ax), title=title, height=0.74 + pitch * len(rows), left=0.12, top=0.28)
    return Picture(drawn, FOREST)


def curves(claim: Mapping[str, Any], condition: Mapping[str, Any], root: Path) -> list[Picture]:
    """Return the condition's training error against epochs, one line per scored seed; empty without any line."""
    from repro.report import svg
    from repro.report.figures import Curve, training_error

    found = []
    for trial in condition["trials"]:
        rows = store.load_curve(root, trial["digest"]) if trial["role"] == "scoring" else []
        if not rows or not {"epochs", "error", "window"} <= rows[0].keys():
            continue
        widest = max(row["window"] for row in rows)
        whole = [row for row in rows if row["window"] == widest]
        if len(whole) < 2:
            continue  # a training of one epoch is a point, not a line
        error = [row["error"] for row in whole]
        found.append(Curve(trial["arm"], trial["seed"], [row["epochs"] for row in whole], error))
    if not found:
        return []
    arms = ", ".join(sorted({curve.arm for curve in found}))
    title = f"Training error against epochs for {arms}, every seed: {claim['id']}, {condition['name']}"
    title += "".join(f"; {line}" for line in _reached(condition))
    draw = partial(training_error, found, target=condition["parameters"].get("target"))
    return [Picture(svg.render(draw, title=title), CURVES)]


def _reached(condition: Mapping[str, Any]) -> list[str]:
    """Return when the scored seeds of each arm reached the target: ``relu at 6.15 to 6.74 epochs``."""
    times: dict[str, list[float]] = defaultdict(list)
    for trial in condition["trials"]:
        if trial["role"] == "scoring" and "epochs-to" in trial["measurements"]:
            times[trial["arm"]].append(trial["measurements"]["epochs-to"])
    target = condition["parameters"].get("target")
    return [f"{arm} reaches {100 * target:g}% at {min(t):.2f} to {max(t):.2f} epochs" for arm, t in times.items()]


def rates(claim: Mapping[str, Any], condition: Mapping[str, Any]) -> list[Picture]:
    """Return the search for a learning rate, if there was one; a rate given up stands at the time it had to beat."""
    from repro.report import svg
    from repro.report.figures import Tried, learning_rates

    chosen = {(t["arm"], t["rate"]) for t in condition["trials"] if t["role"] == "scoring"}
    tried = [
        Tried(t["arm"], t["rate"], result, "epochs-to" in t["measurements"], (t["arm"], t["rate"]) in chosen)
        for t in condition["trials"]
        if t["role"] == "tuning" and t["rate"]
        if (result := t["measurements"].get("epochs-to", t["limit"])) is not None
    ]
    if not tried:
        return []
    title = f"The search for each arm's learning rate: {claim['id']}, {condition['name']}"
    return [Picture(svg.render(partial(learning_rates, tried, unit="epochs to the target"), title=title), SEARCH)]
