"""Learning-rate schedules: the released notes' epochs for dividing the rate, and the paper's heuristic as a rule.

Sources: the notes at the foot of layers/layer-params-145-2010.cfg of the 2012 release; section 5 of the paper ("divide
the learning rate by 10 when the validation error rate stopped improving with the current learning rate").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DIVISOR = 10.0


class Released(NamedTuple):
    """A released schedule: its number of epochs, and those at which the rate was divided by ten."""

    epochs: int
    drops: tuple[int, ...]

    def past(self, done: float, epoch: int) -> bool:
        """Whether a training that is ``done`` (0 to 1) has reached, in proportion, the released ``epoch``."""
        return done * self.epochs >= epoch * (1 - 1e-12)  # so that equal stays equal

    def factor(self, done: float) -> float:
        """Return the rate over the initial one, with the released drops at their places in proportion."""
        return float(DIVISOR ** -sum(self.past(done, drop) for drop in self.drops))


ALEXNET = Released(93, (23, 51, 78))
"""layers/layer-params-145-2010.cfg: the network of the paper, on ILSVRC-2010."""

CONV1_SLOWED, CONV1_FROZEN = 68, 72
"""Epochs of the same notes: conv1 went to a tenth of the others' rate and colour noise ended; then conv1 stopped."""

CONV_LOCAL = Released(160, (140, 150))
"""The CIFAR-10 net of section 3.3: 140 epochs, then twice ten at a tenth of the rate before (cuda-convnet's page)."""


def conv1_factor(done: float) -> float:
    """Return conv1's rate over the initial one: the notes slow it down and then freeze it before the end."""
    if ALEXNET.past(done, CONV1_FROZEN):
        return 0.0
    return ALEXNET.factor(done) / (DIVISOR if ALEXNET.past(done, CONV1_SLOWED) else 1.0)


def colour_noise_on(done: float) -> bool:
    """Whether there is colour noise at this point, by the notes."""
    return not ALEXNET.past(done, CONV1_SLOWED)


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
