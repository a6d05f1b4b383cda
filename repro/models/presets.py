"""Well-known networks called AlexNet, as tables next to that of 2012, so that anybody can see how theirs differs.

Sources: torchvision.models.alexnet (after Krizhevsky 2014, "One weird trick"); BVLC/caffe models/bvlc_alexnet and
models/bvlc_reference_caffenet (train_val.prototxt); re-implementations in Keras with batch norm for LRN.
"""

from typing import NamedTuple

from repro import paper
from repro.models.alexnet import AlexNet, Conv, Dropout, Layer, Linear, Normalise, Pool, layers

CAFFE_LRN = Normalise(
    "lrn", towers=1, scale=paper.LRN_ALPHA / paper.LRN_SIZE, k=1.0
)  # caffe divides by n; k was not yet an option


class Preset(NamedTuple):
    """A well-known network: input side in pixels, table of layers, and a note on what sets it apart."""

    size: int
    table: tuple[Layer, ...]
    note: str


def _one_weird_trick(classes: int) -> tuple[Layer, ...]:
    pool, drop = Pool(3, 2), Dropout(inverted=True)
    convs: tuple[Layer, ...] = (
        Conv(64, 11, 4, 2), "relu", pool, Conv(192, 5, 1, 2), "relu", pool, Conv(384, 3, 1, 1), "relu",
        Conv(256, 3, 1, 1), "relu", Conv(256, 3, 1, 1), "relu", pool,
    )  # fmt: skip
    return (*convs, drop, Linear(4096), "relu", drop, Linear(4096), "relu", Linear(classes))


def _caffe(classes: int, *, pool_first: bool, bias: float, fc_bias: float) -> tuple[Layer, ...]:
    pool, drop = Pool(3, 2), Dropout(inverted=True)
    shrink: tuple[Layer, ...] = (pool, CAFFE_LRN) if pool_first else (CAFFE_LRN, pool)
    convs: tuple[Layer, ...] = (
        Conv(96, 11, 4), "relu", *shrink, Conv(256, 5, 1, 2, 2, bias=bias), "relu", *shrink, Conv(384, 3, 1, 1), "relu",
        Conv(384, 3, 1, 1, 2, bias=bias), "relu", Conv(256, 3, 1, 1, 2, bias=bias), "relu", pool,
    )  # fmt: skip
    fc = Linear(4096, std=0.005, bias=fc_bias)
    return (*convs, fc, "relu", drop, fc, "relu", drop, Linear(classes))


def _batch_norm_clone(classes: int) -> tuple[Layer, ...]:
    pool, drop, norm = Pool(3, 2), Dropout(inverted=True), Normalise("batch")
    convs: tuple[Layer, ...] = (
        Conv(96, 11, 4), "relu", norm, pool, Conv(256, 5, 1, 2), "relu", norm, pool, Conv(384, 3, 1, 1), "relu", norm,
        Conv(384, 3, 1, 1), "relu", norm, Conv(256, 3, 1, 1), "relu", norm, pool,
    )  # fmt: skip
    return (*convs, Linear(4096), "relu", drop, Linear(4096), "relu", drop, Linear(classes))


def presets(classes: int = paper.CLASSES) -> dict[str, Preset]:
    """Return every preset by name, the 2012 networks first."""
    two, half = (AlexNet(protocol="code", towers=towers, classes=classes) for towers in ("two", "half"))
    return {
        "paper": Preset(paper.CROP, layers(AlexNet(classes=classes)), "the text of 2012, two towers"),
        "code": Preset(
            paper.CROP, layers(two), "the released source: LRN on the linear conv1, a second norm in layer 2"
        ),
        "one-gpu": Preset(paper.CROP, layers(half), "half the kernels in conv1 to conv4, for section 3.2"),
        "torchvision": Preset(
            224, _one_weird_trick(classes), "Krizhevsky's 2014 net, not 2012's: fewer maps, no groups, no LRN"
        ),
        "bvlc_alexnet": Preset(
            227, _caffe(classes, pool_first=False, bias=0.1, fc_bias=0.1), "227 crops, LRN with k = 1, bias 0.1"
        ),
        "caffenet": Preset(
            227, _caffe(classes, pool_first=True, bias=1.0, fc_bias=1.0), "as bvlc_alexnet, pooling before LRN"
        ),
        "batch-norm-clone": Preset(
            227, _batch_norm_clone(classes), "batch norm for LRN, no groups, no padding in conv1"
        ),
    }
