"""A set of pictures in the paper's form on disk: square JPEG files by split and class, and a manifest of them all.

    ROOT/train/<class>/<name>.JPEG   the training pictures, side x side pixels, RGB
    ROOT/val/<class>/<name>.JPEG     the validation pictures
    ROOT/manifest.json               every file with its size and sha256; written only once all of them are there
    ROOT/statistics-<digest>.npz     the mean image and the covariance of the colours, once computed

Section 2 of the paper: "we down-sampled the images to a fixed resolution of 256 x 256".
"""

import contextlib
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from repro.data import DataError
from repro.datasets import unlike
from repro.files import StoreError, write_atomically

SPLITS = ("train", "val")
MANIFEST = "manifest.json"
SCHEMA = 1

Progress = Callable[[int, int], None]
"""Called with (done, total), in files, every now and then."""


class NotPrepared(DataError):
    """There is no manifest where a prepared set should lie."""


@dataclass(frozen=True)
class Prepared:
    """A set whose files are all there. ``files``: split -> (path relative to ``root``, label), sorted by path.

    Labels are indices into ``classes``, which are sorted. ``digest`` stands for the content: side, classes, and the
    path, label and sha256 of every file. ``skipped`` counts the bad pictures of the source that were left out.
    """

    root: Path
    side: int
    classes: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, int], ...]]
    digest: str
    skipped: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a set: its size in bytes, its sha256 (hex), and the size in bytes of the picture it was made from."""

    size: int
    sha256: str
    source: int


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest: ``entries`` by path relative to its folder, sorted."""

    side: int
    entries: Mapping[str, Entry]
    skipped: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({path.split("/")[1] for path in self.entries}))

    @property
    def digest(self) -> str:
        """``sha256:...`` of the content, which depends on neither the machine nor the order it was prepared in."""
        classes = self.classes
        label = {name: at for at, name in enumerate(classes)}
        sums = hashlib.sha256("\n".join([str(self.side), *classes, ""]).encode())
        for path, entry in self.entries.items():
            sums.update(f"{path}\0{label[path.split('/')[1]]}\0{entry.sha256}\n".encode())
        return f"sha256:{sums.hexdigest()}"


_NAME = re.compile(r"[^\x00-\x1f\x7f/\\.\ud800-\udfff][^\x00-\x1f\x7f/\\\ud800-\udfff]*")


