"""The CIFAR-10 nets of cuda-convnet, candidates for the "four-layer network" of the paper's Figure 1.

Sources: example-layers/layers-{conv-local-13pct,18pct,19pct}.cfg and their layer-params files in
cuda-convnet (Krizhevsky 2011). The paper does not say which net Figure 1 shows (section 3.1), so the
choice is a condition, never a constant.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from repro.models.chain import Chain
from repro.models.layers import AvgPool, LocallyConnected2d, SameMapNorm
from repro.models.normalization import ResponseNorm
from repro.models.pooling import MaxPool2d
from repro.seeds import derive


@dataclass(frozen=True)
class Conv:
    """A convolution with "same" padding, then pooling 3x3 with stride 2, in the cfg's terms."""

    filters: int
    kernel: int
    pool: Literal["max", "avg"]
    init_std: float
    norm: bool = False


@dataclass(frozen=True)
class Local:
    """A convolution without weight sharing ("local" in the cfg): 3x3, stride 1, padding 1."""

    filters: int
    init_std: float


FC_INIT_STD = 0.01  # fc10's initW, the same in all three cfgs

WEIGHT_DECAY = {"conv": 0.0, "local": 0.004, "fc": 0.004}
"""By kind of layer, in conv-local-13pct's layer-params file."""

NETS: dict[str, tuple[Conv | Local, ...]] = {
    "conv-local-13pct": (
        Conv(64, 5, "max", init_std=1e-4),
        Conv(64, 5, "max", init_std=0.01),
        Local(32, init_std=0.04),
        Local(32, init_std=0.04),
    ),
    "18pct": (
        Conv(32, 5, "max", init_std=1e-4, norm=True),
        Conv(32, 5, "avg", init_std=0.01, norm=True),
        Conv(64, 5, "avg", init_std=0.01),
    ),
    "19pct": (
        Conv(32, 5, "max", init_std=1e-4),
        Conv(32, 5, "avg", init_std=0.01),
        Conv(64, 5, "avg", init_std=0.01),
    ),
}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


CROSS_MAP = {"size": 9, "scale": 0.001 / 9, "power": 0.75, "k": 1.0}
"""Cross-map LRN of conv-local-11pct, after the first pooling and before the second (layers-conv-local-11pct.cfg)."""


def build(net: str, activation: str, *, classes: int = 10, size: int = 32, cross_map: bool = False) -> Chain:
    """Return the net as a chain from (N, 3, size, size) images to (N, classes) logits.

    ``cross_map`` adds the normalisation across maps that tells conv-local-11pct from conv-local-13pct. Max pooling
    comes before the activation, unless that normalisation lies between them. As activations are increasing, this equals
    the cfgs' order, with a quarter as many activations to compute. Average pooling comes after the activation.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for i, layer in enumerate(NETS[net], start=1):
        act = ACTIVATIONS[activation]()
        if isinstance(layer, Local):
            layers[f"local{i}"] = LocallyConnected2d(channels, layer.filters, kernel=3, size=size)
            layers[f"act{i}"] = act
        else:
            layers[f"conv{i}"] = nn.Conv2d(channels, layer.filters, layer.kernel, padding=layer.kernel // 2)
            if cross_map and i == 2:
                layers[f"act{i}"] = act
                layers[f"norm{i}"] = ResponseNorm(**CROSS_MAP)
                layers[f"pool{i}"] = MaxPool2d(3, 2)
            elif layer.pool == "max":
                layers[f"pool{i}"] = MaxPool2d(3, 2)
                layers[f"act{i}"] = act
            else:
                layers[f"act{i}"] = act
                layers[f"pool{i}"] = AvgPool(3, 2)
            size = (size - 2) // 2 + 1  # 1 + ceil((size - 3) / 2)
            if layer.norm:
                layers[f"norm{i}"] = SameMapNorm(size=3, scale=5e-5)
            if cross_map and i == 1:
                layers[f"norm{i}"] = ResponseNorm(**CROSS_MAP)
        channels = layer.filters
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * size * size, classes)
    return Chain(layers)


def initialise(model: nn.Sequential, net: str, activation: str, protocol: str, seed: int) -> None:
    """Fill the weights in place from ``seed``: the same for every activation, except for the gain of `modern`.

    `code`: normal with each layer's ``initW`` of the cfg, biases 0. `modern`, and any other protocol: Kaiming normal
    over the fan-in with the activation's gain (1 for the last layer), biases 0.
    """
    generator = torch.Generator().manual_seed(derive(seed, "init"))
    weighted = [m for m in model if isinstance(m, nn.Conv2d | LocallyConnected2d | nn.Linear)]
    stds = [layer.init_std for layer in NETS[net]] + [FC_INIT_STD]
    for layer, module in enumerate(weighted):
        last = layer == len(weighted) - 1
        gain = 1.0 if last else nn.init.calculate_gain(activation)
        fan_in = module.fan_in if isinstance(module, LocallyConnected2d) else module.weight[0].numel()
        std = stds[layer] if protocol == "code" else gain / fan_in**0.5
        noise = torch.randn(module.weight.shape, generator=generator)  # on the CPU: one stream for every device
        with torch.no_grad():
            module.weight.copy_(noise * std)
            module.bias.zero_()


def count_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many of (N, classes) logits miss (N,) labels, as a scalar on their device."""
    return (logits.argmax(1) != labels).sum()
