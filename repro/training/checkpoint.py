"""Checkpoints: the whole state of a trial in one file, replaced atomically."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from repro.store import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path``. Raises StoreError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state saved at ``path``, None where there is none or it cannot be read.

    An unreadable checkpoint is set aside as ``<name>.bad``: the trial then starts afresh, which costs time but
    not correctness.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError):
        path.replace(path.with_name(path.name + ".bad"))
        return None
