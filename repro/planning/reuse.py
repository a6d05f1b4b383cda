"""Why a trial on disk is used again or not: which conditions ask for it, or how it differs from what they ask for.

Every condition that asks for a trial's spec uses the trial, whichever claim it was run for. A trial that nothing asks
for is stale: since it was run, a claim file, a parameter's default or an experiment's ``numerics`` has changed, or the
registry is a different one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from repro import experiments
from repro.problem import Problem
from repro.spec import Claim, Condition
from repro.store import Trial, TrialSpec

Looks = Mapping[tuple[str, str], Sequence[Sequence[int]]]


class ReuseError(Problem):
    """No trial, or more than one, has an identity that begins with the given name."""


class Use(NamedTuple):
    """What a condition uses a trial for: an arm, and a role in the experiment (scoring, tuning, timing …)."""

    claim: str
    condition: str
    arm: str
    role: str


class Difference(NamedTuple):
    """A field in which a stale trial and the nearest wanted one differ, with both values as in JSON."""

    field: str
    stored: Any
    wanted: Any


class Stale(NamedTuple):
    """The wanted trial nearest to a stale one, by a use of it, and all differences; None where nothing is like it."""

    nearest: Use | None
    differences: tuple[Difference, ...]


class Demand(NamedTuple):
    """All that a registry asks for: every spec, and what it is used for, by the spec's key."""

    specs: Mapping[str, TrialSpec]
    uses: Mapping[str, tuple[Use, ...]]


def demand(registry: Mapping[str, Claim], trials: Sequence[Trial], looks: Looks) -> Demand:
    """Return what a registry asks for: trials on record, and trials still to be run.

    An experiment that searches asks only for what it knows to be worth trying so far; later steps are not known yet.
    """
    done = {trial.spec.key: trial for trial in trials}
    specs: dict[str, TrialSpec] = {}
    uses: dict[str, list[Use]] = {}

    def ask(spec: TrialSpec, use: Use) -> None:
        specs[spec.key] = spec
        found = uses.setdefault(spec.key, [])
        if use not in found:
            found.append(use)

    for claim in registry.values():
        experiment = experiments.get(claim.experiment)
        for condition in claim.conditions.values():
            seeds = every_seed(condition, looks.get((claim.id, condition.name), ()))
            for arm, role, trial in experiment.observe(condition.arms, seeds, done).trials:
                ask(trial.spec, Use(claim.id, condition.name, arm, role))
            for planned in experiment.pending(condition.arms, seeds, done):
                ask(planned.spec, Use(claim.id, condition.name, planned.arm, planned.role))
    return Demand(specs, {key: tuple(found) for key, found in uses.items()})


def every_seed(condition: Condition, looks: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the claim file's seeds, followed by those that only a run asked for."""
    return tuple(dict.fromkeys([*condition.seeds, *(seed for look in looks for seed in look)]))


def stale(trial: Trial, asked: Demand) -> Stale | None:
    """Return how a trial differs from the nearest one that is asked for; None where it is itself asked for.

    The nearest is the one with the fewest differing fields and, among equals, with the lowest seed.
    """
    if trial.spec.key in asked.uses:
        return None
    best: tuple[tuple[int, int, str], str, tuple[Difference, ...]] | None = None
    for key, spec in asked.specs.items():
        if spec.experiment != trial.spec.experiment:
            continue
        found = differences(trial.spec, spec)
        rank = (len(found), spec.seed, key)
        if best is None or rank < best[0]:
            best = (rank, key, found)
    return Stale(None, ()) if best is None else Stale(asked.uses[best[1]][0], best[2])


def differences(stored: TrialSpec, wanted: TrialSpec) -> tuple[Difference, ...]:
    """Return the fields in which two specs of one experiment differ: numerics, then the parameters, the seed last."""
    here, there = _fields(stored), _fields(wanted)
    return tuple(
        Difference(name, here.get(name), there.get(name))
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    )


def _fields(spec: TrialSpec) -> dict[str, Any]:
    """Return a spec as a flat table; parameters that it leaves out have their default."""
    fields = experiments.get(spec.experiment).Parameters.model_fields
    defaults = {name: f.default for name, f in fields.items() if not f.is_required()}
    flat = _flat(spec.config if "arms" in spec.config else {**_plain(defaults), **spec.config})
    return {"numerics": spec.numerics, **dict(sorted(flat.items())), "seed": spec.seed}


def _plain(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def _flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return nested tables as one, with key paths: ``arms.two.towers``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{at}{name}.")
        else:
            flat[f"{at}{name}"] = value
    return flat


def find(trials: Sequence[Trial], name: str) -> Trial:
    """Return the trial whose identity begins with ``name``. Raises ReuseError for none or several."""
    found = [trial for trial in trials if trial.identity.startswith(name.lower())] if name else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise ReuseError(f"no trial {name!r} among the {len(trials)} here; `repro show ID` lists a claim's")
    raise ReuseError(f"{len(found)} trials begin with {name!r}: {', '.join(t.identity for t in found[:5])}")


def explain(trial: Trial, asked: Demand) -> list[str]:
    """Return, in plain lines, what a trial is and what it is used for, or why it is not used."""
    spec = trial.spec
    lines = [
        f"{trial.identity}: {spec.experiment}, seed {spec.seed}, {trial.status}"
        + (f", begun {trial.started}" if trial.started else "")
    ]
    if trial.message:
        lines.append(f"it says: {trial.message}")
    if uses := asked.uses.get(spec.key):
        lines += [_used(trial, use) for use in uses]
        return lines
    apart = stale(trial, asked)
    assert apart is not None
    if apart.nearest is None:
        return [*lines, f"stale: no claim of this registry is measured by {spec.experiment}"]
    use = apart.nearest
    lines.append(f"stale: nothing asks for it; nearest is {use.role} of {use.arm}, {use.claim} {use.condition}")
    lines += [f"  {d.field}: {_told(d.stored)} in the record, {_told(d.wanted)} asked for" for d in apart.differences]
    return lines


def _used(trial: Trial, use: Use) -> str:
    verb = {
        "running": "to be gone on with", "failed": "to be tried again", "diverged": "used, as one that diverged",
    }.get(trial.status, "used")  # fmt: skip
    return f"{verb} by {use.claim} {use.condition}: {use.role} of {use.arm}"


def _told(value: Any) -> str:
    return "nothing" if value is None else str(value)
