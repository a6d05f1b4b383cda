"""Claims: the strict, frozen form of ``claims/<id>.toml``. A spec holds data, never code."""

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from repro import experiments
from repro.store import Frozen

SCHEMA = 1
STATEMENTS = 41  # quantitative statements of the paper, numbered in its order
Scale = Literal["static", "paper", "reduced", "smoke"]
OUTCOMES = (
    "REPRODUCED", "DIRECTION", "INCONCLUSIVE", "NOT_REPRODUCED", "NOT_TESTED", "ERROR",
    "TREND_CONSISTENT", "TREND_CONTRARY", "TREND_UNRESOLVED", "SMOKE_OK", "SMOKE_BROKEN",
)  # fmt: skip
Outcome = Literal[
    "REPRODUCED", "DIRECTION", "INCONCLUSIVE", "NOT_REPRODUCED", "NOT_TESTED", "ERROR",
    "TREND_CONSISTENT", "TREND_CONTRARY", "TREND_UNRESOLVED", "SMOKE_OK", "SMOKE_BROKEN",
]  # fmt: skip
Text = Annotated[str, Field(min_length=1)]
NAME = r"^[a-z0-9][a-z0-9.-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Number = Annotated[float, Field(allow_inf_nan=True)]


class SpecError(Exception):
    """A claim file is not right; the message names the file, the key path and what is allowed."""


class Source(Frozen):
    """Where the paper says it: section, figure or table, and its words, one sentence at most."""

    section: Text
    figure: str | None = None
    table: str | None = None
    text: Text


class Published(Frozen):
    """A published value that is more or less than a number: an inequality, "about", or words."""

    op: Literal["=", "<", ">", "<=", ">="] = "="
    value: Number | None = None
    about: Number | None = None
    words: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if sum(part is not None for part in (self.value, self.about, self.words)) != 1:
            raise ValueError("give one of value, about and words")
        return self


