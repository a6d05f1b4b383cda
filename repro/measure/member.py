"""One network under training: its weights, recipe and input, and what a checkpoint keeps of it."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from repro.experiments.final_error import Parameters
from repro.loading import Job, Window
from repro.loading.finish import Finish
from repro.loading.pictures import Pictures
from repro.loading.watched import timely
from repro.models import cifar, dropout
from repro.models.nets import network
from repro.paper import COLOUR_STD
from repro.training import passes
from repro.training.evaluation import Evaluation
from repro.training.loop import Learn, Recent, learn
from repro.training.parallel import ALONE, Team
from repro.training.precision import compute_in
from repro.training.recipe import Recipe
from repro.training.schedule import colour_noise_on
from repro.training.views import colour_matrix

CROPPED_ALIKE = 32
"""Under `code` this many consecutive images of a batch are cut and mirrored alike (convdata_jpeg.py)."""


class Network:
    """One member under training: its weights, recipe, input, and place in the data (a rank reads only its part).

    ``micro_batch`` images of a batch go through it at a time (None: all). Where ``captured``, its test is recorded and
    replayed. Raises Unfit where these ranks, or such passes, cannot train it.
    """

    def __init__(
        self, p: Parameters, data: Pictures, seed: int, loader: str, team: Team = ALONE, micro_batch: int | None = None,
        *, captured: bool = False,
    ) -> None:  # fmt: skip
        self.p, self.data, self.team, self.micro_batch = p, data, team, micro_batch
        self.captured = captured
        model = network(p, data.classes, seed)
        batch_norm, gpu = passes.has_batch_norm(model), data.device.type == "cuda"
        passes.refuse(p.batch, team, micro_batch, batch_norm=batch_norm, gpu=gpu)
        self.draw = dropout.key(model, seed)
        self.learn: Learn = learn
        if not team.alone or passes.in_passes(p.batch, team, micro_batch):
            self.learn = passes.Passes(model, self.draw, p.batch, team, micro_batch)
        self.model = model.to(data.device, memory_format=torch.channels_last)
        compute_in(self.model, p.precision)
        self.recipe = Recipe(
            self.model, net=p.net, protocol=p.protocol, rate=p.rate, weight_decay=p.weight_decay, kind=p.schedule
        )
        alike = CROPPED_ALIKE if p.protocol == "code" and p.net not in cifar.NETS else 1
        job = Job(p.batch // team.world, p.crop, seed, crops=p.crops, alike=alike, rank=team.rank, world=team.world)
        self.loader = data.loader(loader, job)
        self.per_epoch = self.loader.per_epoch
        self.recent = Recent(self.per_epoch, p.batch, data.device)
        self.finish = _finish(p, data, seed, team, colour=p.colour)
        self.plain = _finish(p, data, seed, team, colour=False)

    @property
    def epochs(self) -> float:
        return self.recent.step / self.per_epoch

    @property
    def trained(self) -> bool:
        """Whether the training is over."""
        return self.epochs >= self.p.epochs or self.recipe.converged

    def before(self, step: int) -> None:
        self.recipe.set_rates(step / self.per_epoch / self.p.epochs)
        self.draw.at(step)

    def stream(self) -> Iterator[tuple[tuple[Window, int], Tensor]]:
        for step, window in enumerate(self._timely(self.loader.train(self.recent.step)), self.recent.step):
            yield (window, step), window.labels

    @cached_property
    def evaluation(self) -> Evaluation:
        """How the network is tested; a recording of the test, if there is one, lives as long as the network."""
        return Evaluation(self.model, self.plain.finish_views, captured=self.captured)

    def views(self, split: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the views of every image of the rank's part of a split, as the loader gives them."""
        return self._timely(self.loader.views(split, count))  # type: ignore[arg-type]

    def small(self, views: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Return a batch of views and labels in pieces small enough to go through the network at once."""
        most = len(views) if self.micro_batch is None else max(1, self.micro_batch // views.shape[1])
        return zip(views.split(most), labels.split(most), strict=True)

    def rounds(self, split: str, count: int) -> int:
        """Return the number of batches of views on the rank that has the most."""
        largest = math.ceil(self.data.count(split) / self.team.world)
        return math.ceil(largest / max(1, self.p.batch // self.team.world // count))

    def _timely(self, stream: Iterator[Any]) -> Iterator[Any]:
        """Return the same stream, watched for a loader that hangs; one that reads from memory cannot."""
        return stream if self.loader.name == "resident" else timely(stream, f"the loader {self.loader.name!r}")

    def input(self, drawn: tuple[Window, int]) -> Tensor:
        window, step = drawn
        done = step / self.per_epoch / self.p.epochs
        notes = self.p.protocol == "code" and self.recipe.plateau is None  # under section 5's rule noise never ends
        quiet = notes and not colour_noise_on(done)
        return (self.plain if quiet else self.finish)(window, step)

    def fingerprint(self) -> list[int]:
        """Return a checksum of the bits of each tensor of weights; an empty list where the rank is alone."""
        if self.team.alone:
            return []
        bits = (p.detach().view({4: torch.int32, 8: torch.int64}[p.element_size()]) for p in self.model.parameters())
        found: list[int] = torch.stack([own.sum(dtype=torch.int64) for own in bits]).tolist()
        return found

    def own_state(self) -> dict[str, Any]:
        """Return the part of the state that differs from rank to rank."""
        return {"loader": self.loader.state()}

    def state_dict(self) -> dict[str, Any]:
        """Return the part of the state that all ranks share."""
        parts = {"model": self.model, "recipe": self.recipe, "recent": self.recent}
        return {**{name: part.state_dict() for name, part in parts.items()}, "step": self.recent.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "recipe", "recent"):
            getattr(self, name).load_state_dict(state[name])
        self.recent.step = state["step"]
        self.loader.restore(state["loader"])


def _finish(p: Parameters, data: Pictures, seed: int, team: Team, *, colour: bool) -> Finish:
    """Return the protocol's way to make the network's input: minus the mean image or, for `modern`, standardised."""
    found = data.colours
    matrix = colour_matrix(found.eigenvalues, found.eigenvectors, "code").float() if colour else None
    mean, std = (found.channel_mean, found.channel_std)
    of = (team.rank, team.world)
    if p.protocol == "modern":
        return Finish.standardised(mean.float().to(data.device), std.to(data.device), colour=matrix, seed=seed, of=of)
    released = p.protocol == "code"
    return Finish.less_mean_image(
        found.mean.float().to(data.device), "centre" if released else "window", colour=matrix, seed=seed, of=of,
        divisor=1 + COLOUR_STD if released and colour else 1.0,
    )  # fmt: skip
