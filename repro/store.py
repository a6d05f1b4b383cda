"""Trials on disk: one folder a trial, its record written first and replaced atomically, read without torch.

    STORE/trials/<identity>/record.json   what was run, how it ended, what was measured, where
                            curve.csv     the raw curve
                            checkpoint.pt while the trial can still go on
    STORE/plans/<claim>.<condition>.json    the seeds each run asked for, oldest first

The identity digests what decides a trial's outcome (its spec and the data's digest), so the same command
finds its own work again and two claims share a trial they both need.
"""

import contextlib
import csv
import fcntl
import json
import os
import re
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from repro.problem import Problem, suggest

SCHEMA = 1
Status = Literal["running", "completed", "censored", "diverged", "failed"]


class StoreError(Problem):
    """The store cannot be read or written; the message names the path and says what to do."""


class Frozen(BaseModel):
    """A strict value: no unknown keys, no silent conversions, no NaN or infinity, no changes once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def faults_in(
    error: ValidationError, model: Any, homes: Mapping[str, tuple[str, ...]] = {}, at: tuple[str, ...] = (),
    also: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """Return what is wrong with a ``model``'s table, each as "key path: what is wrong; what is allowed".

    The table lies ``at`` a key path, but for keys with ``homes`` of their own; ``also`` are keys allowed beside it.
    """
    found = error.errors()
    faults = []
    for fault in found:
        loc = fault["loc"]
        if not any(other["loc"][: len(loc)] == loc != other["loc"] for other in found):  # said by a part of it
            home = homes.get(str(loc[0]), at) if loc else at
            faults.append(f"{key_path((*home, *loc))}: {_wrong(fault, model, also)}".removeprefix(": "))
    return faults


_WORDS = (
    (r"^Value error, | after validation", ""), (r"a valid tuple", "a list"), (r"^Tuple", "The list"),
    (r"a valid dictionary( or instance of \w+)?", "a table"),
)  # fmt: skip
"""What pydantic says, and how a reader of TOML says it."""


def _wrong(fault: Any, model: Any, also: Collection[str]) -> str:
    """Return one fault that pydantic found as "what is wrong; what is allowed", in the words of TOML."""
    loc = fault["loc"]
    if fault["type"] == "extra_forbidden":
        allowed = sorted({*_keys(model, loc[:-1]), *(also if len(loc) == 1 else ())})
        return f"unknown key{suggest(str(loc[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return "missing"
    message: str = fault["msg"]
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    shown = fault.get("input")
    return message + (f", not {reprlib.repr(shown)}" if isinstance(shown, str | int | float | bool) else "")


def _keys(model: Any, loc: Collection[str | int]) -> list[str]:
    """Return the keys of the table that lies at ``loc`` inside a ``model``."""
    for part in loc:
        if isinstance(part, str):
            inner: Any = model.model_fields[part].annotation
            while not hasattr(inner, "model_fields"):  # tuple[Model, ...] or Model | None
                inner = get_args(inner)[0]
            model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def key_path(parts: Collection[str | int]) -> str:
    """Return a key path as TOML writes it, ``expect[0].accept``, with odd keys quoted."""
    keys = [part for part in parts if part != "[key]"]
    text = "".join(
        f"[{key}]" if isinstance(key, int) else "." + (key if re.fullmatch(r"[\w-]+", key) else json.dumps(key))
        for key in keys
    )
    return text.removeprefix(".")


class TrialSpec(Frozen):
    """What decides a trial's outcome, but for the data: its ``key`` digests exactly these fields."""

    experiment: str
    numerics: int
    """Version of the experiment's arithmetic, raised by hand when the same spec would give other numbers."""
    config: dict[str, JsonValue]
    seed: int

    @property
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
    environment: dict[str, JsonValue] = {}
    started: str = ""
    duration_s: float = 0.0
    """Seconds of training, all attempts added, evaluation and start-up left out."""

    @property
    def identity(self) -> str:
        return self.spec.identity(self.data_digest)

    def value(self, name: str) -> float:
        """Return the one measurement called ``name``; KeyError where there is none."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement.value
        raise KeyError(name)


def _digest(value: Any) -> str:
    import hashlib  # here: it loads a whole library of ciphers, which a list of claims does without

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder(root: Path, identity: str) -> Path:
    """Return the folder of one trial, whether it exists or not."""
    return root / "trials" / identity


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all, also through a crash. Raises StoreError."""
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}; nothing finished was lost") from error


