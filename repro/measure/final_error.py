"""Measure ``final-error``: train a network to the end of its schedule and take its error, by the centre and ten views.

Several members are trained one after the other, and the means of their softmax taken together. Which images are missed
is kept beside the record, so that two networks can be compared image by image.
"""

import io
import math
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro import data as data_sets
from repro import environment
from repro.experiments.final_error import TEST_IMAGES, UNITS, Parameters
from repro.folders import DATA
from repro.loading import Job, Window
from repro.loading.finish import Finish
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Task
from repro.models.nets import network
from repro.seeds import derive
from repro.store import Measurement, Status, Trial, folder, save, save_curve, write_atomically
from repro.training import checkpoint
from repro.training.evaluation import missed, probabilities
from repro.training.loop import Check, Interrupted, Recent, train
from repro.training.recipe import Recipe
from repro.training.schedule import colour_noise_on
from repro.training.views import colour_matrix

CHECKPOINT_S = 60.0  # seconds between checkpoints
CHECKS_PER_EPOCH = 4
TOP5_FROM = 11  # classes from which top-5 means something


def load(parameters: Parameters, place: Place) -> Pictures:
    """Return both halves of the condition's set. Raises DataError where it is missing, altered or not prepared."""
    name = parameters.dataset
    if name == "embedded":
        from repro.data import drawn

        made = drawn.prepared(place.own / f"embedded-{parameters.stored}", parameters.stored)
        return Pictures(name, len(made.classes), made.digest, prepared=made)
    if name == "cifar10":
        halves = {}
        for split, train_half in (("train", True), ("val", False)):
            half = data_sets.load(name, place.root, train=train_half, download=place.download)
            side = half.images.shape[1]
            images = half.images if side == parameters.stored else _enlarged(half.images, parameters.stored)
            halves[split] = (images, half.labels)
        return Pictures(name, half.classes, half.digest, halves=halves)
    from repro.data import prepared

    if place.root is None:
        raise data_sets.DataError(f"{name} is needed: pass --data DIR, or set REPRO_DATA")
    found = prepared.load(place.root / DATA[name])
    if found.side != parameters.stored:
        raise data_sets.DataError(
            f"{found.root} holds images of {found.side} pixels, the condition needs {parameters.stored}: "
            f"prepare it again with --side {parameters.stored}"
        )
    return Pictures(name, len(found.classes), found.digest, prepared=found)


