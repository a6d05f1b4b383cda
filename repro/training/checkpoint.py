"""Checkpoints: the whole state of a trial in one file with a checksum; the checkpoint before it is kept as well.

A file is a line of text, ``repro-checkpoint sha256:<hex>``, and then what torch writes. A new file replaces the old one
in two renames, so that one of the two is whole at any moment.
"""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from repro import files
from repro.training.passes import for_want_of_memory

MAGIC = b"repro-checkpoint sha256:"
_ZIP = b"PK\x03\x04"  # how torch's own files begin


SHARE = 0.02
"""The largest share of the training time that checkpoints may take."""


class Damaged(Exception):
    """A checkpoint's file cannot be read, or does not hold what was written to it."""


def pause(least_s: float, cost_s: float) -> float:
    """Return the seconds of training until the next checkpoint, after one that took ``cost_s``.

    At least ``least_s``, and more where checkpoints would take over SHARE of the time. 0 stays 0: a checkpoint at every
    check.
    """
    return max(least_s, cost_s / SHARE) if least_s else 0.0


def previous(path: Path) -> Path:
    """Return where the checkpoint before the one at ``path`` lies."""
    return path.with_name(path.name + ".previous")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path``, and keep the checkpoint before it. Raises StoreError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    head = MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
    fresh = path.with_name(path.name + ".new")
    files.write_atomically(fresh, head + content)
    try:
        if path.exists():
            path.replace(previous(path))
        fresh.replace(path)
    except OSError as error:
        raise files.StoreError(f"cannot write {path}: {error.strerror or error}; the one before is kept") from error


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state saved at ``path``, or the one before where that is damaged; None where there is neither.

    A damaged file is set aside as ``<name>.bad``, with a warning. Starting from an older checkpoint, or afresh, costs
    time but leads to the same numbers. Running out of memory does not count as damage: that error is raised.
    """
    for place in (path.with_name(path.name + ".new"), path, previous(path)):
        try:
            return _read(place, device)
        except FileNotFoundError:
            continue
        except Damaged as error:
            aside = files.set_aside(place)
            logging.getLogger(__name__).warning("repro: %s: %s; it was set aside as %s", place, error, aside.name)
    return None


def remove(path: Path) -> None:
    """Remove the checkpoint at ``path`` and the one before: the trial has ended."""
    for place in (path.with_name(path.name + ".new"), path, previous(path)):
        place.unlink(missing_ok=True)


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        content = files.read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror})") from error
    size = len(MAGIC) + 65  # the line's 64 hex digits, and its end
    body = memoryview(content)[size:]
    if content[: size - 1] != MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise Damaged("its sum is not that of its content")
    if body[: len(_ZIP)] != _ZIP:
        raise Damaged("not a checkpoint")  # torch would try its older formats, which are bare pickles
    try:
        state = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except Exception as error:  # what torch refuses to read may raise anything
        if for_want_of_memory(error):
            raise  # the sum is right, so the file is whole
        raise Damaged(f"not a checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise Damaged("not a checkpoint (no table of states)")
    return state
