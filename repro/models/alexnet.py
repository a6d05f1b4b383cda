"""The network of 2012 as a table of layers, with one switch for each factor that may vary.

Sources: sections 3 to 5 of the paper (protocol ``paper``); layers/layers-145.cfg, its params file and layer.py of
the released 2012 source (protocol ``code``). Both are here where they differ, and so is today's practice
(protocol ``modern``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from repro import choices, paper
from repro.models import dropout
from repro.models.chain import Chain
from repro.models.layers import SameMapNorm
from repro.models.normalization import MeanResponseNorm, ResponseNorm
from repro.models.pooling import MaxPool2d
from repro.seeds import derive


@dataclass(frozen=True)
class Conv:
    """A convolution: ``pad`` on all sides, or (left, right, top, bottom) where the sides differ."""

    filters: int
    kernel: int
    stride: int = 1
    pad: int | tuple[int, int, int, int] = 0
    groups: int = 1
    std: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Linear:
    """A fully connected layer on all outputs of the layer before it."""

    outputs: int
    std: float = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Pool:
    """Max pooling with the output size rounded up: the last window may reach over the edge."""

    kernel: int
    stride: int


@dataclass(frozen=True)
class Normalise:
    """A normalisation, by name; ``batch`` is torch's batch norm."""

    kind: Literal["lrn", "lrn-mean", "same-map", "batch"]
    towers: int = 1
    scale: float = paper.LRN_ALPHA
    k: float = paper.LRN_K


@dataclass(frozen=True)
class Dropout:
    """Dropout with probability 0.5; ``inverted``: scaled in training rather than in testing."""

    inverted: bool


Layer = Conv | Linear | Pool | Normalise | Dropout | choices.Activation


class Form(NamedTuple):
    """How large the network is; everything else about it is the same.

    ``conv_gain`` and ``fc_gain`` widen the initial weights where layers have fewer inputs than in 2012, so that
    activations keep their size.
    """

    filters: tuple[int, int, int, int, int]
    hidden: int
    first: tuple[int, int, int | tuple[int, int, int, int]]
    """Kernel, stride and padding of conv1."""
    conv2_apart: int
    """Padding of conv2 where pooling does not overlap; maps from pool2 on are then as large as where it does."""
    conv_gain: float = 1.0
    fc_gain: float = 1.0


FORMS = {
    # 224 pixels give 55 places only if the last window reaches 3 pixels over the right and bottom edge.
    "alexnet": Form((96, 256, 384, 384, 256), 4096, (11, 4, (0, 3, 0, 3)), conv2_apart=1),
    # For pictures of 32 pixels and crops of 28: about a quarter of the maps, and conv1 has stride 1.
    "alexnet-32": Form((32, 64, 96, 96, 64), 256, (5, 1, 2), conv2_apart=2, conv_gain=2.0, fc_gain=4.0),
}


@dataclass(frozen=True)
class AlexNet:
    """The switches that determine a network; each changes one thing.

    ``towers``: "two" are the paper's two GPUs, "half" its one-GPU net (layers-145-half.cfg: half the kernels in
    conv1 to conv4, conv5 and the fully connected layers whole), "ungrouped" lets every layer see all maps.
    ``removed``: the convolution that is left out, 2 to 5. ``overlapping``: pooling 3x3 with stride 2, else 2x2 with the
    paddings of layers-147.cfg, which keep the last maps at 6x6.
    """

    protocol: choices.Protocol = "paper"
    form: choices.Form = "alexnet"
    activation: choices.Activation = "relu"
    norm: choices.Norm = "lrn"
    overlapping: bool = True
    towers: choices.Towers = "two"
    dropout: bool = True
    removed: int | None = None
    classes: int = paper.CLASSES
    size: int = paper.CROP