def save(root: Path, trial: Trial) -> None:
    """Write the trial's record in its folder, replacing an older one. Raises StoreError."""
    text = trial.model_dump_json(indent=1, by_alias=True)
    write_atomically(folder(root, trial.identity) / "record.json", text.encode() + b"\n")


def save_curve(root: Path, identity: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Write the raw curve, one row a check, every row with the same keys. Raises StoreError."""
    rows = list(rows)
    lines = [",".join(rows[0]), *(",".join(f"{value:.9g}" for value in row.values()) for row in rows)] if rows else []
    write_atomically(folder(root, identity) / "curve.csv", ("\n".join(lines) + "\n").encode())


def load_curve(root: Path, identity: str) -> list[dict[str, float]]:
    """Return the raw curve, oldest row first; empty where none was written. Raises StoreError."""
    path = folder(root, identity) / "curve.csv"
    try:
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"cannot read {path}: {error}; remove the trial's folder to run it again") from error


def load(root: Path) -> tuple[list[Trial], list[str]]:
    """Return the trials under ``root``, by identity, and one line for each record that cannot be used.

    A record counts only in the folder that its own content names: a copied or edited one is reported.
    """
    trials: list[Trial] = []
    problems: list[str] = []
    for path in sorted((root / "trials").glob("*/record.json")):
        try:
            trial = _record(path)
        except StoreError as error:
            problems.append(f"{path}: {error}")
        else:
            trials.append(trial)
    return trials, problems


def _record(path: Path) -> Trial:
    """Return the trial recorded at ``path``. Raises StoreError, saying why it cannot be used."""
    try:
        content = path.read_bytes()
        schema = json.loads(content).get("schema", SCHEMA)
        if schema != SCHEMA:
            raise StoreError(f"record schema {schema}, this version reads {SCHEMA}")
        trial = Trial.model_validate_json(content)
        identity = trial.identity
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        told = faults_in(error, Trial)[0] if isinstance(error, ValidationError) else error
        raise StoreError(f"not a usable record ({told}); remove its folder to run the trial again") from error
    if identity != path.parent.name:
        raise StoreError(f"its content belongs in {identity}; edited or copied records are not used")
    return trial


class Looks(Frozen):
    """The seed lists a condition was run with, in order: each new one is another look at the data."""

    schema_: int = Field(alias="schema", default=SCHEMA)
    claim: str
    condition: str
    looks: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...]


def add_look(root: Path, claim: str, condition: str, seeds: tuple[int, ...]) -> None:
    """Note that a run asked for ``seeds``; running a part of what was planned before is not a new look."""
    old = load_looks(root).get((claim, condition), ())
    if any(set(seeds) <= set(look) for look in old):
        return
    looks = Looks(claim=claim, condition=condition, looks=(*old, seeds))
    text = looks.model_dump_json(by_alias=True)
    write_atomically(root / "plans" / f"{claim}.{condition}.json", text.encode() + b"\n")


def load_looks(root: Path) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """Return the looks by (claim, condition). Raises StoreError for a file that is not one."""
    found = {}
    for path in sorted((root / "plans").glob("*.json")):
        try:
            looks = Looks.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            told = faults_in(error, Looks)[0] if isinstance(error, ValidationError) else error.strerror
            raise StoreError(f"{path}: not a usable plan ({told}); remove or restore it") from error
        if path.stem != f"{looks.claim}.{looks.condition}":
            raise StoreError(
                f"{path}: its content is the plan of {looks.claim}.{looks.condition}; remove or restore it"
            )
        found[looks.claim, looks.condition] = looks.looks
    return found


def evidence_digest(root: Path) -> str:
    """Return a digest of all records, curves and plans under ``root``, 16 hex digits; no checkpoints, no order."""
    import hashlib

    digest = hashlib.sha256()
    files = [*root.glob("trials/*/record.json"), *root.glob("trials/*/curve.csv"), *root.glob("plans/*.json")]
    for path in sorted(files):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; remove or restore it") from error
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(root: Path, identity: str) -> Iterator[bool]:
    """Hold the trial for this process; yields False where another live process holds it.

    The lock is the kernel's, so one left by a dead process frees itself.
    """
    path = folder(root, identity) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; pass --store DIR to use another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
