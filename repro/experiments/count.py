"""Experiment ``count``: what follows from the network's definition alone, computed and exact.

Nothing is trained or drawn: a trial builds the network without storage and counts. Every trial measures every
metric, so claims about the same network share one trial.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from repro import choices, paper
from repro.experiments import CommonParameters, Once, decisive
from repro.store import TrialSpec

NAME = "count"
NUMERICS = 4
EVIDENCE = "computed"
TIMED = False
EXAMINED = None
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CONVS = LAYERS[:5]
UNITS = {
    "parameters": "parameters",
    "neurons": "neurons",
    "input-dimension": "values",
    "multiply-adds": "multiply-adds an image",
    "multiply-adds-per-gpu": "multiply-adds an image",
    "neurons-in-figure-2": "neurons",
    "kernels-conv1": "kernels",
    "kernels-conv1-per-gpu": "kernels",
    "conv1-side-without-padding": "places",
    "weighted-layers": "layers",
    "crop-variants": "variants of an image",
    "bits-per-label": "bits",
    "images-per-second": "images a second",
    "share-of-peak": "fraction of the peak",
    "validation-from-test-five": "points",
    "validation-from-test-seven": "points",
    "runner-up-gap": "points",
    "colour-noise-code": "levels of 0..255",
    "colour-noise-unit": "levels of 0..255",
    "colour-noise-literal": "levels of 0..255",
    "update-rule-error": "of the weight",
    **{f"neurons-{layer}": "neurons" for layer in LAYERS},
    **{f"kernel-inputs-{layer}": "values" for layer in CONVS},
    **{f"share-{layer}": "fraction of the parameters" for layer in CONVS},
}
VIEWED = ()


class Parameters(CommonParameters):
    """The network that is counted: the switches of ``repro.models.alexnet.AlexNet`` that change a count."""

    dataset: Literal["none"] = "none"
    protocol: Literal["paper", "code"] = "paper"
    towers: choices.Towers = "two"
    overlapping: bool = True
    removed: Annotated[int, Field(ge=2, le=5)] | None = None
    classes: Annotated[int, Field(ge=2)] = paper.CLASSES
    preset: Literal["none", "torchvision", "bvlc_alexnet", "caffenet", "batch-norm-clone"] = "none"
    """A network by its usual name, in place of the switches; see ``repro.models.presets``."""


FACTORS = ("towers", "overlapping", "removed", "classes", "preset")


def spec(parameters: Parameters, seed: int = 0) -> TrialSpec:
    """Return the spec of the one trial of a network."""
    return TrialSpec(experiment=NAME, numerics=NUMERICS, config=decisive(parameters), seed=seed)


def faults(parameters: Parameters, seeds: Sequence[int]) -> list[str]:  # noqa: ARG001 - every experiment has it
    """Return what is wrong with a condition, "key: why": counting has no seeds to choose."""
    return [] if tuple(seeds) == (0,) else ["seeds: counting draws nothing; leave them out"]


_ONCE = Once(spec, role="counting")
pending, planned_epochs, observe = _ONCE.pending, _ONCE.planned_epochs, _ONCE.observe
