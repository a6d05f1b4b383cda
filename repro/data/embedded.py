"""A ten-class picture set drawn by procedure: nothing to download, any size, the same bytes for the same seed.

Each picture holds one shape of random place, scale, rotation and colours, over a shaded background with light clutter
and pixel noise. Place, rotation and inverted contrast leave a linear classifier of pixels little to learn, while a
small convolutional net needs a few epochs; so the set can tell nets apart within a minute.
"""

import math
import operator

import numpy as np

CLASSES: tuple[str, ...] = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "star",
    "crescent",
    "stripes",
    "checks",
)

SMALLEST_SIZE = 8  # pixels; below it no class can be told from another

# Directions are looked up in a table rounded to 1/4096, because sine and cosine differ in their last bit from one
# processor to another. What is left (sums, products, roots) is exactly rounded everywhere, so the bytes are the same.
_TURNS = 1024
_TURN = np.array(
    [
        (round(4096 * math.cos(math.tau * k / _TURNS)) / 4096, round(4096 * math.sin(math.tau * k / _TURNS)) / 4096)
        for k in range(_TURNS)
    ],
    dtype=np.float32,
)  # (_TURNS, 2): cosine, sine

_CLUTTER = 3  # strokes behind the shape
_NOISE = 0.12  # half-width of the triangular pixel noise, of a full range of 1
_CHUNK_PIXELS = 1 << 17  # pixels drawn at once: the working planes stay in a processor's cache


