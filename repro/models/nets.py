"""Builds the network of a trial from its switches, ready to train."""

from typing import Protocol

from torch import nn

from repro.models import cifar
from repro.models.alexnet import AlexNet, build, initialise, layers
from repro.models.presets import presets


class Switches(Protocol):
    """The parameters that determine a network; see ``repro.experiments.final_error.Parameters``."""

    net: str
    protocol: str
    activation: str
    norm: str
    overlapping: bool
    towers: str
    removed: int | None
    dropout: bool
    crop: int


def network(p: Switches, classes: int, seed: int) -> nn.Sequential:
    """Return the network with its initial weights drawn from ``seed``.

    Raises ValueError for a value of a switch that the network does not have.
    """
    if p.net == "batch-norm-clone":
        table = presets(classes)[p.net].table
    elif p.net in cifar.NETS:
        if p.norm not in ("none", "lrn"):
            raise ValueError(f"{p.net} has norm 'none' or 'lrn', not {p.norm!r}")
        model = cifar.build(p.net, p.activation, classes=classes, size=p.crop, cross_map=p.norm == "lrn")
        cifar.initialise(model, p.net, p.activation, p.protocol, seed)
        return model
    else:
        table = layers(
            AlexNet(
                protocol=p.protocol, form=p.net, activation=p.activation, norm=p.norm, overlapping=p.overlapping,
                towers=p.towers, dropout=p.dropout, removed=p.removed, classes=classes, size=p.crop,
            )
        )  # fmt: skip
    model = build(table, size=p.crop)
    initialise(model, table, p.protocol, seed)
    return model
