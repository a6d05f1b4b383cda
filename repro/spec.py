"""Claims: the strict, frozen form of what ``claims/<id>.toml`` says. A spec holds data, never code."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from repro.choices import Scale
from repro.frozen import Frozen
from repro.outcomes import Outcome
from repro.problem import Problem

STATEMENTS = 41  # quantitative statements in the paper, numbered in the order in which it makes them

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
    """Where the paper makes the statement: section, figure or table, and its words, at most one sentence."""

    section: Text
    figure: Text | None = None
    table: Text | None = None
    text: Text


class Published(Frozen):
    """The published value. A claim file gives it as a number, or as a table: an inequality, ``about`` or ``words``."""

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
        """The published number, None where the paper has only words."""
        return self.about if self.value is None else self.value

    def within(self, low: float, high: float) -> bool:
        """Whether the band contains the number and, for an inequality, values beyond it; True where there is none."""
        if self.number is None:
            return True
        reaches = {">": self.number < high, "<": low < self.number}.get(self.op[0], True)
        return low <= self.number <= high and reaches


def _several(raw: Any) -> Any:
    return (raw,) if isinstance(raw, str) else raw


class Corroboration(Frozen):
    """What the authors' released notes log for the printed value, in the same unit, and the file that says so."""

    file: Text
    logged: float


class Expectation(Frozen):
    """What the paper leads us to expect of one metric, fixed before running.

    ``accept`` is the band that counts as the published value, and ``because`` is the reason for it; ``null`` is the
    value that means "no effect". ``of`` and ``over`` name arms: a ratio is of/over and a difference is of - over; the
    other statistics have only ``of``. A value is the mean over the seeds, a proportion is the share of the seeds for
    which the metric is 1, and a max is the largest of several metrics.
    """

    metrics: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1, alias="metric")]
    """The key ``metric`` of the claim file: one name, or a list of several for a max."""
    view: Literal["centre", "ten"] | None = None
    """What an error is measured on: the centre crop, or the mean over ten views."""
    statistic: Literal["value", "ratio", "difference", "max", "proportion"]
    of: str
    over: str | None = None
    published: Published
    accept: tuple[Bound, Bound]
    null: float | None = None
    better: Literal["lower", "higher"] | None = None
    because: Text
    corroboration: Corroboration | None = None
    conditions: tuple[str, ...] = ()
    """The conditions that the expectation applies to; empty for all of them."""

    @property
    def observables(self) -> tuple[str, ...]:
        """The metrics as trials name them, with the view: ``top1-error-ten``."""
        return self.metrics if self.view is None else tuple(f"{metric}-{self.view}" for metric in self.metrics)

    @property
    def compares(self) -> bool:
        """Whether the statistic compares two arms."""
        return self.statistic in ("ratio", "difference")

    @property
    def published_value(self) -> float | None:
        """The published number, None where the paper has only words or an inequality."""
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
        if (self.over is not None) != self.compares:
            raise ValueError(f"statistic {self.statistic!r} needs {'' if self.compares else 'no '}'over'")
        if self.of == self.over:
            raise ValueError(f"of and over are both {self.of!r}; name two arms")
        if self.statistic == "ratio" and (low <= 0 or (self.null is not None and self.null <= 0)):
            raise ValueError("a ratio's accept and null are above 0")
        if self.statistic == "proportion" and not 0 <= low < high <= 1:
            raise ValueError("a proportion's accept lies in 0 to 1")
        if self.statistic == "proportion" and self.null is not None and not 0 < self.null < 1:
            raise ValueError("a proportion's null lies between 0 and 1: one run of many would exclude 0")
        if self.compares and self.null is None:
            raise ValueError(f"statistic {self.statistic!r} needs 'null', its value for no effect")
        if (self.statistic == "max") != (len(self.metrics) > 1):
            raise ValueError("a list of metrics goes with statistic 'max', and the other way round")
        if self.corroboration is not None and self.published_value is None:
            raise ValueError("corroboration goes with a published number")
        return self


class Deviation(Frozen):
    """A known difference from the paper, and the effect that it may have."""

    what: Text
    effect: Text


class Known(Frozen):
    """A headline outcome that is already explained, so that it does not fail a run."""

    outcome: Outcome
    because: Text
    by_reading: bool = False
    """Whether the text can also be read so that the outcome would be another."""


class ConditionKeys(Frozen):
    """The keys of a [conditions.NAME] table that all experiments share; its other keys are experiment parameters."""

    scale: Scale
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    note: Text | Literal[""] = ""
    blocked: Text | Literal[""] = ""
    """Why nobody can run the condition with what is public; its outcome is then NOT_TESTED, for this reason."""
    assumed_speed: dict[Literal["cpu", "cuda"], Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Images per second, by device type, that a plan assumes until a trial has been timed."""
    deviations: tuple[Deviation, ...] = ()


class Condition(ConditionKeys):
    """Where and how a claim is measured; ``arms`` maps each arm's name to its experiment parameters."""

    name: str
    arms: dict[str, Any]

    @property
    def any_arm(self) -> Any:
        """The parameters of the first arm, from which to read what all arms share."""
        return next(iter(self.arms.values()))


class ClaimKeys(Frozen):
    """The keys that a claim file and a claim have in common."""

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
    by_construction: Text | None = None
    """Why the answer could hardly be different: what is compared with the statement was written from that statement."""
    support: tuple[Name, ...] = ()
    """Claims shown beside this one, because their answers make it more or less likely."""


class ClaimFile(ClaimKeys):
    """A claim file, key by key."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    conditions: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


class Claim(ClaimKeys):
    """One checkable statement of the paper."""

    conditions: dict[str, Condition]


def expectations(claim: Claim, condition: str) -> list[Expectation]:
    """Return the expectations that hold under one condition."""
    return [e for e in claim.expect if not e.conditions or condition in e.conditions]


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


def name_text(e: Expectation) -> str:
    """Return what an expectation is about: ``difference of top1-error (ten views), none to lrn``."""
    view = {"centre": " (centre view)", "ten": " (ten views)", None: ""}[e.view]
    of = f"{', '.join(e.metrics)}{view}"
    if e.over is not None:
        return f"{e.statistic} of {of}, {e.of} to {e.over}"
    return f"{of} of {e.of}" if e.statistic == "value" else f"{e.statistic} of {of}, {e.of}"


def corroboration_text(e: Expectation) -> str | None:
    """Return what the released notes say about the printed number, in one sentence; None where they say nothing."""
    if e.corroboration is None or e.published_value is None:
        return None
    decimals = len(repr(e.published_value).partition(".")[2])
    agrees = abs(e.corroboration.logged - e.published_value) <= 0.5 * 10**-decimals + 1e-9
    view = f", {e.view} views" if e.view == "ten" else f", {e.view} view" if e.view else ""
    return (
        f"The authors' own notes log {e.corroboration.logged:.6g} for {e.metrics[0]}{view} ({e.corroboration.file}), "
        f"which {'rounds to' if agrees else 'is not'} the printed {published_text(e)}"
    )
