"""Measure ``probe``: train a network as for ``final-error``, then look at its first kernels and its last hidden layer.

What the paper's Figures 3 and 4 show is kept beside the record: ``looked.npz`` (kernels, answers, neighbours; nothing
of the data set but class names) and ``pictures.npz`` (small pictures of the data set; they are published only where the
set is synthetic). Sources: section 6.1 of the paper, Figures 3 and 4.
"""

import io
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repro.experiments.probe import EXAMINED, UNITS, Parameters, colour_shares
from repro.files import write_atomically
from repro.loading.pictures import Pictures
from repro.loading.reference import decode
from repro.measure import Monitor, Task
from repro.measure.final_error import Run, load, train_all
from repro.store import Measurement, Trial, folder

__all__ = ["load", "measure"]

APART = 4.0  # one tower holds the colour where its share of energy in colour is this many times the other's
NEIGHBOURS = 6  # columns of training images in Figure 4
ANSWERED, COMPARED, BEST = 8, 5, 5  # test images in Figure 4's left half and in its right half; labels shown for each
SMALL = 64  # pixels: side of the pictures kept


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Run one trial, as ``repro.measure.final_error.measure``."""
    return train_all(Probe(task, Parameters.model_validate(task.spec.config), data), monitor)


class Probe(Run):
    """A trial whose trained network is looked into instead of tested."""

    def look(self) -> None:
        """Keep what is found in this member's first kernels and its last hidden layer."""
        model = self.net.model
        kernels = model[_first(model, nn.Conv2d)].weight.detach().cpu().numpy()
        low, high = sorted(colour_shares(kernels, towers=2))
        queries = self._queries()
        by_fc7, by_pixels = Nearest(queries.features), Nearest(queries.pixels)
        truth = []
        for seen in self._hidden("train"):
            by_fc7.see(seen.features)
            by_pixels.see(seen.pixels)
            truth.append(seen.labels)
        labels = torch.cat(truth).cpu()
        gain = agreement(by_fc7.rows.cpu(), queries.labels, labels) - agreement(
            by_pixels.rows.cpu(), queries.labels, labels
        )
        self.found = {"colours-apart": float(high >= APART * low), "neighbour-gain": 100 * gain}
        shown = [self._compared().index(i) for i in self._shown(ANSWERED)]
        self.kept = {"looked": {"kernels": kernels.astype(np.float16)} | self._answers(queries, shown)}
        nearest = by_fc7.rows[shown[:COMPARED]].cpu()
        self.kept["looked"] |= {"neighbours": nearest.numpy(), "neighbour_labels": labels[nearest].numpy()}
        self.kept["pictures"] = {
            "queries": np.stack([_small(self.data, "val", i) for i in self._shown(ANSWERED)]),
            "neighbours": np.stack([[_small(self.data, "train", i) for i in row] for row in nearest.tolist()]),
        }

    def measurements(self) -> tuple[Measurement, ...]:
        """Return what was found in the last member, and write the arrays that show it to disk."""
        for name, arrays in self.kept.items():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_atomically(folder(self.task.setting.store, self.identity) / f"{name}.npz", buffer.getvalue())
        return tuple(Measurement(name=name, value=value, unit=UNITS[name]) for name, value in self.found.items())

    def _shown(self, n: int) -> list[int]:
        """Return the first ``n`` of ANSWERED indices spread evenly over the test images, and so over their classes."""
        count = self.data.count("val")
        return [i * count // ANSWERED for i in range(min(n, count))]

    def _compared(self) -> list[int]:
        """Return the indices of the test images that are compared: all, or EXAMINED of them spread evenly."""
        count = self.data.count("val")
        return list(range(count)) if count <= EXAMINED else [i * count // EXAMINED for i in range(EXAMINED)]

    @torch.no_grad()
    def _answers(self, queries: "Hidden", shown: list[int]) -> dict[str, Any]:
        """Return the most probable classes of a few queries, their probabilities, the truth, and names."""
        likely = self.net.model[-1](queries.features[shown]).softmax(1).cpu()
        best = likely.topk(min(BEST, likely.shape[1]))
        whole = self.data.prepared
        names = whole.classes if whole is not None else [str(i) for i in range(self.data.classes)]
        return {
            "answers": best.indices.numpy(), "probabilities": best.values.numpy(), "names": np.array(names),
            "truth": queries.labels[shown].numpy(), "shown": np.array(self._shown(ANSWERED)),
        }  # fmt: skip

    def _queries(self) -> "Hidden":
        """Return the hidden layer, input and labels of the test images that are compared."""
        places = self._compared()
        wanted = torch.tensor(places, device=self.data.device)
        first, parts = 0, []
        for seen in self._hidden("val"):
            last = first + len(seen.labels)
            # The host knows which of them are in this batch; to look them up on the device would wait for it.
            here = wanted[bisect_left(places, first) : bisect_left(places, last)] - first
            parts.append(Hidden(*(part[here] for part in seen)))
            first = last
        features, pixels, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        return Hidden(features, pixels, labels.cpu())

    @torch.no_grad()
    def _hidden(self, split: str) -> Iterator["Hidden"]:
        """Yield the hidden layer, input and labels of every image of a split, batch by batch, on the device."""
        net = self.net
        net.model.eval()
        body = net.model[:-1]
        for images, labels in self.views(split, 1):
            x = net.plain.finish_views(images)
            yield Hidden(body(x).float(), x.flatten(1), labels)
        net.model.train()


class Hidden(NamedTuple):
    """The last hidden layer's output (N, units), the network's input (N, values) and the labels (N,)."""

    features: Tensor
    pixels: Tensor
    labels: Tensor


class Nearest:
    """The NEIGHBOURS rows nearest to each query (Euclidean) of all rows seen, which come a part at a time.

    ``rows``, int64 (Q, at most NEIGHBOURS), nearest first, numbers the rows in the order in which they were seen. Only
    the queries' pixels are kept, because a training set's would fill 700 GB.
    """

    def __init__(self, queries: Tensor) -> None:
        self._queries, self._seen = queries, 0
        self._far = queries.new_empty(len(queries), 0)
        self.rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)

    def see(self, part: Tensor) -> None:
        """Take further rows, (n, values), into account."""
        numbers = torch.arange(self._seen, self._seen + len(part), device=part.device).expand(len(self._queries), -1)
        far = torch.cat([self._far, torch.cdist(self._queries, part)], 1)
        self._far, at = far.topk(min(NEIGHBOURS, far.shape[1]), largest=False)
        self.rows = torch.cat([self.rows, numbers], 1).gather(1, at)
        self._seen += len(part)


def _small(data: Pictures, split: str, index: int) -> np.ndarray:
    """Return an image of the data set, shrunk to at most SMALL pixels a side, uint8 (side, side, 3)."""
    if data.prepared is None:
        assert data.halves is not None
        image = data.halves[split][0][index].cpu()
    else:
        path, _ = data.prepared.files[split][index]
        image = torch.from_numpy(decode(data.prepared.root / path, data.prepared.side).copy())
    if image.shape[0] <= SMALL:
        return image.numpy()
    planes = image.permute(2, 0, 1)[None].float()
    small = nn.functional.interpolate(planes, size=(SMALL, SMALL), mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _first(model: nn.Sequential, kind: type[nn.Module]) -> int:
    return next(i for i, module in enumerate(model) if isinstance(module, kind))


def agreement(nearest: Tensor, labels: Tensor, base_labels: Tensor) -> float:
    """Return the share of the nearest rows, (Q, k), that have their query's label, 0 to 1."""
    return float((base_labels[nearest] == labels[:, None]).double().mean())
