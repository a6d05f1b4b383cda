"""Measure ``probe``: train a network as for ``final-error``, then look at its first kernels and its last hidden layer.

Sources: section 6.1 of the paper, Figures 3 and 4.
"""

import torch
from torch import Tensor, nn

from repro.experiments.probe import UNITS, Parameters
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Task
from repro.measure.final_error import Run, load, train_all
from repro.store import Measurement, Trial

__all__ = ["load", "measure"]

APART = 4.0  # times as much of the energy in colour in one tower as in the other
NEIGHBOURS = 6  # columns of training images in Figure 4
CHUNK = 256  # queries at a time


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Run one trial, as ``repro.measure.final_error.measure``."""
    return train_all(Probe(task, Parameters.model_validate(task.spec.config), data), monitor)


class Probe(Run):
    """A training whose network is looked into instead of tested."""

    def look(self) -> None:
        """Take what is found in this member."""
        model = self.net.model
        one, other = colour_shares(model[_first(model, nn.Conv2d)].weight.detach().cpu(), towers=2)
        low, high = sorted((one, other))
        self.found = {"colours-apart": float(high >= APART * low), "neighbour-gain": self._neighbour_gain()}

    def measurements(self) -> tuple[Measurement, ...]:
        """Return what was found in the last member."""
        return tuple(Measurement(name=name, value=value, unit=UNITS[name]) for name, value in self.found.items())

    def _neighbour_gain(self) -> float:
        """Return how many points more neighbours share the query's class by the last hidden layer than by pixels."""
        (queries, q_pixels, q_labels), (base, b_pixels, b_labels) = (self._hidden(split) for split in ("val", "train"))
        by_features = agreement(queries, q_labels, base, b_labels)
        return 100 * (by_features - agreement(q_pixels, q_labels, b_pixels, b_labels))

    @torch.no_grad()
    def _hidden(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last hidden layer (N, units), the input it was seen from (N, values) and the labels (N,)."""
        net = self.net
        net.model.eval()
        body = net.model[:-1]
        features, pixels, truth = [], [], []
        for images, labels in net.loader.views(split, 1):
            x = net.plain.finish_views(images)
            features.append(body(x).float().cpu())
            pixels.append(x.flatten(1).cpu())
            truth.append(labels.cpu())
        net.model.train()
        return torch.cat(features), torch.cat(pixels), torch.cat(truth)


def _first(model: nn.Sequential, kind: type[nn.Module]) -> int:
    return next(i for i, module in enumerate(model) if isinstance(module, kind))


def colour_shares(kernels: Tensor, *, towers: int) -> list[float]:
    """Return, for each tower's block of kernels (K, 3, k, k), the share of their energy that is colour, 0 to 1.

    Grey is the mean over R, G and B at each place; the rest is colour.
    """
    shares = []
    for block in kernels.double().chunk(towers):
        colour = block - block.mean(1, keepdim=True)
        shares.append(float(colour.square().sum() / block.square().sum()))
    return shares


def agreement(queries: Tensor, labels: Tensor, base: Tensor, base_labels: Tensor) -> float:
    """Return how often one of a query's ``NEIGHBOURS`` nearest rows of ``base`` (Euclidean) has its label, 0 to 1."""
    same = 0
    for rows, truth in zip(queries.split(CHUNK), labels.split(CHUNK), strict=True):
        nearest = torch.cdist(rows, base).topk(min(NEIGHBOURS, len(base)), largest=False).indices
        same += int((base_labels[nearest] == truth[:, None]).sum())
    return same / (len(queries) * min(NEIGHBOURS, len(base)))
