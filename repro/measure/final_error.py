"""Measure ``final-error``: train a network to the end of its schedule, and test it with the centre view and ten views.

Several members are trained one after the other, and their softmax outputs (means over views) are added up. Which images
are missed is kept beside the record, so that two networks can be compared image by image.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro import environment
from repro.experiments import TEST_IMAGES, TRAINED
from repro.experiments.final_error import UNITS, Parameters
from repro.files import StoreError, write_atomically
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Task, pictures
from repro.measure.member import Network
from repro.seeds import derive
from repro.store import MISSED, Measurement, Status, Trial, folder, save, save_curve
from repro.training import checkpoint, precision
from repro.training.captured import update_for
from repro.training.evaluation import missed
from repro.training.loop import Check, Interrupted, train, train_to_the_end
from repro.training.parallel import Team, refuse_unlike

CHECKS_PER_EPOCH = 4
TOP5_FROM = 11  # the smallest number of classes at which top-5 means something


def load(parameters: Parameters, place: Place) -> Pictures:
    """Return the condition's set. Raises DataError as ``repro.measure.pictures.load``."""
    return pictures.load(parameters.dataset, parameters.stored, place)


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Run one trial, from its checkpoint where there is one, and return its record, which is also on disk.

    Raises StoreError where the store cannot be written, and Interrupted once the state is saved.
    """
    return train_all(Run(task, Parameters.model_validate(task.spec.config), data), monitor)


def train_all(run: "Run", monitor: Monitor) -> Trial:
    """Train the members that are left, and return the trial's record. Raises as ``measure``."""
    if run.p.pretraining != "none":
        raise RuntimeError(f"pretraining on {run.p.pretraining} is not built")
    precision.use(run.p.precision)
    environment.keep_memory()
    monitor = replace(monitor, stopping=run.team.agreed(monitor.stopping))
    run.restore()
    run.record("running")
    while run.member < run.p.members:
        if diverged := _train(run, monitor):
            return run.finish("diverged", diverged)
        run.save_state()  # what is left only looks at the network, and may be stopped and done again
        run.take(monitor.stopping)
    return run.finish("completed")


def _train(run: "Run", monitor: Monitor) -> str:
    """Train one member to its end; return why it diverged, empty where it did not."""
    net, p = run.net, run.p
    if net.trained:
        return ""
    checks = train(
        update_for(net.model, net.recipe.optimizer, net.learn, captured=run.task.setting.captured),
        net.stream(), net.input, net.recent,
        check_every=max(1.0, net.per_epoch / CHECKS_PER_EPOCH), stopping=monitor.stopping, before=net.before,
    )  # fmt: skip

    def ended(check: Check) -> str | None:
        at = run.member * p.epochs + net.epochs
        run.curve.append((at, check))
        monitor.report(at, f"error {check.error:.3f}")
        if not math.isfinite(check.loss):
            return f"the loss was {check.loss}, not finite at step {net.recent.first_not_finite()}"
        if net.recipe.plateau is not None and check.step % net.per_epoch == 0:
            net.recipe.plateau.add([run.error()])
        return "" if net.trained else None

    return train_to_the_end(run, checks, ended, run.team)


