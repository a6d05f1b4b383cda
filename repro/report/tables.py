"""Tables for the terminal, 80 columns wide where they must be, plain where they are piped."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from repro.report.console import outcome
from repro.spec import number_text


def ours(estimate: Mapping[str, Any]) -> str:
    """Return our estimate with interval and n, ``1.42 [1.31, 1.53] n=5+5``, or a dash."""
    if estimate["value"] is None:
        return "-"
    low, high = estimate["low"], estimate["high"]
    if low == high and low is not None:
        return f"{number_text(estimate['value'])} {estimate['evidence']}"
    ends = ("-∞" if low is None else f"{low:.3g}", "∞" if high is None else f"{high:.3g}")
    return f"{estimate['value']:.3g} [{', '.join(ends)}] n={'+'.join(map(str, estimate['n']))}"


def claims(summary: Mapping[str, Any]) -> Table:
    """Return one row a claim: what the paper says, what we found, the verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("claim", "§", "paper", "ours (90%)", "verdict"):
        table.add_column(name, overflow="fold")
    for claim in summary["claims"]:
        headline = next(c for c in claim["conditions"] if c["name"] == claim["headline"])
        found = "\n".join(ours(e) for e in headline["estimates"]) or "-"
        table.add_row(claim["id"], claim["section"], "\n".join(claim["published"]), found, outcome(claim["outcome"]))
    return table


def conditions(claim: Mapping[str, Any], *, only: Sequence[str] = ()) -> Table:
    """Return one row a condition of a claim; ``only`` those named, where any are."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("condition", "scale", "protocol", "ours (90%)", "verdict"):
        table.add_column(name, overflow="fold")
    for condition in claim["conditions"]:
        if only and condition["name"] not in only:
            continue
        found = "\n".join(ours(e) for e in condition["estimates"]) or "-"
        name = condition["name"] + (" *" if condition["name"] == claim["headline"] else "")
        table.add_row(name, condition["scale"], condition["protocol"], found, outcome(condition["outcome"]))
    return table


def trials(condition: Mapping[str, Any]) -> Table:
    """Return one row a trial of a condition: the search first, then the scored seeds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "role", "rate", "seed", "result", "status"):
        table.add_column(name, justify="right" if name in ("rate", "seed", "result") else "left")
    for trial in sorted(
        condition["trials"], key=lambda t: (t["role"] != "tuning", t["arm"], t["seed"], t["rate"] or 0)
    ):
        table.add_row(
            trial["arm"], trial["role"], f"{trial['rate']:g}" if trial["rate"] else "-", str(trial["seed"]),
            result(trial), trial["status"],
        )  # fmt: skip
    return table


def result(trial: Mapping[str, Any]) -> str:
    """Return what a trial came to: its time in epochs, ``> limit`` where it missed the target, or its error."""
    found = trial["measurements"]
    if "epochs-to" in found:
        return f"{found['epochs-to']:.2f}"
    if "top1-error-ten" in found:
        return f"{found['top1-error-ten']:.2f}%"
    return f"> {trial['limit']:.2f}" if trial["status"] == "censored" and trial["limit"] else "-"
