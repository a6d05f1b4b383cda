"""The pictures that trials are trained on and tested with."""

import torch
from torch import Tensor

from repro import data as data_sets
from repro.datasets import DATASETS
from repro.files import held
from repro.loading.pictures import Pictures
from repro.measure import Place
from repro.paper import STORED


def load(name: str, side: int, place: Place) -> Pictures:
    """Return both halves of the data set ``name``, stored with ``side`` pixels a side.

    Raises DataError where it is missing, altered or not prepared, or holds another set than its name says.
    """
    if name == "embedded":
        from repro.data import drawn

        with held(place.own / f"embedded-{side}.lock", wait=True):  # another run may be drawing it
            made = drawn.prepared(place.own / f"embedded-{side}", side)
        return Pictures(name, len(made.classes), made.digest, prepared=made)
    if name == "cifar10":
        halves = {}
        for split, train_half in (("train", True), ("val", False)):
            half = data_sets.load(name, place.root, train=train_half, download=place.download)
            images = half.images if half.images.shape[1] == side else _enlarged(half.images, side)
            halves[split] = (images, half.labels)
        return Pictures(name, half.classes, half.digest, halves=halves)
    from repro.data import prepared

    if place.root is None:
        raise data_sets.DataError(f"{name} is needed: pass --data DIR, or set REPRO_DATA")
    root = place.root / DATASETS[name].folder
    try:
        found = prepared.load_as(name, root)
    except prepared.NotPrepared as error:
        option = "" if side == STORED else f" --side {side}"
        raise data_sets.DataError(
            f"{name} is not prepared: run `repro data prepare SOURCE {root}{option}`, with SOURCE as it is distributed"
        ) from error
    if found.side != side:
        raise data_sets.DataError(
            f"{found.root} holds images of {found.side} pixels, the condition needs {side}: "
            f"prepare it again with --side {side}"
        )
    return Pictures(name, len(found.classes), found.digest, prepared=found)


def _enlarged(images: Tensor, side: int) -> Tensor:
    """Return uint8 images resized to ``side`` pixels a side, bilinearly."""
    small = images.permute(0, 3, 1, 2)
    parts = [
        torch.nn.functional.interpolate(part.float(), size=(side, side), mode="bilinear", antialias=True).round()
        for part in small.split(1024)
    ]
    return torch.cat(parts).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
