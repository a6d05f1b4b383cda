"""What changed since an older report: different verdicts, and claims and conditions that are new or gone."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from repro.outcomes import OUTCOMES
from repro.problem import Problem
from repro.report import tables
from repro.report.console import outcome
from repro.report.summary import SCHEMA, summarise
from repro.spec import Claim, is_name

NONE = "-"


class Turn(NamedTuple):
    """One condition whose outcome changed; "-" stands for the report that does not have the condition."""

    claim: str
    condition: str
    headline: bool
    before: str
    after: str
    ours_before: str
    ours_after: str


def load(path: Path, registry: Mapping[str, Claim]) -> Mapping[str, Any]:
    """Return an older report: a store, judged by today's rules and claims, or a file that ``--json`` printed.

    Raises Problem for anything else.
    """
    if path.is_dir():
        if not any((path / name).is_dir() for name in ("trials", "plans")):
            raise Problem(f"{path}: no records here; name a store, or a file that `repro report --json` printed")
        return summarise(registry, path)
    try:
        found = json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}; name a store or a saved JSON report") from error
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path}: not a JSON report ({error}); `repro report --json` prints one") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise Problem(f"{path}: not a report of schema {SCHEMA}; `repro report --json` prints one")
    try:
        _refuse_foreign(_outcomes(found))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Problem(f"{path}: not a whole report ({error}); `repro report --json` prints one") from error
    return found


def _finite(text: str) -> float:
    """Return a number of a report. Raises ValueError for one that is not finite: reports write null instead."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a number that a report has")
    return number


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


def _refuse_foreign(found: Mapping[tuple[str, str], tuple[bool, str, str]]) -> None:
    """Raise ValueError where text that will be shown cannot come from a report of ours."""
    for (claim, condition), (_, verdict, ours) in found.items():
        for name in (claim, condition):
            if not is_name(name):
                raise ValueError(f"{name!r} is no name of a claim or condition")
        if verdict not in OUTCOMES:
            raise ValueError(f"{verdict!r} is no outcome")
        if not ours.isprintable():
            raise ValueError(f"{ours!r} is no estimate")


def _outcomes(summary: Mapping[str, Any]) -> dict[tuple[str, str], tuple[bool, str, str]]:
    """Return (claim, condition) -> whether it is the headline, its outcome, and our estimates."""
    return {
        (str(claim["id"]), str(c["name"])): (
            bool(claim["headline"] == c["name"]),
            str(c["outcome"]),
            "; ".join(tables.ours(e) for e in c["estimates"]) or NONE,
        )
        for claim in summary["claims"]
        for c in claim["conditions"]
    }


def turns(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Turn]:
    """Return every condition whose outcome changed, in the order of the newer report; those that are gone come last."""
    old, new = _outcomes(before), _outcomes(after)
    found = []
    for key in dict.fromkeys([*new, *old]):
        was, now = (side.get(key, (False, NONE, NONE)) for side in (old, new))
        if was[1] != now[1]:
            found.append(Turn(*key, now[0] or was[0], was[1], now[1], was[2], now[2]))
    return found


def told(found: list[Turn], after: Mapping[str, Any]) -> str:
    """Return how many outcomes changed, as one line."""
    whole = sum(len(claim["conditions"]) for claim in after["claims"])
    gone = sum(turn.after == NONE for turn in found)
    came = sum(turn.before == NONE for turn in found)
    line = f"{len(found) - gone - came} of {whole} conditions have a different outcome from before"
    line += f" ({sum(turn.headline and NONE not in (turn.before, turn.after) for turn in found)} of them headlines)"
    return line + (f"; {came} new, {gone} gone" if came or gone else "")


def table(found: list[Turn]) -> Table:
    """Return two rows per change: one for the outcomes, one for our estimates."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("claim", "condition", "before", "after"):
        shown.add_column(name, overflow="fold")
    for turn in found:
        shown.add_row(
            turn.claim, turn.condition + (" *" if turn.headline else ""), outcome(turn.before), outcome(turn.after)
        )
        shown.add_row("", "", turn.ours_before, turn.ours_after)
    return shown
