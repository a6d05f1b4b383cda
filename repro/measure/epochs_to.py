"""Measure ``epochs-to``: train one net at one rate until its running training error passes the target.

The running error is the mean over the last epoch's training batches (in the first epoch, over those so far). Each batch
is measured before it is learned from, and the mean is looked at several times an epoch. The time is where it first
passes the target, interpolated in the logarithm of the error. It is counted in epochs of images seen, so the machine's
clock plays no part.
"""

import math
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from repro import data as data_sets
from repro import environment
from repro.data import Dataset
from repro.experiments import TRAINED
from repro.experiments.epochs_to import MEASUREMENT, Parameters
from repro.measure import Monitor, Place, Task
from repro.models import cifar
from repro.store import Measurement, Status, Trial, folder, save, save_curve
from repro.training import checkpoint, precision
from repro.training.captured import update_for
from repro.training.inputs import Input, batches
from repro.training.loop import Check, Recent, train, train_to_the_end
from repro.training.optimizer import optimizer_for

HOPELESS_EPOCHS = 12.0  # a tuning trial still at chance after so many is given up
CHANCE_MARGIN = 0.02  # an error this close to chance counts as "has not begun to learn"


@dataclass(frozen=True)
class Ended:
    """How a trial ended; ``limit`` is set only where the trial reached it and could go on with a higher one."""

    status: Status
    message: str = ""
    at: float | None = None
    limit: float | None = None


def step_of_crossing(above: Check, below: Check, target: float, batch: int) -> float:
    """Return the fractional step at which the error passed the target, between a check above it and one below."""
    floor = 0.5 / (below.window * batch)  # an error of 0 has no logarithm
    start, end = math.log(above.error), math.log(max(below.error, floor))
    return above.step + (below.step - above.step) * (start - math.log(target)) / (start - end)


def load(parameters: Parameters, place: Place) -> Dataset:
    """Return the training half of the condition's set. Raises DataError where it is missing or altered."""
    return data_sets.load(parameters.dataset, place.root, download=place.download)


def measure(task: Task, data: Dataset, monitor: Monitor) -> Trial:
    """Run one trial, from its checkpoint where there is one, and return its record, which is also on disk.

    Raises StoreError where the store cannot be written, and Interrupted once the state is saved.
    """
    config = dict(task.spec.config)
    rate = float(config.pop("rate"))
    p = Parameters.model_validate({**config, "max_epochs": task.limit, "rates": (rate,) * 3})
    precision.use(p.precision)
    environment.keep_memory()
    model = cifar.build(p.net, p.activation, classes=data.classes, size=data.images.shape[1])
    cifar.initialise(model, p.net, p.activation, p.protocol, task.spec.seed)
    model = model.to(task.setting.device, memory_format=torch.channels_last)
    precision.compute_in(model, p.precision)
    per_epoch = len(data.images) // p.batch
    if not per_epoch:
        raise RuntimeError(f"a batch of {p.batch} is more than the {len(data.images)} images of {data.name}")
    run = _Run(
        task, p, data, model, optimizer_for(model, p.protocol, rate), Recent(per_epoch, p.batch, task.setting.device)
    )
    run.restore()
    if run.curve and run.recent.step == run.curve[-1].step and (end := run.ended(run.curve[-1])):
        return run.finish(end)  # it had ended, and was killed before its record was written
    run.record("running")
    checks = train(
        update_for(model, run.optimizer, captured=task.setting.captured),
        batches(data, p.batch, task.spec.seed, first_step=run.recent.step),
        Input(data.images, p.protocol),
        run.recent,
        check_every=max(1.0, per_epoch / p.checks_per_epoch),
        stopping=monitor.stopping,
    )

    def ended(check: Check) -> Ended | None:
        run.curve.append(check)
        monitor.report(run.epochs, f"error {check.error:.3f}")
        return run.ended(check)

    return run.finish(train_to_the_end(run, checks, ended))


