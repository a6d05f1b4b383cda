"""How the experiments are measured: one module an experiment; the half that needs torch.

Each module has ``load``, which brings in the data its trials need, and ``measure``, which runs one of them.
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
    """Where their folders lie."""
    device: torch.device
    loader: str = "resident"
    """Where it matters, how images are read."""
    micro_batch: int | None = None
    """Images that go through the network at a time, all of a batch where None."""
    team: Team = ALONE
    """The ranks that train a trial together."""
    eager: bool = False
    """On a GPU, have every operation of a step or a test launched by itself, though recordings are faster."""
    deterministic: bool = False
    """On a GPU too, only operations that give the same bits each time. A trial that needs another fails, and torch's
    words name it. A CPU with a fixed number of threads gives the same bits anyway."""

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
    """How a trial and its runner talk: ``report(done, words)`` in the unit of the limit, ``stopping()`` to leave."""

    report: Callable[[float, str], None] = lambda _done, _words: None
    stopping: Callable[[], bool] = lambda: False


class Data(Protocol):
    """What a module's trials are measured on; ``digest`` says which bytes it holds, and is part of their identity."""

    digest: str

    def to(self, device: torch.device) -> Self: ...


@dataclass(frozen=True)
class Place:
    """Where data comes from: the user's folder of data sets, and one of our own for what is made here."""

    root: Path | None
    own: Path
    download: bool = False


def load(experiment: str, parameters: Frozen, place: Place) -> Any:
    """Return the data of an experiment's trials. Raises DataError where it is missing or altered."""
    return _module(experiment).load(parameters, place)


def measure(task: Task, data: Any, monitor: Monitor) -> Trial:
    """Run one trial, from its checkpoint where there is one; raises Interrupted once its state is saved."""
    trial: Trial = _module(task.spec.experiment).measure(task, data, monitor)
    return trial


def _module(experiment: str) -> Any:
    return importlib.import_module(f"{__name__}.{experiment.replace('-', '_')}")
