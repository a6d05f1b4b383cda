"""The options that commands share, and what these name: the registry, one of its claims, a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import folders
from repro.cli.group import Usage
from repro.problem import suggest

if TYPE_CHECKING:
    from repro.spec import Claim


class Folder(click.Path):
    """A folder given by name; not an empty one, say from an unset variable, which would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises BadParameter for an empty one."""
        if value == "":
            self.fail("it is empty; name a folder", param, ctx)
        return super().convert(value, param, ctx)


claims_option = click.option(
    "--claims", type=Folder(path_type=Path), help="Registry folder; default: the claims of the paper."
)


def _there(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Return the store to read. One that was named must exist, or a typo would look as if nothing had been tested."""
    named = ctx.get_parameter_source(param.name or "") != click.core.ParameterSource.DEFAULT
    if named and not value.is_dir():
        raise Usage(f"{value}: no such folder; `repro run … --store {value}` creates it")
    return value


_STORE: dict[str, Any] = {
    "type": Folder(path_type=Path, file_okay=False), "default": Path("runs"), "show_default": True,
    "help": "Folder of the trial records.",
}  # fmt: skip
read_store_option = click.option("--store", callback=_there, **_STORE)
store_option = click.option("--store", **_STORE)
data_option = click.option(
    "--data",
    type=Folder(path_type=Path, file_okay=False),
    envvar="REPRO_DATA",
    help="Folder of the data sets (or set REPRO_DATA).",
)


def tell_missing(store: Path) -> None:
    """Say on stderr if a store does not exist: what is reported of it then only means that nobody ran anything."""
    if not store.is_dir():
        published = "; `--store reports` shows the published records" if Path("reports/trials").is_dir() else ""
        click.echo(f"repro: {store}: no such folder yet; `repro run` creates it{published}", err=True)


def registry_folder(value: Path | None) -> Path:
    """Return the folder of the claim files: the given one, or else the paper's. Raises Usage where there is none."""
    directory = value or folders.default_claims()
    if not directory.is_dir():
        raise Usage(f"{directory}: no such folder; pass --claims DIR")
    return directory


def claim_named(directory: Path, id_: str) -> "Claim":
    """Return one claim of a registry. Raises Usage with the nearest name for one it does not have."""
    from repro import registry

    known = [path.stem for path in folders.claim_files(directory)]
    if id_ not in known:
        raise Usage(f"unknown claim {id_!r}{suggest(id_, known)}; `repro list` shows all {len(known)}")
    return registry.load_claim(directory / f"{id_}.toml")
