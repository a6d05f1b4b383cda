"""Learning-rate schedules: when the released notes divided the rate, and the paper's own heuristic as a rule.

Sources: the notes at the foot of layers/layer-params-145-2010.cfg of the 2012 release; section 5 of the paper ("divide
the learning rate by 10 when the validation error rate stopped improving with the current learning rate").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RELEASED_EPOCHS = 93
RELEASED_DROPS = (23, 51, 78)
"""Epochs at which the rate was divided by ten, of the 93 the paper's network was trained for."""

CONV1_SLOWED, CONV1_FROZEN = 68, 72
"""Epochs at which conv1 was set to a tenth of the others' rate, and stopped; with the first the colour noise ended."""

DIVISOR = 10.0


def _past(epoch: float, epochs: float, released: int) -> bool:
    """Whether ``epoch`` of ``epochs`` has reached the place of a released epoch; products, so that equal is equal."""
    return epoch * RELEASED_EPOCHS >= released * epochs


def released_factor(epoch: float, epochs: float) -> float:
    """Return the rate at ``epoch`` (0 to ``epochs``) over the initial one, with the released drops in proportion."""
    return float(DIVISOR ** -sum(_past(epoch, epochs, drop) for drop in RELEASED_DROPS))


def released_conv1_factor(epoch: float, epochs: float) -> float:
    """Return the same for conv1, which the notes slow down and then freeze before the end."""
    if _past(epoch, epochs, CONV1_FROZEN):
        return 0.0
    return released_factor(epoch, epochs) / (DIVISOR if _past(epoch, epochs, CONV1_SLOWED) else 1.0)


def released_colour(epoch: float, epochs: float) -> bool:
    """Whether colour noise is still on."""
    return not _past(epoch, epochs, CONV1_SLOWED)


@dataclass
class Plateau:
    """The paper's heuristic: divide the rate when the validation error stops improving, three times, then stop.

    "Stops improving": ``patience`` epochs without a new lowest error. The paper does not say how it was judged.
    """

    patience: int = 5
    drops: int = 3
    best: float = field(default=float("inf"), init=False)
    since: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)

    @property
    def factor(self) -> float:
        """The rate over the initial one."""
        return float(DIVISOR ** -min(self.dropped, self.drops))

    @property
    def converged(self) -> bool:
        """Whether the last rate no longer helps either."""
        return self.dropped > self.drops

    def add(self, errors: Sequence[float]) -> None:
        """Take in the validation errors of the epochs since the last call, oldest first."""
        for error in errors:
            if error < self.best:
                self.best, self.since = error, 0
                continue
            self.since += 1
            if self.since >= self.patience:
                self.dropped, self.since = self.dropped + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "since": self.since, "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.since, self.dropped = state["best"], state["since"], state["dropped"]
