"""Experiment ``count``: what follows from the network's definition alone, computed and exact.

Nothing is trained or drawn: a trial builds the network without storage and counts. Every trial measures every
metric, so claims that ask about the same network share it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from repro import paper
from repro.experiments import CommonParameters, Observation, Observed, Planned
from repro.store import Trial, TrialSpec

NAME = "count"
NUMERICS = 2
EVIDENCE = "computed"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CONVS = LAYERS[:5]
UNITS = {
    "parameters": "parameters",
    "neurons": "neurons",
    "input-dimension": "values",
    "multiply-adds": "multiply-adds an image",
    "multiply-adds-per-gpu": "multiply-adds an image",
    "largest-conv-share": "fraction of the parameters",
    "conv1-side-without-padding": "places",
    "weighted-layers": "layers",
    "crop-variants": "variants of an image",
    "bits-per-label": "bits",
    "images-per-second": "images a second",
    "share-of-peak": "fraction of the peak",
    **{f"neurons-{layer}": "neurons" for layer in LAYERS},
    **{f"kernel-inputs-{layer}": "values" for layer in CONVS},
    **{f"share-{layer}": "fraction of the parameters" for layer in CONVS},
}
METRICS = tuple(UNITS)


class Parameters(CommonParameters):
    """The network that is counted: the switches of ``repro.models.alexnet.AlexNet`` that change a count."""

    dataset: Literal["none"] = "none"
    protocol: Literal["paper", "code"] = "paper"
    towers: Literal["two", "half", "ungrouped"] = "two"
    overlapping: bool = True
    removed: Annotated[int, Field(ge=2, le=5)] | None = None
    classes: Annotated[int, Field(ge=2)] = paper.CLASSES


FACTORS = ("towers", "overlapping", "removed", "classes")


def spec(parameters: Parameters) -> TrialSpec:
    """Return the spec of the one trial of a network."""
    return TrialSpec(
        experiment=NAME, numerics=NUMERICS, config=parameters.model_dump(mode="json", exclude_defaults=True), seed=0
    )


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:  # noqa: ARG001 - every experiment has it
    """Return what is wrong with a condition, "key: why": counting has no seeds to choose."""
    return [] if tuple(seeds) == (0,) else ["seeds: counting draws nothing; leave them out"]


def _settled(trial: Trial | None) -> bool:
    return trial is not None and trial.status == "completed"


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:  # noqa: ARG001
    """Return the networks that were not counted yet."""
    specs = {arm: spec(parameters) for arm, parameters in arms.items()}
    return [Planned(arm, s, "counting", 1.0) for arm, s in specs.items() if not _settled(done.get(s.key))]


def planned_epochs(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:  # noqa: ARG001
    """Return 0: nothing is trained."""
    return 0.0


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:  # noqa: ARG001
    """Return every metric of every arm that was counted."""
    values: dict[str, dict[str, tuple[Observation, ...]]] = {metric: {} for metric in METRICS}
    missing, failed, shown = [], [], []
    for arm, parameters in arms.items():
        trial = done.get(spec(parameters).key)
        if trial is None or trial.status == "running":
            missing.append(f"{arm}: counting")
            continue
        shown.append((arm, "counting", trial))
        if trial.status == "failed":
            failed.append(f"{arm}: {trial.message}")
            continue
        for m in trial.measurements:
            values[m.name][arm] = (Observation(0, m.value, exact=True, identity=trial.identity),)
    return Observed(values, tuple(missing), tuple(failed), (), tuple(shown))