def _enlarged(images: Tensor, side: int) -> Tensor:
    """Return uint8 images brought to ``side`` pixels, bilinearly."""
    small = images.permute(0, 3, 1, 2)
    parts = [
        torch.nn.functional.interpolate(part.float(), size=(side, side), mode="bilinear", antialias=True).round()
        for part in small.split(1024)
    ]
    return torch.cat(parts).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Run one trial, from its checkpoint where there is one, and return its record, which is also on disk.

    Raises StoreError where the store cannot be written, and Interrupted once the state is saved.
    """
    return train_all(Run(task, Parameters.model_validate(task.spec.config), data), monitor)


def train_all(run: "Run", monitor: Monitor) -> Trial:
    """Train the members that are left, and return the record of the trial; as ``measure``."""
    if run.p.pretraining != "none":
        raise RuntimeError(f"pretraining on {run.p.pretraining} is not built")
    environment.strict_fp32()
    environment.keep_memory()
    run.restore()
    run.record("running")
    while run.member < run.p.members:
        if diverged := _train(run, monitor):
            return run.finish("diverged", diverged)
        run.take()
    return run.finish("completed")


def _train(run: "Run", monitor: Monitor) -> str:
    """Train one member to its end; return why it diverged, empty where it did not."""
    net, p = run.net, run.p
    checks = train(
        net.model, net.recipe.optimizer, net.stream(), net.input, net.recent, first_step=net.step,
        check_every=max(1.0, net.per_epoch / CHECKS_PER_EPOCH), stopping=monitor.stopping, before=net.before,
    )  # fmt: skip
    saved = clock = time.monotonic()
    try:
        for check in checks:
            now = time.monotonic()
            run.trained_s += now - clock
            net.step = check.step
            run.curve.append((run.member * p.epochs + net.epochs, check))
            monitor.report(run.member * p.epochs + net.epochs, f"error {check.error:.3f}")
            if not math.isfinite(check.loss):
                return f"the loss was {check.loss} at step {check.step}"
            if net.recipe.plateau is not None and check.step % net.per_epoch == 0:
                net.recipe.plateau.add([float(missed(*run.tested(1), best=1).double().mean())])
            if net.epochs >= p.epochs or net.recipe.converged:
                return ""
            if now - saved > CHECKPOINT_S:
                run.save_state()
                saved = time.monotonic()
            clock = time.monotonic()  # evaluation and checkpoints are outside the training clock
    except Interrupted as interrupted:
        net.step = interrupted.step
        run.trained_s += time.monotonic() - clock
        run.save_state()
        raise
    raise AssertionError("training ended by itself")


class Network:
    """One member under training: its weights, recipe, input and place in the data."""

    def __init__(self, p: Parameters, data: Pictures, seed: int, loader: str) -> None:
        self.p, self.data, self.step = p, data, 0
        self.model = network(p, data.classes, seed).to(data.device, memory_format=torch.channels_last)
        self.recipe = Recipe(
            self.model, net=p.net, protocol=p.protocol, rate=p.rate, weight_decay=p.weight_decay, kind=p.schedule
        )
        self.loader = data.loader(loader, Job(p.batch, p.crop, seed, crops=p.crops))
        self.per_epoch = self.loader.per_epoch
        self.recent = Recent(self.per_epoch, p.batch, data.device)
        self.finish = _finish(p, data, seed, colour=p.colour)
        self.plain = _finish(p, data, seed, colour=False)
        torch.manual_seed(derive(seed, "dropout"))

    @property
    def epochs(self) -> float:
        return self.step / self.per_epoch

    def before(self, step: int) -> None:
        self.recipe.set_rates(step / self.per_epoch / self.p.epochs)

    def stream(self) -> Iterator[tuple[tuple[Window, int], Tensor]]:
        for step, window in enumerate(self.loader.train(self.step), self.step):
            yield (window, step), window.labels

    def input(self, drawn: tuple[Window, int]) -> Tensor:
        window, step = drawn
        quiet = self.p.protocol == "code" and not colour_noise_on(step / self.per_epoch / self.p.epochs)
        return (self.plain if quiet else self.finish)(window, step)

    def state_dict(self) -> dict[str, Any]:
        parts = {"model": self.model, "recipe": self.recipe, "recent": self.recent}
        cuda = torch.cuda.get_rng_state(self.data.device) if self.data.device.type == "cuda" else None
        chance = {"cpu": torch.get_rng_state(), "cuda": cuda}
        state = {name: part.state_dict() for name, part in parts.items()}
        return {**state, "step": self.step, "loader": self.loader.state(), "chance": chance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "recipe", "recent"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]
        self.loader.restore(state["loader"])
        torch.set_rng_state(state["chance"]["cpu"].cpu())
        if state["chance"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["chance"]["cuda"].cpu(), self.data.device)


def _finish(p: Parameters, data: Pictures, seed: int, *, colour: bool) -> Finish:
    """Return what makes the network's input, by protocol: minus the mean image, or standardised."""
    found = data.colours
    matrix = colour_matrix(found.eigenvalues, found.eigenvectors, "code").float() if colour else None
    mean, std = (found.channel_mean, found.channel_std)
    if p.protocol == "modern":
        return Finish.standardised(mean.float().to(data.device), std.to(data.device), colour=matrix, seed=seed)
    mode = "centre" if p.protocol == "code" else "window"
    return Finish.less_mean_image(found.mean.float().to(data.device), mode, colour=matrix, seed=seed)