def layers(net: AlexNet) -> tuple[Layer, ...]:
    """Return the table of layers of ``net``. Raises ValueError for a convolution that cannot be removed."""
    if net.removed is not None and net.removed not in (2, 3, 4, 5):
        raise ValueError(f"convolution {net.removed} cannot be removed; 2 to 5 can")
    code, form = net.protocol == "code", FORMS[net.form]
    groups = 2 if net.towers == "two" else 1
    half = 2 if net.towers == "half" else 1
    std, deep_std = 0.01 * form.conv_gain, (0.03 if code else 0.01) * form.conv_gain  # see initial-weights
    pool = Pool(3, 2) if net.overlapping else Pool(2, 2)
    act = net.activation
    one, two, three, four, five = form.filters
    kernel, stride, pad = form.first
    conv1 = Conv(one // half, kernel, stride, pad, std=std)
    conv2 = Conv(two // half, 5, 1, 2 if net.overlapping else form.conv2_apart, groups, std, bias=1.0)
    conv3 = Conv(three // half, 3, 1, 1, std=deep_std)
    conv4 = Conv(four // half, 3, 1, 1, groups, deep_std, bias=1.0)
    conv5 = Conv(five, 3, 1, 1 if net.overlapping else 0, groups, deep_std, bias=1.0)
    first: list[Layer] = [act, *_norm(net)] if not code else _norm(net)
    spatial: list[Layer] = [Normalise("same-map", scale=1e-3, k=1.0)] if code and net.norm == "lrn" else []
    fc: list[Layer] = []
    for _ in range(2):
        drop: list[Layer] = [Dropout(inverted=net.protocol == "modern")] if net.dropout else []
        fc += [Linear(form.hidden, 0.01 * form.fc_gain, bias=1.0), act, *drop]
    table: list[Layer] = [conv1, *first, pool, *([act] if code else [])]
    table += [conv2, act, *_norm(net), *spatial] if net.removed != 2 else []
    table += [pool]
    for number, conv in ((3, conv3), (4, conv4), (5, conv5)):
        table += [conv, act] if net.removed != number else []
    return (*table, pool, *fc, Linear(net.classes, 0.01 * form.fc_gain))


def _norm(net: AlexNet) -> list[Layer]:
    """Return the normalisation after a layer, by tower; under ``code`` its scale is a fifth of the printed alpha."""
    scale = paper.LRN_ALPHA / paper.LRN_SIZE if net.protocol == "code" else paper.LRN_ALPHA
    towers = 2 if net.towers == "two" else 1
    match net.norm:
        case "none":
            return []
        case "batch":
            return [Normalise("batch")]
        case "lrn":
            return [Normalise("lrn", towers, scale)]
        case "lrn-all-maps":
            return [Normalise("lrn", 1, scale)]
        case "lrn-mean":
            return [Normalise("lrn-mean", towers, scale)]


def build(table: Sequence[Layer], *, size: int = paper.CROP) -> Chain:
    """Return the table as a chain from (N, 3, size, size) to (N, classes); weights are not set.

    Modules are named conv1, pool1, fc6, and so on, counted as the paper counts its eight layers. Dropout is keyed by
    seed 0, until ``repro.models.dropout.key`` is called with another.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    weighted = pools = 0
    channels, flat = 3, False
    for position, layer in enumerate(table):
        match layer:
            case Conv():
                weighted += 1
                if isinstance(layer.pad, tuple):
                    modules[f"pad{weighted}"] = nn.ZeroPad2d(layer.pad)
                pad = 0 if isinstance(layer.pad, tuple) else layer.pad
                modules[f"conv{weighted}"] = nn.Conv2d(
                    channels, layer.filters, layer.kernel, layer.stride, pad, groups=layer.groups
                )
                border = sum(layer.pad[:2]) if isinstance(layer.pad, tuple) else 2 * layer.pad
                size, channels = (size + border - layer.kernel) // layer.stride + 1, layer.filters
            case Linear():
                weighted += 1
                if not flat:
                    modules["flatten"] = nn.Flatten()
                    channels, flat = channels * size * size, True
                modules[f"fc{weighted}"] = nn.Linear(channels, layer.outputs)
                channels = layer.outputs
            case Pool():
                pools += 1
                modules[f"pool{pools}"] = MaxPool2d(layer.kernel, layer.stride)
                size = -(-(size - layer.kernel) // layer.stride) + 1
            case Normalise():
                modules[f"norm{position}"] = _normalisation(layer, channels)
            case Dropout():
                modules[f"dropout{weighted}"] = dropout.Dropout(inverted=layer.inverted)
            case _:
                modules[f"act{position}"] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[layer]()
    model = Chain(modules)
    dropout.key(model, seed=0)
    return model


def _normalisation(layer: Normalise, channels: int) -> nn.Module:
    if layer.kind == "batch":
        return nn.BatchNorm2d(channels)
    if layer.kind == "same-map":
        return SameMapNorm(size=5, scale=layer.scale)
    kind = MeanResponseNorm if layer.kind == "lrn-mean" else ResponseNorm
    return kind(size=paper.LRN_SIZE, scale=layer.scale, power=paper.LRN_BETA, k=layer.k, towers=layer.towers)


def initialise(model: nn.Sequential, table: Sequence[Layer], protocol: choices.Protocol, seed: int) -> None:
    """Fill the weights in place from ``seed``: normal with the table's std and bias, or Kaiming under ``modern``."""
    generator = torch.Generator().manual_seed(derive(seed, "init"))
    weighted = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    rows = [layer for layer in table if isinstance(layer, Conv | Linear)]
    for module, row in zip(weighted, rows, strict=True):
        gain = 1.0 if module is weighted[-1] else 2.0**0.5
        std = gain / module.weight[0].numel() ** 0.5 if protocol == "modern" else row.std
        noise = torch.randn(module.weight.shape, generator=generator)
        with torch.no_grad():
            module.weight.copy_(noise * std)
            assert module.bias is not None
            module.bias.fill_(0.0 if protocol == "modern" else row.bias)
