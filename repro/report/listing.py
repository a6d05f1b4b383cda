"""The list of claims: a row each, remembered until a claim, a record or this program changes.

Reading and judging a registry takes longer than all else a list needs, so the rows are kept in the user's cache folder
under a digest of every byte they follow from. Without a cache folder they are worked out each time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table

from repro.folders import claim_files
from repro.report.console import outcome

PACKAGE = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """One claim in the list; ``needs`` and ``outcome`` are of its headline."""

    id: str
    section: str
    experiment: str
    needs: str
    outcome: str
    title: str


def rows(claims: Path, store: Path) -> list[Row]:
    """Return a row for each claim of the registry, in the paper's order, with its verdict from the store's records.

    Raises Problem for a registry or a store that cannot be read.
    """
    key = _key(claims, store)
    with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError, TypeError):
        kept = json.loads(_kept(claims, store).read_bytes())
        if kept["key"] == key:
            return [Row(*row) for row in kept["rows"]]
    found = _rows(claims, store)
    _keep(_kept(claims, store), key, found)
    return found


def _rows(claims: Path, store: Path) -> list[Row]:
    from repro.planning import plan  # here: they load the types of a whole registry
    from repro.registry import load_registry
    from repro.report import summary

    registry = load_registry(claims)
    outcomes = summary.outcomes(registry, store)
    return [
        Row(id_, c.source.section, c.experiment, plan.needs(c.conditions[c.headline]), outcomes[id_], c.title)
        for id_, c in registry.items()
    ]


def _key(claims: Path, store: Path) -> str:
    """Return a digest of all that the rows follow from: claim files, the store as it stands, and this program."""
    from repro.store import stamp

    digest = hashlib.sha256(stamp(store).encode())
    for path in (*claim_files(claims), *sorted(PACKAGE.rglob("*.py"))):
        with contextlib.suppress(OSError):  # whoever reads it for its content says what is wrong
            digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _kept(claims: Path, store: Path) -> Path:
    """Return the file that keeps the rows of this registry and this store."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(f"{claims.resolve()}\0{store.resolve()}".encode()).hexdigest()[:16]
    return home / "repro" / f"list-{name}.json"


def _keep(path: Path, key: str, found: Iterable[Row]) -> None:
    from repro.store import StoreError, write_atomically

    with contextlib.suppress(StoreError, RuntimeError):  # a list is right without it, only slower
        write_atomically(path, json.dumps({"key": key, "rows": list(found)}).encode())


def table(found: Iterable[Row]) -> Table:
    """Return the rows as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("claim", "§", "experiment", "needs", "last verdict", "title"):
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(row.id, row.section, row.experiment, row.needs, outcome(row.outcome), row.title)
    return table
