"""What the paper's Figures 3 and 4 show, from a network of ours that was looked into: kernels, answers, neighbours.

``looked.npz`` beside the record of a ``probe`` trial holds them, ``pictures.npz`` the pictures; ``repro.measure.probe``
writes both. Where there are no pictures, as in committed records of real data, the classes are shown instead.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import store
from repro.experiments import TRAINED
from repro.experiments.probe import colour_shares
from repro.files import StoreError

if TYPE_CHECKING:
    import numpy as np

SCALES = ("paper", "reduced", "smoke")
"""Scales of conditions, the one whose networks are preferred first."""


def shown(summary: Mapping[str, Any], root: Path) -> dict[str, Any] | None:
    """Return what the page shows of one network: the largest condition's first seed; None where none was looked into.

    Raises StoreError where the files beside its record cannot be read.
    """
    found = [
        (SCALES.index(condition["scale"]), trial["seed"], claim, condition, trial)
        for claim in summary["claims"]
        if claim["experiment"] == "probe"
        for condition in claim["conditions"]
        for trial in condition["trials"]
        if trial["status"] == "completed" and (store.folder(root, trial["digest"]) / "looked.npz").is_file()
    ]
    if not found:
        return None
    _, seed, claim, condition, trial = min(found, key=lambda one: one[:2])
    kept = _arrays(store.folder(root, trial["digest"]) / "looked.npz")
    pictures = _arrays(store.folder(root, trial["digest"]) / "pictures.npz")
    told = {
        "net": condition["parameters"]["net"], "dataset": condition["dataset"], "protocol": condition["protocol"],
        "scale": condition["scale"], "epochs": trial["measurements"].get(TRAINED), "seed": seed,
        "digest": trial["digest"], "command": condition["command"], "claim": claim["id"],
        "pictures": bool(pictures),
    }  # fmt: skip
    try:
        return told | {
            "kernels": _kernels(kept["kernels"], told),
            "count": len(kept["kernels"]),
            "side": kept["kernels"].shape[2],
            "chroma": colour_shares(kept["kernels"], towers=2),
            "answers": _answers(kept, pictures),
            "neighbours": _neighbours(kept, pictures),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise StoreError(f"{store.folder(root, trial['digest'])}: not what a look leaves behind ({error})") from error


def _arrays(path: Path) -> "dict[str, np.ndarray[Any, Any]]":
    """Return the arrays of a file, none where there is no file. Raises StoreError."""
    import numpy as np

    try:
        content = io.BytesIO(path.read_bytes())  # numpy would leave a damaged archive open that it opened by name
        with np.load(content, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        return {}
    except Exception as error:  # a damaged archive fails in many ways, and all mean this
        raise StoreError(f"cannot read {path}: {error}; remove the trial's folder to run it again") from error


def _kernels(kernels: "np.ndarray[Any, Any]", told: Mapping[str, Any]) -> str:
    """Return the kernels as one picture: each is scaled by its largest absolute weight, with zero at mid-scale."""
    from repro.report import figures, svg

    scaled = kernels.astype("float64").transpose(0, 2, 3, 1)
    scaled = 0.5 + 0.5 * scaled / abs(scaled).max(axis=(1, 2, 3), keepdims=True)
    title = (
        f"The {len(kernels)} kernels of conv1 of {told['net']}, trained on {told['dataset']}, each {kernels.shape[2]} "
        "pixels square, the first tower's above the second's"
    )
    height = 0.1 + svg.WIDTH / figures.COLUMNS * (figures.kernel_rows(len(kernels)) + 0.5)
    return svg.render(
        lambda ax: figures.kernels(scaled, ax, towers=2), title=title, height=height, left=0.02, top=0.02, bottom=0.02
    )


def _answers(kept: Mapping[str, Any], pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each test image with its class and the five classes the network finds most probable."""
    names = kept["names"]
    rows = zip(kept["truth"], kept["answers"], kept["probabilities"], strict=True)
    return [
        {
            "truth": str(names[truth]),
            "picture": _picture(pictures, "queries", i),
            "best": [
                {"name": str(names[a]), "share": float(p), "right": bool(a == truth)}
                for a, p in zip(answers, probabilities, strict=True)
            ],
        }
        for i, (truth, answers, probabilities) in enumerate(rows)
    ]


def _neighbours(kept: Mapping[str, Any], pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the first test images with the training images nearest to them, nearest first."""
    names = kept["names"]
    return [
        {
            "truth": str(names[kept["truth"][i]]),
            "picture": _picture(pictures, "queries", i),
            "nearest": [
                {
                    "name": str(names[label]),
                    "picture": _picture(pictures, "neighbours", i, j),
                    "alike": bool(label == kept["truth"][i]),
                }
                for j, label in enumerate(labels)
            ],
        }
        for i, labels in enumerate(kept["neighbour_labels"])
    ]


def _picture(pictures: Mapping[str, Any], name: str, *place: int) -> str | None:
    """Return one of the pictures, None where none were kept."""
    return _png(pictures[name][place]) if pictures else None


def _png(image: "np.ndarray[Any, Any]") -> str:
    """Return an image, uint8 (side, side, 3), as a data URI."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
