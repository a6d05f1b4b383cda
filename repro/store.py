"""Trials on disk: one folder a trial, its record written first and replaced atomically, read without torch.

    STORE/trials/<identity>/record.json   what was run, how it ended, what was measured, where
                            curve.csv     the raw curve; missed.npz, looked.npz, pictures.npz: see RESULTS
                            checkpoint.pt while the trial can still go on, and .previous the one before
    STORE/plans/<claim>.<condition>.json    the seeds each run asked for, oldest first
    STORE/bands/<claim>.json                what was expected then: see repro.judging.bands

Records, plans and bands end with a sum of their own content. What does not fit its sum is told and never used; a run
that needs its place sets it aside as <name>.bad. Links inside a store are not followed.

The identity digests what decides a trial's outcome (its spec and the data's digest), so the same command
finds its own work again and two claims share a trial they both need.
"""

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError

from repro import files, garbage
from repro.files import StoreError, write_atomically
from repro.frozen import Frozen, faults_in

__all__ = [
    "NO_DATA", "RESULTS", "SCHEMA", "Looks", "Measurement", "Place", "Plans", "Status", "StoreError", "Stored", "Trial",
    "TrialSpec", "Unusable", "add_look", "evidence_digest", "folder", "load", "load_curve", "load_looks", "load_plans",
    "locked", "noting", "own", "place", "places", "plan_files", "raw", "recall", "record", "save", "save_curve",
    "stored", "unusable", "write_atomically",
]  # fmt: skip

SCHEMA = 1
NO_DATA = "none"
"""The data digest of trials that need no data."""
Status = Literal["running", "completed", "censored", "diverged", "failed"]


class Unusable(StoreError):
    """One file of a store cannot be used; what does not rest on it can."""


class TrialSpec(Frozen):
    """What decides a trial's outcome, but for the data: its ``key`` digests exactly these fields."""

    experiment: str
    numerics: int
    """Version of the experiment's arithmetic, raised by hand when the same spec would give other numbers."""
    config: dict[str, JsonValue]
    seed: int

    @cached_property
    def _text(self) -> str:
        """The spec as canonical JSON: both digests are of it, and it is what they cost."""
        fields = {name: getattr(self, name) for name in ("experiment", "numerics", "config", "seed")}
        return _CANONICAL.encode(fields)

    @cached_property
    def key(self) -> str:
        """Digest of the spec, 16 hex digits."""
        return _digest(self._text)

    def identity(self, data_digest: str) -> str:
        """Digest of the spec and the data, 16 hex digits; names the trial's folder."""
        return _digest(f'{{"data":{_CANONICAL.encode(data_digest)},"spec":{self._text}}}')


class Measurement(Frozen):
    """One raw number: ``at`` says where in the trial it was taken, in ``at_unit``, where that means something."""

    name: str
    value: float
    unit: str
    at: float | None = None
    at_unit: str | None = None


class Trial(Frozen):
    """One arm, one seed, run once; everything a verdict may use, and where it came from."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    spec: TrialSpec
    data_digest: str
    status: Status
    limit: float | None = None
    """How far the trial was allowed to go (epochs): a censored trial's value is above this. None: given up for good."""
    measurements: tuple[Measurement, ...] = ()
    message: str = ""
    environment: dict[str, JsonValue] = Field(default_factory=dict)
    started: str = ""
    duration_s: float = 0.0
    """Seconds of training, all attempts added, evaluation and start-up left out."""

    @cached_property
    def identity(self) -> str:
        return self.spec.identity(self.data_digest)

    def value(self, name: str) -> float:
        """Return the one measurement called ``name``; KeyError where there is none."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement.value
        raise KeyError(name)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder(root: Path, identity: str) -> Path:
    """Return the folder of one trial, whether it exists or not."""
    return root / "trials" / identity


def save(root: Path, trial: Trial) -> None:
    """Write the trial's record in its folder, replacing an older one. Raises StoreError."""
    place = own(root, "trials", trial.identity)
    write_atomically(place / "record.json", files.sealed(trial.model_dump_json(indent=1, by_alias=True)))
    files.sync_folder(place)


def own(root: Path, kind: str, *parts: str) -> Path:
    """Return a path in a folder of the store: trials, plans, bands. Raises StoreError for a link, and for no folder."""
    path = root / kind
    for part in ("", *parts):
        path = path / part
        if path.is_symlink():
            told = f"{path} is a link, and links inside a store are not followed; put what it names there"
            raise Unusable(told) if part else StoreError(told)
        if not part and path.exists() and not path.is_dir():
            raise StoreError(f"{path} is no folder, and a store has one there; set it aside")
    return path


