"""Which pictures a source holds: where the bytes of each one lie, and its split and class.

A source is a folder that holds class folders, with or without train/ and val/ above them; or files named
<class>_<anything>; or ImageNet's archives, or Tiny ImageNet's folders, as distributed. An archive is never unpacked: a
picture in it is a range of its bytes. Every name is checked before it becomes part of a path.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from repro.data import DataError
from repro.data.prepared import is_name


@dataclass(frozen=True, slots=True)
class Picture:
    """A source's picture: ``length`` bytes at ``offset`` in the file ``path``; ``member``: its name in an archive."""

    split: str
    label: str
    name: str
    path: str
    offset: int
    length: int
    member: str = ""

    @property
    def target(self) -> str:
        """Where the prepared picture goes, relative to the set's folder."""
        return f"{self.split}/{self.label}/{self.name}"

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else self.path


def listing(source: Path) -> list[Picture]:
    """Return all pictures of ``source``, sorted by ``target``, without reading any of them.

    Raises DataError where there are none, where a class is empty or in val alone, where a name cannot be used or two
    pictures would get the same one, and where an archive is damaged.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; SOURCE is a folder of pictures or of ImageNet's archives")
    try:
        found = sorted(_pictures(source), key=lambda picture: picture.target)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or source}: {error.strerror or error}") from error
    if not found:
        raise DataError(
            f"{source} holds no pictures: class folders, train/ and val/, or ImageNet's archives are looked for"
        )
    for one, other in pairwise(found):
        if one.target == other.target:
            raise DataError(f"{one} and {other} would both become {one.target}: rename one")
    classes = {split: {picture.label for picture in found if picture.split == split} for split in ("train", "val")}
    if classes["train"] and (alone := sorted(classes["val"] - classes["train"])):
        raise DataError(f"{source}: {_some(alone)} in val, but not in train; every class needs training pictures")
    return found


def _pictures(source: Path) -> Iterator[Picture]:
    entries = _entries(source)
    folders = {entry.name for entry in entries if entry.is_dir()}
    archives = _archives(entries)
    if archives:
        if "train" in archives:
            yield from _train_archive(archives["train"])
        if "val" in archives:
            yield from _val_archive(archives["val"], source)
    elif (source / _ANNOTATIONS).is_file():
        yield from _tiny_imagenet(source)
    elif folders & {"train", "val", "test"}:
        if "train" in folders:
            yield from _class_folders(source / "train", "train")
        if evaluation := next((name for name in ("val", "test") if name in folders), None):
            yield from _class_folders(source / evaluation, "val")
    elif folders:
        yield from _class_folders(source, "train")
    else:
        yield from _flat(entries)


def _archives(entries: list[os.DirEntry[str]]) -> dict[str, Path]:
    """Return ImageNet's archives among ``entries`` by their split. Raises DataError where two sets are mixed."""
    archives: dict[str, Path] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        match = re.fullmatch(r"(ILSVRC201\d_)(?:img|images)_(train|val)\.tar", entry.name)
        if not match or not entry.is_file():
            continue
        year, split = match.groups()
        for before, path in archives.items():
            if before == split or not path.name.startswith(year):
                raise DataError(f"{path} and {entry.path} are not halves of one set; keep each set in its own folder")
        archives[split] = Path(entry.path)
    return archives


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of ``folder`` that are not hidden."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


_SUFFIX = re.compile(r"\.(jpe?g|png|gif|bmp|tiff?|webp|ppm|pgm)", re.IGNORECASE)


def _class_folders(folder: Path, split: str) -> Iterator[Picture]:
    empty = []
    for entry in _entries(folder):
        if not entry.is_dir():
            if _SUFFIX.fullmatch(Path(entry.name).suffix):
                raise DataError(f"{entry.path} lies beside class folders, in none; move it into its class's folder")
            continue
        inside = _entries(Path(entry.path))
        if not inside:
            empty.append(entry.path)
        for file in inside:
            if file.is_dir():
                raise DataError(
                    f"{file.path} is a folder in a class folder; pictures are looked for there, none deeper"
                )
            yield _file(file, split, entry.name)
    if empty:
        raise DataError(f"no pictures in {_some(sorted(empty))}; fill or remove what is empty")


_ANNOTATIONS = Path("val", "val_annotations.txt")


def _tiny_imagenet(source: Path) -> Iterator[Picture]:
    """Yield those of train/<class>/images/, and of val/images/, whose classes are in a list; test/ has no classes."""
    for entry in _entries(source / "train"):
        for file in _entries(Path(entry.path, "images")):
            yield _file(file, "train", entry.name)
    lines = (source / _ANNOTATIONS).read_text(encoding="utf-8", errors="replace").splitlines()
    labels = {name: label for name, label, *_ in (f"{line}\t\t".split("\t") for line in lines)}
    for file in _entries(source / "val" / "images"):
        if not labels.get(file.name):
            raise DataError(f"{file.path} has no class in {source / _ANNOTATIONS}; fetch the set again")
        yield _file(file, "val", labels[file.name])


def _flat(entries: list[os.DirEntry[str]]) -> Iterator[Picture]:
    for entry in entries:
        label, underscore, _ = entry.name.partition("_")
        if not underscore:
            raise DataError(f"{entry.path} does not name its class; in a flat folder names are <class>_<anything>.JPEG")
        yield _file(entry, "train", label)


