"""The case of many small nets at once on one device: what that gains over training one after the other."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import repeat

import torch
from torch import Tensor, nn

from repro import paper
from repro.bench import floor, stacked
from repro.bench.results import NETS
from repro.bench.setting import RATE, SEED, Case, Settings, batch_of, floor_of, model_of, ours, peer, trainer
from repro.bench.timing import Side
from repro.models.cifar import NETS as CIFAR_NETS
from repro.training.captured import update_for
from repro.training.optimizer import optimizer_for

COUNTS = {"cpu": (1, 2, 4), "cuda": (1, 2, 4, 8, 16)}
"""K by kind of device: a CPU is busy with one net, and would take minutes a round with 16."""


def together(s: Settings, _stack: ExitStack) -> Case:
    """Return the case of training a CIFAR-10 net (by default 18pct) by the package's loop; peers train K at once.

    The rate counts the images of all nets, so K nets one after the other would have the rate of one.
    """
    s = s if s.net in CIFAR_NETS else replace(s, net="18pct")
    images, labels = batch_of(s)
    sides = [trainer(s, ours(s, model_of(s)), repeat((images, labels)), lambda x: x)]
    missing: dict[str, str] = {}
    for way, make in WAYS.items():
        if way in GPU_ONLY and s.device.type != "cuda":
            continue
        for count in COUNTS[s.device.type]:
            made = partial(_side, make, s, count, images, labels)
            sides += peer(missing, f"{way}, {count} at once", made)
    work = floor.step(floor.counts(model_of(s), NETS[s.net].crop), s.batch, s.precision)
    what = f"training {s.net}, one after the other and K at once"
    return Case("images", what, tuple(sides), *floor_of(s, work), missing)


def _side(
    make: Callable[[Settings, int, Tensor, Tensor], Callable[[], object]], s: Settings, count: int, images: Tensor,
    labels: Tensor,
) -> Side:  # fmt: skip
    return Side("", make(s, count, images, labels), s.batch * count)


def _stacked(s: Settings, count: int, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Return a step of so many nets as one, see ``repro.bench.stacked``."""
    whole = ours(s, stacked.stack([model_of(s, SEED + k) for k in range(count)]))
    rule = stacked.Momentum(whole, torch.full((count,), RATE, device=s.device), paper.MOMENTUM)
    update = update_for(whole, rule, stacked.learn, captured=s.device.type == "cuda")
    batches = stacked.beside([images] * count), labels.expand(count, -1).contiguous()
    return lambda: update(*batches)


def _streams(s: Settings, count: int, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Return a step of so many separate nets, each a recording that is replayed on its own stream."""
    streams = [torch.cuda.Stream(s.device) for _ in range(count)]
    models: list[nn.Module] = [ours(s, model_of(s, SEED + k)) for k in range(count)]
    updates = [update_for(model, optimizer_for(model, "modern", RATE), captured=True) for model in models]

    def call() -> None:
        for stream, update in zip(streams, updates, strict=True):
            with torch.cuda.stream(stream):
                update(images, labels)

    return call


WAYS: dict[str, Callable[[Settings, int, Tensor, Tensor], Callable[[], object]]] = {
    "stacked": _stacked,
    "graphs on streams": _streams,
}
GPU_ONLY = ("graphs on streams",)
