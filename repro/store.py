"""Trials on disk: one folder a trial, its record written first and replaced atomically, read without torch.

    STORE/trials/<identity>/record.json   what was run, how it ended, what was measured, where
                            curve.csv     the raw curve
                            checkpoint.pt while the trial can still go on, and .previous the one before
    STORE/plans/<claim>.<condition>.json    the seeds each run asked for, oldest first

Records and plans end with a sum of their own content. What does not fit its sum is told and never used; a run that
needs its place sets it aside as <name>.bad. Links inside a store are not followed.

The identity digests what decides a trial's outcome (its spec and the data's digest), so the same command
finds its own work again and two claims share a trial they both need.
"""

import contextlib
import csv
import gc
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError

from repro import files
from repro.files import StoreError, write_atomically
from repro.frozen import Frozen, faults_in

__all__ = [
    "SCHEMA", "Looks", "Measurement", "Status", "StoreError", "Trial", "TrialSpec", "add_look",
    "evidence_digest", "folder", "load", "load_curve", "load_looks", "locked", "recall",
    "save", "save_curve", "stamp", "write_atomically",
]  # fmt: skip

SCHEMA = 1
Status = Literal["running", "completed", "censored", "diverged", "failed"]


class TrialSpec(Frozen):
    """What decides a trial's outcome, but for the data: its ``key`` digests exactly these fields."""

    experiment: str
    numerics: int
    """Version of the experiment's arithmetic, raised by hand when the same spec would give other numbers."""
    config: dict[str, JsonValue]
    seed: int

    @cached_property
    def key(self) -> str:
        """Digest of the spec, 16 hex digits."""
        return _digest(self.model_dump(mode="json"))

    def identity(self, data_digest: str) -> str:
        """Digest of the spec and the data, 16 hex digits; names the trial's folder."""
        return _digest({"spec": self.model_dump(mode="json"), "data": data_digest})


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


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder(root: Path, identity: str) -> Path:
    """Return the folder of one trial, whether it exists or not."""
    return root / "trials" / identity


def save(root: Path, trial: Trial) -> None:
    """Write the trial's record in its folder, replacing an older one. Raises StoreError."""
    place = _own(root, "trials", trial.identity)
    write_atomically(place / "record.json", files.sealed(trial.model_dump_json(indent=1, by_alias=True)))
    files.sync_folder(place)


def _own(root: Path, *parts: str) -> Path:
    """Return a path inside the store. Raises StoreError where a link would lead out of it."""
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise StoreError(f"{path} is a link, and what is written there would leave the store; remove it")
    return path


def save_curve(root: Path, identity: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the raw curve, one row a check, every row with the same keys. Raises StoreError."""
    rows = list(rows)
    lines = [",".join(rows[0]), *(",".join(f"{value:.9g}" for value in row.values()) for row in rows)] if rows else []
    write_atomically(_own(root, "trials", identity) / "curve.csv", ("\n".join(lines) + "\n").encode())


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


def load(root: Path) -> tuple[list[Trial], list[str]]:
    """Return the trials under ``root``, by identity, and one line for each record that cannot be used.

    A record counts only in the folder that its own content names: a copied or edited one is reported.
    """
    trials: list[Trial] = []
    problems: list[str] = []
    with _without_collections():
        for path in _records(root):
            try:
                trials.append(_record(path))
            except FileNotFoundError:
                continue  # a folder without a record: nothing was begun there
            except StoreError as error:
                problems.append(f"{path}: {error}")
    return trials, problems


def _records(root: Path) -> list[Path]:
    """Return where a record may lie in each trial's folder, sorted."""
    base = root / "trials"
    try:
        return [base / name / "record.json" for name in sorted(os.listdir(base))]  # noqa: PTH208 - names, not 100,000 paths
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {base}: {error}") from error


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Put off looking for garbage while many values are made that all stay: it costs more than making them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def recall(root: Path, identity: str) -> Trial | None:
    """Return what is recorded of one trial, None where nothing is; for the process that holds the trial.

    A record that cannot be used is set aside, and that is told: the trial is then run again.
    """
    path = folder(root, identity) / "record.json"
    try:
        return _record(path)
    except FileNotFoundError:
        return None
    except StoreError as error:
        aside = files.set_aside(path)
        logging.getLogger(__name__).warning("repro: %s: %s; it was set aside as %s", path, error, aside.name)
        return None


def _record(path: Path) -> Trial:
    """Return the trial recorded at ``path``. Raises FileNotFoundError, and StoreError saying why it cannot be used."""
    content = b""
    try:
        if path.parent.is_symlink():
            raise StoreError("its folder is a link, and links inside a store are not followed")
        content = files.read(path)
        trial = Trial.model_validate_json(files.unsealed(content))
        identity = trial.identity
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, ValueError) as error:
        _refuse_other(_schema(content), "record schema")
        told = faults_in(error, Trial)[0] if isinstance(error, ValidationError) else error
        raise StoreError(f"not a usable record ({told}); remove its folder to run the trial again") from error
    _refuse_other(trial.schema_, "record schema")
    if identity != path.parent.name:
        raise StoreError(f"its content belongs in {identity}; edited or copied records are not used")
    return trial