def _file(entry: os.DirEntry[str], split: str, label: str) -> Picture:
    return Picture(split, *_checked(label, entry.name, entry.path), entry.path, 0, entry.stat().st_size)


def _checked(label: str, name: str, where: str) -> tuple[str, str]:
    """Return the class and the name that a prepared picture gets. Raises DataError where they cannot be names."""
    stem = name[: -len(suffix)] if _SUFFIX.fullmatch(suffix := PurePosixPath(name).suffix) else name
    for text in (label, stem):
        if not is_name(text):
            raise DataError(f"{where!r}: {text!r} cannot be the name of a class or a file; rename it")
    return label, f"{stem}.JPEG"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# ImageNet as distributed: an archive that holds one archive per class, a flat archive, and the development kit.


def _train_archive(path: Path) -> Iterator[Picture]:
    # Unbuffered: of each member only the header is read, and a buffer would read twenty times as much.
    with path.open("rb", buffering=0) as file:
        classes = list(_members(file, path, 0, path.stat().st_size))
        for member, offset, length in classes:
            label, _, suffix = PurePosixPath(member).name.rpartition(".")
            if suffix != "tar":
                raise DataError(f"{path}: {member!r} is not an archive of a class; this is not ImageNet's archive")
            pictures = list(_members(file, path, offset, length))
            if not pictures:
                raise DataError(f"{path}: {member!r} holds no pictures")
            for inner, at, size in pictures:
                where = f"{member}: {inner}"
                names = _checked(label, PurePosixPath(inner).name, f"{path}: {where}")
                yield Picture("train", *names, str(path), at, size, where)


def _val_archive(path: Path, source: Path) -> Iterator[Picture]:
    labels = _ground_truth(source)
    with path.open("rb", buffering=0) as file:
        pictures = list(_members(file, path, 0, path.stat().st_size))
    if len(pictures) != len(labels):
        raise DataError(f"{path} holds {len(pictures)} pictures and the development kit {len(labels)} labels")
    for member, offset, length in pictures:
        name = PurePosixPath(member).name
        number = re.fullmatch(r"ILSVRC201\d_val_(\d{8})\.JPEG", name)
        if number is None or not 1 <= int(number[1]) <= len(labels):
            raise DataError(f"{path}: {member!r} has no label in the development kit")
        yield Picture("val", *_checked(labels[int(number[1]) - 1], name, str(path)), str(path), offset, length, member)


def _members(file: BinaryIO, path: Path, at: int, length: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset in ``file``, bytes) of each file in the archive that fills ``length`` bytes from ``at``.

    Raises DataError where the archive is damaged or cut short, or a member is a link or leads out of its folder.
    """
    damaged = DataError(f"{path} is damaged or cut short: compare its checksum with the one published, fetch it again")
    try:
        file.seek(at)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # or a million of them stay in memory
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts or not (member.isreg() or member.isdir()):
                    raise DataError(f"{path}: member {member.name!r} is a link or leads out of its folder; refused")
                if member.isdir():
                    continue
                if member.sparse is not None or member.offset_data + member.size > at + length:
                    raise damaged
                yield member.name, member.offset_data, member.size
            # To tarfile a damaged header is the end of the archive, but a whole archive ends with blocks of zeros.
            file.seek(archive.offset)
            if archive.offset + 512 > at + length or file.read(512).strip(b"\0"):
                raise damaged
    except tarfile.TarError:
        raise damaged from None


_TRUTH = re.compile(r"ILSVRC201\d_validation_ground_truth\.txt")


def _ground_truth(source: Path) -> list[str]:
    """Return the class (WordNet id) of each validation picture, in the order of their numbers, from the devkit."""
    truth, meta = _devkit(source)
    try:
        from scipy.io import loadmat

        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"].reshape(-1)
        number = next(name for name in synsets.dtype.names if re.fullmatch(r"ILSVRC201\d_ID", name))
        classes = {int(i): str(wnid) for i, wnid in zip(synsets[number], synsets["WNID"], strict=True)}
        return [classes[int(line)] for line in truth.split()]
    except Exception as error:  # there is no end of what a damaged file makes a reader raise
        raise DataError(f"{source}: the development kit is damaged ({type(error).__name__}); fetch it again") from error


def _devkit(source: Path) -> tuple[bytes, bytes]:
    """Return the ground truth of the validation pictures and meta.mat, from a folder or an archive in ``source``."""
    for folder in (source / "data", *sorted(source.glob("ILSVRC201*devkit*/data"))):
        truths = [path for path in sorted(folder.glob("*.txt")) if _TRUTH.fullmatch(path.name)]
        if truths and (folder / "meta.mat").is_file():
            return truths[0].read_bytes(), (folder / "meta.mat").read_bytes()
    for path in sorted(source.glob("ILSVRC201*devkit*.t*")):
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = PurePosixPath(member.name)
                    if member.isreg() and name.parent.name == "data" and member.size < 1 << 24:
                        key = "truth" if _TRUTH.fullmatch(name.name) else name.name
                        if key in ("truth", "meta.mat") and (content := archive.extractfile(member)):
                            found[key] = content.read()
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{path} is damaged or cut short: fetch it again") from error
        if len(found) == 2:
            return found["truth"], found["meta.mat"]
    raise DataError(
        f"the labels of the validation pictures are missing: put ILSVRC2012_devkit_t12.tar.gz into {source} too"
    )