def is_name(text: str) -> bool:
    """Return whether ``text`` may name a class or a file: no path, not hidden, nothing unprintable, not overlong."""
    return _NAME.fullmatch(text) is not None and len(text.encode()) <= 200


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of ``root``, whole or not at all. Raises StoreError."""
    splits: dict[str, dict[str, dict[str, tuple[int, str, int]]]] = {}
    for path, entry in manifest.entries.items():
        split, class_, name = path.split("/")
        splits.setdefault(split, {}).setdefault(class_, {})[name] = (entry.size, entry.sha256, entry.source)
    content = {
        "schema": SCHEMA, "side": manifest.side, "skipped": manifest.skipped, "digest": manifest.digest, "files": splits
    }  # fmt: skip
    write_atomically(root / MANIFEST, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def read_manifest(root: Path) -> Manifest:
    """Return the manifest of ``root``.

    Raises NotPrepared where there is none, and DataError where it is not as it was written.
    """
    path = root / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotPrepared(f"{root}: not prepared: run `repro data prepare SOURCE OUT`") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = json.loads(content)
        if found["schema"] != SCHEMA:
            raise DataError(f"{path} has schema {found['schema']}, this version reads {SCHEMA}: prepare the set again")
        manifest = Manifest(found["side"], dict(sorted(_entries(found["files"]))), found["skipped"])
        whole = manifest.digest == found["digest"] and isinstance(manifest.skipped, int)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged: restore it, or delete {root} and prepare the set again")
    return manifest


def _entries(files: Any) -> Iterator[tuple[str, Entry]]:
    for split, classes in files.items():
        for class_, names in classes.items():
            for name, (size, sha256, source) in names.items():
                if split not in SPLITS or not (is_name(class_) and is_name(name)):
                    raise ValueError
                yield f"{split}/{class_}/{name}", Entry(size, sha256, source)


def files_in(root: Path) -> Iterator[tuple[str, int]]:
    """Yield (path relative to ``root``, bytes) of every file in ``root``'s class folders, in no order.

    Raises OSError. A folder in a class folder is given as if it were a file.
    """
    for split in SPLITS:
        for class_ in _scan(root / split):
            if not class_.is_dir():
                yield f"{split}/{class_.name}", class_.stat().st_size
                continue
            for entry in _scan(Path(class_.path)):
                yield f"{split}/{class_.name}/{entry.name}", entry.stat(follow_symlinks=False).st_size


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def load(root: Path) -> Prepared:
    """Return the set prepared at ``root``. The size of each file is checked, but none is read.

    Raises DataError where nothing was prepared, the manifest is damaged, or files are missing or of another size.
    """
    manifest = read_manifest(root)
    try:
        found = dict(files_in(root))
    except OSError as error:
        raise DataError(f"cannot read {error.filename or root}: {error.strerror}") from error
    wrong = [path for path, entry in manifest.entries.items() if found.get(path) != entry.size]
    if wrong:
        what = "of another size than it had" if wrong[0] in found else "missing"
        more = f" (and {len(wrong) - 1} more are wrong)" if len(wrong) > 1 else ""
        again = f"repro data prepare SOURCE {root}" + (" --skip-bad" if manifest.skipped else "")
        raise DataError(f"{root} is not whole: {wrong[0]} is {what}{more}; `{again}` puts it right")
    classes = manifest.classes
    label = {name: at for at, name in enumerate(classes)}
    files = {
        split: tuple((path, label[path.split("/")[1]]) for path in manifest.entries if path.startswith(f"{split}/"))
        for split in SPLITS
    }
    return Prepared(root, manifest.side, classes, files, manifest.digest, manifest.skipped)


def load_as(name: str, root: Path) -> Prepared:
    """Return the set prepared at ``root``, which claim files call ``name`` (see ``repro.datasets``).

    Raises DataError as ``load``, and where it has another number of classes or pictures than that set (a few that were
    left out as bad may be missing).
    """
    found = load(root)
    if wrong := difference(name, found):
        raise DataError(f"{root} {wrong}")
    return found


def difference(name: str, found: Prepared) -> str:
    """Return how a set differs from what its name promises, as ``repro.datasets.unlike``; empty where it does not."""
    train, val = (len(found.files[split]) for split in SPLITS)
    return unlike(name, len(found.classes), train, val, found.skipped)


def verify(root: Path, progress: Progress | None = None) -> list[str]:
    """Read every file at ``root`` and return a line, "altered: PATH", for each that is altered, missing or extra.

    Raises DataError where there is no manifest to compare with, or a file cannot be read.
    """
    entries = read_manifest(root).entries
    try:
        extra = [path for path, _ in files_in(root) if path not in entries]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or root}: {error.strerror}") from error
    wrong = [f"extra: {path}" for path in extra]
    done = 0
    pool = ThreadPoolExecutor(8)  # the disk takes the time, and several requests at once keep it busy
    try:
        for _, group in groupby(entries, key=lambda path: path.rpartition("/")[0]):
            paths = list(group)
            for path, sums in zip(paths, pool.map(lambda path: _sha256(root / path), paths), strict=True):
                if sums != entries[path].sha256:
                    wrong.append(f"{'altered' if sums else 'missing'}: {path}")
            done += len(paths)
            if progress is not None:
                progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)
    return sorted(wrong, key=lambda line: line.partition(": ")[2])


def _sha256(path: Path) -> str | None:
    """Return the sha256 of a file in hex; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training pictures, in levels of 0..255, float64.

    ``mean`` is the mean image (side, side, 3), ``channel_mean`` and ``channel_std`` (3,) those of all pixels.
    ``eigenvalues`` (3,), descending, and ``eigenvectors`` (3, 3), one a column, are of the covariance of RGB over all
    pixels (section 4.1: "we perform PCA on the set of RGB pixel values throughout the ImageNet training set"). The
    sign of an eigenvector is free; here its largest component is positive.
    """

    mean: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def statistics(prepared: Prepared, *, jobs: int | None = None, progress: Progress | None = None) -> Statistics:
    """Return the statistics of the training split, read from their cache, or computed and cached beside the manifest.

    The sums are whole numbers, so neither ``jobs`` (default: one a core) nor the order changes a bit of the result.
    Raises DataError where there is no training split, or a picture cannot be read.
    """
    cache = prepared.root / f"statistics-{prepared.digest.removeprefix('sha256:')[:16]}.npz"
    if (cached := _cached(cache, prepared.side)) is not None:
        return cached
    names = [name for name, _ in prepared.files["train"]]
    if not names:
        raise DataError(f"{prepared.root} has no training pictures to take statistics of")
    from repro.data.processes import cores, in_processes

    jobs = jobs or cores()
    size = max(1, min(256, len(names) // (4 * jobs)))
    tasks = ((prepared.root, prepared.side, names[at : at + size]) for at in range(0, len(names), size))
    total = np.zeros((prepared.side, prepared.side, 3), np.int64)
    products = np.zeros((3, 3), np.int64)  # for 1.3 million pictures 5e15, a thousandth of what fits
    done = 0
    with contextlib.closing(in_processes(_sums, tasks, jobs)) as results:
        for part, part_products, count in results:
            total += part
            products += part_products
            done += count
            if progress is not None:
                progress(done, len(names))
    found = _from_sums(total, products, len(names))
    content = io.BytesIO()
    np.savez(content, **vars(found))
    with contextlib.suppress(StoreError):  # a disk that can only be read: computed again the next time
        write_atomically(cache, content.getvalue())
    return found


def _from_sums(total: np.ndarray, products: np.ndarray, count: int) -> Statistics:
    """Return the statistics of ``count`` pictures from their sum (side, side, 3) and their pixels' products (3, 3)."""
    pixels = count * total.shape[0] * total.shape[1]
    sums = [int(value) for value in total.sum((0, 1))]
    # Python's integers are exact up to the one division, so the difference of two large sums loses nothing.
    covariance = np.array(
        [[(pixels * int(products[i, j]) - sums[i] * sums[j]) / pixels**2 for j in range(3)] for i in range(3)]
    )
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    eigenvalues, eigenvectors = eigenvalues[::-1].copy(), eigenvectors[:, ::-1].copy()
    largest = np.abs(eigenvectors).argmax(0)
    eigenvectors *= np.where(eigenvectors[largest, range(3)] < 0, -1.0, 1.0)
    return Statistics(total / count, np.array(sums) / pixels, np.sqrt(covariance.diagonal()), eigenvalues, eigenvectors)


