"""Estimates as a reader sees them, and tables for the terminal: 80 columns wide, plain where they are piped."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from repro.experiments import TOLD
from repro.numbers import LEVELS, cell_text, in_full, number_text, sentence_texts, signs, with_unit
from repro.outcomes import ORDER
from repro.report.console import outcome

SHOWN = 2
"""How many expectations of a claim the overview shows; the claim's own part shows all."""


def ours(estimate: Mapping[str, Any], unit: str = "") -> str:
    """Return our estimate with interval and n, ``1.42 [1.31, 1.53] n=5+5``, or a dash."""
    if estimate["value"] is None:
        return "-"
    if _known(estimate):
        number = in_full(number_text(estimate["value"]), estimate["value"], unit)
        return f"{number}{',' if unit else ''} {estimate['evidence']}"
    return cell_text(*_interval(estimate), unit)


def ours_in_full(estimate: Mapping[str, Any]) -> str:
    """Return our estimate as ``ours`` does, with its unit where the paper says it in words, without a number.

    A share of a whole has its unit too, and is also given in percent: ``0.297252 of the peak (29.7%), computed``.
    """
    unit = estimate["unit"]
    return ours(estimate, unit if _in_words(estimate) or unit.startswith("fraction ") else "")


def processor(environment: Mapping[str, Any]) -> str:
    """Return ``cpu (AMD EPYC)``, or a GPU's name."""
    device, cpu = environment.get("device"), environment.get("cpu")
    return f"{device} ({cpu})" if device == "cpu" and cpu else str(device)


def ran(environment: Mapping[str, Any]) -> str:
    """Return in words where trials ran, and from which source; what a record does not say is left out."""
    e = environment
    commit = f"commit {e.get('commit')}" + (", changed" if e.get("dirty") else "")
    told = {
        "cpu": f"beside {e.get('cpu')}" if e.get("device") != "cpu" else "",
        "threads": _count(e.get("threads"), "thread"),
        "world": _count(e.get("world"), "rank") if e.get("world") != 1 else "",
        "torch": f"torch {e.get('torch')}",
        "python": f"Python {e.get('python')}",
        "precision": e.get("precision"),
        "captured": "steps recorded as CUDA graphs" if e.get("captured") is True else "",
        "loader": f"loader {e.get('loader')}",
        "micro_batch": f"batches in parts of {e.get('micro_batch')}",
        "commit": commit,
        "code_digest": f"code {e.get('code_digest')}",
    }
    parts = [str(words) for key, words in told.items() if words and e.get(key) is not None]
    return ", ".join([f"{_count(e['trials'], 'trial')} on {processor(e)}", *parts])


def _count(number: Any, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def published(expected: Mapping[str, Any]) -> str:
    """Return what the paper says or its readers ask: words unchanged, a number with its unit, and marked if asked."""
    text: str = expected["published_text"]
    if _in_words(expected):
        return text
    return f"{'asked: ' if expected['asked'] else ''}{with_unit(signs(text), expected['unit'])}"


def _in_words(expected: Mapping[str, Any]) -> bool:
    return not any(sign.isdigit() for sign in expected["published_text"])


def value(estimate: Mapping[str, Any]) -> str:
    """Return our value with its unit, or a dash."""
    if estimate["value"] is None:
        return "–"
    number = number_text(estimate["value"]) if _known(estimate) else sentence_texts(*_interval(estimate))[0]
    return in_full(number, estimate["value"], estimate["unit"])


def spread(estimate: Mapping[str, Any]) -> str:
    """Return how well our value is known: interval and n, or else that it is computed, or recorded in which files."""
    if estimate["value"] is None:
        return ""
    if not _known(estimate):
        return sentence_texts(*_interval(estimate))[1]
    return f"{estimate['evidence']} in {', '.join(files)}" if (files := estimate["files"]) else estimate["evidence"]


def _known(estimate: Mapping[str, Any]) -> bool:
    """Whether a value is computed, not measured: an interval without width."""
    return estimate["low"] is not None and estimate["low"] == estimate["high"]


def _interval(estimate: Mapping[str, Any]) -> tuple[float, float | None, float | None, Sequence[int], float]:
    return estimate["value"], estimate["low"], estimate["high"], estimate["n"], estimate["confidence"]


def headline(claim: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a claim's headline condition."""
    found: Mapping[str, Any] = next(c for c in claim["conditions"] if c["name"] == claim["headline"])
    return found


def overview(condition: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the expectations that an overview shows, those that decide first, and what it says about the others.

    A condition that has estimates returns these, any other what is expected.
    """
    rows = condition["estimates"] or condition["expected"]
    if len(rows) <= SHOWN:
        return list(rows), ""
    if not condition["estimates"]:
        return list(rows[:SHOWN]), f"and {len(rows) - SHOWN} more"
    order = sorted(rows, key=lambda e: ORDER.index(e["outcome"]))
    inside = sum(e["outcome"] == "REPRODUCED" for e in order[SHOWN:])
    rest = len(order) - SHOWN
    if order[0]["outcome"] == "REPRODUCED":
        return order[:SHOWN], f"and {rest} more, all as published"
    return order[:SHOWN], f"and {rest} more, {inside} as published"


def claims(summary: Mapping[str, Any]) -> Table:
    """Return a row for each number shown of each claim: the paper's, ours, the verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=LEVELS, caption_justify="left")
    table.add_column("claim", no_wrap=True)
    table.add_column("paper", overflow="fold", max_width=30)
    table.add_column("ours", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for claim in summary["claims"]:
        rows, rest = overview(headline(claim))
        cells = [(published(e), ours_in_full(e) if "value" in e else "-") for e in rows] + (
            [(rest, "")] if rest else []
        )
        for i, (said, found) in enumerate(cells):
            table.add_row(claim["id"] if i == 0 else "", said, found, outcome(claim["outcome"]) if i == 0 else "")
    return table


def conditions(claim: Mapping[str, Any], *, only: Sequence[str] = ()) -> Table:
    """Return one row per condition of a claim, or per one named in ``only``: the reasons beside it tell the levels."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=None if only else LEVELS, caption_justify="left")
    for name in ("condition", "scale", "protocol", "ours", "verdict"):
        table.add_column(name, overflow="fold")
    for condition in claim["conditions"]:
        if only and condition["name"] not in only:
            continue
        found = "\n".join(ours_in_full(e) for e in condition["estimates"]) or "-"
        name = condition["name"] + (" *" if condition["name"] == claim["headline"] else "")
        table.add_row(name, condition["scale"], condition["protocol"], found, outcome(condition["outcome"]))
    return table


def trials(condition: Mapping[str, Any]) -> Table:
    """Return one row per trial of a condition: the search first, then the scored seeds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "role", "rate", "seed", "result", "status", "record"):
        table.add_column(name, justify="right" if name in ("rate", "seed", "result") else "left")
    for trial in sorted(
        condition["trials"], key=lambda t: (t["role"] != "tuning", t["arm"], t["seed"], t["rate"] or 0)
    ):
        table.add_row(
            trial["arm"], trial["role"], f"{trial['rate']:g}" if trial["rate"] else "-", str(trial["seed"]),
            result(trial), trial["status"], trial["digest"],
        )  # fmt: skip
    return table


def result(trial: Mapping[str, Any]) -> str:
    """Return what a trial came to: its time in epochs, ``> limit`` where it missed the target, or its error."""
    found, over = trial["measurements"], trial["status"] == "censored" and trial["limit"]
    told = (with_unit(f"{found[name]:.2f}", unit) for name, unit in TOLD.items() if name in found)
    return next(told, f"> {trial['limit']:.2f} epochs" if over else "-")
