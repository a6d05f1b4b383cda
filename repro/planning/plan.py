"""What a condition still costs, and which condition of a claim can be run with the devices, data and time at hand."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from repro import datasets, experiments
from repro.problem import suggest
from repro.spec import Claim, Condition, SpecError
from repro.store import Trial

SCALES = ("paper", "reduced", "static", "smoke")
"""The scales, from the one that says most about a claim to the one that says least."""


class Cost(NamedTuple):
    """What is left of a condition: epochs and seconds at most, images per second, and whether that was measured."""

    epochs: float
    images_per_s: float
    measured: bool
    seconds: float


class Choice(NamedTuple):
    """The condition to run, None where nothing fits, and why, in one line."""

    condition: Condition | None
    why: str
    instead_of: str = ""
    """Why another condition than the headline was chosen, then how to run the headline, if it can be; else empty."""


def cost(claim: Claim, condition: Condition, seeds: Sequence[int], trials: Sequence[Trial], device: str) -> Cost:
    """Return an upper bound of what is left to run on ``device`` (cpu or cuda).

    The speed is the median of the recorded trials that are alike, or the claim file's ``assumed_speed`` without any.
    """
    done = {trial.spec.key: trial for trial in trials}
    epochs = experiments.get(claim.experiment).planned_epochs(condition.arms, seeds, done)
    images = training_images(claim, condition)
    found = [_speed(trial, images) for trial in trials if _like(trial, claim.experiment, condition, device)]
    speeds = sorted(speed for speed in found if speed)
    speed = (
        speeds[len(speeds) // 2] if speeds else condition.assumed_speed.get("cpu" if device == "cpu" else "cuda", 0.0)
    )
    left = epochs * images
    return Cost(epochs, speed, bool(speeds), left / speed if speed else float("inf") if left else 0.0)


def training_images(claim: Claim, condition: Condition) -> int:
    """Return the number of images in an epoch, 0 where nothing is trained."""
    known = datasets.used(claim.experiment, condition.any_arm.dataset)
    return known.train if known else 0


def _like(trial: Trial, experiment: str, condition: Condition, device: str) -> bool:
    on = "cpu" if trial.environment.get("device") == "cpu" else "cuda"
    parameters = condition.any_arm
    told = type(parameters).model_fields
    alike = all(
        trial.spec.config.get(key, told[key].default) == getattr(parameters, key)
        for key in ("dataset", "net")
        if key in told
    )
    return on == device and trial.spec.experiment == experiment and alike


def _speed(trial: Trial, images: int) -> float | None:
    try:
        return trial.value(experiments.TRAINED) * images / trial.duration_s
    except (KeyError, ZeroDivisionError):
        return None


def named(claim: Claim, name: str) -> Choice:
    """Return the condition that was asked for. Raises SpecError where the claim does not have it."""
    if name not in claim.conditions:
        known = ", ".join(claim.conditions)
        raise SpecError(f"{claim.id} has no condition {name!r}{suggest(name, claim.conditions)}; it has {known}")
    condition = claim.conditions[name]
    blocked = condition.blocked
    return Choice(None, f"{name}: {blocked}") if blocked else Choice(condition, "as asked")


def admitted(
    claim: Claim, asked: Choice, *, trials: Sequence[Trial], device: str, gpus: int, budget_s: float, seeds: int | None
) -> Choice:  # fmt: skip
    """Return what was asked for, or no condition where it needs more GPUs than there are, or exceeds the budget."""
    if asked.condition is None:
        return asked
    against = lacks(asked.condition, gpus)
    if against is None and budget_s != math.inf:  # with no limit there is nothing to work out
        against = over_budget(claim, asked.condition, trials, device, budget_s, seeds)
    return Choice(None, f"{asked.condition.name}: {against}") if against else asked


def choose(
    claim: Claim,
    *,
    trials: Sequence[Trial],
    device: str,
    gpus: int,
    data: Path | None,
    download: bool,
    budget_s: float,
    seeds: int | None = None,
) -> Choice:
    """Return the condition to run where none was asked for: the headline, else the largest that fits."""
    against: list[str] = []
    instead_of = ""
    for condition in by_worth(claim):
        obstacle = _obstacle(condition, gpus, data, download)
        reason = obstacle or over_budget(claim, condition, trials, device, budget_s, seeds)
        if reason is None:
            role = "the headline" if condition.name == claim.headline else "the largest that fits"
            return Choice(condition, role + (f"; {against[0]}" if against else ""), instead_of)
        against.append(f"{condition.name}: {reason}")
        if condition.name == claim.headline:
            all_the_same = "" if obstacle else f"; `--condition {condition.name}` runs it all the same"
            instead_of = f"its headline {condition.name} was not run: {reason}{all_the_same}"
    if all(condition.blocked for condition in claim.conditions.values()):
        return Choice(None, claim.conditions[claim.headline].blocked)
    return Choice(None, f"nothing fits; {against[0]}")


def by_worth(claim: Claim) -> list[Condition]:
    """Return a claim's conditions: the headline first, the others in the order of SCALES."""
    rest = [c for c in claim.conditions.values() if c.name != claim.headline]
    return [claim.conditions[claim.headline], *sorted(rest, key=lambda c: SCALES.index(c.scale))]


