"""Bring pictures into the paper's form: the short side to 256 pixels, the centre cut out, a JPEG file each.

Section 2 of the paper: "Given a rectangular image, we first rescaled the image such that the shorter side was of length
256, and then cropped out the central 256 x 256 patch from the resulting image." The source of 2012 lacks this step; the
authors' later release has it (cuda-convnet2, make-data/pyext/src/pyext.cpp); sizes and places are rounded here as they
are there. That release averages over areas where it shrinks, and interpolates cubically where it enlarges. Pillow's
bicubic filter is cubic too where it enlarges, and widens with the scale where it shrinks: on ImageNet's sizes its
result differs from exact averages by 1.7 levels (root mean square), bilinear's by 1.5, that of Pillow's box by 5.3.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from repro.data import DataError
from repro.data.labels import Picture, listing
from repro.data.prepared import (
    MANIFEST,
    SCHEMA,
    Entry,
    Manifest,
    Prepared,
    Progress,
    files_in,
    load,
    read_manifest,
    write_manifest,
)
from repro.data.processes import cores, in_processes, stopping
from repro.problem import first_line

QUALITY = 95
BYTES_PER_PIXEL = 0.63
"""Bytes per pixel of a prepared file: the mean over 250 pictures of ImageNet, to estimate the disk space needed."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # none of those that Pillow hands to other programs
JOURNAL = "journal.jsonl"
CHUNK = 16  # pictures per task: enough that handing over a task costs little, and few enough that it is over soon
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation -> the transposition that sets the picture upright."""


def prepare(
    source: Path,
    out: Path,
    *,
    side: int = 256,
    jobs: int | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[Prepared, list[str]]:
    """Prepare the pictures of ``source`` (see repro.data.labels) in ``out``; return the set, and a line per bad one.

    The same call again continues where it stopped, and makes what is missing. Nothing counts as prepared before the
    manifest is written, which comes last. Bad pictures (not decodable, or over Pillow's size limit) are left out with
    ``skip_bad``; otherwise a DataError names them once all others are done. Raises DataError too where ``source`` or
    ``out`` cannot be used, ``out`` was prepared otherwise, or the disk is full. ``jobs`` is the number of processes
    (default: one per core).
    """
    _keep_apart(source, out)
    pictures = listing(source)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            return _prepare(pictures, out, side, jobs or cores(), skip_bad, progress)
    except OSError as error:
        raise DataError(f"cannot write {error.filename or out}: {error.strerror or error}") from error


def _prepare(
    pictures: list[Picture], out: Path, side: int, jobs: int, skip_bad: bool, progress: Progress | None
) -> tuple[Prepared, list[str]]:
    known = _known(out, side)
    _check_same(out, pictures, known)
    if len(known) == len(pictures):
        with contextlib.suppress(DataError):  # if it is not whole, the rest of this function repairs it
            return load(out), []
    _check_space(out, side, len(pictures) - len(known))
    for folder in sorted({picture.target.rpartition("/")[0] for picture in pictures}):
        (out / folder).mkdir(parents=True, exist_ok=True)
    tasks = (
        (out, side, [(picture, known.get(picture.target)) for picture in pictures[at : at + CHUNK]])
        for at in range(0, len(pictures), CHUNK)
    )
    entries: dict[str, Entry] = {}
    bad: list[str] = []
    with _journal(out, side, known) as journal, contextlib.closing(in_processes(_convert_all, tasks, jobs)) as results:
        for good, faults in results:
            bad += faults
            for path, entry in good.items():
                entries[path] = entry
                if known.get(path) != entry:
                    journal.write(_line(path, entry))
            journal.flush()  # killed after this, these are kept
            if progress is not None:
                progress(len(entries) + len(bad), len(pictures))
    bad.sort()
    if bad and not skip_bad:
        told = f"{len(bad)} of {len(pictures)} pictures are bad: replace or remove them, or leave them out (--skip-bad)"
        raise DataError("\n".join([told, *bad]))
    lost = {(p.split, p.label) for p in pictures} - {tuple(path.split("/")[:2]) for path in entries}
    if lost:
        raise DataError("\n".join([f"no picture of class {min(lost)[1]} in {min(lost)[0]} can be used", *bad]))
    write_manifest(out, Manifest(side, dict(sorted(entries.items())), len(bad)))
    (out / JOURNAL).unlink()
    return load(out), bad


def _keep_apart(source: Path, out: Path) -> None:
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise DataError(f"{out} and {source} lie one in the other: choose an OUT outside of SOURCE")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose another OUT")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold ``out`` for this process. Raises DataError where another one holds it."""
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is preparing {out}: wait for it, or choose another OUT") from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)


# What was done before is in the manifest if it was finished, else in the journal, one line per picture.


def _known(out: Path, side: int) -> dict[str, Entry]:
    """Return what earlier calls finished in ``out``. Raises DataError where it holds other things or another side."""
    sides: list[int] = []
    known: dict[str, Entry] = {}
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        sides.append(manifest.side)
        known.update(manifest.entries)
    if (out / JOURNAL).exists():
        for line in (out / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line cut short: its picture is done again
                found = json.loads(line)
                if isinstance(found, dict):
                    sides.append(found["side"])
                else:
                    path, size, sums, length = found
                    known[path] = Entry(size, sums, length)
    elif not sides and any(not path.name.startswith(".") for path in out.iterdir()):
        raise DataError(f"{out} holds other things: choose an OUT that is new or empty")
    if any(other != side for other in sides):
        raise DataError(f"{out} was prepared with side {sides[0]}, not {side}: choose another OUT, or delete it")
    return known


def _check_same(out: Path, pictures: list[Picture], known: Mapping[str, Entry]) -> None:
    """Raise DataError where ``out`` has pictures that the source lacks or has otherwise; remove half-written files."""
    lengths = {picture.target: picture.length for picture in pictures}
    strange = next((path for path, entry in known.items() if lengths.get(path) != entry.source), None)
    for path, _ in files_in(out):
        name = path.rpartition("/")[2]
        if re.fullmatch(r"\..*\.part", name):
            (out / path).unlink()
        elif path not in lengths and not name.startswith("."):
            strange = strange or path
    if strange is not None:
        raise DataError(
            f"{out} was prepared from something else: SOURCE has no {strange}, or another; choose another OUT, or "
            "delete it"
        )


def _check_space(out: Path, side: int, count: int) -> None:
    needed, free = count * side * side * BYTES_PER_PIXEL, shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out} is on a disk with {free / 1e9:.1f} GB free, and {count} pictures need about {needed / 1e9:.1f} GB: "
            "make room, or choose another OUT"
        )


