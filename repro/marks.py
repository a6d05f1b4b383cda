"""Marks that change when a record is written to, and a reader that reads only changed records of a store again."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from repro import files, garbage, store
from repro.files import StoreError
from repro.store import Place, Trial


def of_records(root: Path) -> dict[Place, str]:
    """Return the mark of each record: its file's mode, inode, size and times, as text.

    A file is opened only if it is so young that its times might not show a further change; see ``of_file``. Looking at
    100,000 records takes about a second.
    """
    settled = time.time() - files.SETTLED_S
    found = ((place, of_file(place.path, settled)) for place in store.places(root))
    return {place: "linked " + mark if place.linked else mark for place, mark in found if mark}


def of_file(path: str, settled: float) -> str:
    """Return the mark of one file, empty without a file; with a digest of its content if changed after ``settled``."""
    try:
        s = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - text: see Place
    except (OSError, ValueError):
        return ""
    mark = f"{s.st_mode} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    if s.st_ctime > settled:
        with contextlib.suppress(OSError):
            mark += f" {hashlib.sha256(files.read(Path(path))).hexdigest()}"
    return mark


class Reader:
    """The records of a store, for a caller that looks often: a record is read again only if its mark has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Place, tuple[str, Trial | None]] = {}
        """Each record's mark and its trial, None where the record cannot be used."""

    def trials(self) -> list[Trial]:
        """Return the trials that there are now, sorted by identity, without those whose records cannot be used."""
        before, self._read = self._read, {}
        with garbage.put_off():
            for place, mark in of_records(self._root).items():
                known = before.get(place)
                self._read[place] = known if known and known[0] == mark else (mark, _usable(place))
        return [trial for _, trial in self._read.values() if trial is not None]


def _usable(place: Place) -> Trial | None:
    try:
        return store.record(place)
    except (OSError, StoreError):  # removed since, or damaged
        return None
