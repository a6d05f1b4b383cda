"""The commands on claim files: list, show, check, new."""

from collections.abc import Sequence
from pathlib import Path

import click

from repro import folders
from repro.cli.group import Usage
from repro.cli.options import Folder, claim_named, claims_option, read_store_option, registry_folder, tell_missing

TEMPLATE = "TEMPLATE.toml"


@click.command("list")
@claims_option
@read_store_option
def list_claims(claims: Path | None, store: Path) -> None:
    """List every claim with its last verdict."""
    from repro.report import listing
    from repro.report.console import terminal

    found = listing.rows(registry_folder(claims), store)
    for problem in found.problems:
        click.echo(f"repro: not used: {problem}", err=True)
    console = terminal()
    console.print(listing.table(found.rows, console.width))
    tell_missing(store)


@click.command()
@click.argument("id_", metavar="ID")
@claims_option
@read_store_option
def show(id_: str, claims: Path | None, store: Path) -> None:
    """Show one claim: the statement, the conditions, what was found, every trial."""
    from repro.report import details, summary
    from repro.report.console import terminal

    claim = claim_named(registry_folder(claims), id_)
    found = summary.summarise({id_: claim}, store, ahead=True)
    for problem in found["problems"]:
        click.echo(f"repro: not used: {problem}", err=True)
    details.show(terminal(), claim, found["claims"][0])
    tell_missing(store)


@click.command()
@click.argument("ids", nargs=-1)
@claims_option
def check(ids: Sequence[str], claims: Path | None) -> None:
    """Check claim files: that they can be read, and hold nothing of the template any more.

    All of the registry, or those named.
    """
    from repro import registry

    directory = registry_folder(claims)
    found = [claim_named(directory, id_) for id_ in ids] if ids else list(registry.load_registry(directory).values())
    template = folders.default_claims() / TEMPLATE
    unfilled = [line for claim in found for line in registry.unfilled(directory / f"{claim.id}.toml", template)]
    if unfilled:
        raise Usage("\n".join(unfilled))
    click.echo(f"{len(found)} claim file{'s' if len(found) != 1 else ''} in order")


@click.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--claims", type=Folder(path_type=Path), default=Path("claims"), show_default=True, help="Folder to put it in."
)
def new(id_: str, claims: Path) -> None:
    """Start a new claim file from the template."""
    from repro import spec
    from repro.files import write_atomically

    path = claims / f"{id_}.toml"
    if not spec.is_name(id_):
        raise Usage(f"{id_!r} cannot be an id; use {spec.NAME_RULE}")
    if path.exists():
        raise Usage(f"{path} is there already; choose another id, or edit it")
    template = (folders.default_claims() / TEMPLATE).read_text(encoding="utf-8")
    write_atomically(path, template.replace("your-claim-id", id_).encode())
    click.echo(f"wrote {path}; edit it, then `repro check {id_} --claims {claims}`")
