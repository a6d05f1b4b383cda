"""Measure ``count``: build the network on the meta device, where tensors have shapes and no storage, and count."""

import math
import time
from datetime import UTC, datetime
from typing import get_args

import torch
from torch import nn

from repro import environment, paper
from repro.data import Dataset, nothing
from repro.experiments.count import CONVS, LAYERS, UNITS, Parameters
from repro.measure import Monitor, Place, Task
from repro.models.alexnet import AlexNet, build, layers
from repro.models.presets import presets
from repro.store import Measurement, Trial, save
from repro.training.sgd2012 import SGD2012
from repro.training.views import OFFSETS, Reading, colour_matrix


def load(parameters: Parameters, place: Place) -> Dataset:  # noqa: ARG001 - every experiment has them
    """Return no data: none is needed."""
    return nothing()


def measure(task: Task, data: Dataset, monitor: Monitor) -> Trial:  # noqa: ARG001 - every experiment has them
    """Count one network and return the record, which is also on disk. Raises StoreError where it cannot be written."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    p = Parameters.model_validate(task.spec.config)
    trial = Trial(
        spec=task.spec,
        data_digest=data.digest,
        status="completed",
        measurements=tuple(Measurement(name=name, value=value, unit=UNITS[name]) for name, value in count(p).items()),
        environment=environment.describe(torch.device("cpu")),
        started=started,
        duration_s=round(time.monotonic() - clock, 3),
    )
    save(task.setting.store, trial)
    return trial


def count(p: Parameters) -> dict[str, float]:
    """Return every metric that the network ``p`` has, in the units of ``repro.experiments.count.UNITS``."""
    net = AlexNet(protocol=p.protocol, towers=p.towers, overlapping=p.overlapping, removed=p.removed, classes=p.classes)
    size, table = net.size, layers(net)
    if p.preset != "none":
        size, table, _ = presets(p.classes)[p.preset]
    with torch.device("meta"):
        model, x = build(table, size=size), torch.empty(1, 3, size, size)
    input_dimension = x.numel()
    weights, sizes, neurons, macs = [], [], [], []
    for module in model:
        x = module(x)
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights.append(module.weight)
            sizes.append(sum(q.numel() for q in module.parameters()))
            neurons.append(x.numel())
            macs.append(module.weight.numel() * (x[0, 0].numel() if x.dim() == 4 else 1))
    parameters = sum(q.numel() for q in model.parameters())
    shares = [size / parameters for size, w in zip(sizes, weights, strict=True) if w.dim() == 4]
    names = [f"conv{k}" for k in range(1, len(shares) + 1)] + list(LAYERS[5:])
    gpus = 2 if p.towers == "two" and p.preset == "none" else 1
    backward = 2 * sum(macs) - macs[0]  # no gradient of the input pixels is needed
    flop_per_image = 2 * (sum(macs) + backward)
    images_per_s = paper.EPOCHS * paper.TRAINING_IMAGES / (paper.TRAINING_DAYS * 86_400)
    found = {
        "parameters": parameters,
        "neurons": sum(neurons),
        "input-dimension": input_dimension,
        "multiply-adds": sum(macs),
        "multiply-adds-per-gpu": sum(macs) / gpus,
        "neurons-in-figure-2": sum(paper.FIGURE_2_NEURONS),
        "kernels-conv1": len(weights[0]),
        "kernels-conv1-per-gpu": len(weights[0]) / gpus,
        "conv1-side-without-padding": (paper.CROP - 11) / 4 + 1,
        "weighted-layers": len(weights),
        "crop-variants": OFFSETS**2 * 2,
        "bits-per-label": math.log2(p.classes),
        "images-per-second": images_per_s,
        "share-of-peak": images_per_s * flop_per_image / (2 * paper.GTX_580_FLOPS),
    }
    found |= {
        f"validation-from-test-{nets}": round(abs(validation - test), 6)
        for nets, (validation, test) in paper.TABLE_2_TOP5.items()
    }
    found |= {
        "runner-up-gap": round(paper.ILSVRC_2012_TOP5["runner-up"] - paper.ILSVRC_2012_TOP5["winner"], 6),
        "update-rule-error": update_rule_error(),
    }
    found |= {f"colour-noise-{reading}": colour_noise(reading) for reading in get_args(Reading)}
    kernels = [w[0].numel() for w in weights if w.dim() == 4]
    found |= {f"neurons-{name}": n for name, n in zip(names, neurons, strict=True)}
    found |= {f"kernel-inputs-{conv}": n for conv, n in zip(CONVS, kernels, strict=False)}
    found |= {f"share-{conv}": share for conv, share in zip(CONVS, shares, strict=False)}
    return {name: float(value) for name, value in found.items()}


def colour_noise(reading: Reading) -> float:
    """Return the standard deviation of section 4.1's colour shift: root mean square over R, G and B, in 0..255."""
    eigenvalues = torch.tensor(paper.RGB_EIGENVALUES, dtype=torch.float64)
    # The identity stands for the eigenvectors, because rotating the axes leaves the sum of the three variances alone.
    return float(colour_matrix(eigenvalues, torch.eye(3, dtype=torch.float64), reading).square().sum().div(3).sqrt())


def update_rule_error() -> float:
    """Return the largest distance of a weight under ``SGD2012`` from section 5's rule, worked out step by step.

    It takes six steps in float64 and changes the rate after the third: from there the rule and torch's SGD differ.
    """
    weight = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    optimizer = SGD2012([weight])
    w, v, worst = 0.5, 0.0, 0.0
    for rate in (0.01, 0.01, 0.01, 0.001, 0.001, 0.001):
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradient = 3 * w - 1
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        v = 0.9 * v - 0.0005 * rate * w - rate * gradient
        w = w + v
        worst = max(worst, abs(float(weight.detach()) - w))
    return worst
