"""Experiment ``final-error``: the error of a network after its training by a protocol, one trial per arm and seed.

Errors are percentages of the test set, as the paper prints them: top-1, and top-5 where there are more than ten
classes, both by the centre view and by ten views. Arms differ in one factor of the network or of its training.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from repro import choices, paper
from repro.datasets import DATASETS
from repro.experiments import (
    TEST_IMAGES,
    TRAINED,
    CommonParameters,
    Observation,
    Observed,
    Once,
    Shown,
    decisive,
    repeated,
)  # fmt: skip
from repro.store import Trial, TrialSpec

NAME = "final-error"
NUMERICS = 1
"""The version of the arithmetic that no change has touched; ``changes`` are added to it."""

EVIDENCE = "measured"
TIMED = False
EXAMINED = None
CONVERGED = "epochs-to-converge"
UNITS = {
    "top1-error": "%",
    "top5-error": "%",
    "ten-view-gain-top1": "points",  # error of the centre view minus error of the mean of ten
    "ten-view-gain-top5": "points",
    "training-error": "%",  # top-1, centre view, of the images it was trained on
    "generalisation-gap": "points",  # top-1 of the test set minus training-error
    CONVERGED: "epochs",  # under the schedule `plateau`: until its last drop of the rate no longer helps
}
VIEWED = ("top1-error", "top5-error")
CHANCE_MARGIN = 2.0
"""In points: a network whose training error is this close to chance has not begun to learn."""

EPOCH = 1 / math.sqrt(12)
"""The standard deviation, in epochs, of a time that is read once an epoch."""


class Parameters(CommonParameters):
    """One arm under one condition: the switches of ``repro.models.alexnet.AlexNet``, the input and the training.

    ``stored`` and ``crop`` are sides in pixels. ``members`` networks are trained, and their softmax is averaged. The
    schedule ``released`` divides the rate where the released notes do, at the same fractions of ``epochs``;
    ``plateau`` divides it when the validation error stops improving (section 5).
    """

    dataset: Literal[
        "ilsvrc-2010", "ilsvrc-2012", "imagenet-2009", "imagenette160", "tiny-imagenet-32", "cifar10", "embedded"
    ]
    net: Literal[choices.Form, "conv-local-13pct", "batch-norm-clone"] = "alexnet"
    activation: choices.Activation = "relu"
    norm: choices.Norm = "lrn"
    overlapping: bool = True
    towers: choices.Towers = "two"
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
    precision: choices.Precision = "fp32"


FACTORS = (
    "net", "activation", "norm", "overlapping", "towers", "removed", "dropout", "crops", "colour", "weight_decay",
    "members", "pretraining", "precision",
)  # fmt: skip


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a condition, "key: why" each."""
    found = repeated(seeds)
    if parameters.crop > parameters.stored:
        found.append(f"crop: {parameters.crop} pixels do not fit into {parameters.stored} stored ones")
    return found


def has_dropout(parameters: Parameters) -> bool:
    """Whether an arm's network has dropout: the CIFAR-10 net never has it, and the batch-norm clone always does."""
    return parameters.net == "batch-norm-clone" or (parameters.dropout and parameters.net in ("alexnet", "alexnet-32"))


def changes(p: Parameters) -> int:
    """Return how many changes of the program affect an arm's training.

    The arm's numerics rise by that number, so a change makes only those records stale that it affects. The changes:
    dropout's masks were once drawn from torch's generator, and now come from a counter (``repro.models.dropout``).
    Under `code`, the colour noise of `plateau` once ended at the epoch that the notes give for another schedule, and
    the learning rate of the biases of conv-local-13pct once fell with that of its weights, conv1's for longer. Also
    under `code`, the mean image was once mirrored with its image; AlexNet's images once had a place and a reflection
    each, and were not divided by 1.1 while there was colour noise; and its conv1's biases once fell with its weights.
    """
    code = p.protocol == "code"
    return has_dropout(p) + code + (code and p.schedule == "plateau") + 2 * (code and p.net == "conv-local-13pct")


def spec(parameters: Parameters, seed: int) -> TrialSpec:
    """Return the spec of one trial."""
    return TrialSpec(experiment=NAME, numerics=NUMERICS + changes(parameters), config=decisive(parameters), seed=seed)


