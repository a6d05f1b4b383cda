"""Experiment ``recorded``: what the paper states about its own recipe, against the released 2012 source.

Nothing is measured: a trial copies the facts of ``repro.release``, which names the file of each, into a record.
"""

from collections.abc import Sequence
from typing import Literal

from repro.experiments import CommonParameters, Once
from repro.release import FACTS
from repro.store import TrialSpec

NAME = "recorded"
NUMERICS = 1
EVIDENCE = "recorded"
TIMED = False
EXAMINED = None
UNITS = {name: fact.unit for name, fact in FACTS.items()}
VIEWED = ()
FACTORS = ()
KNOWN = {name: fact.value for name, fact in FACTS.items() if fact.value is not None}


class Parameters(CommonParameters):
    """Nothing to choose."""

    dataset: Literal["none"] = "none"
    protocol: Literal["code"] = "code"


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:  # noqa: ARG001 - every experiment has it
    """Return what is wrong with a condition, "key: why": reading has no seeds to choose."""
    return [] if tuple(seeds) == (0,) else ["seeds: reading draws nothing; leave them out"]


def spec(parameters: Parameters, seed: int = 0) -> TrialSpec:  # noqa: ARG001 - there is one release, so one trial
    """Return the spec of the only trial; correcting a fact gives another spec, and so another trial."""
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config={"facts": {**KNOWN}}, seed=seed)


_ONCE = Once(spec, role="reading")
pending, planned_epochs, observe = _ONCE.pending, _ONCE.planned_epochs, _ONCE.observe
