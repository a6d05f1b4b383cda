"""Which record answers which spec, kept from one look at a store to the next: only what changed is read again.

What is kept decides nothing: a record that a verdict rests on is read whole, and checked, when it is asked for.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from repro import files, garbage, marks, store
from repro.store import Place, StoreError, Trial, TrialSpec

if TYPE_CHECKING:
    from repro.judging.judge import Records


def stamp(root: Path, found: Mapping[Place, str]) -> str:
    """Return a digest that changes whenever a plan does or a record, of which ``found`` are all the marks."""
    settled = time.time() - files.SETTLED_S
    digest = hashlib.sha256("".join(f"{place.path} {mark}\n" for place, mark in found.items()).encode())
    for path in store.plan_files(root):
        digest.update(f"{path} {marks.of_file(str(path), settled)}\n".encode())
    return digest.hexdigest()


class _Answer(BaseModel):
    """The parts of a record that make its identity, and nothing of the rest: that is for who reads the record."""

    spec: TrialSpec
    data_digest: str


def keys(found: Mapping[Place, str], known: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Return by identity each record's mark and the key of its spec, and a line for each that cannot be used.

    ``found`` are the marks of a store; of its records those are not opened that ``known``, what this returned
    before, has with the same mark. Of the others only what makes the identity is looked at, and a record whose identity
    is not its folder's name is none: who uses one reads and checks it all (``records``).
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
        pass  # said below, of the whole record
    return store.record(place).spec.key


def records(root: Path, keys: Mapping[str, str], problems: list[str]) -> "Records":
    """Return the trials of a store for judging, where ``keys`` are those of their specs by identity.

    Each is read when it is asked for; one that cannot be used then is not there, and adds a line to ``problems``.
    """
    from repro.judging.judge import Records  # here, and below: a list that is known judges nothing

    by_key: dict[str, list[str]] = {}
    for identity, key in keys.items():
        by_key.setdefault(key, []).append(identity)
    found = _OnDisk(root, by_key, problems)
    return Records(found, found.unlike)  # of what was not read yet nobody has asked whether it is alike


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
