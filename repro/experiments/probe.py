"""Experiment ``probe``: a network is trained as for ``final-error`` and then looked into, one trial an arm and seed."""

from collections.abc import Mapping, Sequence

from repro.experiments import Observed, Planned, decisive, every, final_error, observe_each, pending_each
from repro.store import Trial, TrialSpec

NAME = "probe"
NUMERICS = 2
"""As ``final_error.NUMERICS``."""

EVIDENCE = "measured"
TIMED = False
EXAMINED = 1000
"""Spread evenly over the test set; a multiple of those that are shown, so that these are among them."""
UNITS = {
    "colours-apart": "fraction of the runs",  # 1 where one tower's conv1 kernels hold the colour, 0 where not
    "neighbour-gain": "points",  # images of the query's class among the 6 nearest, by fc7 minus by pixels
}
VIEWED = ()
FACTORS = final_error.FACTORS


class Parameters(final_error.Parameters):
    """The training, as for ``final-error``."""


faults = final_error.faults


def spec(parameters: Parameters, seed: int) -> TrialSpec:
    """Return the spec of one trial."""
    numerics = NUMERICS + final_error.changes(parameters)
    return TrialSpec(experiment=NAME, numerics=numerics, config=decisive(parameters), seed=seed)


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
    """Return the trials still to be run."""
    return pending_each(every(arms, seeds, spec), done, role="scoring", limits=final_error.epochs(arms))


def planned_epochs(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
    """Return the epochs that are left."""
    return sum(planned.limit for planned in pending(arms, seeds, done))


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what was found in every network."""
    return observe_each(every(arms, seeds, spec), done, role="scoring")