class Expectation(Frozen):
    """What the paper leads us to expect of one metric, fixed before running.

    ``accept`` is the band that counts as the published value, with ``because``; ``null`` is "no effect".
    ``of`` and ``over`` name arms: a ratio is of/over, a difference of - over, a value has only ``of``.
    """

    metric: str
    statistic: Literal["value", "ratio", "difference"]
    of: str
    over: str | None = None
    published: Number | Published
    accept: tuple[Number, Number]
    null: Number | None = None
    better: Literal["lower", "higher"] | None = None
    because: Text
    conditions: tuple[str, ...] = ()
    """The conditions it is for; empty for all."""

    @field_validator("accept", "conditions", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def published_value(self) -> float | None:
        """The published number, None where the paper has words or an inequality alone."""
        if isinstance(self.published, Published):
            return (
                self.published.value
                if self.published.op == "=" and self.published.about is None
                else self.published.about
            )
        return self.published

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        low, high = self.accept
        if not low < high:
            raise ValueError(f"accept must be [low, high] with low < high, not [{low:g}, {high:g}]")
        value = self.published_value
        if value is not None and not low <= value <= high:
            raise ValueError(f"accept [{low:g}, {high:g}] misses the published value {value:g}")
        if self.null is not None and low < self.null < high:
            raise ValueError(f"accept [{low:g}, {high:g}] holds null {self.null:g}: such a band could not be refuted")
        if (self.over is None) != (self.statistic == "value"):
            raise ValueError(f"statistic {self.statistic!r} needs {'no ' if self.statistic == 'value' else ''}'over'")
        if self.statistic == "ratio" and (low <= 0 or (self.null is not None and self.null <= 0)):
            raise ValueError("a ratio's accept and null are above 0")
        if self.statistic != "value" and self.null is None:
            raise ValueError(f"statistic {self.statistic!r} needs 'null', its value for no effect")
        return self


class Deviation(Frozen):
    """A known difference from the paper and what it may do."""

    what: Text
    effect: Text


class Known(Frozen):
    """A headline outcome that is already explained, so that it does not fail a run."""

    outcome: Outcome
    because: Text


class Condition(BaseModel):
    """Where and how a claim is measured; ``arms`` are the experiment's parameters, one set an arm."""

    model_config = Frozen.model_config | {"arbitrary_types_allowed": True}

    name: str
    scale: Scale
    seeds: tuple[int, ...]
    note: str = ""
    assumed_speed: dict[str, float] = {}
    """Images per second to plan with, by device type (cpu, cuda), until a trial was timed."""
    deviations: tuple[Deviation, ...] = ()
    arms: dict[str, Any]

    @property
    def any_arm(self) -> Any:
        """The parameters of the first arm, for what all arms share."""
        return next(iter(self.arms.values()))


class Claim(BaseModel):
    """One checkable statement of the paper."""

    model_config = Frozen.model_config

    id: str
    title: Text
    experiment: str
    statements: tuple[int, ...]
    headline: str
    source: Source
    factors: dict[str, dict[str, Any]]
    """What each arm sets, as written."""
    confounds: tuple[str, ...] = ()
    expect: tuple[Expectation, ...]
    conditions: dict[str, Condition]
    deviations: tuple[Deviation, ...] = ()
    known: Known | None = None
    path: str = ""


class _ConditionFile(Frozen):
    """The part of a [conditions.NAME] table that every experiment has; the rest are experiment parameters."""

    scale: Scale
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    note: str = ""
    assumed_speed: dict[Literal["cpu", "cuda"], float] = Field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()

    @field_validator("seeds", "deviations", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class _ClaimFile(Frozen):
    """A claim file, key by key."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    id: Name
    title: Text
    experiment: str
    statements: tuple[Annotated[int, Field(ge=1, le=STATEMENTS)], ...]
    headline: str
    source: Source
    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    confounds: tuple[str, ...] = ()
    expect: Annotated[tuple[Expectation, ...], Field(min_length=1)]
    conditions: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    deviations: tuple[Deviation, ...] = ()
    known: Known | None = None

    @field_validator("statements", "confounds", "expect", "deviations", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def load_claim(path: Path) -> Claim:
    """Return the claim of one file. Raises SpecError, naming every fault the file has."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not TOML: {error}") from error
    file = _validated(path, _ClaimFile, raw, ())
    faults: list[str] = []
    if file.id != path.stem:
        faults.append(f"id: {file.id!r} must be the file's name, {path.stem!r}")
    if file.experiment not in experiments.names():
        raise SpecError(f"{path}: experiment: {_unknown(file.experiment, experiments.names())}")
    experiment = experiments.get(file.experiment)
    conditions = {}
    for name, table in file.conditions.items():
        common = {key: value for key, value in table.items() if key in _ConditionFile.model_fields}
        rest = {key: value for key, value in table.items() if key not in common}
        own = _validated(path, _ConditionFile, common, ("conditions", name))
        arms = {
            arm: _validated(
                path,
                experiment.Parameters,
                _tuples({**rest, **factors}),
                ("conditions", name),
                _ConditionFile.model_fields,
            )
            for arm, factors in file.arms.items()
        }
        conditions[name] = Condition(
            name=name, arms=arms, **own.model_dump(exclude={"deviations"}), deviations=own.deviations
        )
    faults += _arm_faults(file, experiment.FACTORS)
    faults += _reference_faults(file, experiment.METRICS)
    faults += [
        f"conditions.{c.name}.seeds: {fault}"
        for c in conditions.values()
        for fault in experiment.seed_faults(c.any_arm, c.seeds)
    ]
    if faults:
        raise SpecError("\n".join(f"{path}: {fault}" for fault in faults))
    return Claim(
        id=file.id, title=file.title, experiment=file.experiment, statements=file.statements, headline=file.headline,
        source=file.source, factors=file.arms, confounds=file.confounds, expect=file.expect, conditions=conditions,
        deviations=file.deviations, known=file.known, path=str(path),
    )  # fmt: skip


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _arm_faults(file: _ClaimFile, factors: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the arms: factors the experiment lacks, more than one difference undeclared."""
    faults = [
        f"arms.{arm}.{key}: an arm may set only {', '.join(factors)}; everything else belongs in a condition"
        for arm, table in file.arms.items()
        for key in table
        if key not in factors
    ]
    keys = {key for table in file.arms.values() for key in table}
    differing = sorted(key for key in keys if len({repr(table.get(key)) for table in file.arms.values()}) > 1)
    undeclared = [key for key in differing if key not in file.confounds]
    if len(undeclared) > 1:
        faults.append(f"arms: they differ in {', '.join(undeclared)}; keep one and list the others in 'confounds'")
    return faults


def _reference_faults(file: _ClaimFile, metrics: tuple[str, ...]) -> list[str]:
    """Return names that a claim uses and does not have."""
    faults = []
    if file.headline not in file.conditions:
        faults.append(f"headline: {_unknown(file.headline, file.conditions)}")
    for i, expectation in enumerate(file.expect):
        if expectation.metric not in metrics:
            faults.append(f"expect[{i}].metric: {_unknown(expectation.metric, metrics)}")
        for key, arm in (("of", expectation.of), ("over", expectation.over)):
            if arm is not None and arm not in file.arms:
                faults.append(f"expect[{i}].{key}: {_unknown(arm, file.arms)}")
        faults += [
            f"expect[{i}].conditions: {_unknown(name, file.conditions)}"
            for name in expectation.conditions
            if name not in file.conditions
        ]
    return faults


def is_name(text: str) -> bool:
    """Whether ``text`` can be the id of a claim, so also a file name that stays in its folder."""
    return re.fullmatch(NAME, text) is not None


def suggest(name: str, known: Any) -> str:
    """Return " (did you mean X?)" for the known name nearest to ``name``, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _unknown(name: str, known: Any) -> str:
    return f"unknown name {name!r}{suggest(name, known)}; known: {', '.join(sorted(known))}"


def _validated(path: Path, model: Any, table: Mapping[str, Any], at: tuple[str, ...], also: Iterable[str] = ()) -> Any:
    """Return ``table`` as a ``model``, or raise SpecError; ``also`` are keys allowed beside the model's own."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        allowed = sorted({*also, *(field.alias or name for name, field in model.model_fields.items())})
        lines = {_fault(fault, at, allowed): None for fault in error.errors()}  # each once, in order
        raise SpecError("\n".join(f"{path}: {line}" for line in lines)) from None


def _fault(fault: Any, at: tuple[str, ...], allowed: list[str]) -> str:
    """Return one pydantic fault as "key.path: what is wrong; what is allowed"."""
    loc = [str(part) for part in fault["loc"] if part not in ("float", "Published")]
    key = re.sub(r"\.(\d+)", r"[\1]", ".".join([*at, *loc]))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        if len(loc) > 1:
            owner = _owner(loc)
            allowed = sorted(owner.model_fields) if owner else []
        return f"{key}: unknown key{suggest(loc[-1], allowed)}; allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return f"{key}: missing"
    shown = fault.get("input")
    return f"{key}: {message}" + (f", not {shown!r}" if isinstance(shown, str | int | float | bool) else "")


def _owner(loc: list[str]) -> Any:
    """Return the model that a nested key belongs to, None where it cannot be told."""
    owners = {"source": Source, "expect": Expectation, "deviations": Deviation, "known": Known, "published": Published}
    return next((owners[part] for part in reversed(loc[:-1]) if part in owners), None)


def default_claims() -> Path:
    """Return the folder of the claims that come with the package: inside a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "claims"
    return inside if inside.is_dir() else package.parent / "claims"


def claim_files(directory: Path) -> list[Path]:
    """Return the claim files of a registry, by id. Raises SpecError where it holds none."""
    files = sorted(path for path in directory.glob("*.toml") if path.stem != "TEMPLATE")
    if not files:
        raise SpecError(f"{directory}: no claim files (*.toml) here; pass --claims DIR")
    return files


def load_registry(directory: Path) -> dict[str, Claim]:
    """Return all claims of a registry by id. Raises SpecError with the faults of every file that has any."""
    claims, faults = {}, []
    for path in claim_files(directory):
        try:
            claims[path.stem] = load_claim(path)
        except SpecError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n".join(faults))
    return claims


def expectations(claim: Claim, condition: str) -> list[Expectation]:
    """Return the expectations that hold under one condition."""
    return [e for e in claim.expect if not e.conditions or condition in e.conditions]


def published_text(expectation: Expectation) -> str:
    """Return the published value as a reader expects it: ``6``, ``> 1``, ``about 2``, ``slightly less time``."""
    published = expectation.published
    if not isinstance(published, Published):
        return f"{published:g}"
    if published.words is not None:
        return published.words
    if published.about is not None:
        return f"about {published.about:g}"
    return f"{published.value:g}" if published.op == "=" else f"{published.op} {published.value:g}"


def band_text(expectation: Expectation) -> str:
    """Return the accepted band as ``4 to 9``, ``at least 1`` or ``at most 1``."""
    low, high = expectation.accept
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"
