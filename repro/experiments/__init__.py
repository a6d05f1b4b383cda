"""What can be measured: one module per experiment, with its parameters, its trials and what they say.

``Experiment`` says what each module holds. The module of the same name under ``repro.measure`` does the measuring;
nothing here imports torch. A new experiment takes a new module in each of the two packages, and a line in ``_all``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

from repro import choices
from repro.frozen import Frozen
from repro.store import Trial, TrialSpec

Role = Literal["scoring", "tuning", "counting", "reading", "timing"]
"""Why a trial is run."""


TRAINED = "epochs-trained"
"""The measurement that says for how many epochs a trial trained, summed over its members."""

TEST_IMAGES = "test-images"
"""The measurement that says on how many images a trial's errors were measured."""

TOLD = {"epochs-to": "epochs", "top1-error-ten": "%"}
"""The measurements, each with its unit, that sum up a trial in one line."""


class Planned(NamedTuple):
    """A trial that is still to be run: its arm, why it is run, and how far it may go (epochs, if it trains)."""

    arm: str
    spec: TrialSpec
    role: Role
    limit: float


class Observation(NamedTuple):
    """What one trial says about one metric of one arm.

    ``exact`` False: the target was not reached and ``value`` is a lower bound. ``resolution`` is the standard
    deviation, in the unit of ``value``, that measuring alone causes: no verdict rests on a smaller spread.
    """

    seed: int
    value: float
    exact: bool
    identity: str
    resolution: float = 0.0


class Shown(NamedTuple):
    """A trial that was used or is shown, with its arm and why it was run."""

    arm: str
    role: Role
    trial: Trial


class Observed(NamedTuple):
    """All that the trials say about a condition.

    ``missing`` names what was planned but not run, ``failed`` what the harness could not do, and ``undecided`` says why
    the observations that are there do not tell the size of an effect (say the best learning rate is on the edge).
    """

    values: Mapping[str, Mapping[str, tuple[Observation, ...]]]
    """metric -> arm -> one observation per seed."""
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    undecided: tuple[str, ...]
    trials: tuple[Shown, ...]


class CommonParameters(Frozen):
    """The parameters that every experiment has."""

    dataset: str
    protocol: choices.Protocol


class Experiment(Protocol):
    """What a module of this package holds; in ``_all`` mypy checks every module against it.

    ``arms`` maps names to the module's ``Parameters``; ``done`` maps spec keys to the recorded trials.
    """

    @property
    def NAME(self) -> str:
        """The name, as a claim file writes it."""

    @property
    def NUMERICS(self) -> int:
        """The version of the arithmetic, raised when the same spec would give other numbers."""

    @property
    def UNITS(self) -> Mapping[str, str]:
        """The unit of each metric of the experiment."""

    @property
    def VIEWED(self) -> Collection[str]:
        """The metrics that need a view of the image, ``centre`` or ``ten``."""

    @property
    def EVIDENCE(self) -> str:
        """The kind of evidence: ``measured``, ``computed`` or ``recorded``."""

    @property
    def TIMED(self) -> bool:
        """Whether a trial's result is a time, so that nothing else may run at the same time."""

    @property
    def EXAMINED(self) -> int | None:
        """How many test images a metric is measured on, None for all."""

    @property
    def FACTORS(self) -> Collection[str]:
        """The parameters in which arms may differ; all others belong to the condition."""

    @property
    def Parameters(self) -> type[CommonParameters]:
        """The parameters of one arm under one condition."""

    def faults(self, parameters: Any, seeds: Sequence[int]) -> list[str]:
        """Return the faults of a condition as a whole, each as "key: why"."""

    def pending(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
        """Return the trials that can be run now, most useful first; empty when the condition is complete."""

    def planned_epochs(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
        """Return the epochs still to be trained."""

    def observe(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
        """Return what the trials of a condition say, and what is missing."""


class Once(NamedTuple):
    """The simplest kind of experiment: every arm is run once with every seed.

    ``spec`` maps an arm's parameters and a seed to the spec of their trial, and ``role`` is why it is run. ``epochs``
    maps an arm's parameters to the epochs that it trains; it is None where nothing is trained. ``resolution`` maps a
    trial and a metric to the ``Observation.resolution`` of that value.
    """

    spec: Callable[[Any, int], TrialSpec]
    role: Role
    epochs: Callable[[Any], float] | None = None
    resolution: Callable[[Trial, str], float] = lambda _trial, _metric: 0.0

    def trials(self, arms: Mapping[str, Any], seeds: Sequence[int]) -> list[tuple[str, int, TrialSpec]]:
        """Return every arm with one seed, then with the next, so that an interrupted run has treated all arms alike."""
        return [(arm, seed, self.spec(parameters, seed)) for seed in seeds for arm, parameters in arms.items()]

    def pending(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
        """Return the trials that have neither completed nor diverged; a failed one is tried again."""
        limits = {arm: self.epochs(parameters) if self.epochs else 1.0 for arm, parameters in arms.items()}
        return [
            Planned(arm, spec, self.role, limits[arm])
            for arm, _, spec in self.trials(arms, seeds)
            if (trial := done.get(spec.key)) is None or trial.status not in ("completed", "diverged")
        ]

    def planned_epochs(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
        """Return the epochs still to be trained."""
        return sum(planned.limit for planned in self.pending(arms, seeds, done)) if self.epochs else 0.0

    def observe(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
        """Return every measurement of the completed trials as an observation; a diverged one leaves all undecided."""
        values: dict[str, dict[str, tuple[Observation, ...]]] = {}
        missing, failed, undecided, shown = [], [], [], []
        for arm, seed, spec in self.trials(arms, seeds):
            trial = done.get(spec.key)
            if trial is None or trial.status in ("running", "censored"):
                missing.append(f"seed {seed} of arm {arm}")
                continue
            shown.append(Shown(arm, self.role, trial))
            if trial.status == "failed":
                failed.append(f"seed {seed} of arm {arm}: {trial.message}")
            elif trial.status == "diverged":
                undecided.append(f"seed {seed} of arm {arm} diverged: {trial.message}")
            for m in trial.measurements if trial.status == "completed" else ():
                seen = Observation(seed, m.value, True, trial.identity, self.resolution(trial, m.name))
                found = values.setdefault(m.name, {})
                found[arm] = (*found.get(arm, ()), seen)
        return Observed(values, tuple(missing), tuple(failed), tuple(undecided), tuple(shown))


def decisive(parameters: Frozen) -> dict[str, Any]:
    """Return an arm's part of a spec, without defaults: so a new parameter leaves old identities as they are."""
    return parameters.model_dump(mode="json", exclude_defaults=True)


def repeated(seeds: Sequence[int]) -> list[str]:
    """Return the faults of a list of seeds, each as "key: why"."""
    return [] if len(set(seeds)) == len(seeds) else ["seeds: one stands twice"]


@cache
def _all() -> Mapping[str, Experiment]:
    from repro.experiments import count, epochs_to, final_error, probe, recorded, throughput

    modules: list[Experiment] = [count, epochs_to, final_error, probe, recorded, throughput]
    return {module.NAME: module for module in modules}


def names() -> tuple[str, ...]:
    """Return the names of all experiments, as a claim file writes them."""
    return tuple(_all())


def get(name: str) -> Experiment:
    """Return the module of one experiment. Raises KeyError for an unknown name."""
    return _all()[name]
