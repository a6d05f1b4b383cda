"""What can be measured: one module an experiment, with its parameters, its trials and what it observed.

Each module holds ``NAME``, ``NUMERICS``, ``UNITS`` (its metrics, each with its unit), ``VIEWED`` (those that are taken
of a view of the image), ``EVIDENCE``, ``TIMED`` (whether a trial reads its result off a clock, so that nothing else may
run beside it), ``EXAMINED`` (how many test images a metric is taken of, None for all), ``FACTORS``, a ``Parameters``
type, and the functions ``faults``, ``pending``, ``planned_epochs`` and ``observe``. How it is measured lies in the
module of the same name under ``repro.measure``; nothing here imports torch. The folder is the registry: a new module
here is a new experiment.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from repro.frozen import Frozen
from repro.store import Trial, TrialSpec


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


class Each(NamedTuple):
    """One trial of the simplest kind of experiment, where every arm is run once with every seed."""

    arm: str
    seed: int
    spec: TrialSpec


def every(arms: Mapping[str, Any], seeds: Sequence[int], spec: Callable[[Any, int], TrialSpec]) -> list[Each]:
    """Return every arm with one seed, then with the next: a stop leaves the arms alike."""
    return [Each(arm, seed, spec(parameters, seed)) for seed in seeds for arm, parameters in arms.items()]


def decisive(parameters: Frozen) -> dict[str, Any]:
    """Return what a spec holds of an arm: defaults stay out, so that a new parameter leaves old identities alone."""
    return parameters.model_dump(mode="json", exclude_defaults=True)


def pending_each(
    each: Iterable[Each], done: Mapping[str, Trial], *, role: str, limits: Mapping[str, float] = {}
) -> list[Planned]:
    """Return the trials that have not ended by themselves; a failed one is tried again."""
    ended = ("completed", "diverged")
    open_ = [e for e in each if (trial := done.get(e.spec.key)) is None or trial.status not in ended]
    return [Planned(e.arm, e.spec, role, limits.get(e.arm, 1.0)) for e in open_]


def observe_each(
    each: Iterable[Each], done: Mapping[str, Trial], *, role: str,
    resolution: Callable[[Trial, str], float] = lambda _trial, _metric: 0.0,
) -> Observed:  # fmt: skip
    """Return every measurement of every trial as an observation; one that diverged leaves the condition undecided."""
    values: dict[str, dict[str, tuple[Observation, ...]]] = {}
    missing, failed, undecided, shown = [], [], [], []
    for arm, seed, spec in each:
        trial = done.get(spec.key)
        if trial is None or trial.status in ("running", "censored"):
            missing.append(f"seed {seed} of {arm}")
            continue
        shown.append((arm, role, trial))
        if trial.status == "failed":
            failed.append(f"seed {seed} of {arm}: {trial.message}")
        elif trial.status == "diverged":
            undecided.append(f"seed {seed} of {arm} diverged: {trial.message}")
        for m in trial.measurements if trial.status == "completed" else ():
            seen = Observation(seed, m.value, True, trial.identity, resolution(trial, m.name))
            found = values.setdefault(m.name, {})
            found[arm] = (*found.get(arm, ()), seen)
    return Observed(values, tuple(missing), tuple(failed), tuple(undecided), tuple(shown))


def repeated(seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a list of seeds, "key: why"."""
    return [] if len(set(seeds)) == len(seeds) else ["seeds: one stands twice"]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all experiments, as a claim file writes them."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> Any:
    """Return the module of one experiment; KeyError for an unknown name."""
    if name not in names():
        raise KeyError(name)
    module: ModuleType = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return module


def measurable(name: str) -> bool:
    """Whether this version can run the trials of an experiment, or only judge them."""
    return (Path(__file__).parents[1] / "measure" / f"{name.replace('-', '_')}.py").is_file()
