"""What the released 2012 source and its lab notes say, each fact once, with the file that says it.

Source: the source code and settings published by the Computer History Museum, see ``RELEASE``. The
notes at the foot of each ``layers/layer-params-*.cfg`` log how that network was trained and what it scored. A fact
without a value is one that the paper states but the release does not contain.
"""

from collections.abc import Iterable
from typing import NamedTuple

RELEASE = "github.com/computerhistory/AlexNet-Source-Code at 2f8b81f, published by the Computer History Museum"
"""The source of every fact, named so that a reader can find it."""


class Fact(NamedTuple):
    """A value, its unit, and the file of the release that has it; the value is None where none has it."""

    value: float | None
    unit: str
    file: str


_NOTES = "layers/layer-params-145-2010.cfg"
_NET = "layers/layers-145.cfg"
_NOWHERE = "not in the release"

FACTS = {
    # Section 5, "a batch size of 128 examples, momentum of 0.9, and weight decay of 0.0005".
    "batch-size": Fact(128, "images", "convnet.py"),
    "momentum": Fact(0.9, "", _NOTES),
    "weight-decay": Fact(0.0005, "", _NOTES),
    # Section 5, rates: epsW at the start, how often the notes divide it by 10, epsB over epsW at the start.
    "learning-rate": Fact(0.01, "", _NOTES),
    "rate-drops": Fact(3, "drops", _NOTES),
    "epochs": Fact(93, "epochs", _NOTES),
    "bias-rate-over-weight-rate": Fact(2, "ratio", "layers/layer-params-145.cfg"),
    "conv1-rate-over-others-at-the-end": Fact(0, "ratio", _NOTES),
    # Section 5, initial weights (initW) and biases (initB).
    **{f"initial-std-conv{k}": Fact(0.01 if k < 3 else 0.03, "", _NET) for k in range(1, 6)},
    **{f"initial-std-fc{k}": Fact(0.01, "", _NET) for k in range(6, 9)},
    **{f"initial-bias-{layer}": Fact(1, "", _NET) for layer in ("conv2", "conv4", "conv5", "fc6", "fc7")},
    # Section 3.5: filters of the two towers together; outputs of fc2048a with b, and of fc2048ba with bb.
    **{f"kernels-conv{k}": Fact(n, "kernels", _NET) for k, n in enumerate((96, 256, 384, 384, 256), 1)},
    **{f"neurons-fc{k}": Fact(4096, "neurons", _NET) for k in (6, 7)},
    # Section 3.4: sizeX and stride, the same in every pooling layer.
    "pooling-z": Fact(3, "pixels", _NET),
    "pooling-s": Fact(2, "pixels", _NET),
    # Section 3.3: the scale is divided by the size before the squares are summed (layer.py, line 1183).
    "lrn-k": Fact(2, "", _NOTES),
    "lrn-n": Fact(5, "maps", _NET),
    "lrn-alpha": Fact(1e-4 / 5, "", "layer.py"),
    "lrn-beta": Fact(0.75, "", _NOTES),
    # Section 4.2: the "hs" layers, one behind each of the first two fully connected ones.
    "dropout-probability": Fact(0.5, "", _NET),
    "dropout-layers": Fact(2, "layers", _NET),
    "dropout-factor-when-tested": Fact(0.5, "", "src/layer.cu"),
    # Section 4.1.
    "views-when-tested": Fact(10, "views", "convdata_jpeg.py"),
    "crop-places-a-side": Fact(33, "places", "convdata_jpeg.py"),
    # Sections 2 and 6: the data and the other entries are not part of the release.
    "sparse-coding-top1-error": Fact(None, "%", _NOWHERE),
    "sparse-coding-top5-error": Fact(None, "%", _NOWHERE),
    "fisher-vectors-top1-error": Fact(None, "%", _NOWHERE),
    "fisher-vectors-top5-error": Fact(None, "%", _NOWHERE),
    "imagenet-images": Fact(None, "images", _NOWHERE),
    "imagenet-categories": Fact(None, "categories", _NOWHERE),
    "ilsvrc-training-images": Fact(None, "images", _NOWHERE),
    "ilsvrc-validation-images": Fact(None, "images", _NOWHERE),
    "ilsvrc-test-images": Fact(None, "images", _NOWHERE),
}


def files(facts: Iterable[str]) -> list[str]:
    """Return the files of the release that hold the named facts, each once. Raises KeyError for an unknown name."""
    return list(dict.fromkeys(FACTS[name].file for name in facts))
