"""Experiment ``final-error``: the error a network ends with, trained by its protocol, one trial an arm and seed.

Errors are percentages of the test set, as the paper prints them: top-1, and top-5 where there are more than ten
classes, each of the centre view and of ten views. Arms differ in one factor of the network or of its training.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from repro import paper
from repro.experiments import (
    CommonParameters,
    Observed,
    Planned,
    decisive,
    every,
    observe_each,
    pending_each,
    repeated,
)  # fmt: skip
from repro.store import Trial, TrialSpec

NAME = "final-error"
NUMERICS = 1
EVIDENCE = "measured"
UNITS = {
    "top1-error": "%",
    "top5-error": "%",
    "ten-view-gain-top1": "points",  # error of the centre view minus error of the mean of ten
    "ten-view-gain-top5": "points",
    "training-error": "%",  # top-1, centre view, of the images it was trained on
    "generalisation-gap": "points",  # top-1 of the test set minus training-error
    "epochs-to-converge": "epochs",  # under the schedule `plateau`: until its last drop of the rate no longer helps
}
VIEWED = ("top1-error", "top5-error")
TEST_IMAGES = "test-images"
"""The measurement of a trial that says how many images its errors are of."""


class Parameters(CommonParameters):
    """One arm under one condition: the switches of ``repro.models.alexnet.AlexNet``, the input and the training.

    ``stored`` and ``crop`` are sides in pixels; ``members`` networks are trained and their softmax averaged;
    schedule ``released`` divides the rate where the released notes do, at the same fractions of ``epochs``, and
    ``plateau`` where the validation error stops improving (section 5).
    """

    dataset: Literal[
        "ilsvrc-2010", "ilsvrc-2012", "imagenet-2009", "imagenette160", "tiny-imagenet-32", "cifar10", "embedded"
    ]
    net: Literal["alexnet", "alexnet-32", "conv-local-13pct", "batch-norm-clone"] = "alexnet"
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    norm: Literal["none", "lrn", "lrn-all-maps", "lrn-mean", "batch"] = "lrn"
    overlapping: bool = True
    towers: Literal["two", "half", "ungrouped"] = "two"
    removed: Annotated[int, Field(ge=2, le=5)] | None = None
    dropout: bool = True
    crops: bool = True
    colour: bool = True
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = paper.WEIGHT_DECAY
    members: Annotated[int, Field(ge=1, le=100)] = 1
    pretraining: Literal["none", "imagenet-2011"] = "none"
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    schedule: Literal["released", "plateau"] = "released"
    batch: Annotated[int, Field(ge=1, le=4096)] = paper.BATCH
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = paper.LEARNING_RATE
    stored: Annotated[int, Field(ge=8)] = paper.STORED
    crop: Annotated[int, Field(ge=8)] = paper.CROP
    precision: Literal["fp32"] = "fp32"


FACTORS = (
    "net", "activation", "norm", "overlapping", "towers", "removed", "dropout", "crops", "colour", "weight_decay",
    "members", "pretraining",
)  # fmt: skip


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a condition, "key: why" each."""
    found = repeated(seeds)
    if parameters.crop > parameters.stored:
        found.append(f"crop: {parameters.crop} pixels do not fit into {parameters.stored} stored ones")
    return found


def spec(parameters: Parameters, seed: int) -> TrialSpec:
    """Return the spec of one trial."""
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config=decisive(parameters), seed=seed)


def epochs(arms: Mapping[str, Parameters]) -> dict[str, float]:
    """Return how many epochs a trial of each arm trains, all members together."""
    return {arm: p.members * p.epochs for arm, p in arms.items()}


def pending(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
    """Return the trials still to be run."""
    return pending_each(every(arms, seeds, spec), done, role="scoring", limits=epochs(arms))


def planned_epochs(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
    """Return the epochs that are left."""
    return sum(planned.limit for planned in pending(arms, seeds, done))


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what every trial ended with."""
    return observe_each(every(arms, seeds, spec), done, role="scoring", resolution=resolution)


def resolution(trial: Trial, metric: str) -> float:
    """Return the standard deviation, in points, that a test set of this size alone gives an error between trainings.

    sqrt(p (1 - p) / 2n) for an error p of n images. Source: Jordan (2024), arXiv 2304.01910. Infinite where the record
    does not say n.
    """
    if UNITS.get(metric) == "epochs":
        return 0.0
    try:
        n = trial.value(TEST_IMAGES)
        error = trial.value("top1-error-centre") / 100
    except KeyError:
        return math.inf
    return 100 * math.sqrt(max(error * (1 - error), 1 / n) / (2 * n))
