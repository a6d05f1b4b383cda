"""The outcomes that a condition can have: what each says about the claim, and how it is shown."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Outcome = Literal[
    "REPRODUCED", "DIRECTION", "INCONCLUSIVE", "NOT_REPRODUCED", "NOT_TESTED", "ERROR",
    "TREND_CONSISTENT", "TREND_CONTRARY", "TREND_UNRESOLVED", "SMOKE_OK", "SMOKE_BROKEN",
]  # fmt: skip


class Kind(NamedTuple):
    """``says``: whether an outcome decides the claim, leaves it open or says nothing; ``tone``: how it is shown."""

    says: Literal["decided", "open", "nothing"]
    tone: Literal["good", "unsure", "bad", "broken", "quiet"]


OUTCOMES: Mapping[str, Kind] = {
    "ERROR": Kind("nothing", "broken"),
    "NOT_REPRODUCED": Kind("decided", "bad"),
    "TREND_CONTRARY": Kind("open", "bad"),
    "SMOKE_BROKEN": Kind("nothing", "broken"),
    "INCONCLUSIVE": Kind("open", "unsure"),
    "TREND_UNRESOLVED": Kind("open", "unsure"),
    "DIRECTION": Kind("decided", "unsure"),
    "REPRODUCED": Kind("decided", "good"),
    "TREND_CONSISTENT": Kind("open", "good"),
    "SMOKE_OK": Kind("nothing", "good"),
    "NOT_TESTED": Kind("nothing", "quiet"),
}
"""The first of these that any expectation has is the condition's outcome; overviews with little room show it first."""

ORDER = tuple(OUTCOMES)
UNTESTED = tuple(outcome for outcome, kind in OUTCOMES.items() if kind.says == "nothing")
"""Outcomes that say nothing about a claim."""

DECIDED = tuple(outcome for outcome, kind in OUTCOMES.items() if kind.says == "decided")
BROKEN = tuple(outcome for outcome, kind in OUTCOMES.items() if kind.tone == "broken")
"""Outcomes of conditions whose trials failed or are missing."""