def _refuse_other(schema: Any, what: str) -> None:
    """Raise StoreError for another schema than this version's: it is not damage, and nobody should remove it."""
    if schema != SCHEMA:
        raise StoreError(f"{what} {schema!r}, this version reads {SCHEMA}")


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


def add_look(root: Path, claim: str, condition: str, seeds: tuple[int, ...]) -> None:
    """Note that a run asked for ``seeds``; running a part of what was planned before is not a new look."""
    path = _own(root, "plans", f"{claim}.{condition}.json")
    with files.held(path.parent / ".lock", wait=True):  # or of two runs that start at once, one forgets the other's
        old = _looks(path).looks if path.exists() else ()
        if any(set(seeds) <= set(look) for look in old):
            return
        looks = Looks(claim=claim, condition=condition, looks=(*old, seeds))
        write_atomically(path, files.sealed(looks.model_dump_json(by_alias=True)))


def load_looks(root: Path) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """Return the looks by (claim, condition). Raises StoreError for a file that is not one."""
    found = map(_looks, sorted((root / "plans").glob("*.json")))
    return {(looks.claim, looks.condition): looks.looks for looks in found}


def _looks(path: Path) -> Looks:
    """Return the plan at ``path``. Raises StoreError where it is not one, or another's."""
    try:
        looks = Looks.model_validate_json(files.unsealed(files.read(path)))
    except (OSError, ValueError) as error:
        told = faults_in(error, Looks)[0] if isinstance(error, ValidationError) else error
        raise StoreError(f"{path}: not a usable plan ({told}); remove or restore it") from error
    _refuse_other(looks.schema_, f"{path}: plan schema")
    if path.stem != f"{looks.claim}.{looks.condition}":
        raise StoreError(f"{path}: its content is the plan of {looks.claim}.{looks.condition}; remove or restore it")
    return looks


def stamp(root: Path) -> str:
    """Return a digest that changes whenever a record or a plan does, at the cost of a look at each file's times.

    What is worked out of the whole store may be kept under it: 100,000 records are looked at in about a second.
    """
    return files.stamp(iter([*_records(root), *sorted((root / "plans").glob("*.json"))]))


SHOWN = ("record.json", "curve.csv", "looked.npz", "pictures.npz")
EVIDENCE = (*(f"trials/*/{name}" for name in SHOWN), "plans/*.json", "bands/*.json")
"""What a report shows."""


def evidence_digest(root: Path) -> str:
    """Return a digest of all that a report follows from under ``root``, 16 hex digits; no checkpoints, no order."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in EVIDENCE for path in root.glob(pattern)):
        try:
            content = files.read(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; remove or restore it") from error
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(root: Path, identity: str) -> Iterator[bool]:
    """Hold the trial for this process; yields False where another live process holds it.

    The lock is the kernel's, so one left by a dead process frees itself; what that process left half-written goes.
    """
    place = _own(root, "trials", identity)
    with files.held(place / "lock") as ours:
        if ours:
            files.sweep(place)
        yield ours
