"""Learning from a batch in parts: it is split over ranks, and each takes as many images at a time as fit into memory.

The parts add up to the whole batch: a part's loss is the sum over its images, divided by the number of images in the
batch; the gradients add up; dropout's mask is that of the part's rows in the batch. So the gradient is that of the
batch in one piece, with the same neurons dropped, except for rounding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from repro.models.cifar import count_errors
from repro.models.dropout import Draw
from repro.problem import Problem
from repro.training.parallel import ALONE, Team


class Unfit(Problem):
    """A training cannot be done in parts as asked; the message says why, and what can be."""


def for_want_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the machine."""
    told = isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    return told or isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)


def refuse(batch: int, team: Team, most: int | None, *, batch_norm: bool, gpu: bool) -> None:
    """Raise Unfit where these ranks cannot learn from batches of ``batch`` images, ``most`` at a time.

    ``batch_norm``: whether the network has any; ``gpu``: whether each rank has one.
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
    """Learns from a batch of ``batch`` images, of which this rank is given its own part, in order.

    It is called like ``repro.training.loop.learn``, with the rank's images and labels. It returns the errors and the
    mean loss of the whole batch, and leaves the gradient of that loss; all are the same on every rank. ``most`` images
    go through the model at a time (None: all of them), and ``draw``, that of the model's dropout, is set to their rows
    in the batch. With several ranks SyncBatchNorm replaces batch norm; names and weights stay.
    """

    def __init__(self, model: nn.Module, draw: Draw, batch: int, team: Team = ALONE, most: int | None = None) -> None:
        self.draw, self.batch, self.team = draw, batch, team
        self.own = batch // team.world
        self.most = self.own if most is None else most
        if not team.alone:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sums = []
        for at in range(0, len(labels), self.most):
            truth = labels[at : at + self.most]
            self.draw.first = self.team.rank * self.own + at
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
