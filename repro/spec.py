"""Claims: the strict, frozen form of ``claims/<id>.toml``. A spec holds data, never code."""

import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from repro import experiments
from repro.problem import Problem, suggest
from repro.store import Frozen, faults_in, key_path

STATEMENTS = 41  # quantitative statements of the paper, numbered in its order
Scale = Literal["static", "paper", "reduced", "smoke"]
Outcome = Literal[
    "REPRODUCED", "DIRECTION", "INCONCLUSIVE", "NOT_REPRODUCED", "NOT_TESTED", "ERROR",
    "TREND_CONSISTENT", "TREND_CONTRARY", "TREND_UNRESOLVED", "SMOKE_OK", "SMOKE_BROKEN",
]  # fmt: skip

NAME_RULE = "lower-case letters, digits and dashes, at most 64"


def _one_line(text: str) -> str:
    """Return ``text`` with line ends and runs of blanks folded into single blanks."""
    text = " ".join(text.split())
    if not text or not text.isprintable():
        raise ValueError("needs text that can be printed")
    return text


def is_name(text: str) -> bool:
    """Whether ``text`` can be an id or a name, so also a file name that stays in its folder."""
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text) is not None


def _a_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"use {NAME_RULE}")
    return text


Text = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_a_name)]
Bound = Annotated[float, Field(allow_inf_nan=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class SpecError(Problem):
    """A claim file is not right; the message names the file, the key path and what is allowed."""


class Source(Frozen):
    """Where the paper says it: section, figure or table, and its words, one sentence at most."""

    section: Text
    figure: Text | None = None
    table: Text | None = None
    text: Text


class Published(Frozen):
    """The published value: in the file a number, or a table with an inequality, "about", or words."""

    op: Literal["=", "<", ">", "<=", ">="] = "="
    value: float | None = None
    about: float | None = None
    words: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, raw: Any) -> Any:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            return {"value": raw}
        if not isinstance(raw, Mapping):
            raise ValueError("give a number, or a table of op and value, about, or words")
        return raw

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if sum(part is not None for part in (self.value, self.about, self.words)) != 1:
            raise ValueError("give one of value, about and words")
        if self.op != "=" and self.value is None:
            raise ValueError(f"op {self.op!r} goes with value")
        return self

    @property
    def number(self) -> float | None:
        """The number in it, None where there are only words."""
        return self.about if self.value is None else self.value

    def within(self, low: float, high: float) -> bool:
        """Whether the band holds it, and for an inequality also something beyond it."""
        if self.number is None:
            return True
        reaches = {">": self.number < high, "<": low < self.number}.get(self.op[0], True)
        return low <= self.number <= high and reaches


class Expectation(Frozen):
    """What the paper leads us to expect of one metric, fixed before running.

    ``accept`` is the band that counts as the published value, with ``because``; ``null`` is "no effect".
    ``of`` and ``over`` name arms: a ratio is of/over, a difference of - over, a value has only ``of``.
    """

    metric: str
    statistic: Literal["value", "ratio", "difference"]
    of: str
    over: str | None = None
    published: Published
    accept: tuple[Bound, Bound]
    null: float | None = None
    better: Literal["lower", "higher"] | None = None
    because: Text
    conditions: tuple[str, ...] = ()
    """The conditions it is for; empty for all."""

    @property
    def published_value(self) -> float | None:
        """The published number, None where the paper has words or an inequality alone."""
        return self.published.number if self.published.op == "=" else None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        low, high = self.accept
        if not low < high:
            raise ValueError(f"accept must be [low, high] with low < high, not [{low:g}, {high:g}]")
        if not self.published.within(low, high):
            raise ValueError(f"accept [{low:g}, {high:g}] misses the published value {published_text(self)}")
        if self.null is not None and low < self.null < high:
            raise ValueError(f"accept [{low:g}, {high:g}] holds null {self.null:g}: such a band could not be refuted")
        if (self.over is None) != (self.statistic == "value"):
            raise ValueError(f"statistic {self.statistic!r} needs {'no ' if self.statistic == 'value' else ''}'over'")
        if self.of == self.over:
            raise ValueError(f"of and over are both {self.of!r}; name two arms")
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


class _ConditionFile(Frozen):
    """The part of a [conditions.NAME] table that every experiment has; the rest are experiment parameters."""

    scale: Scale
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    note: Text | Literal[""] = ""
    assumed_speed: dict[Literal["cpu", "cuda"], Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Images per second to plan with, by device type, until a trial was timed."""
    deviations: tuple[Deviation, ...] = ()


class Condition(_ConditionFile):
    """Where and how a claim is measured; ``arms`` are the experiment's parameters, one set an arm."""

    name: str
    arms: dict[str, Any]

    @property
    def any_arm(self) -> Any:
        """The parameters of the first arm, for what all arms share."""
        return next(iter(self.arms.values()))


class _Statement(Frozen):
    """What a claim file and a claim have alike."""

    id: Name
    title: Text
    experiment: str
    statements: tuple[Annotated[int, Field(ge=1, le=STATEMENTS)], ...]
    headline: str
    source: Source
    confounds: tuple[str, ...] = ()
    expect: Annotated[tuple[Expectation, ...], Field(min_length=1)]
    deviations: tuple[Deviation, ...] = ()
    known: Known | None = None


class _ClaimFile(_Statement):
    """A claim file, key by key."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    conditions: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


class Claim(_Statement):
    """One checkable statement of the paper."""

    conditions: dict[str, Condition]


def load_claim(path: Path) -> Claim:
    """Return the claim of one file. Raises SpecError, naming the faults it has, one a line."""
    try:
        raw = _tuples(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not TOML: {error}") from error
    faults: list[str] = []
    file = _valid(_ClaimFile, raw, faults)
    _refuse(path, faults)
    faults += _reference_faults(file, path.stem)
    _refuse(path, faults)
    conditions = {name: _condition(name, file, faults) for name in file.conditions}
    _refuse(path, faults)
    return Claim(**{name: getattr(file, name) for name in _Statement.model_fields}, conditions=conditions)


def _tuples(value: Any) -> Any:
    """Return what tomllib read with tuples for lists: a claim does not change."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _refuse(path: Path, faults: list[str]) -> None:
    """Raise SpecError where there are faults, each once."""
    if faults:
        raise SpecError("\n".join(f"{path}: {fault}" for fault in dict.fromkeys(faults)))


def _condition(name: str, file: _ClaimFile, faults: list[str]) -> Any:
    """Return one condition with the parameters of every arm, None where it adds to ``faults``."""
    experiment = experiments.get(file.experiment)
    common = {key: value for key, value in file.conditions[name].items() if key in _ConditionFile.model_fields}
    rest = {key: value for key, value in file.conditions[name].items() if key not in common}
    if common.get("scale") == "static":
        common.setdefault("seeds", (0,))  # what is computed draws nothing
    own = _valid(_ConditionFile, common, faults, {}, ("conditions", name))
    arms = {
        arm: _valid(
            experiment.Parameters, rest | factors, faults, dict.fromkeys(factors, ("arms", arm)), ("conditions", name),
            _ConditionFile.model_fields,
        )
        for arm, factors in file.arms.items()
    }  # fmt: skip
    if own is None or None in arms.values():
        return None
    condition = Condition(name=name, arms=arms, **{key: getattr(own, key) for key in _ConditionFile.model_fields})
    faults += [f"conditions.{name}.{fault}" for fault in experiment.faults(condition.any_arm, condition.seeds)]
    return condition


def _reference_faults(file: _ClaimFile, stem: str) -> list[str]:
    """Return names that a claim uses and does not have, and arms that are not comparable."""
    if file.experiment not in experiments.names():
        return [f"experiment: {_unknown(file.experiment, experiments.names())}"]
    experiment = experiments.get(file.experiment)
    used = [("headline", file.headline, file.conditions)]
    used += [(f"confounds[{i}]", name, experiment.FACTORS) for i, name in enumerate(file.confounds)]
    for i, e in enumerate(file.expect):
        used += [(f"expect[{i}].metric", e.metric, experiment.METRICS), (f"expect[{i}].of", e.of, file.arms)]
        used += [(f"expect[{i}].over", e.over, file.arms)] if e.over is not None else []
        used += [(f"expect[{i}].conditions[{j}]", name, file.conditions) for j, name in enumerate(e.conditions)]
    faults = [f"id: {file.id!r} must be the file's name, {stem!r}"] if file.id != stem else []
    faults += [f"{key}: {_unknown(name, known)}" for key, name, known in used if name not in known]
    faults += [
        f"conditions.{name}: no [[expect]] is for it"
        for name in file.conditions
        if all(e.conditions and name not in e.conditions for e in file.expect)
    ]
    return faults + list(_arm_faults(file, experiment.FACTORS))


def _arm_faults(file: _ClaimFile, factors: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the arms: keys of the condition, no difference, more than one undeclared."""
    keys = sorted({key for table in file.arms.values() for key in table})
    for arm, table in file.arms.items():
        for key in table.keys() - set(factors):
            allowed = f"an arm may set only {', '.join(factors)}; everything else belongs in a condition"
            yield f"{key_path(('arms', arm, key))}: {allowed}"
    for name, table in file.conditions.items():
        for key in table.keys() & set(keys) & set(factors):
            yield f"conditions.{name}.{key}: the arms set it too; leave it to one of them"
    values = {key: {repr(table.get(key)) for table in file.arms.values()} for key in keys if key in factors}
    undeclared = [key for key, found in values.items() if len(found) > 1 and key not in file.confounds]
    if len(undeclared) > 1:
        yield f"arms: they differ in {', '.join(undeclared)}; keep one and list the others in 'confounds'"
    tables = list(file.arms.values())
    if any(table in tables[:i] for i, table in enumerate(tables)):
        yield f"arms: two of {', '.join(file.arms)} are alike; arms differ in one of {', '.join(factors)}"


def _unknown(name: str, known: Any) -> str:
    return f"unknown name {name!r}{suggest(name, known)}; known: {', '.join(sorted(known))}"


def _valid(
    model: Any, table: Mapping[str, Any], faults: list[str], homes: Mapping[str, tuple[str, ...]] = {},
    at: tuple[str, ...] = (), also: Collection[str] = (),
) -> Any:  # fmt: skip
    """Return ``table`` as a ``model``, or add to ``faults`` and return None; see ``faults_in``."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        faults += faults_in(error, model, homes, at, also)
        return None


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
    """Return all claims of a registry by id, in the paper's order. Raises SpecError with the faults of every file."""
    claims, faults = {}, []
    for path in claim_files(directory):
        try:
            claims[path.stem] = load_claim(path)
        except SpecError as error:
            faults.append(str(error))
    if faults:
        raise SpecError("\n".join(faults))
    return dict(sorted(claims.items(), key=lambda item: (item[1].statements[:1] or (STATEMENTS + 1,), item[0])))


def expectations(claim: Claim, condition: str) -> list[Expectation]:
    """Return the expectations that hold under one condition."""
    return [e for e in claim.expect if not e.conditions or condition in e.conditions]


def number_text(value: float) -> str:
    """Return a known number: whole ones in full with thousands apart, others to six digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6g}"


def published_text(expectation: Expectation) -> str:
    """Return the published value as a reader expects it: ``6``, ``> 1``, ``about 2``, ``slightly less time``."""
    published = expectation.published
    if published.words is not None:
        return published.words
    if published.about is not None:
        return f"about {published.about:,.12g}"
    sign = "" if published.op == "=" else f"{published.op} "
    return f"{sign}{published.value:,.12g}"


def band_text(expectation: Expectation) -> str:
    """Return the accepted band as ``4 to 9``, ``at least 1`` or ``at most 1``."""
    low, high = (f"{bound:,.12g}" for bound in expectation.accept)
    if math.isinf(expectation.accept[1]):
        return f"at least {low}"
    return f"at most {high}" if math.isinf(expectation.accept[0]) else f"{low} to {high}"
