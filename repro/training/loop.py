"""The training loop: steps without a host sync between checks, each check a plain value."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.cifar import count_errors
from repro.training import checkpoint
from repro.training.parallel import ALONE, Team


@dataclass(frozen=True)
class Check:
    """One look at a running training.

    ``error`` and ``loss`` (nats) are means over the training batches of the last ``window`` steps, each batch
    measured before it was learned from; ``step`` counts the steps done.
    """

    step: int
    error: float
    loss: float
    window: int


class Interrupted(Exception):
    """Somebody asked the training to stop; the state is whole."""


class Recent:
    """The number of steps done, and errors and losses of the last ``steps``, kept on the device until a check."""

    def __init__(self, steps: int, batch: int, device: torch.device) -> None:
        self.batch, self.step = batch, 0
        self.wrong = torch.zeros(steps, dtype=torch.float32, device=device)
        self.loss = torch.zeros(steps, dtype=torch.float32, device=device)

    def put(self, wrong: Tensor, loss: Tensor) -> None:
        """Record the errors and the mean loss of the next step."""
        at = self.step % len(self.wrong)
        self.wrong[at] = wrong
        self.loss[at] = loss
        self.step += 1

    def check(self) -> Check:
        window = min(self.step, len(self.wrong))
        wrong, loss = torch.stack([self.wrong[:window].sum(), self.loss[:window].sum()]).double().tolist()
        return Check(self.step, wrong / (window * self.batch), loss / window, window)

    def first_not_finite(self) -> int:
        """Return the first of the window's steps, counted from 1, whose loss was not finite; else the last."""
        size = len(self.loss)
        bad = (~torch.isfinite(self.loss)).tolist()
        steps = range(max(0, self.step - size), self.step)
        return next((step + 1 for step in steps if bad[step % size]), self.step)

    def state_dict(self) -> dict[str, Tensor]:
        return {"wrong": self.wrong, "loss": self.loss}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.wrong.copy_(state["wrong"])
        self.loss.copy_(state["loss"])


Learn = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Leaves the gradient of the mean loss in a model's parameters; returns the batch's number of errors and that loss."""


def learn(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Learn from a batch in one piece, as ``Learn`` says; see ``repro.training.passes`` for a batch in parts."""
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return count_errors(logits.detach(), labels), loss.detach()


Update = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Updates a model with a batch of images and labels; returns its number of errors and mean loss before the update.

See ``repro.training.captured`` for one that is recorded and replayed.
"""


def updating(model: nn.Module, optimizer: torch.optim.Optimizer, learn: Learn = learn) -> Update:
    """Return an update that calls ``learn`` and then takes the optimizer's step."""

    def update(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found = learn(model, images, labels)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return found

    return update


def train(
    update: Update,
    stream: Iterator[tuple[Any, Tensor]],
    prepare: Callable[[Any], Tensor],
    recent: Recent,
    *,
    check_every: float,
    stopping: Callable[[], bool] = lambda: False,
    before: Callable[[int], None] = lambda _step: None,
) -> Iterator[Check]:
    """Train without end, yielding a Check about every ``check_every`` >= 1 steps (a fraction is spread evenly).

    The caller stops by not asking for more. ``prepare`` turns the images that the stream yields with their labels into
    the input. ``before`` is called with each step's number before it is taken, say to set its learning rate. ``recent``
    knows how many steps were done before. Raises Interrupted between two steps once ``stopping()`` is true.
    """
    checks = int(recent.step / check_every)
    while round((checks + 1) * check_every) <= recent.step:  # the check due at the step resumed from is done
        checks += 1
    while True:
        checks += 1
        while recent.step < round(checks * check_every):
            if stopping():
                raise Interrupted
            before(recent.step)
            images, labels = next(stream)
            recent.put(*update(prepare(images), labels))
        yield recent.check()


CHECKPOINT_S = 60.0  # seconds between checkpoints, at least
End = TypeVar("End")


class Resumable(Protocol):
    """A training that can be resumed; ``trained_s``, its seconds so far, is part of the state that it saves."""

    trained_s: float

    def save_state(self) -> None: ...


def train_to_the_end(
    run: Resumable, checks: Iterator[Check], ended: Callable[[Check], End | None], team: Team = ALONE
) -> End:
    """Train until ``ended`` returns something other than None for a check, and return that.

    The state is saved now and then, and also when ``checks`` raises Interrupted, which is passed on. The clock of the
    training stands still while the state is saved, and during ``ended``.
    """
    saved = clock = time.monotonic()
    pause = CHECKPOINT_S
    try:
        for check in checks:
            now = time.monotonic()
            run.trained_s += now - clock
            if (end := ended(check)) is not None:
                return end
            if team.told(now - saved > pause):
                begun = time.monotonic()
                run.save_state()
                saved = time.monotonic()
                pause = checkpoint.pause(CHECKPOINT_S, saved - begun)
            clock = time.monotonic()
    except Interrupted:
        run.trained_s += time.monotonic() - clock
        run.save_state()
        raise
    raise AssertionError("training ended by itself")