def draw(n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `n` labelled pictures of `size` x `size` pixels.

    n: number of pictures, at least 1. size: side in pixels, at least 8. seed: at least 0; sets and splits that must not
    share pictures need different seeds. Place, scale and colours do not depend on `size`: the same n and seed show the
    same pictures at another resolution, apart from pixel noise.

    Returns (images, labels): images uint8 (n, size, size, 3), RGB, 0-255; labels int64 (n,), indices into CLASSES in
    shuffled order, with the number of pictures of any two classes at most 1 apart.

    Raises ValueError if an argument is not an integer or is below its range.
    """
    n = _integer("n", n, 1)
    size = _integer("size", size, SMALLEST_SIZE)
    seed = _integer("seed", seed, 0)
    rng = np.random.Generator(np.random.PCG64(seed))
    # Where n is no multiple of 10, the classes that get one picture more are drawn at random.
    labels = rng.permutation(len(CLASSES))[np.arange(n) % len(CLASSES)].astype(np.int64)
    rng.shuffle(labels)
    scene = _scene(n, rng)
    images = np.empty((n, size, size, 3), np.uint8)
    step = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, n, step):
        part = slice(start, start + step)
        images[part] = _paint(labels[part], {key: value[part] for key, value in scene.items()}, size, rng)
    return images, labels


def _integer(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _scene(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw what each picture shows, apart from class and noise: lengths in units of the side, colours about 0 to 1."""
    # The ranges below and _NOISE were chosen by training at 32 pixels; tests/test_embedded.py holds the outcome.

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return np.float32(low) + np.float32(high - low) * rng.random((n, *shape), dtype=np.float32)

    def turn(*shape: int) -> np.ndarray:
        return _TURN[rng.integers(0, _TURNS, (n, *shape))]

    radius = uniform(0.26, 0.4)
    room = np.float32(0.4) - np.float32(0.8) * radius  # a corner may just leave the picture, never more
    # Shape and ground differ in brightness by a margin, either way round: hue alone never carries the shape.
    dark = uniform(0.12, 0.36)
    light = dark + uniform(0.3, 0.5)
    # Uneven odds, because at even ones the mean picture of every class is flat and gives a net nothing to start from.
    inverted = rng.random(n) < 0.15
    shape_level, ground_level = np.where(inverted, dark, light), np.where(inverted, light, dark)
    return {
        "radius": radius,
        "centre": np.float32(0.5) + uniform(-1, 1, 2) * room[:, None],  # (n, 2)
        "turn": turn(),  # (n, 2)
        "shape_colour": shape_level[:, None] + uniform(-0.1, 0.1, 3),  # (n, 3)
        "ground_colour": ground_level[:, None] + uniform(-0.1, 0.1, 3),  # (n, 3)
        "shade": uniform(-0.15, 0.15, 2),  # (n, 2): change of brightness over one side, across and down
        "stroke_centre": uniform(0, 1, _CLUTTER, 2),
        "stroke_turn": turn(_CLUTTER),
        "stroke_half_length": uniform(0.0, 0.16, _CLUTTER),
        "stroke_radius": uniform(0.015, 0.04, _CLUTTER),
        "stroke_colour": ground_level[:, None, None] + uniform(-0.25, 0.25, _CLUTTER, 3),
    }


def _paint(labels: np.ndarray, scene: dict[str, np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    n = len(labels)
    middle = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = middle[None, None, :], middle[None, :, None]

    def moved(centre: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Pixel middles as seen from a shape at `centre`, turned by `turn`; each (n, size, size).
        dx, dy = x - _each(centre[:, 0]), y - _each(centre[:, 1])
        cosine, sine = _each(turn[:, 0]), _each(turn[:, 1])
        return dx * cosine + dy * sine, dy * cosine - dx * sine

    def cover(distance: np.ndarray) -> np.ndarray:
        # The share of a pixel inside an edge at `distance` (in sides): a ramp one pixel wide, against jagged edges.
        return np.clip(np.float32(0.5) - distance * np.float32(size), 0, 1)

    shade = _each(scene["shade"][:, 0]) * (x - np.float32(0.5)) + _each(scene["shade"][:, 1]) * (y - np.float32(0.5))
    # Channels come first until the end: whole planes are far quicker to work on than triples.
    planes = [_each(scene["ground_colour"][:, c]) + shade for c in range(3)]

    def over(mask: np.ndarray, colour: np.ndarray) -> None:
        for c, plane in enumerate(planes):
            plane += mask * (_each(colour[:, c]) - plane)

    for k in range(_CLUTTER):
        u, v = moved(scene["stroke_centre"][:, k], scene["stroke_turn"][:, k])
        u = np.maximum(np.abs(u) - _each(scene["stroke_half_length"][:, k]), 0)
        over(cover(np.sqrt(u * u + v * v) - _each(scene["stroke_radius"][:, k])), scene["stroke_colour"][:, k])

    u, v = moved(scene["centre"], scene["turn"])
    radius = _each(scene["radius"])
    distance = np.empty((n, size, size), np.float32)
    for label, name in enumerate(CLASSES):
        rows = np.flatnonzero(labels == label)
        distance[rows] = radius[rows] * _distance(name, u[rows] / radius[rows], v[rows] / radius[rows])
    over(cover(distance), scene["shape_colour"])

    noise = rng.random((2, 3, n, size, size), dtype=np.float32)
    picture = np.stack(planes) + np.float32(_NOISE) * (noise[0] - noise[1])
    picture = np.floor(np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return picture.transpose(1, 2, 3, 0)  # (n, size, size, 3)


def _each(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]


def _distance(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the approximate distance from (u, v) to the edge of a shape of radius 1 at the origin; negative inside."""
    f = np.float32
    au, av = np.abs(u), np.abs(v)
    disc = np.sqrt(u * u + v * v) - f(1)
    match name:
        case "disc":
            return disc + f(0.1)
        case "ring":
            return np.abs(disc + f(0.2)) - f(0.17)
        case "square":
            return np.maximum(au, av) - f(0.78)
        case "frame":
            return np.abs(np.maximum(au, av) - f(0.65)) - f(0.16)
        case "triangle":
            return np.maximum(np.maximum(f(0.866) * u + f(0.5) * v, f(0.5) * v - f(0.866) * u), -v) - f(0.5)
        case "cross":
            return np.minimum(np.maximum(au - f(0.95), av - f(0.28)), np.maximum(au - f(0.28), av - f(0.95)))
        case "star":
            # A five-pointed star is where at most one of its five lines has the point on its far side.
            sides = np.stack([u * c + v * s for c, s in _TURN[[0, 205, 410, 614, 819]]]) - f(0.36)
            return np.partition(sides, 3, axis=0)[3]
        case "crescent":
            u = u - f(0.45)
            return np.maximum(disc, f(0.75) - np.sqrt(u * u + v * v))
        case "stripes":
            # Half the distance to the middle of the nearest of three bars, cut to the disc.
            bar = f(0.18) - np.abs(np.abs(u - f(0.72) * np.floor(u / f(0.72))) - f(0.36))
            return np.maximum(disc, bar)
        case "checks":
            a = f(0.25) - np.abs(u - f(1.0) * np.floor(u) - f(0.5))
            b = f(0.25) - np.abs(v - f(1.0) * np.floor(v) - f(0.5))
            return np.maximum(disc, np.where((a < 0) == (b < 0), f(1), f(-1)) * np.minimum(np.abs(a), np.abs(b)))
    raise AssertionError(name)
