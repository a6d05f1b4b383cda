"""How the experiments are measured: one module for each experiment. This half needs torch.

In each module ``load`` returns the data that the trials need, and ``measure`` runs one trial.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from repro.frozen import Frozen
from repro.store import Trial, TrialSpec
from repro.training.parallel import ALONE, Team


@dataclass(frozen=True)
class Setting:
    """How the trials of one command are run: recorded where it matters, and no part of a trial's identity."""

    store: Path
    """Where the trials' folders lie."""
    device: torch.device
    loader: str = "resident"
    """How images are read, in the experiments where that matters."""
    micro_batch: int | None = None
    """Images that go through the network at a time; None: the whole batch."""
    team: Team = ALONE
    """The ranks that train a trial together."""
    eager: bool = False
    """On a GPU, launch every operation of a step or a test by itself, although recordings are faster."""
    deterministic: bool = False
    """Use only operations that give the same bits each time. A trial that needs another one fails with torch's message,
    which names it. This is for GPUs: a CPU with a fixed number of threads gives the same bits anyway."""

    @property
    def captured(self) -> bool:
        """Whether steps and tests are recorded once and replayed; see ``repro.training.captured``."""
        return self.device.type == "cuda" and self.team.alone and not self.eager


@dataclass(frozen=True)
class Task:
    """One trial to run: ``role`` is why it is run, ``limit`` how far it may go."""

    spec: TrialSpec
    role: str
    limit: float
    setting: Setting


@dataclass(frozen=True)
class Monitor:
    """How a trial reports its progress (``done``, in the unit of its limit, and words), and asks whether to stop."""

    report: Callable[[float, str], None] = lambda _done, _words: None
    stopping: Callable[[], bool] = lambda: False


class Data(Protocol):
    """What a module's trials are measured on; ``digest`` says which bytes it holds, and is part of their identity."""

    digest: str

    def to(self, device: torch.device) -> Self: ...


@dataclass(frozen=True)
class Place:
    """Where data comes from: ``root``, the user's folder of data sets, and ``own``, our folder for sets made here."""

    root: Path | None
    own: Path
    download: bool = False


def load(experiment: str, parameters: Frozen, place: Place) -> Any:
    """Return the data of an experiment's trials. Raises DataError where it is missing or altered."""
    return _module(experiment).load(parameters, place)


def measure(task: Task, data: Any, monitor: Monitor) -> Trial:
    """Run one trial, from its checkpoint where there is one. Raises Interrupted where stopped, its state saved."""
    trial: Trial = _module(task.spec.experiment).measure(task, data, monitor)
    return trial


def _module(experiment: str) -> Any:
    return importlib.import_module(f"{__name__}.{experiment.replace('-', '_')}")
