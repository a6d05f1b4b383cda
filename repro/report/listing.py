"""The list of claims: a row each, remembered until a claim, a record or this program changes.

Reading and judging a registry takes longer than everything else a list needs, so the rows are kept in the user's cache
folder, under a digest of all they follow from. An index of which record answers which spec is kept there too: after a
change, only what changed is read again. Without a cache folder, everything is computed each time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from repro.folders import claim_files
from repro.report.console import WHOLE, outcome

PACKAGE = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """One claim in the list; ``needs`` and ``outcome`` are those of its headline."""

    id: str
    section: str
    experiment: str
    needs: str
    outcome: str
    title: str


FIELDS = {
    "claim": "id", "§": "section", "experiment": "experiment", "needs": "needs", "last verdict": "outcome",
    "title": "title",
}  # fmt: skip
"""The columns of the list, and the field of Row that each one shows."""

SHOWN: tuple[tuple[int, tuple[str, ...]], ...] = (
    (120, tuple(FIELDS)),
    (100, ("claim", "§", "last verdict", "title")),
    (0, ("claim", "last verdict", "title")),
)
"""Which columns are shown on a terminal at least so many characters wide."""

BETWEEN = 3
"""Characters from one cell to the next."""


class List(NamedTuple):
    """A row for each claim, in the paper's order, and a line for each file of the store that cannot be used."""

    rows: list[Row]
    problems: list[str]


def rows(claims: Path, store: Path) -> List:
    """Return the list of a registry, with the verdicts from the store's records.

    Raises Problem for a registry or a store that cannot be read.
    """
    from repro import marks
    from repro.report import index  # here, and below: a list whose rows were kept needs little

    found_there = marks.of_records(store)
    key = _key(claims, index.stamp(store, found_there))
    if (kept := _recalled(_kept(claims, store, "list"))) and kept.get("key") == key:
        return List([Row(*row) for row in kept["rows"]], kept["problems"])
    known = _recalled(_kept(claims, store, "keys"))
    keys, problems = index.keys(found_there, known)
    found = List(_rows(claims, store, {identity: key for identity, (_, key) in keys.items()}, problems), problems)
    if keys != known:
        _keep(_kept(claims, store, "keys"), keys)
    _keep(_kept(claims, store, "list"), {"key": key, **found._asdict()})
    return found


def _rows(claims: Path, root: Path, keys: Mapping[str, str], problems: list[str]) -> list[Row]:
    """Return the rows, judged by today's rules; each file that cannot be used adds a line to ``problems``."""
    from repro import notes, store
    from repro.judging import judge
    from repro.planning import plan
    from repro.registry import load_registry
    from repro.report import index, summary

    registry = load_registry(claims)
    plans = notes.load_plans(root)
    outcomes = summary.outcomes(registry, index.records(root, keys, problems), plans)
    if problems:  # which claims a damaged record may be of follows only from all the others
        stored = store.stored(root)
        problems[:] = stored.refused.values()
        outcomes = summary.outcomes(registry, judge.records(*stored), plans)
    problems += plans.unusable.values()
    return [
        Row(id_, c.source.section, c.experiment, plan.needs(c.conditions[c.headline]), outcomes[id_], c.title)
        for id_, c in registry.items()
    ]


def _key(claims: Path, stamp: str) -> str:
    """Return a digest of all that the rows follow from: claim files, the store as it stands, and this program."""
    digest = hashlib.sha256(stamp.encode())
    for path in (*claim_files(claims), *sorted(PACKAGE.rglob("*.py"))):
        with contextlib.suppress(OSError):  # reading its content later says what is wrong
            digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _kept(claims: Path, store: Path, what: str) -> Path | None:
    """Return the file that keeps ``what`` of this registry and this store; None where there is no home folder."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    name = hashlib.sha256(f"{claims.resolve()}\0{store.resolve()}".encode()).hexdigest()[:16]
    return home / "repro" / f"{what}-{name}.json"


def _recalled(path: Path | None) -> dict[str, Any]:
    """Return what was kept in a file; empty where the file is missing or damaged."""
    from repro import files

    with contextlib.suppress(OSError, ValueError):
        content = path.read_bytes() if path else b""
        if content != (told := files.unsealed(content)):  # a file without a checksum is not ours
            found: dict[str, Any] = json.loads(told)
            return found
    return {}


def _keep(path: Path | None, found: Mapping[str, Any]) -> None:
    from repro import files

    if path:
        with contextlib.suppress(files.StoreError):  # a list is right without it, only slower
            files.write_atomically(path, files.sealed(json.dumps(found)))


def table(found: Iterable[Row], width: int = WHOLE) -> Table:
    """Return the rows as a table at most ``width`` characters wide; the columns that matter least are dropped first.

    No word is broken as long as the narrowest form has room for it.
    """
    rows = list(found)
    fitting = [names for least, names in SHOWN if width >= least and _narrowest(rows, names) <= width]
    names = fitting[0] if fitting else SHOWN[-1][1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=bool(fitting) and name != "title")
    for row in rows:
        cells = [getattr(row, FIELDS[name]) for name in names]
        table.add_row(
            *(outcome(cell) if name == "last verdict" else cell for name, cell in zip(names, cells, strict=True))
        )
    return table


def _narrowest(rows: Iterable[Row], names: Iterable[str]) -> int:
    """Return the least width of a table, in characters, at which no word is broken."""
    return sum(max(map(len, (name, *_words(rows, name)))) + BETWEEN for name in names)


def _words(rows: Iterable[Row], name: str) -> Iterator[str]:
    """Yield the texts that must not be broken: the whole cells of a column, or the single words of a title."""
    for row in rows:
        cell = getattr(row, FIELDS[name])
        yield from cell.split() if name == "title" else (cell,)