@dataclass
class Run:
    """A trial under way: the member being trained, and the sum of the softmax of those before it.

    Each of several ranks holds one, and all call its methods alike. Only rank 0 has the sums, and uses the store.
    """

    task: Task
    p: Parameters
    data: Pictures
    member: int = 0
    trained_s: float = 0.0
    curve: list[tuple[float, Check]] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    trained: list[float] = field(default_factory=list)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    stopping: Callable[[], bool] = lambda: False
    net: Network = field(init=False)

    def __post_init__(self) -> None:
        self.net = self._network()

    def _network(self) -> Network:
        seed = derive(self.task.spec.seed, "member", self.member) if self.member else self.task.spec.seed
        task = self.task
        return Network(
            self.p,
            self.data,
            seed,
            task.setting.loader,
            self.team,
            task.setting.micro_batch,
            captured=task.setting.captured,
        )

    @property
    def team(self) -> Team:
        return self.task.setting.team

    @property
    def identity(self) -> str:
        return self.task.spec.identity(self.data.digest)

    @property
    def checkpoint(self) -> Path:
        return folder(self.task.setting.store, self.identity) / "checkpoint.pt"

    def tested(self, views: int, split: str = "val") -> tuple[Tensor, Tensor]:
        """Return the network's mean softmax over ``views`` of every image of a split, and the labels.

        Rank 0 returns those of the whole split, the other ranks those of their part.
        """
        images = self.data.count(split)
        found, labels = self.net.evaluation(self.views(split, views))
        return self.team.whole(found, images), self.team.whole(labels, images)

    def error(self) -> float:
        """Return the share of the test set that the network misses with the centre view; the same on all ranks."""
        found, labels = self.tested(1)
        return self.team.share(lambda: float(missed(found, labels, best=1).double().mean()))

    def views(self, split: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what ``Network.views`` yields. Raises Interrupted between two batches once ``stopping()`` is true."""
        # All ranks make the same number of rounds, because in each of them they ask each other whether to stop.
        for _, batch in zip_longest(range(self.net.rounds(split, count)), self.net.views(split, count)):
            if self.stopping():
                raise Interrupted
            if batch is not None:
                yield from self.net.small(*batch)

    def take(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Look at the trained member, and go on to the next. Raises Interrupted, and then nothing has changed."""
        self.stopping, before = stopping, self.stopping
        try:
            self.look()
        finally:
            self.stopping = before  # a test that the schedule asks for is part of a step: no stopping in it
        self.trained.append(self.net.epochs)
        self.net.loader.close()
        self.member += 1
        if self.member < self.p.members:
            self.net = self._network()
            self.save_state()

    def look(self) -> None:
        """Add the trained member's answers to those of the members before it."""
        taken = {  # ten views come last, so that one recording serves both tests with one view
            name: self.tested(views, split)
            for name, views, split in (("centre", 1, "val"), ("training", 1, "train"), ("ten", 10, "val"))
        }
        for name, (found, labels) in taken.items() if self.team.rank == 0 else ():
            self.sums[name] = self.sums[name] + found if name in self.sums else found
            self.labels[name] = labels

    def finish(self, status: Status, message: str = "") -> Trial:
        """Write the record of the ended trial, and return it."""
        return self.team.share(lambda: self._finish(status, message))

    def _finish(self, status: Status, message: str) -> Trial:
        rows = [{"epochs": at, "error": c.error, "loss": c.loss, "window": c.window} for at, c in self.curve]
        save_curve(self.task.setting.store, self.identity, rows)
        trained = Measurement(name=TRAINED, value=sum(self.trained), unit="epochs")
        measurements = (*self.measurements(), trained) if status == "completed" else ()
        trial = self._record(status, message, measurements)
        checkpoint.remove(self.checkpoint)
        return trial

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the errors, and write to disk which images were missed."""
        wrong: dict[str, Tensor] = {}
        for name in ("centre", "ten"):
            wrong[f"top1-error-{name}"] = missed(self.sums[name], self.labels[name], 1)
            if self.data.classes >= TOP5_FROM:
                wrong[f"top5-error-{name}"] = missed(self.sums[name], self.labels[name], 5)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: np.packbits(bits.numpy()) for name, bits in wrong.items()})
        write_atomically(folder(self.task.setting.store, self.identity) / MISSED, buffer.getvalue())
        found = {name: 100 * float(bits.double().mean()) for name, bits in wrong.items()}
        for top in ("top1", "top5"):
            if f"{top}-error-ten" in found:
                found[f"ten-view-gain-{top}"] = found[f"{top}-error-centre"] - found[f"{top}-error-ten"]
        training = 100 * float(missed(self.sums["training"], self.labels["training"], 1).double().mean())
        found |= {"training-error": training, "generalisation-gap": found["top1-error-centre"] - training}
        if self.p.schedule == "plateau" and all(trained < self.p.epochs for trained in self.trained):
            found["epochs-to-converge"] = sum(self.trained) / len(self.trained)
        units = {name: UNITS.get(name, "%") for name in found}
        counted = Measurement(name=TEST_IMAGES, value=float(self.data.count("val")), unit="images")
        return (*(Measurement(name=n, value=v, unit=units[n]) for n, v in found.items()), counted)

    def record(self, status: Status) -> None:
        self.team.share(lambda: self._record(status, "", ()))

    def _record(self, status: Status, message: str, measurements: tuple[Measurement, ...]) -> Trial:
        trial = Trial(
            spec=self.task.spec,
            data_digest=self.data.digest,
            status=status,
            limit=self.task.limit,
            measurements=measurements,
            message=message,
            environment={
                **environment.describe(self.data.device),
                "loader": self.net.loader.name,
                "micro_batch": self.task.setting.micro_batch,
                "captured": self.task.setting.captured,
                "world": self.team.world,
                "backend": self.team.backend,
            },
            started=self.started,
            duration_s=round(self.trained_s, 3),
        )
        save(self.task.setting.store, trial)
        return trial

    def save_state(self) -> None:
        """Write a checkpoint with each rank's own state. Raises StoreError, and Problem where the weights differ."""
        refuse_unlike(self.team, self.net.fingerprint(), "the weights")
        own = self.team.each(self.net.own_state())
        self.team.share(lambda: self._save_state(own))

    def _save_state(self, own: list[dict[str, Any]]) -> None:
        plain = {"member": self.member, "trained_s": self.trained_s, "trained": self.trained}
        curve = [(at, *astuple(check)) for at, check in self.curve]
        sums = {"sums": self.sums, "labels": self.labels}
        ranks = {"world": self.team.world, "others": own[1:]}
        net = {**self.net.state_dict(), **own[0]}
        checkpoint.save(self.checkpoint, {**plain, **sums, **ranks, "curve": curve, "net": net})

    def restore(self) -> None:
        """Continue from the checkpoint, if there is one. Raises StoreError for one made by another number of ranks."""
        if (state := self.team.share(self._saved)) is None:
            return
        self.member, self.trained_s, self.trained = state["member"], state["trained_s"], state["trained"]
        self.curve = [(at, Check(*row)) for at, *row in state["curve"]]
        self.net = self._network()
        own = state["others"][self.team.rank - 1] if self.team.rank else {}
        self.net.load_state_dict({**state["net"], **own})

    def _saved(self) -> dict[str, Any] | None:
        """Return the part of the checkpoint that every rank needs (None without one), and keep rank 0's own part."""
        state = checkpoint.load(self.checkpoint, torch.device("cpu"))  # whose memory has room for all the answers
        if state is None:
            return None
        if (world := state.get("world", 1)) != self.team.world:
            by = "1 process" if world == 1 else f"{world} processes"
            raise StoreError(
                f"trial {self.identity} is half done by {by} and cannot be gone on with by {self.team.world}: start as "
                f"many as before, or remove {self.checkpoint.parent} to begin it anew"
            )
        self.sums, self.labels = state.pop("sums"), state.pop("labels")
        return state
