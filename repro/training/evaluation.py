"""Testing a trained network: the mean softmax over the views of every image, and which images it gets wrong."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from repro.training.captured import Recording
from repro.training.views import mean_softmax

KEPT = 1 << 28
"""Bytes of answers that are kept on the device at most; those of all of ILSVRC's training images are 5 GB."""


class Evaluation:
    """Tests ``model``, as often as one likes while it is trained.

    ``finish`` turns uint8 views (n, v, crop, crop, 3) into the network's input (n * v, 3, crop, crop). Where
    ``captured``, the work from the views to the mean softmax is recorded and replayed, see
    ``repro.training.captured``. It reads the weights in place, so a recording serves until a test begins with a batch
    of another form. Where such a batch comes later in a test, say as a smaller last one, it is computed without a
    recording: its own would be replayed once, and padding it to the recorded size might round differently.
    """

    def __init__(self, model: nn.Module, finish: Callable[[Tensor], Tensor], *, captured: bool = False) -> None:
        self.model = model
        self.answers = partial(answers, model, finish)
        self.recording = Recording(self.answers) if captured else None

    @torch.no_grad()
    def __call__(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the mean softmax over views, float32 (N, classes), and the labels (N,), both on the CPU.

        ``batches`` are views with labels (n,). The model is in evaluation mode meanwhile. Nothing but a first
        recording, and what brings each KEPT bytes of answers home, waits for the device before the end.
        """
        was_training = self.model.training
        self.model.eval()
        home: list[Tensor] = []
        found: list[Tensor] = []
        truth: list[Tensor] = []
        for images, labels in batches:
            if self.recording is not None and (not truth or self.recording.fits(images)):
                found.append(self.recording(images).clone())  # the next replay overwrites it
            else:
                found.append(self.answers(images))
            truth.append(labels)
            if len(found) * found[0].nbytes >= KEPT:
                home.append(torch.cat(found).cpu())
                found.clear()
        self.model.train(was_training)
        home += [torch.cat(found).cpu()] if found else []
        return torch.cat(home), torch.cat(truth).cpu()


def answers(model: nn.Module, finish: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
    """Return the mean softmax over the views of every image, float32 (n, classes)."""
    logits = model(finish(views)).float()
    return mean_softmax(logits.unflatten(0, views.shape[:2]))


def missed(probability: Tensor, labels: Tensor, best: int) -> Tensor:
    """Return which labels are not among the ``best`` most likely classes, bool (N,)."""
    top = probability.topk(best, dim=1).indices
    return (top != labels[:, None]).all(1)
