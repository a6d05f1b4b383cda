"""Trials on disk, read without torch: one folder per trial, its record written at the start and replaced atomically.

    STORE/trials/<identity>/record.json   what was run, how it ended, what was measured, where
                            curve.csv     the raw curve; missed.npz, looked.npz, pictures.npz: see RESULTS
                            checkpoint.pt while the trial can still go on, and .previous the one before
    STORE/plans, STORE/bands              what was noted before a run: see repro.notes

A record ends with a checksum of its content. One that does not match it is reported and never used; a run that needs
its place sets it aside as <name>.bad. Links in a store are not followed.

The identity is a digest of what decides a trial's outcome: its spec and the digest of its data. So a repeated command
finds its earlier work, and two claims share a trial that both need.
"""

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError

from repro import files, garbage
from repro.files import StoreError
from repro.frozen import Frozen, faults_in

SCHEMA = 1
NO_DATA = "none"
"""The data digest of trials that need no data."""
Status = Literal["running", "completed", "censored", "diverged", "failed"]


class Unusable(StoreError):
    """One file of a store cannot be used; whatever does not depend on it still can."""


class TrialSpec(Frozen):
    """All that decides a trial's outcome except the data; ``key`` is a digest of exactly these fields."""

    experiment: str
    numerics: int
    """Version of the experiment's arithmetic, raised by hand when the same spec would give other numbers."""
    config: dict[str, JsonValue]
    seed: int

    @cached_property
    def _text(self) -> str:
        """The spec as canonical JSON, kept because both digests need it and encoding it is what they cost."""
        fields = {name: getattr(self, name) for name in ("experiment", "numerics", "config", "seed")}
        return _CANONICAL.encode(fields)

    @cached_property
    def key(self) -> str:
        """Digest of the spec, 16 hex digits."""
        return _digest(self._text)

    def identity(self, data_digest: str) -> str:
        """Return the digest of the spec and the data, 16 hex digits: the name of the trial's folder."""
        return _digest(f'{{"data":{_CANONICAL.encode(data_digest)},"spec":{self._text}}}')


class Measurement(Frozen):
    """One raw number. ``at``, in units of ``at_unit``, is the point of the trial where it was taken, if it has one."""

    name: str
    value: float
    unit: str
    at: float | None = None
    at_unit: str | None = None


class Trial(Frozen):
    """One arm run once with one seed: everything that a verdict may use, and where it came from."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    spec: TrialSpec
    data_digest: str
    status: Status
    limit: float | None = None
    """Epochs that the trial was allowed. A censored trial's value is above this; if None, it was given up for good."""
    measurements: tuple[Measurement, ...] = ()
    message: str = ""
    environment: dict[str, JsonValue] = Field(default_factory=dict)
    started: str = ""
    duration_s: float = 0.0
    """Seconds of training, summed over all attempts; evaluation and start-up are not counted."""

    @cached_property
    def identity(self) -> str:
        return self.spec.identity(self.data_digest)

    def value(self, name: str) -> float:
        """Return the value of the one measurement called ``name``. Raises KeyError where there is none."""
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
    files.write_atomically(place / "record.json", files.sealed(trial.model_dump_json(indent=1, by_alias=True)))
    files.sync_folder(place)


def own(root: Path, kind: str, *parts: str) -> Path:
    """Return a path in the store's folder ``kind`` (trials, plans, bands). Raises StoreError for a link or a file."""
    path = root / kind
    for part in ("", *parts):
        path = path / part
        if path.is_symlink():
            told = f"{path} is a link, and links inside a store are not followed; put what it names there"
            raise Unusable(told) if part else StoreError(told)
        if not part and path.exists() and not path.is_dir():
            raise StoreError(f"{path} is no folder, and a store has one there; set it aside")
    return path


