"""One claim on the terminal: what the paper says, what was found under each condition, every trial."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from repro import plan
from repro.report import tables
from repro.spec import Claim, band_text, corroboration_text, name_text, published_text


def show(console: Console, claim: Claim, found: Mapping[str, Any]) -> None:
    """Print a claim and its part of the summary."""
    console.print(claim.title, style="bold")
    figure = f", Figure {claim.source.figure}" if claim.source.figure else ""
    table = f", Table {claim.source.table}" if claim.source.table else ""
    console.print(f"Section {claim.source.section}{figure}{table}: “{claim.source.text}”")
    for e in claim.expect:
        said = f"\n{name_text(e)}: the paper says {published_text(e)}; {band_text(e)} counts as that: {e.because}."
        console.print(said)
        if logged := corroboration_text(e):
            console.print(f"{logged}.")
    console.print(f"\nneeds {plan.needs(claim.conditions[claim.headline])}", style="dim")
    console.print(tables.conditions(found))
    console.print(f"* the headline. {found['outcome']}: {found['reason']}")
    for condition in found["conditions"]:
        if condition["trials"]:
            console.print(f"\n{condition['name']} {condition['outcome']}: {condition['reason']}")
            console.print(tables.trials(condition))
            console.print(f"again: {condition['command']}")
    if claim.known:
        console.print(f"\nKnown: {claim.known.outcome}, because {claim.known.because}.")
    if claim.support:
        console.print(f"\nSee also: {', '.join(claim.support)}")
    for deviation in claim.deviations:
        console.print(f"\nDiffers: {deviation.what} {deviation.effect}")
