"""The commands that judge again: judge and diff."""

from collections.abc import Sequence
from pathlib import Path

import click

from repro.cli.options import Folder, claim_named, claims_option, read_store_option, registry_folder, tell_missing
from repro.outcomes import UNTESTED
from repro.problem import NOT_DONE, NOTHING, REFUTED


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@read_store_option
@claims_option
@click.pass_context
def judge(ctx: click.Context, /, ids: Sequence[str], store: Path, claims: Path | None) -> None:
    """Judge the records again, by today's rules and claim files.

    All claims, or those named. Nothing is measured or written. Where a band is not what it was at the first run, a line
    says so.
    """
    from repro import registry
    from repro.report import summary

    directory = registry_folder(claims)
    wanted = {id_: claim_named(directory, id_) for id_ in ids} if ids else registry.load_registry(directory)
    found = summary.summarise(wanted, store)
    for problem in found["problems"]:
        click.echo(f"repro: not used: {problem}", err=True)
    for claim in found["claims"]:
        click.echo(f"{claim['outcome']:<15} {claim['id']}: {claim['reason']}")
        for condition in claim["conditions"] if ids else ():
            if condition["name"] != claim["headline"]:
                click.echo(f"  {condition['outcome']:<13} under {condition['name']}: {condition['reason']}")
        for line in claim["bands"]:
            click.echo(f"  {line}")
    click.echo(summary.counts_line(found["claims"]))
    tell_missing(store)
    untested = [claim["id"] for claim in found["claims"] if claim["outcome"] in UNTESTED]
    if any(claim["outcome"] == "ERROR" for claim in found["claims"]) or (ids and untested):
        ctx.exit(NOT_DONE)
    if summary.refuted(found["claims"]):
        ctx.exit(REFUTED)


@click.command()
@click.argument("old", type=Folder(path_type=Path, file_okay=False))
@click.argument("new", type=Folder(path_type=Path, file_okay=False))
@claims_option
@click.pass_context
def diff(ctx: click.Context, /, old: Path, new: Path, claims: Path | None) -> None:
    """Compare two stores: changed verdicts, and estimates that differ by more than chance."""
    from repro import files, notes, registry, store
    from repro.judging import diff as differences
    from repro.report import changes
    from repro.report.console import terminal

    for root in (old, new):
        trials, problems = store.load(root)
        for problem in (*problems, *notes.load_plans(root).unusable.values()):
            click.echo(f"repro: not used: {problem}", err=True)
        if not trials:
            raise files.StoreError(f"{root}: no records here; give two stores, such as reports and runs")
    rows = differences.compare(registry.load_registry(registry_folder(claims)), old, new)
    if not rows:
        click.echo("0 compared: neither store has trials of this registry")
        ctx.exit(NOTHING)
    terminal().print(changes.table(rows))
    click.echo(changes.counts(rows))
