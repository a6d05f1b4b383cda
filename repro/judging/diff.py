"""Two stores side by side: which verdicts changed, and whether their estimates differ by more than chance."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from repro import notes, store
from repro.judging import judge
from repro.judging.compare import groups, samples
from repro.judging.rules import known
from repro.judging.stats import Estimate, Sample, contrast_interval
from repro.outcomes import Outcome
from repro.spec import Claim, Expectation, name_text
from repro.store import Trial

CONFIDENCE = 0.9


class Change(NamedTuple):
    """One expectation under both stores; ``difference`` is new - old, for a ratio new/old, with its interval.

    It is None where there is nothing to test, and ``note`` then says why.
    """

    name: str
    old: Estimate | None
    new: Estimate | None
    difference: Estimate | None
    note: str
    ratio: bool = False

    @property
    def differs(self) -> bool:
        """Whether the interval excludes no difference: 0, or 1 for a ratio."""
        i = self.difference
        return i is not None and not i.low <= (1.0 if self.ratio else 0.0) <= i.high


class Row(NamedTuple):
    """One condition of a claim under both stores."""

    claim: str
    condition: str
    headline: bool
    old: Outcome
    new: Outcome
    changes: tuple[Change, ...]


def compare(registry: Mapping[str, Claim], old: Path, new: Path) -> list[Row]:
    """Return every condition that was run in either store, judged by today's rules in both. Raises StoreError."""
    loaded = [(judge.records(*store.stored(root)), notes.load_plans(root)) for root in (old, new)]
    rows = []
    for claim in registry.values():
        a, b = (judge.judge_all(claim, found, plans.looks, plans.unusable) for found, plans in loaded)
        rows += [
            Row(claim.id, name, name == claim.headline, a[name].outcome, b[name].outcome, _changes(a[name], b[name]))
            for name in claim.conditions
            if a[name].observed.trials or b[name].observed.trials
        ]
    return rows


def _changes(old: judge.Verdict, new: judge.Verdict) -> tuple[Change, ...]:
    before = {name_text(j.expectation): j for j in old.judged}
    after = {name_text(j.expectation): j for j in new.judged}
    return tuple(
        _change(name, old, new, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])
    )


def _change(
    name: str, old: judge.Verdict, new: judge.Verdict, before: judge.Judged | None, after: judge.Judged | None
) -> Change:
    a, b = before.estimate if before else None, after.estimate if after else None
    if a is None or b is None or before is None:
        return Change(name, a, b, None, "only in one of them" if a or b else "in neither")
    if known(a) and known(b):
        return Change(name, a, b, None, "the same value" if a.value == b.value else "another value")
    one, other = (_trials(verdict) for verdict in (old, new))
    shared = one.keys() & other.keys()
    same = {identity for identity in shared if one[identity].measurements == other[identity].measurements}
    if len(same) == len(one) == len(other):
        return Change(name, a, b, None, "the same trials")
    if same:
        return Change(name, a, b, None, f"{len(same)} trials are in both: no test of independent runs")
    both = [_samples(before.expectation, verdict) for verdict in (old, new)]
    if not all(both):
        return Change(name, a, b, None, "an arm missed its target, or the largest of several is compared: no test")
    signs = [-1.0 if i % 2 else 1.0 for i in range(len(both[1]))]
    found = contrast_interval([*both[1], *both[0]], [*signs, *(-sign for sign in signs)], CONFIDENCE)
    ratio = before.expectation.statistic == "ratio"
    if ratio:
        found = found._replace(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))
    change = Change(name, a, b, found, "no difference shown", ratio)
    return change._replace(note="they differ") if change.differs else change


def _trials(verdict: judge.Verdict) -> dict[str, Trial]:
    """Return the trials of a verdict by identity. What two stores have of one may be two runs, say on two machines."""
    return {trial.identity: trial for _, _, trial in verdict.observed.trials}


def _samples(e: Expectation, verdict: judge.Verdict) -> tuple[Sample, ...]:
    """Return the sample of each arm that ``e`` compares; empty where no test is possible."""
    found = groups(e, verdict.observed)
    if e.statistic in ("max", "proportion") or not all(o.exact for group in found for o in group):
        return ()
    return samples(e, found)
