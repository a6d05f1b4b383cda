"""Testing a trained network: the mean softmax over the views of every image, and which images it gets wrong."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from repro.training.views import mean_softmax


@torch.no_grad()
def probabilities(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], finish: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the mean softmax over views, float32 (N, classes), and the labels (N,), both on the CPU.

    ``batches`` are uint8 views (n, v, crop, crop, 3) with labels (n,), and ``finish`` makes the network's input of
    them, (n * v, 3, crop, crop). The model is in evaluation mode meanwhile.
    """
    was_training = model.training
    model.eval()
    found, truth = [], []
    for images, labels in batches:
        logits = model(finish(images)).float()
        found.append(mean_softmax(logits.unflatten(0, images.shape[:2])))
        truth.append(labels)
    model.train(was_training)
    return torch.cat(found).cpu(), torch.cat(truth).cpu()


def missed(probability: Tensor, labels: Tensor, best: int) -> Tensor:
    """Return which labels are not among the ``best`` most likely classes, bool (N,)."""
    top = probability.topk(best, dim=1).indices
    return (top != labels[:, None]).all(1)
