"""CIFAR-10 (Krizhevsky 2009) in its python form, through torchvision's class and its published md5 sums."""

import hashlib
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

from repro.data import DataError

FOLDER = CIFAR10.base_folder
FILES: dict[str, str] = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
DIGEST = f"md5:{CIFAR10.tgz_md5}"  # of the distributed archive; its files are each checked against their own md5


def check(root: Path) -> None:
    """Raise DataError naming the first file of the set under ``root`` that is missing, unreadable or altered."""
    for name, expected in FILES.items():
        path = root / FOLDER / name
        if not path.is_file():
            raise DataError(
                f"CIFAR-10 is not complete: {path} is missing; pass --data DIR (or set REPRO_DATA) where DIR holds "
                f"{FOLDER}/, or --download to fetch it"
            )
        try:
            found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        except OSError as error:
            raise DataError(f"CIFAR-10 cannot be read: {path}: {error.strerror}") from error
        if found != expected:
            raise DataError(f"CIFAR-10 is damaged: {path} has md5 {found}, not {expected}; replace the file")


def read(root: Path, *, train: bool, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (N, 32, 32, 3) and int64 labels (N,) in 0..9; N is 50,000 or 10,000.

    Raises DataError where a file is missing or its md5 differs, or a download that was asked for fails.
    """
    if download:  # does nothing where the files are whole
        try:
            CIFAR10(str(root), download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"CIFAR-10 could not be downloaded to {root}: {error}") from error
    check(root)
    data = CIFAR10(str(root), train=train)
    return np.ascontiguousarray(data.data), np.asarray(data.targets, dtype=np.int64)
