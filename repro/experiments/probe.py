"""Experiment ``probe``: train a network as for ``final-error``, then look into it; one trial per arm and seed."""

from typing import TYPE_CHECKING, Any

from repro.experiments import Once, decisive, final_error
from repro.store import TrialSpec

if TYPE_CHECKING:
    import numpy as np

NAME = "probe"
NUMERICS = 2
"""As ``final_error.NUMERICS``."""

EVIDENCE = "measured"
TIMED = False
EXAMINED = 1000
"""Test images, evenly spread over the set; a multiple of the number shown, so that the shown ones are among them."""
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


_ONCE = Once(spec, role="scoring", epochs=final_error.epochs)
pending, planned_epochs, observe = _ONCE.pending, _ONCE.planned_epochs, _ONCE.observe


def colour_shares(kernels: "np.ndarray[Any, Any]", *, towers: int) -> list[float]:
    """Return for each tower the share of its kernels' energy that is colour, 0 to 1.

    ``kernels`` has the shape (K, 3, k, k), one tower's after the other's. Grey is the mean over R, G and B at each
    place; the rest is colour.
    """
    blocks = kernels.astype("float64").reshape(towers, -1, *kernels.shape[1:])
    grey = blocks.mean(2, keepdims=True)
    return [float(((b - g) ** 2).sum() / (b**2).sum()) for b, g in zip(blocks, grey, strict=True)]