def unusable(path: Path, what: str, error: Exception, model: Any, known: str) -> Unusable:
    """Return what to tell of a file that is no ``what``: why, and what to do; ``known`` is what only it knows."""
    if isinstance(error, PermissionError):
        return Unusable(f"{path}: {what} that may not be read; allow it: {shlex.join(['chmod', 'u+r', str(path)])}")
    told = faults_in(error, model)[0] if isinstance(error, ValidationError) else getattr(error, "strerror", error)
    aside = shlex.join(["mv", "-n", str(path), f"{path}.bad"])
    return Unusable(f"{path}: not a usable {what} ({told}); put a copy back, or go on without {known}: {aside}")


def save_curve(root: Path, identity: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the raw curve, one row a check, every row with the same keys. Raises StoreError."""
    rows = list(rows)
    lines = [",".join(rows[0]), *(",".join(f"{value:.9g}" for value in row.values()) for row in rows)] if rows else []
    write_atomically(own(root, "trials", identity) / "curve.csv", ("\n".join(lines) + "\n").encode())


def load_curve(root: Path, identity: str) -> list[dict[str, float]]:
    """Return the raw curve, oldest row first; empty where none was written. Raises StoreError."""
    path = folder(root, identity) / "curve.csv"
    try:
        rows = csv.DictReader(io.StringIO(files.read(path).decode(), newline=""))
        if len(rows.fieldnames or ("", "")) < 2:
            raise ValueError("it has no columns")
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise StoreError(f"cannot read {path}: {error}; remove the trial's folder to run it again") from error


class Stored(NamedTuple):
    """The records of a store: those that count, by identity, and what is told of the others."""

    trials: list[Trial]
    refused: dict[str, str]
    """A line for each record that cannot be used, by its folder's name: the identity of the trial it was of."""
    named: set[str]
    """What can be read in those as a data digest."""


def stored(root: Path) -> Stored:
    """Return the records under ``root``; one that its own content says to be of another folder is refused."""
    found = Stored([], {}, set())
    with garbage.put_off():  # many values are made that all stay: to look for garbage costs more than making them
        for at in places(root):
            try:
                found.trials.append(record(at))
            except FileNotFoundError:
                continue  # a folder without a record: nothing was begun there
            except StoreError as error:
                found.refused[at.name] = f"{at.path}: {error}"
                with contextlib.suppress(OSError, ValueError, StoreError):
                    found.named.update(name.decode() for name in re.findall(rb'"data_digest": ?"([^"]+)"', raw(at)))
    return found


def load(root: Path) -> tuple[list[Trial], list[str]]:
    """Return the trials under ``root``, by identity, and one line for each record that cannot be used."""
    found = stored(root)
    return found.trials, list(found.refused.values())


class Place(NamedTuple):
    """Where a record may lie. The path is text: 100,000 joined ones take as long to make as the files to look at."""

    name: str
    """Of the trial's folder: the identity that its record has to have."""
    path: str
    linked: bool
    """Whether the folder is a link."""


def places(root: Path) -> list[Place]:
    """Return where a record may lie in each trial's folder, by name."""
    base = own(root, "trials")
    try:
        with os.scandir(base) as found:
            return sorted(Place(one.name, f"{base}/{one.name}/record.json", one.is_symlink()) for one in found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {base}: {error}") from error


def place(root: Path, identity: str) -> Place:
    """Return where the record of one trial may lie."""
    path = folder(root, identity)
    return Place(identity, str(path / "record.json"), path.is_symlink())


def recall(root: Path, identity: str) -> Trial | None:
    """Return what is recorded of one trial, None where nothing is; for the process that holds the trial.

    A damaged record is set aside, and that is told: the trial is then run again. Raises Unusable for another schema.
    """
    at = place(root, identity)
    try:
        return record(at)
    except FileNotFoundError:
        return None
    except Unusable as error:
        raise Unusable(f"{at.path}: {error}; run it with that version, or pass --store DIR") from error
    except StoreError as error:
        aside = files.set_aside(Path(at.path))
        logging.getLogger(__name__).warning("repro: %s: %s; it was set aside as %s", at.path, error, aside.name)
        return None


def record(at: Place) -> Trial:
    """Return the trial recorded at a place. Raises FileNotFoundError, and StoreError saying why it cannot be used."""
    content = b""
    try:
        content = raw(at)
        trial = Trial.model_validate_json(files.unsealed(content))
        identity = trial.identity
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(at.path) from None
    except (OSError, ValueError) as error:
        _refuse_other(_schema(content) if isinstance(error, ValidationError) else SCHEMA, "record schema")
        told = faults_in(error, Trial)[0] if isinstance(error, ValidationError) else error
        raise StoreError(f"not a usable record ({told}); remove its folder to run the trial again") from error
    _refuse_other(trial.schema_, "record schema")
    if identity != at.name:
        raise StoreError(f"its content belongs in {identity}; edited or copied records are not used")
    return trial


def raw(at: Place) -> bytes:
    """Return the bytes of a record. Raises OSError, and StoreError where its folder is a link."""
    if at.linked:
        raise StoreError("its folder is a link, and links inside a store are not followed")
    return files.read(at.path)


def _refuse_other(schema: Any, what: str) -> None:
    """Raise Unusable for another schema than this version's: it is not damage, and nobody should remove it."""
    if schema != SCHEMA:
        raise Unusable(f"{what} {schema!r}, this version reads {SCHEMA}")


def _schema(content: bytes) -> Any:
    """Return the schema that a record says it has; this version's where it says none."""
    try:
        return json.loads(content).get("schema", SCHEMA)
    except (ValueError, AttributeError, RecursionError):
        return SCHEMA


class Looks(Frozen):
    """The seed lists a condition was run with, in order: each new one is another look at the data."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    claim: str
    condition: str
    looks: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...]


@contextlib.contextmanager
def noting(root: Path) -> Iterator[None]:
    """Hold what a store notes of runs, or of two that start at once one forgets the other's. Raises StoreError."""
    with files.held(own(root, "plans") / ".lock", wait=True):
        yield


def add_look(root: Path, claim: str, condition: str, seeds: tuple[int, ...]) -> None:
    """Note that a run asked for ``seeds``; running a part of what was planned before is not a new look."""
    path = own(root, "plans", f"{claim}.{condition}.json")
    with noting(root):
        old = _looks(path).looks if path.exists() else ()
        if any(set(seeds) <= set(look) for look in old):
            return
        looks = Looks(claim=claim, condition=condition, looks=(*old, seeds))
        write_atomically(path, files.sealed(looks.model_dump_json(by_alias=True)))


class Plans(NamedTuple):
    """What runs asked for, by (claim, condition), and of the files that do not tell it what is wrong with each."""

    looks: dict[tuple[str, str], tuple[tuple[int, ...], ...]]
    unusable: dict[tuple[str, str], str]
    """The path, what is wrong and what to do, by what the file's name says it is the plan of."""


def load_plans(root: Path) -> Plans:
    """Return the looks under ``root``; a file that cannot be used stands for looks that nobody knows."""
    plans = Plans({}, {})
    for path in plan_files(root):
        claim, _, condition = path.stem.partition(".")  # names have no dots
        try:
            plans.looks[claim, condition] = _looks(path).looks
        except StoreError as error:
            plans.unusable[claim, condition] = str(error)
    return plans


def load_looks(root: Path) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """Return the looks by (claim, condition). Raises StoreError for a file that is not one."""
    plans = load_plans(root)
    for problem in plans.unusable.values():
        raise StoreError(problem)
    return plans.looks


def plan_files(root: Path) -> list[Path]:
    """Return the files that note what runs asked for, by name. Raises StoreError where their folder is none."""
    return sorted(own(root, "plans").glob("*.json"))


def _looks(path: Path) -> Looks:
    """Return the plan at ``path``. Raises Unusable where it is not one, or another's."""
    try:
        looks = Looks.model_validate_json(files.unsealed(files.read(path)))
        if looks.schema_ == SCHEMA and path.stem != f"{looks.claim}.{looks.condition}":
            raise ValueError(f"its content is the plan of {looks.claim}.{looks.condition}")
    except (OSError, ValueError) as error:
        raise unusable(path, "plan", error, Looks, "the looks that it counts") from error
    _refuse_other(looks.schema_, f"{path}: plan schema")
    return looks


MISSED = "missed.npz"  # for each error one bit an image, 1 where it was missed, in the order of the test set

RESULTS = ("curve.csv", MISSED, "looked.npz", "pictures.npz", "record.json")
"""What a finished trial leaves in its folder, where it has that: its curve, which test images it missed, what was seen
in the network and of which pictures; the record last, since it says that the others are there."""

EVIDENCE = (*(f"trials/*/{name}" for name in RESULTS), "plans/*.json", "bands/*.json")
"""What a report follows from."""


def evidence_digest(root: Path) -> str:
    """Return a digest of all that a report follows from under ``root``, 16 hex digits; no checkpoints, no order."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in EVIDENCE for path in root.glob(pattern)):
        try:
            content = files.read(path)
        except OSError:
            content = b"cannot be read"  # a fact that the report follows from, and tells, like any other
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(root: Path, identity: str) -> Iterator[bool]:
    """Hold the trial for this process; yields False where another live process holds it.

    The lock is the kernel's, so one left by a dead process frees itself; what that process left half-written goes.
    """
    place = own(root, "trials", identity)
    with files.held(place / "lock") as ours:
        if ours:
            files.sweep(place)
        yield ours
