"""How the experiments are measured: one module an experiment, each with ``measure``; the half that needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from repro.data import Dataset
from repro.store import Trial, TrialSpec


@dataclass(frozen=True)
class Task:
    """One trial to run: ``limit`` is how far it may go, ``role`` why it is run, ``store`` where its folder lies."""

    spec: TrialSpec
    role: str
    limit: float
    store: Path
    device: torch.device


@dataclass(frozen=True)
class Monitor:
    """How a trial and its runner talk: ``report(done, words)`` in the unit of the limit, ``stopping()`` to leave."""

    report: Callable[[float, str], None] = lambda _done, _words: None
    stopping: Callable[[], bool] = lambda: False


Measure = Callable[[Task, Dataset, Monitor], Trial]
"""Runs one trial, from its checkpoint where there is one; raises Interrupted once its state is saved."""
