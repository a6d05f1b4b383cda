"""What the network of 2012 sees of a stored image: crops, flips, colour noise, ten views.

Plain tensor functions on uint8 or float images (N, H, W, 3) in 0..255, the reference every loader is checked against.
Sources: section 4.1 (data augmentation) and section 5 of the paper; convdata_jpeg.py of the released source.
"""

from typing import Literal

import torch
from torch import Tensor

from repro import paper

OFFSETS = paper.STORED - paper.CROP + 1
"""Places of a crop along one side: 33, so 33 * 33 * 2 = 2,178 variants, where the paper counts 2,048."""

Reading = Literal["code", "unit", "literal"]
"""How to read "a Gaussian with standard deviation 0.1 times the eigenvalues": see ``colour_matrix``."""


def crop(images: Tensor, offsets: Tensor, size: int) -> Tensor:
    """Return windows of ``size`` pixels, (N, size, size, 3), whose upper left corners are ``offsets``, (N, 2) as y, x.

    Raises IndexError where a window reaches over the edge.
    """
    n, height, width = images.shape[:3]
    if len(offsets) and not (int(offsets.min()) >= 0 and int((offsets.amax(0)).max()) <= min(height, width) - size):
        raise IndexError(f"a window of {size} at {offsets.amax(0).tolist()} does not lie in {height} x {width}")
    span = torch.arange(size, device=images.device)
    rows = offsets[:, 0, None] + span  # (N, size)
    columns = offsets[:, 1, None] + span
    return images[torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def mirror(images: Tensor, flips: Tensor) -> Tensor:
    """Return the images, mirrored left to right where ``flips`` (N,) is true."""
    return torch.where(flips[:, None, None, None], images.flip(2), images)


def colour_matrix(eigenvalues: Tensor, eigenvectors: Tensor, reading: Reading) -> Tensor:
    """Return M, (3, 3), such that M @ N(0, 1)^3 is the shift of a pixel's RGB, in levels of 0..255.

    ``eigenvalues`` (3,) and ``eigenvectors`` (3, 3, one a column) are of the covariance of RGB in 0..255. `code`
    multiplies by their square roots (the released source's ``color_stdevs``), `unit` reads the formula on pixels in
    0..1, `literal` as printed in 0..255. Raises ValueError for another reading.
    """
    if reading == "code":
        factor = eigenvalues.sqrt()
    elif reading == "unit":
        factor = eigenvalues / 255.0
    elif reading == "literal":
        factor = eigenvalues
    else:
        raise ValueError(f"unknown reading {reading!r}; known: code, unit, literal")
    return paper.COLOUR_STD * eigenvectors * factor


def ten_views(images: Tensor, size: int) -> Tensor:
    """Return (N, 10, size, size, 3): the four corners and the centre, then the same five mirrored (section 4.1)."""
    bottom, right = images.shape[1] - size, images.shape[2] - size
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    five = torch.stack([images[:, y : y + size, x : x + size] for y, x in corners], dim=1)
    return torch.cat([five, five.flip(3)], dim=1)


def mean_softmax(logits: Tensor) -> Tensor:
    """Return the mean over views of each view's softmax, (N, views, classes) to (N, classes)."""
    return logits.softmax(2).mean(1)
