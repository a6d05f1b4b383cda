"""What tells whether a record was written to since somebody looked, and reading a store again by it."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from repro import files, garbage, store
from repro.store import Place, StoreError, Trial


def of_records(root: Path) -> dict[Place, str]:
    """Return for each record what tells whether it was written to since: its file's size, place and times, as text.

    None is opened, but for those so young that their times might not yet tell a further change. 100,000 are looked at
    in about a second.
    """
    settled = time.time() - files.SETTLED_S
    found = ((place, of_file(place.path, settled)) for place in store.places(root))
    return {place: "linked " + mark if place.linked else mark for place, mark in found if mark}


def of_file(path: str, settled: float) -> str:
    """Return the mark of one file, empty where there is none; of one written to after ``settled``, with its content."""
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
    """The records of a store, for who looks often: one is read again only when its mark is another."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Place, tuple[str, Trial | None]] = {}
        """Each record's mark and its trial, None where the record cannot be used."""

    def trials(self) -> list[Trial]:
        """Return the trials that there are now, by identity, without those whose records cannot be used."""
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