def save_curve(root: Path, identity: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the raw curve, one row a check, every row with the same keys. Raises StoreError."""
    rows = list(rows)
    lines = [",".join(rows[0]), *(",".join(f"{value:.9g}" for value in row.values()) for row in rows)] if rows else []
    files.write_atomically(own(root, "trials", identity) / "curve.csv", ("\n".join(lines) + "\n").encode())


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
    """The records of a store: the usable trials, sorted by identity, and what is known of the other records."""

    trials: list[Trial]
    refused: dict[str, str]
    """Why each unusable record cannot be used, one line, by the name of its folder: the identity of its trial."""
    named: set[str]
    """Whatever in the refused records can still be read as a data digest."""


def stored(root: Path) -> Stored:
    """Return the records under ``root``; a record whose content belongs in another folder is refused."""
    found = Stored([], {}, set())
    with garbage.put_off():  # many values are made and all stay: looking for garbage costs more than making them
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
    """Return the trials under ``root``, sorted by identity, and one line for each record that cannot be used."""
    found = stored(root)
    return found.trials, list(found.refused.values())


class Place(NamedTuple):
    """Where a record may lie. The path is a string: joining 100,000 Paths takes as long as looking at the files."""

    name: str
    """The name of the trial's folder, which must be the identity of the trial in its record."""
    path: str
    linked: bool
    """Whether the folder is a link."""


def places(root: Path) -> list[Place]:
    """Return where a record may lie in each trial's folder, sorted by the folder's name."""
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
    """Return the recorded trial, None where there is none; only for the process that holds the trial's lock.

    A damaged record is set aside with a warning, so the trial is run again. Raises Unusable for one that cannot be
    read now, or has another schema: it may be whole.
    """
    at = place(root, identity)
    try:
        return record(at)
    except FileNotFoundError:
        return None
    except Unusable as error:
        raise Unusable(f"{at.path}: {error}") from error
    except StoreError as error:
        aside = files.set_aside(Path(at.path))
        logging.getLogger(__name__).warning("repro: %s: %s; it was set aside as %s", at.path, error, aside.name)
        return None


def record(at: Place) -> Trial:
    """Return the trial recorded at a place. Raises FileNotFoundError, or StoreError that says why it is unusable."""
    content = b""
    try:
        content = raw(at)
        trial = Trial.model_validate_json(files.unsealed(content))
        identity = trial.identity
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(at.path) from None
    except OSError as error:
        raise Unusable(f"the record cannot be read ({error.strerror or error}), and may be whole; try again") from error
    except ValueError as error:
        refuse_other(_schema(content) if isinstance(error, ValidationError) else SCHEMA, "record schema")
        told = faults_in(error, Trial)[0] if isinstance(error, ValidationError) else error
        raise StoreError(f"not a usable record ({told}); remove its folder to run the trial again") from error
    refuse_other(trial.schema_, "record schema")
    if identity != at.name:
        raise StoreError(f"its content belongs in {identity}; edited or copied records are not used")
    return trial


def raw(at: Place) -> bytes:
    """Return the bytes of a record. Raises OSError, and StoreError where its folder is a link."""
    if at.linked:
        raise StoreError("its folder is a link, and links inside a store are not followed")
    return files.read(at.path)


def refuse_other(schema: Any, what: str) -> None:
    """Raise Unusable for a schema of another version: such a file is not damaged, and nobody should remove it."""
    if schema != SCHEMA:
        raise Unusable(f"{what} {schema!r}, this version reads {SCHEMA}; use that version, or pass --store DIR")


def _schema(content: bytes) -> Any:
    """Return the schema that a record states, or this version's where it states none."""
    try:
        return json.loads(content).get("schema", SCHEMA)
    except (ValueError, AttributeError, RecursionError):
        return SCHEMA


MISSED = "missed.npz"  # for each error, one bit per image in the order of the test set: 1 where it was missed

RESULTS = ("curve.csv", MISSED, "looked.npz", "pictures.npz", "record.json")
"""The files that a finished trial may leave in its folder: its curve, which test images it missed, what was seen in
the network, and the pictures that belong to that. The record comes last: it says that the others are there."""

EVIDENCE = (*(f"trials/*/{name}" for name in RESULTS), "plans/*.json", "bands/*.json")
"""The files from which a report is made."""


def evidence_digest(root: Path) -> str:
    """Return a digest, 16 hex digits, of the EVIDENCE under ``root``: no checkpoints, and the order has no effect."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in EVIDENCE for path in root.glob(pattern)):
        try:
            content = files.read(path)
        except OSError:
            content = b"cannot be read"  # the report says so, so this fact is part of the evidence, too
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(root: Path, identity: str) -> Iterator[bool]:
    """Lock the trial for this process; yields False where another live process holds it.

    The kernel frees the lock of a process that dies; files that such a process left half-written are removed.
    """
    place = own(root, "trials", identity)
    with files.held(place / "lock") as ours:
        if ours:
            files.sweep(place)
        yield ours
