"""An index of which record answers which spec, kept between visits to a store: only changed records are read again.

The index decides nothing: a record that a verdict rests on is read whole, and checked, when it is asked for.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from repro import files, garbage, marks, notes, store
from repro.files import StoreError
from repro.store import Place, Trial, TrialSpec

if TYPE_CHECKING:
    from repro.judging.judge import Records


def stamp(root: Path, found: Mapping[Place, str]) -> str:
    """Return a digest that changes whenever a plan or a record does; ``found`` are the marks of all records."""
    settled = time.time() - files.SETTLED_S
    digest = hashlib.sha256("".join(f"{place.path} {mark}\n" for place, mark in found.items()).encode())
    for path in notes.plan_files(root):
        digest.update(f"{path} {marks.of_file(str(path), settled)}\n".encode())
    return digest.hexdigest()


class _Answer(BaseModel):
    """The parts of a record that make its identity; the rest is left to whoever reads the record whole."""

    spec: TrialSpec
    data_digest: str


def keys(found: Mapping[Place, str], known: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Return each record's mark and the key of its spec, by identity, and a line for each that cannot be used.

    ``found`` are the marks of a store, ``known`` what this returned before. A record with the same mark in both is not
    opened. Of any other, only what makes its identity is read, and it cannot be used if that is not its folder's name.
    Whoever uses a record reads and checks all of it (``records``).
    """
    told: dict[str, list[str]] = {}
    problems: list[str] = []
    with garbage.put_off():
        for place, mark in found.items():
            before = known.get(place.name)
            if before is not None and before[0] == mark:
                told[place.name] = before
                continue
            try:
                told[place.name] = [mark, _key(place)]
            except FileNotFoundError:
                continue
            except StoreError as error:
                problems.append(f"{place.path}: {error}")
    return told, problems


def _key(place: Place) -> str:
    """Return the key of the spec that a record answers. Raises FileNotFoundError and StoreError as ``store.record``."""
    try:
        answer = _Answer.model_validate_json(store.raw(place))
        if answer.spec.identity(answer.data_digest) == place.name:
            return answer.spec.key
    except (OSError, ValueError):
        pass  # reading the whole record, below, says what is wrong
    return store.record(place).spec.key


def records(root: Path, keys: Mapping[str, str], problems: list[str]) -> "Records":
    """Return the trials of a store for judging; ``keys`` maps their identities to the keys of their specs.

    Each is read when it is asked for. One that cannot be used then counts as absent and adds a line to ``problems``.
    """
    from repro.judging.judge import Records  # here, and below: a list whose rows were kept judges nothing

    by_key: dict[str, list[str]] = {}
    for identity, key in keys.items():
        by_key.setdefault(key, []).append(identity)
    found = _OnDisk(root, by_key, problems)
    return Records(found, found.unlike)  # ``unlike`` fills as records are read, so before a verdict looks into it


class _OnDisk(Mapping[str, Trial]):
    """Trials by the key of their spec, read on demand and then kept."""

    def __init__(self, root: Path, identities: Mapping[str, list[str]], problems: list[str]) -> None:
        self._root, self._identities, self._problems = root, identities, problems
        self._read: dict[str, Trial | None] = {}
        self.unlike: dict[str, Sequence[str]] = {}

    def __getitem__(self, key: str) -> Trial:
        from repro.judging import judge

        if key not in self._read:
            found = judge.records([t for i in self._identities[key] if (t := self._trial(i)) is not None])
            self._read[key] = found.done.get(key)
            self.unlike.update(found.unlike)
        if (trial := self._read[key]) is None:
            raise KeyError(key)
        return trial

    def _trial(self, identity: str) -> Trial | None:
        place = store.place(self._root, identity)
        try:
            return store.record(place)
        except FileNotFoundError:
            return None  # removed since
        except StoreError as error:
            self._problems.append(f"{place.path}: {error}")
            return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._identities)

    def __len__(self) -> int:
        return len(self._identities)