@contextlib.contextmanager
def _journal(out: Path, side: int, known: Mapping[str, Entry]) -> Iterator[TextIO]:
    """Open the journal of ``out``, which begins with ``known`` and replaces the manifest, to write more lines."""
    path, part = out / JOURNAL, out / f".{JOURNAL}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"schema": SCHEMA, "side": side}) + "\n")
        file.writelines(_line(*item) for item in known.items())
    part.replace(path)
    (out / MANIFEST).unlink(missing_ok=True)
    with path.open("a", encoding="utf-8") as file:
        yield file


def _line(path: str, entry: Entry) -> str:
    return json.dumps([path, entry.size, entry.sha256, entry.source], ensure_ascii=False) + "\n"


# In the worker processes.


def _convert_all(
    task: tuple[Path, int, list[tuple[Picture, Entry | None]]],
) -> tuple[dict[str, Entry], list[str]]:
    """Convert some pictures; return the entries of the good ones by path, and a line for each bad one.

    A file that was finished before is kept if it has not changed. Raises DataError where a source cannot be read or a
    file cannot be written, which is no fault of the picture.
    """
    out, side, pictures = task
    good: dict[str, Entry] = {}
    bad: list[str] = []
    for picture, known in pictures:
        if stopping():
            break
        path = out / picture.target
        if known is not None and _is_still(path, known):
            good[picture.target] = known
            continue
        try:
            content = convert(_read(picture), side)
        except DataError:
            raise
        except MemoryError:
            raise DataError(f"not enough memory for {picture}: try fewer --jobs") from None
        except Exception as error:  # noqa: BLE001 - there is no end of what a bad file makes a decoder raise
            bad.append(f"bad: {picture}: {_reason(picture, error)}")
            path.unlink(missing_ok=True)
            continue
        _write(path, content)
        good[picture.target] = Entry(len(content), hashlib.sha256(content).hexdigest(), picture.length)
    return good, bad


def _is_still(path: Path, known: Entry) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256
    except OSError:
        return False


def _read(picture: Picture) -> bytes:
    try:
        with Path(picture.path).open("rb", buffering=0) as file:
            file.seek(picture.offset)
            content = file.read(picture.length)
    except OSError as error:
        raise DataError(f"cannot read {picture}: {error.strerror or error}") from error
    if len(content) != picture.length:
        raise DataError(f"{picture} changed while it was read; run the same command again")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a picture whole or not at all. A power cut may still leave it empty, which its size then shows."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; what is done stays, and the same command continues"
        ) from error


def _reason(picture: Picture, error: Exception) -> str:
    if picture.length == 0:
        return "empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture of a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    return first_line(error)


def convert(content: bytes, side: int) -> bytes:
    """Return a picture's file as the JPEG file (RGB, quality 95, 4:4:4) of its central ``side`` x ``side`` pixels.

    A JPEG file that is RGB, upright and of that size is returned as it is: to compress it again would lose detail.
    Raises whatever Pillow does where ``content`` is not a whole picture, or has too many pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF data and the like
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            turn = _turn(image)
            if (image.format, image.mode, image.size, turn) == ("JPEG", "RGB", (side, side), None):
                return content
            picture = _rgb(image)
            if turn is not None:
                picture = picture.transpose(turn)
            picture = _fit(picture, side)
    picture.info = {}  # otherwise the source's comment would be written too
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data says nothing of the picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """Return the picture in RGB: 16 bits are scaled to 8, and transparent parts lie on white, as on a web page."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535)
        return Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(layer)
        return ground.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """Return the central ``side`` x ``side`` pixels of an RGB picture whose short side was brought to ``side``."""
    short = min(picture.size)
    width, height = ((2 * size * side + short) // (2 * short) for size in picture.size)  # rounded, halves up
    if width * height > (Image.MAX_IMAGE_PIXELS or width * height):
        raise ValueError(f"so long and thin that it would have {width} x {height} pixels")
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))
