"""What can be measured: one module an experiment, with its parameters, its trials and what it observed.

Each module holds ``NAME``, ``NUMERICS``, ``METRICS``, ``UNIT``, ``FACTORS``, a ``Parameters`` type, and the functions
``faults``, ``pending``, ``planned_epochs`` and ``observe``. How it is measured lies in the module of the same
name under ``repro.measure``; nothing here imports torch. The folder is the registry: a new module here is a new
experiment.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

from repro.store import Frozen, Trial, TrialSpec


class Planned(NamedTuple):
    """A trial that is still to be run: the arm it is for, why, and how far it may go."""

    arm: str
    spec: TrialSpec
    role: str
    limit: float


class Observation(NamedTuple):
    """What one trial says about one metric of one arm.

    ``exact`` False: the target was not reached and ``value`` is a lower bound. ``resolution`` is the standard
    deviation that measuring alone gives a value, in its unit: no verdict rests on a smaller spread.
    """

    seed: int
    value: float
    exact: bool
    identity: str
    resolution: float = 0.0


class Observed(NamedTuple):
    """All that the trials say about a condition.

    ``missing`` names what was planned and not run, ``failed`` what the harness could not do, and ``undecided``
    why no size can be read off the observations although they are there (say a learning rate on the edge).
    """

    values: Mapping[str, Mapping[str, tuple[Observation, ...]]]
    """metric -> arm -> one observation a seed."""
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    undecided: tuple[str, ...]
    trials: tuple[tuple[str, str, Trial], ...]
    """(arm, role, trial) of everything that was used or shown."""


class CommonParameters(Frozen):
    """Parameters every experiment has."""

    dataset: str
    protocol: Literal["paper", "code", "modern"]


def names() -> list[str]:
    """Return the names of all experiments, as a claim file writes them."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Any:
    """Return the module of one experiment; KeyError for an unknown name."""
    if name not in names():
        raise KeyError(name)
    module: ModuleType = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return module
