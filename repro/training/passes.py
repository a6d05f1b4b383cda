"""A batch learned from in parts: those of several ranks, and of each as many images at a time as fit into memory.

The parts together are the whole batch: every part's loss is a sum over its images divided by the images of the batch,
the gradients add up, and dropout's mask is drawn once for the whole batch, of which each part takes its own rows. So
in exact arithmetic the gradient is that of the batch in one piece, with the same neurons dropped; what is left is
rounding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from repro.models.alexnet import PlainDropout
from repro.models.cifar import count_errors
from repro.problem import Problem
from repro.training.parallel import ALONE, Team


class Unfit(Problem):
    """A training cannot be done in parts as asked; the message says why, and what can be."""


def refuse(batch: int, team: Team, most: int | None, *, batch_norm: bool, gpu: bool) -> None:
    """Raise Unfit where batches of ``batch`` images cannot be learned from by these ranks, ``most`` at a time.

    ``batch_norm``: the network has any; ``gpu``: each rank has one.
    """
    if batch % team.world:
        raise Unfit(
            f"a batch of {batch} images cannot be shared by {team.world} processes: start a number that divides it"
        )
    if not batch_norm:
        return
    if in_passes(batch, team, most):
        raise Unfit("--micro-batch: batch norm takes its statistics of the whole batch, which no part of it has")
    if not team.alone and not gpu:
        raise Unfit("batch norm over several processes needs GPUs: torch's SyncBatchNorm does not exist on CPUs")


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model takes statistics of whole batches."""
    return any(isinstance(m, _BatchNorm) for m in model.modules())


def in_passes(batch: int, team: Team, most: int | None) -> bool:
    """Whether a rank's part of the batch is more than it may take at a time."""
    return most is not None and most < batch // team.world


class Passes:
    """How ``model`` learns from a batch of ``batch`` images, of which this rank is given its part, in order.

    Called as ``repro.training.loop.learn``, with the rank's images and labels; returns errors and mean loss of the
    whole batch, and leaves its gradient, the same on all ranks. ``most`` images go through the model at a time, all
    where None. Dropout in ``model`` is replaced, batch norm over ranks too; names and weights stay.
    """

    def __init__(self, model: nn.Module, batch: int, team: Team = ALONE, most: int | None = None) -> None:
        self.batch, self.team = batch, team
        self.own = batch // team.world
        self.most = self.own if most is None else most
        self.rows = Rows(batch)
        _replace_dropout(model, self.rows)
        if not team.alone:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sums = []
        for at in range(0, len(labels), self.most):
            truth = labels[at : at + self.most]
            self.rows.first, self.rows.fresh = self.team.rank * self.own + at, at == 0
            logits = model(images[at : at + self.most])
            loss = F.cross_entropy(logits, truth, reduction="sum") / self.batch
            loss.backward()
            sums.append(torch.stack([count_errors(logits.detach(), truth).to(loss.dtype), loss.detach()]))
        wrong, loss = self._added_up(model, torch.stack(sums).sum(0))
        return wrong, loss

    def _added_up(self, model: nn.Module, found: Tensor) -> Tensor:
        """Return ``found`` summed over the ranks, and sum the gradients with it, in one exchange."""
        if self.team.alone:
            return found
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([found, *(g.reshape(-1) for g in gradients)])
        self.team.add_up(flat)
        total, *parts = flat.split([len(found), *(g.numel() for g in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
        return total


class Rows:
    """Which rows of the batch of ``total`` images a pass is given: from ``first`` on; ``fresh`` in a batch's first."""

    def __init__(self, total: int) -> None:
        self.total, self.first, self.fresh = total, 0, True


class BatchDropout(nn.Module):
    """Dropout of neurons (N, C) that are ``rows`` of a batch: their part of the mask that the batch would draw.

    The whole mask is drawn in a batch's first pass, from torch's generator, which is the same on all ranks.
    ``inverted`` as ``repro.models.alexnet.Dropout``.
    """

    def __init__(self, rows: Rows, *, inverted: bool) -> None:
        super().__init__()
        self.rows, self.inverted = rows, inverted
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x if self.inverted else x * 0.5
        if self.rows.fresh or self.mask is None:
            self.mask = F.dropout(x.new_ones(self.rows.total, *x.shape[1:]), 0.5, training=True)  # zeros and twos
        kept = x * self.mask[self.rows.first : self.rows.first + len(x)]
        return kept if self.inverted else kept * 0.5

    def extra_repr(self) -> str:
        return f"p=0.5, batch={self.rows.total}"


def _replace_dropout(model: nn.Module, rows: Rows) -> None:
    for parent in [*model.modules()]:
        for name, module in [*parent.named_children()]:
            if isinstance(module, PlainDropout | nn.Dropout):
                setattr(parent, name, BatchDropout(rows, inverted=isinstance(module, nn.Dropout)))