@dataclass
class Run:
    """A trial under way: the member being trained, and the sum of the softmax of those before it."""

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
    net: Network = field(init=False)

    def __post_init__(self) -> None:
        self.net = self._network()

    def _network(self) -> Network:
        seed = derive(self.task.spec.seed, "member", self.member) if self.member else self.task.spec.seed
        return Network(self.p, self.data, seed, self.task.loader)

    @property
    def identity(self) -> str:
        return self.task.spec.identity(self.data.digest)

    @property
    def checkpoint(self) -> Path:
        return folder(self.task.store, self.identity) / "checkpoint.pt"

    def tested(self, views: int, split: str = "val") -> tuple[Tensor, Tensor]:
        """Return the network's mean softmax over ``views`` of every image of a split, and the labels."""
        net = self.net
        return probabilities(net.model, net.loader.views(split, views), net.plain.finish_views)  # type: ignore[arg-type]

    def take(self) -> None:
        """Take what is wanted of the trained member, and go on to the next."""
        self.look()
        self.trained.append(self.net.epochs)
        self.net.loader.close()
        self.member += 1
        if self.member < self.p.members:
            self.net = self._network()
            self.save_state()

    def look(self) -> None:
        """Add the trained member's answers to those before it."""
        for name, views, split in (("centre", 1, "val"), ("ten", 10, "val"), ("training", 1, "train")):
            found, labels = self.tested(views, split)
            self.sums[name] = self.sums[name] + found if name in self.sums else found
            self.labels[name] = labels

    def finish(self, status: Status, message: str = "") -> Trial:
        rows = [{"epochs": at, "error": c.error, "loss": c.loss, "window": c.window} for at, c in self.curve]
        save_curve(self.task.store, self.identity, rows)
        trained = Measurement(name="epochs-trained", value=sum(self.trained), unit="epochs")
        measurements = (*self.measurements(), trained) if status == "completed" else ()
        trial = self.record(status, message, measurements)
        self.checkpoint.unlink(missing_ok=True)
        return trial

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the errors, and keep which images were missed."""
        wrong: dict[str, Tensor] = {}
        for name in ("centre", "ten"):
            wrong[f"top1-error-{name}"] = missed(self.sums[name], self.labels[name], 1)
            if self.data.classes >= TOP5_FROM:
                wrong[f"top5-error-{name}"] = missed(self.sums[name], self.labels[name], 5)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: np.packbits(bits.numpy()) for name, bits in wrong.items()})
        write_atomically(folder(self.task.store, self.identity) / "missed.npz", buffer.getvalue())
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

    def record(self, status: Status, message: str = "", measurements: tuple[Measurement, ...] = ()) -> Trial:
        trial = Trial(
            spec=self.task.spec,
            data_digest=self.data.digest,
            status=status,
            limit=self.task.limit,
            measurements=measurements,
            message=message,
            environment={**environment.describe(self.data.device), "loader": self.net.loader.name},
            started=self.started,
            duration_s=round(self.trained_s, 3),
        )
        save(self.task.store, trial)
        return trial

    def save_state(self) -> None:
        plain = {"member": self.member, "trained_s": self.trained_s, "trained": self.trained}
        curve = [(at, *astuple(check)) for at, check in self.curve]
        sums = {"sums": self.sums, "labels": self.labels}
        checkpoint.save(self.checkpoint, {**plain, **sums, "curve": curve, "net": self.net.state_dict()})

    def restore(self) -> None:
        if state := checkpoint.load(self.checkpoint, self.data.device):
            self.member, self.trained_s, self.trained = state["member"], state["trained_s"], state["trained"]
            self.sums = {name: part.cpu() for name, part in state["sums"].items()}
            self.labels = {name: part.cpu() for name, part in state["labels"].items()}
            self.curve = [(at, Check(*row)) for at, *row in state["curve"]]
            self.net = self._network()
            self.net.load_state_dict(state["net"])
