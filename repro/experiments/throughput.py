"""Experiment ``throughput``: how fast the arms are, interleaved in one trial on one machine.

A trial holds all arms and measures them in turn, round after round, so that whatever else the machine does affects
them alike. Timing an arm twice in a round gives the noise. Only ratios within a trial are judged, never a rate across
machines.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from repro import choices, paper
from repro.experiments import CommonParameters, Observation, Observed, Once, Planned, decisive, repeated
from repro.store import Trial, TrialSpec

NAME = "throughput"
NUMERICS = 2
EVIDENCE = "measured"
TIMED = True
EXAMINED = None
UNITS = {
    "time-per-image": "s",  # of the training step alone, on a batch that lies ready
    "loader-over-step": "ratio",  # images a second of the loader alone over those of the training step alone
}
VIEWED = ()


class Parameters(CommonParameters):
    """One arm under one condition; ``gpus`` is how many the condition needs.

    With two ``ranks`` the two-tower net runs as two processes, a tower each, on two GPUs or (``gpus`` 0) on the CPU;
    every other net runs on the first of them, while the second waits.
    """

    dataset: Literal["ilsvrc-2010", "ilsvrc-2012", "imagenette160", "embedded"]
    net: choices.Form = "alexnet"
    towers: choices.Towers = "two"
    loader: choices.Loader = "dali"
    gpus: Annotated[int, Field(ge=0, le=2)] = 1
    ranks: Literal[1, 2] = 1
    batch: Annotated[int, Field(ge=1, le=65_536)] = paper.BATCH
    rounds: Annotated[int, Field(ge=5, le=1000)] = 20
    stored: Annotated[int, Field(ge=8)] = paper.STORED
    crop: Annotated[int, Field(ge=8)] = paper.CROP
    precision: choices.Precision = "fp32"


FACTORS = ("towers", "loader", "precision")


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a condition, "key: why" each."""
    found = repeated(seeds)
    count, gpus = parameters.ranks, parameters.gpus
    if gpus not in (0, count):
        found.append(f"gpus: {gpus} for ranks = {count}; use {count}, or 0 for the CPU")
    return found


def spread(parameters: Parameters) -> bool:
    """Whether an arm's net runs as two processes, a tower each."""
    return parameters.ranks == 2 and parameters.towers == "two"


def parameters_of(trial_spec: TrialSpec) -> dict[str, Parameters]:
    """Return the parameters of every arm that a trial holds, by name."""
    arms: Any = trial_spec.config["arms"]
    return {arm: Parameters.model_validate(config) for arm, config in arms.items()}


def spec(arms: Mapping[str, Parameters], seed: int) -> TrialSpec:
    """Return the spec of the trial that holds all ``arms``."""
    together: dict[str, JsonValue] = {arm: decisive(p) for arm, p in arms.items()}
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config={"arms": together}, seed=seed)


_ONCE = Once(spec, role="timing")  # of all arms together, as if they were one


def _together(arms: Mapping[str, Parameters]) -> dict[str, Mapping[str, Parameters]]:
    return {", ".join(arms): arms}


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
    """Return the trials still to be run, each with all arms."""
    return _ONCE.pending(_together(arms), seeds, done)


planned_epochs = _ONCE.planned_epochs  # none: a trial is rounds of steps, minutes on any device it fits


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what was timed, by metric and arm; a trial names its measurements ``metric/arm``."""
    together = _ONCE.observe(_together(arms), seeds, done)
    values: dict[str, dict[str, tuple[Observation, ...]]] = {}
    for name, found in together.values.items():
        metric, _, arm = name.partition("/")
        values.setdefault(metric, {})[arm] = next(iter(found.values()))
    return together._replace(values=values)
