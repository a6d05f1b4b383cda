"""What can be measured: one module an experiment, with its parameters, its trials and what it observed.

``Experiment`` says what each module holds. How it is measured lies in the module of the same name under
``repro.measure``; nothing here imports torch. A new experiment is a new module here, and a line in ``_all``.
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
"""The measurement of a trial that says for how many epochs it trained, all members together."""

TEST_IMAGES = "test-images"
"""The measurement of a trial that says how many images its errors are of."""

TOLD = {"epochs-to": "epochs", "top1-error-ten": "%"}
"""The measurements, each with its unit, that tell in a line what a trial came to."""


class Planned(NamedTuple):
    """A trial that is still to be run: the arm it is for, why, and how far it may go."""

    arm: str
    spec: TrialSpec
    role: Role
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


class Shown(NamedTuple):
    """A trial that was used or is shown: the arm it is of, and why it was run."""

    arm: str
    role: Role
    trial: Trial


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
    trials: tuple[Shown, ...]


class CommonParameters(Frozen):
    """Parameters every experiment has."""

    dataset: str
    protocol: choices.Protocol


class Experiment(Protocol):
    """What a module of this package holds; mypy holds each against it in ``_all``.

    ``arms`` map names to the module's own ``Parameters``, ``done`` maps spec keys to the trials on record.
    """

    @property
    def NAME(self) -> str:
        """The name, as a claim file writes it."""

    @property
    def NUMERICS(self) -> int:
        """Raised when the same spec would give other numbers."""

    @property
    def UNITS(self) -> Mapping[str, str]:
        """Its metrics, each with its unit."""

    @property
    def VIEWED(self) -> Collection[str]:
        """The metrics that are taken of a view of the image."""

    @property
    def EVIDENCE(self) -> str:
        """What kind of evidence its values are."""

    @property
    def TIMED(self) -> bool:
        """Whether a trial reads its result off a clock, so that nothing else may run beside it."""

    @property
    def EXAMINED(self) -> int | None:
        """How many test images a metric is taken of, None for all."""

    @property
    def FACTORS(self) -> Collection[str]:
        """The parameters that may tell one arm from another; everything else is the condition's."""

    @property
    def Parameters(self) -> type[CommonParameters]:
        """The parameters of one arm under one condition."""

    def faults(self, parameters: Any, seeds: Sequence[int]) -> list[str]:
        """Return what is wrong with a condition as a whole, "key: why" each."""

    def pending(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
        """Return the trials that can be run now, most useful first; empty when the condition is complete."""

    def planned_epochs(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> float:
        """Return the epochs still to be trained."""

    def observe(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> Observed:
        """Return what the trials of a condition say, and what is missing."""


class Once(NamedTuple):
    """The simplest kind of experiment: every arm is run once with every seed.

    ``spec`` gives the trial of an arm's parameters and a seed, ``role`` is why it is run, ``epochs`` how many an arm
    trains, None where nothing is trained; ``resolution`` is that of a trial's value of a metric.
    """

    spec: Callable[[Any, int], TrialSpec]
    role: Role
    epochs: Callable[[Any], float] | None = None
    resolution: Callable[[Trial, str], float] = lambda _trial, _metric: 0.0

    def trials(self, arms: Mapping[str, Any], seeds: Sequence[int]) -> list[tuple[str, int, TrialSpec]]:
        """Return every arm with one seed, then with the next: a stop leaves the arms alike."""
        return [(arm, seed, self.spec(parameters, seed)) for seed in seeds for arm, parameters in arms.items()]

    def pending(self, arms: Mapping[str, Any], seeds: Sequence[int], done: Mapping[str, Trial]) -> list[Planned]:
        """Return the trials that have not ended by themselves; a failed one is tried again."""
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
        """Return every measurement of every trial as an observation; one that diverged leaves all undecided."""
        values: dict[str, dict[str, tuple[Observation, ...]]] = {}
        missing, failed, undecided, shown = [], [], [], []
        for arm, seed, spec in self.trials(arms, seeds):
            trial = done.get(spec.key)
            if trial is None or trial.status in ("running", "censored"):
                missing.append(f"seed {seed} of {arm}")
                continue
            shown.append(Shown(arm, self.role, trial))
            if trial.status == "failed":
                failed.append(f"seed {seed} of {arm}: {trial.message}")
            elif trial.status == "diverged":
                undecided.append(f"seed {seed} of {arm} diverged: {trial.message}")
            for m in trial.measurements if trial.status == "completed" else ():
                seen = Observation(seed, m.value, True, trial.identity, self.resolution(trial, m.name))
                found = values.setdefault(m.name, {})
                found[arm] = (*found.get(arm, ()), seen)
        return Observed(values, tuple(missing), tuple(failed), tuple(undecided), tuple(shown))


def decisive(parameters: Frozen) -> dict[str, Any]:
    """Return what a spec holds of an arm: defaults stay out, so that a new parameter leaves old identities alone."""
    return parameters.model_dump(mode="json", exclude_defaults=True)


def repeated(seeds: Sequence[int]) -> list[str]:
    """Return what is wrong with a list of seeds, "key: why"."""
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
    """Return the module of one experiment; KeyError for an unknown name."""
    return _all()[name]
