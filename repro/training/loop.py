"""The training loop: steps without a host sync between checks, each check a plain value."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.cifar import count_errors


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
    """Somebody asked the training to stop; ``step`` steps are done and the state is whole."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


class Recent:
    """Errors and losses of the last epoch's steps, kept on the device until somebody looks."""

    def __init__(self, steps: int, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.wrong = torch.zeros(steps, dtype=torch.float32, device=device)
        self.loss = torch.zeros(steps, dtype=torch.float32, device=device)

    def put(self, step: int, wrong: Tensor, loss: Tensor) -> None:
        at = step % len(self.wrong)
        self.wrong[at] = wrong
        self.loss[at] = loss

    def check(self, steps_done: int) -> Check:
        window = min(steps_done, len(self.wrong))
        wrong, loss = torch.stack([self.wrong[:window].sum(), self.loss[:window].sum()]).double().tolist()
        return Check(steps_done, wrong / (window * self.batch), loss / window, window)

    def state_dict(self) -> dict[str, Tensor]:
        return {"wrong": self.wrong, "loss": self.loss}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.wrong.copy_(state["wrong"])
        self.loss.copy_(state["loss"])


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: Iterator[tuple[Any, Tensor]],
    prepare: Callable[[Any], Tensor],
    recent: Recent,
    *,
    first_step: int,
    check_every: float,
    stopping: Callable[[], bool] = lambda: False,
    before: Callable[[int], None] = lambda _step: None,
) -> Iterator[Check]:
    """Train without end, yielding a Check about every ``check_every`` >= 1 steps (a fraction is spread evenly).

    The caller stops by not asking for more. ``prepare`` turns what the stream yields beside the labels into the input;
    ``before`` is called with each step before it is taken, say to set its learning rate. ``recent`` carries the
    running error through a resume. Raises Interrupted between two steps once ``stopping()`` is true.
    """
    step, checks = first_step, int(first_step / check_every)
    while round((checks + 1) * check_every) <= step:  # the check due at the very step resumed from was made
        checks += 1
    while True:
        checks += 1
        while step < round(checks * check_every):
            if stopping():
                raise Interrupted(step)
            before(step)
            images, labels = next(stream)
            logits = model(prepare(images))
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recent.put(step, count_errors(logits.detach(), labels), loss.detach())
            step += 1
        yield recent.check(step)
