"""What is noted in a store before a run: the seeds it asks for, and what every such note shares.

    STORE/plans/<claim>.<condition>.json    the seeds each run asked for, oldest first
    STORE/bands/<claim>.json                what was expected then: see repro.judging.bands

A note ends with a checksum of its content, and counts only under the name that it gives itself.
"""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import Field, ValidationError

from repro import files, store
from repro.files import StoreError
from repro.frozen import Frozen, faults_in
from repro.store import SCHEMA, Unusable


class Note(Frozen):
    """What is noted of a claim; ``name`` is that of its file."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    claim: str

    @property
    def name(self) -> str:
        return self.claim


class Looks(Note):
    """The seed lists that a condition was run with, oldest first; each new list is another look at the data."""

    condition: str
    looks: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...]

    @property
    def name(self) -> str:
        return f"{self.claim}.{self.condition}"


Kind = TypeVar("Kind", bound=Note)


def read(path: Path, kind: type[Kind], what: str, known: str) -> Kind:
    """Return the note at ``path``, called ``what``; ``known`` is what only it tells.

    Raises FileNotFoundError where there is none, and Unusable where it cannot be used or belongs to something else.
    """
    try:
        note = kind.model_validate_json(files.unsealed(files.read(path)))
        if note.schema_ == SCHEMA and path.stem != note.name:
            raise ValueError(f"its content is that of {note.name}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except (OSError, ValueError) as error:
        raise _unusable(path, what, error, kind, known) from error
    store.refuse_other(note.schema_, f"{path}: {what} schema")
    return note


def _unusable(path: Path, what: str, error: Exception, kind: type[Note], known: str) -> Unusable:
    """Return the error, with the remedy, for a file that is no usable ``what``; ``known`` is what only it tells."""
    if isinstance(error, PermissionError):
        return Unusable(f"{path}: {what} that may not be read; allow it: {shlex.join(['chmod', 'u+r', str(path)])}")
    told = faults_in(error, kind)[0] if isinstance(error, ValidationError) else getattr(error, "strerror", error)
    aside = shlex.join(["mv", "-n", str(path), f"{path}.bad"])
    return Unusable(f"{path}: not a usable {what} ({told}); put a copy back, or go on without {known}: {aside}")


def write(path: Path, note: Note) -> None:
    """Write a note, replacing an older one. Raises StoreError."""
    files.write_atomically(path, files.sealed(note.model_dump_json(by_alias=True)))


@contextlib.contextmanager
def noting(root: Path) -> Iterator[None]:
    """Lock the notes, so that two runs that start at once keep each other's. Raises StoreError."""
    with files.held(store.own(root, "plans") / ".lock", wait=True):
        yield


def add_look(root: Path, claim: str, condition: str, seeds: tuple[int, ...]) -> None:
    """Note that a run asked for ``seeds``; running a part of what was planned before is not a new look."""
    path = store.own(root, "plans", f"{claim}.{condition}.json")
    with noting(root):
        try:
            old = _looks(path)
        except FileNotFoundError:
            old = ()
        if not any(set(seeds) <= set(look) for look in old):
            write(path, Looks(claim=claim, condition=condition, looks=(*old, seeds)))


class Plans(NamedTuple):
    """What runs asked for, by (claim, condition), and what is wrong with each plan that cannot be used."""

    looks: dict[tuple[str, str], tuple[tuple[int, ...], ...]]
    unusable: dict[tuple[str, str], str]
    """The path of the plan, what is wrong and what to do, by the (claim, condition) in the file's name."""


def load_plans(root: Path) -> Plans:
    """Return the looks under ``root``; a plan that cannot be used stands for looks that nobody knows any more."""
    plans = Plans({}, {})
    for path in plan_files(root):
        claim, _, condition = path.stem.partition(".")  # names have no dots
        try:
            plans.looks[claim, condition] = _looks(path)
        except FileNotFoundError:
            plans.unusable[claim, condition] = f"{path}: a plan that was removed while it was read; ask again"
        except StoreError as error:
            plans.unusable[claim, condition] = str(error)
    return plans


def load_looks(root: Path) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """Return the looks by (claim, condition). Raises StoreError for a plan that cannot be used."""
    plans = load_plans(root)
    for problem in plans.unusable.values():
        raise StoreError(problem)
    return plans.looks


def plan_files(root: Path) -> list[Path]:
    """Return the plan files, sorted by name. Raises StoreError where ``plans`` is a link or not a folder."""
    return sorted(store.own(root, "plans").glob("*.json"))


def _looks(path: Path) -> tuple[tuple[int, ...], ...]:
    return read(path, Looks, "plan", "the looks that it counts").looks