def _obstacle(condition: Condition, gpus: int, data: Path | None, download: bool) -> str | None:
    """Return why a condition cannot be run here, whatever the budget; None where it can."""
    if reason := condition.blocked or lacks(condition, gpus):
        return reason
    known = datasets.DATASETS.get(condition.any_arm.dataset)
    fetched = download and known is not None and known.downloaded
    if not fetched and (reason := lacks_data(condition, data)):
        return reason
    return None


def over_budget(
    claim: Claim, condition: Condition, trials: Sequence[Trial], device: str, budget_s: float, seeds: int | None
) -> str | None:
    """Return how long a condition may take on ``device`` if that is more than ``budget_s`` seconds, else None."""
    left = cost(claim, condition, condition.seeds[:seeds], trials, device)
    if left.seconds <= budget_s:
        return None
    how = "measured" if left.measured else "assumed"
    speed = f" ({left.images_per_s:,.0f} images/s, {how})" if left.images_per_s else ""
    return f"{bound(left.seconds)} on this {device}{speed}, over --budget {as_typed(budget_s)}"


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is loaded, which is all that can be found out without torch."""
    return Path("/proc/driver/nvidia/version").exists()


def lacks(condition: Condition, gpus: int) -> str | None:
    """Return why a condition cannot be run on ``gpus`` GPUs, None where it can."""
    wanted = getattr(condition.any_arm, "gpus", 0)
    return None if wanted <= gpus else f"needs {wanted} GPU{'s' if wanted > 1 else ''}, and the run has {gpus}"


def lacks_data(condition: Condition, data: Path | None) -> str | None:
    """Return which data set a condition needs and ``data`` does not hold, None where nothing is lacking."""
    folder = datasets.folder(condition.any_arm.dataset)
    if not folder or (data and (data / folder).is_dir()):
        return None
    return f"no {folder}/ in {data}" if data else f"no --data (or REPRO_DATA) with {folder}/"


def needs(condition: Condition) -> str:
    """Return what a condition needs, in a few words: ``cifar10``, ``ilsvrc-2010, 2 GPUs``, ``nothing``."""
    if condition.blocked:
        return "what is not public"
    gpus = getattr(condition.any_arm, "gpus", 0)
    parts = [condition.any_arm.dataset] if datasets.folder(condition.any_arm.dataset) else []
    parts += [f"{gpus} GPU{'s' if gpus > 1 else ''}"] if gpus else []
    return ", ".join(parts) or "nothing"


def duration(seconds: float) -> str:
    """Return seconds in a unit that is easy to read: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``, ``21.7 years``."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{0 if size < 3600 else 1}f} {unit}"
    years = seconds / (365.25 * 86_400)
    return f"{seconds / 86_400:.1f} days" if years < 2 else f"{years:,.1f} years"


def bound(seconds: float) -> str:
    """Return an upper bound of a time in words: ``up to 3.5 h``, or that nobody knows how long where it is infinite."""
    return f"up to {duration(seconds)}" if seconds < float("inf") else "nobody knows how long"


def as_typed(seconds: float) -> str:
    """Return a budget as a user types it: ``90s``, ``30m``, ``12h``, ``3d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
