"""One claim on the terminal: what the paper says, what was found under each condition, every trial; as on the page."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from repro.planning import plan
from repro.report import tables
from repro.report.console import outcome
from repro.spec import Claim


def show(console: Console, claim: Claim, found: Mapping[str, Any]) -> None:
    """Print a claim and its part of the summary."""
    console.print(claim.title, style="bold")
    console.print(outcome(found["outcome"]), f"{found['reason']}.")
    figure = f", Figure {claim.source.figure}" if claim.source.figure else ""
    table = f", Table {claim.source.table}" if claim.source.table else ""
    name = claim.source.section
    place = f"Section {name}" if name[:1].isdigit() else name.capitalize()
    console.print(f"\n{place}{figure}{table}: “{claim.source.text}”")
    headline = tables.headline(found)
    for e in headline["estimates"] or headline["expected"]:
        who = "" if e["asked"] else "the paper says "
        console.print(f"\n{e['words']}: {who}{tables.published(e)}; accepted band {e['accept_text']}:")
        console.print(f"  {e['because']}.")
        if e.get("value") is not None:
            console.print(f"  Ours: {tables.value(e)} ({tables.spread(e)}).")
    for told in found["corroboration"]:
        console.print(f"\n{told}.")
    console.print(f"\nneeds {plan.needs(claim.conditions[claim.headline])}", style="dim")
    console.print(tables.conditions(found))
    console.print("* the headline condition, named before any data; it alone decides")
    for line in found["bands"]:
        console.print(f"\n{line}.")
    ahead = [(c["name"], line) for c in found["conditions"] for line in c["resolves"]]
    if ahead:
        console.print("\nWhat the planned seeds can tell:")
    for name, line in ahead:
        console.print(f"  {name}, {line}.")
    for condition in found["conditions"]:
        if condition["trials"]:
            _condition(console, condition)
    if claim.known:
        console.print(f"\nKnown: {claim.known.outcome}, because {claim.known.because}.")
    if claim.support:
        console.print(f"\nSee also: {', '.join(claim.support)}")
    for deviation in claim.deviations:
        console.print(f"\nDiffers: {deviation.what} {deviation.effect}")


def _condition(console: Console, condition: Mapping[str, Any]) -> None:
    console.print(f"\n{condition['name']} {condition['outcome']}: {condition['reason']}")
    for e in condition["estimates"]:
        if e["paired"]:
            console.print(f"{e['words']}: {e['paired']}.")
    console.print(tables.trials(condition))
    for e in condition["environments"]:
        console.print(tables.ran(e), style="dim")
    if condition["stale"]:
        console.print("Run by a different version of this program: a note, not a fault.", style="dim")
    console.print(f"to run it again: {condition['command']}")
