"""One claim on the terminal: what the paper says, what was found under each condition, every trial."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from repro.report import tables
from repro.spec import Claim, band_text, published_text


def show(console: Console, claim: Claim, found: Mapping[str, Any]) -> None:
    """Print a claim and its part of the summary."""
    console.print(claim.title, style="bold")
    figure = f", Figure {claim.source.figure}" if claim.source.figure else ""
    console.print(f"Section {claim.source.section}{figure}: “{claim.source.text}”")
    for e in claim.expect:
        text = f"\nThe paper says {published_text(e)}; {band_text(e)} counts as that, because {e.because}."
        console.print(text)
    console.print(tables.conditions(found))
    console.print(f"* the headline. {found['outcome']}: {found['reason']}")
    for condition in found["conditions"]:
        if condition["trials"]:
            console.print(f"\n{condition['name']} {condition['outcome']}: {condition['reason']}")
            console.print(tables.trials(condition))
            console.print(f"again: {condition['command']}")
    for deviation in claim.deviations:
        console.print(f"\nDiffers: {deviation.what} {deviation.effect}")