@dataclass
class _Run:
    """A trial under way: what is trained, the curve so far, and when to stop."""

    task: Task
    p: Parameters
    data: Dataset
    model: nn.Module
    optimizer: torch.optim.Optimizer
    recent: Recent
    trained_s: float = 0.0
    curve: list[Check] = field(default_factory=list)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def epochs(self) -> float:
        """Epochs of images seen."""
        return self._epochs(self.recent.step)

    def _epochs(self, step: float) -> float:
        return step * self.p.batch / len(self.data.images)

    @property
    def checkpoint(self) -> Path:
        return folder(self.task.setting.store, self.task.spec.identity(self.data.digest)) / "checkpoint.pt"

    def crossing(self) -> float | None:
        """Return the epochs at which the error first passed the target; None while it has not."""
        if self.curve[0].error <= self.p.target:
            return self.curve[0].step * self.epochs / self.recent.step  # already at the first check: an upper bound
        for previous, now in pairwise(self.curve):
            if previous.error > self.p.target >= now.error:
                return step_of_crossing(previous, now, self.p.target, self.p.batch) * self.epochs / self.recent.step
        return None

    def ended(self, check: Check) -> Ended | None:
        """Return how the trial ends with this check; None while it goes on."""
        target, limit = self.p.target, self.task.limit
        if not math.isfinite(check.loss):
            step = self.recent.first_not_finite()
            return Ended("diverged", f"the loss was {check.loss} from step {step} on, {self.epochs:.2f} epochs at most")
        noise = math.sqrt(target * (1 - target) / (check.window * self.p.batch))
        over = self.epochs >= limit
        if (over or check.error <= target - 2 * noise) and (at := self.crossing()) is not None:
            return Ended("completed", at=at)
        if over:
            return Ended("censored", f"training error {check.error:.3f} after {self.epochs:.2f} epochs", limit=limit)
        chance = 1 - 1 / self.data.classes - CHANCE_MARGIN
        if self.task.role == "tuning" and self.epochs >= HOPELESS_EPOCHS and check.error > chance:
            return Ended("censored", f"still at chance after {self.epochs:.1f} epochs")
        return None

    def finish(self, ended: Ended) -> Trial:
        save_curve(
            self.task.setting.store, self.task.spec.identity(self.data.digest), [self._row(c) for c in self.curve]
        )
        if ended.limit is not None:
            self.save_state()  # with a higher limit the trial goes on from here
        trial = self.record(ended.status, ended.message, ended.at, ended.limit)
        if ended.limit is None:
            checkpoint.remove(self.checkpoint)
        return trial

    def _row(self, check: Check) -> dict[str, float]:
        return {"epochs": self._epochs(check.step), "error": check.error, "loss": check.loss, "window": check.window}

    def record(self, status: Status, message: str = "", at: float | None = None, limit: float | None = None) -> Trial:
        trial = Trial(
            spec=self.task.spec,
            data_digest=self.data.digest,
            status=status,
            limit=limit,
            measurements=self._measurements(at),
            message=message,
            environment={
                **environment.describe(self.task.setting.device),
                "loader": "resident",
                "captured": self.task.setting.captured,
            },
            started=self.started,
            duration_s=round(self.trained_s, 3),
        )
        save(self.task.setting.store, trial)
        return trial

    def _measurements(self, at: float | None) -> tuple[Measurement, ...]:
        trained = Measurement(name=TRAINED, value=self.epochs, unit="epochs")
        return (trained,) if at is None else (Measurement(name=MEASUREMENT, value=at, unit="epochs"), trained)

    def save_state(self) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer, "recent": self.recent}
        plain = {"step": self.recent.step, "trained_s": self.trained_s, "curve": [astuple(c) for c in self.curve]}
        checkpoint.save(self.checkpoint, {**{name: part.state_dict() for name, part in parts.items()}, **plain})

    def restore(self) -> None:
        if state := checkpoint.load(self.checkpoint, self.task.setting.device):
            for name in ("model", "optimizer", "recent"):
                getattr(self, name).load_state_dict(state[name])
            self.recent.step, self.trained_s = state["step"], state["trained_s"]
            self.curve = [Check(*row) for row in state["curve"]]
