"""The training loop: steps without a host sync between checks, each check a plain value."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

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


LOADER_TIMEOUT_S = 600.0
"""Seconds without a batch after which a loader counts as hung: a first batch from a slow disk takes a few."""

Item = TypeVar("Item")


class Hung(Exception):
    """Something gave nothing for far longer than it should; the message names it and says for how long."""


def timely(stream: Iterator[Item], name: str, timeout_s: float | None = None) -> Iterator[Item]:
    """Yield what ``stream`` yields, each item asked for when it is wanted and no sooner.

    Raises Hung where one takes longer than ``timeout_s`` (default: LOADER_TIMEOUT_S). The stream is read by a thread
    of its own, which is then left behind: a call that hangs outside of Python can be neither stopped nor interrupted.
    On a GPU what it launches goes where the caller's own work does, so that one comes after the other.
    """
    timeout_s = LOADER_TIMEOUT_S if timeout_s is None else timeout_s
    queued = torch.cuda.current_stream() if torch.cuda.is_initialized() else None  # a thread begins with the default
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    given: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        if queued is not None:
            torch.cuda.set_stream(queued)
        while wanted.get():
            try:
                given.put(("item", next(stream)))
            except StopIteration:
                given.put(("end", None))
            except BaseException as error:  # noqa: BLE001 - raised again, where it is waited for
                given.put(("error", error))

    threading.Thread(target=read, name=f"reading {name}", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            try:
                kind, item = given.get(timeout=timeout_s)
            except queue.Empty:
                raise Hung(f"{name} gave nothing for {timeout_s:g} s: it hangs, or its disk does") from None
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        wanted.put(False)


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

    def first_not_finite(self, steps_done: int) -> int:
        """Return the first of the window's steps, counted from 1, whose loss was no finite number; else the last."""
        size = len(self.loss)
        bad = (~torch.isfinite(self.loss)).tolist()
        steps = range(max(0, steps_done - size), steps_done)
        return next((step + 1 for step in steps if bad[step % size]), steps_done)

    def state_dict(self) -> dict[str, Tensor]:
        return {"wrong": self.wrong, "loss": self.loss}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.wrong.copy_(state["wrong"])
        self.loss.copy_(state["loss"])


Learn = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Leaves the gradient of the mean loss in a model's parameters; returns the batch's errors, a count, and that loss."""


def learn(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Do so for a batch in one piece; see ``repro.training.passes`` for one in parts."""
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return count_errors(logits.detach(), labels), loss.detach()


Update = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Updates a model with a batch, images and labels; returns the batch's errors, a count, and its mean loss, both before.

See ``repro.training.captured`` for one that is recorded and replayed.
"""


def updating(model: nn.Module, optimizer: torch.optim.Optimizer, learn: Learn = learn) -> Update:
    """Return the update that learns, and then takes the optimizer's step."""

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
            wrong, loss = update(prepare(images), labels)
            recent.put(step, wrong, loss)
            step += 1
        yield recent.check(step)