def epochs(p: Parameters) -> float:
    """Return for how many epochs a trial of an arm trains, summed over its members."""
    return p.members * p.epochs


def observe(arms: Mapping[str, Parameters], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
    """Return what the trials of a condition ended with, and what is missing.

    Where a network has not begun to learn, nothing is decided. Under ``plateau``, a network that has not converged at
    its last epoch gives a lower bound of the time to converge. Where none has converged, that time is left out.
    """
    found = _ONCE.observe(arms, seeds, done)
    found = found._replace(undecided=(*found.undecided, *_at_chance(arms, found.trials)))
    if CONVERGED not in found.values:
        return found
    ended = {(arm, t.spec.seed): t for arm, _, t in found.trials if t.status == "completed"}
    whole = {arm: {o.seed: o for o in seen} for arm, seen in found.values[CONVERGED].items()}
    for (arm, seed), t in ended.items():
        if arms[arm].schedule == "plateau" and seed not in whole.setdefault(arm, {}):
            bound = t.value(TRAINED) / arms[arm].members  # members that converged count with their own time
            whole[arm][seed] = Observation(seed, bound, False, t.identity, EPOCH)
    times = {arm: tuple(seen[seed] for seed in seeds if seed in seen) for arm, seen in whole.items()}
    return found._replace(values={**found.values, CONVERGED: times})


def _at_chance(arms: Mapping[str, Parameters], trials: Sequence[Shown]) -> list[str]:
    """Return a line for each network that has not begun to learn: its error says nothing about the factor varied."""
    found = []
    for arm, _, trial in trials:
        error = next((m.value for m in trial.measurements if m.name == "training-error"), 0.0)
        if error >= 100 * (1 - 1 / DATASETS[arms[arm].dataset].classes) - CHANCE_MARGIN:
            who = f"seed {trial.spec.seed} of arm {arm}"
            found.append(f"{who} has not begun to learn: its training error is {error:.3g}%")
    return found


def resolution(trial: Trial, metric: str) -> float:
    """Return the standard deviation of an error between trainings, in points, that the test set's size alone causes.

    It is sqrt(p (1 - p) / 2n) for an error p on n images, and it serves as a floor. An image that a share q of all
    trainings miss adds q (1 - q) / n^2 to the variance of the error, as the errors of a training on different images
    are independent (Jordan 2024, arXiv 2304.01910; dependence would add to the variance). So the variance is at most
    p (1 - p) / n, which it is where all images are equally difficult.

    Suppose that trainings answer an image with class k as often as class k is right, c_k. Then the variance is
    sum c_k^2 (1 - c_k) / n. For an image with the error e = 1 - sum c_k^2 that lies between e (1 - e) / 2n and e / 2n,
    and with two classes it is e / 2n: the sum is e / 2 times the mean of c_i + c_j over all pairs of classes, weighted
    by c_i c_j, and it is at least e (1 - e) / 2 because no c_k is above (1 + sum c_k^2) / 2. So e / 2n is no floor:
    with many classes it may exceed p (1 - p) / n itself. Where images differ in difficulty, p (1 - p) / 2n was below
    the variance of all the mixtures tried (tests/test_resolution.py). The least possible variance, p / n over the
    number of classes, needs images that are either certain or a pure guess.

    The gain by ten views is not an error, but the share of the images on which the two kinds of view differ is at least
    its size, which is taken as p. For the generalisation gap, p is the test error. For the training error, n should be
    the number of training images, which no record states; it is larger, so using the test's n errs to the careful side.
    Where the record does not state n either, the result is infinite. Convergence is read once an epoch, so its time
    scatters as if uniform within one; that result is in epochs.
    """
    if metric == CONVERGED:
        return EPOCH
    try:
        n = trial.value(TEST_IMAGES)
        share = abs(trial.value("top1-error-centre" if metric == "generalisation-gap" else metric)) / 100
    except KeyError:
        return math.inf
    return 100 * math.sqrt(max(share * (1 - share), 1 / n) / (2 * n))


_ONCE = Once(spec, role="scoring", epochs=epochs, resolution=resolution)
pending, planned_epochs = _ONCE.pending, _ONCE.planned_epochs