def _sums(task: tuple[Path, int, Iterable[str]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the sum of some pictures (side, side, 3), the sums of their pixels' products (3, 3), and their number."""
    from PIL import Image

    from repro.data.processes import stopping

    root, side, names = task
    total = np.zeros((side, side, 3), np.int64)
    products = np.zeros((3, 3), np.int64)
    count = 0
    for name in names:
        if stopping():
            break
        try:
            with Image.open(root / name, formats=["JPEG"]) as image:
                picture = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{root / name} cannot be read; `repro data verify {root}` finds all such") from error
        if picture.shape != total.shape:
            raise DataError(f"{root / name} is not {side} x {side} RGB; `repro data verify {root}` finds all such")
        total += picture
        pixels = picture.reshape(-1, 3).astype(np.int64)
        products += pixels.T @ pixels
        count += 1
    return total, products, count


def _cached(path: Path, side: int) -> Statistics | None:
    """Return the statistics kept at ``path``; None where there are none, or they are not what this module writes."""
    shapes = {
        "mean": (side, side, 3), "channel_mean": (3,), "channel_std": (3,), "eigenvalues": (3,), "eigenvectors": (3, 3)
    }  # fmt: skip
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            found = {name: content[name] for name in shapes}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fine = all(found[name].shape == shape and found[name].dtype == np.float64 for name, shape in shapes.items())
    return Statistics(**found) if fine and all(np.isfinite(value).all() for value in found.values()) else None
