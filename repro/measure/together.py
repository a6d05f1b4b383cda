"""What the ranks of one run do together: refuse trials they cannot train, load the data, and follow rank 0."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from repro import experiments, measure
from repro.data import DataError
from repro.frozen import Frozen
from repro.measure import Monitor, Place
from repro.problem import DONE, INTERRUPTED, Problem, first_line, told
from repro.store import TrialSpec
from repro.training.loop import Interrupted
from repro.training.parallel import ALONE, Lost, Team, Told
from repro.training.passes import Unfit, refuse

IN_PARTS = {"ranks": ("final-error",), "passes": ("final-error", "probe")}
"""The experiments whose trials can be trained by several ranks, and those whose trials can be trained in passes."""


def whole_batches(parameters: Any) -> bool:
    """Return whether an arm's network has batch norm, which takes statistics over whole batches."""
    return parameters.norm == "batch" or parameters.net == "batch-norm-clone"


def refuse_unfit(
    experiment: str, arms: dict[str, Any], team: Team, micro_batch: int | None, device: torch.device
) -> None:
    """Raise Unfit, before anything is begun, where an arm cannot be trained by these ranks or in these passes."""
    if not team.alone and experiment not in IN_PARTS["ranks"]:
        known = ", ".join(IN_PARTS["ranks"])
        raise Unfit(f"{experiment}: {team.world} processes train trials of {known} only; run this one without torchrun")
    if micro_batch is not None and experiment not in IN_PARTS["passes"]:
        raise Unfit(f"--micro-batch: {experiment} is not trained in passes; {', '.join(IN_PARTS['passes'])} are")
    if team.alone and micro_batch is None:
        return
    for arm, p in arms.items():
        try:
            refuse(p.batch, team, micro_batch, batch_norm=whole_batches(p), gpu=device.type == "cuda")
        except Unfit as unfit:
            raise Unfit(f"{arm}: {unfit}") from None


def smaller_passes(spec: TrialSpec, batch: int, micro_batch: int | None) -> str:
    """Return how passes may save memory for a trial whose ranks each take ``batch`` images; empty where they cannot.

    ``micro_batch`` is how many images it took at a time before; None stands for all of them.
    """
    p = experiments.get(spec.experiment).Parameters.model_construct(**spec.config)
    at_a_time = min(batch, micro_batch or batch)
    if spec.experiment not in IN_PARTS["passes"] or at_a_time < 2 or whole_batches(p):
        return ""
    return f"; --micro-batch {at_a_time // 2}, half of {at_a_time} images at a time, may fit (a guess)"


def load(experiment: str, parameters: Frozen, place: Place, team: Team = ALONE) -> Any:
    """Return the data of an experiment's trials, once every rank has the same.

    Raises DataError where it is missing or altered, on whichever rank.
    """
    data = measure.load(experiment, parameters, place)
    if team.alone:
        return data
    team.order("load", experiment, parameters)
    for rank, (digest, trouble) in enumerate(team.each((data.digest, ""))):
        if trouble:
            raise DataError(f"rank {rank}: {trouble}")
        if digest != data.digest:
            raise DataError(f"rank {rank} has other data than rank 0: {digest} and {data.digest}; prepare them alike")
    return data


def follow(team: Team, place: Place, device: torch.device, stopping: Callable[[], bool]) -> int:
    """Do what rank 0 orders until it sends this rank home, and return the exit code.

    Raises Lost where this rank fails, or another is gone.
    """
    data: Any = None
    code = DONE
    while (order := team.heard())[0] != "end":
        try:
            match order:
                case ("load", experiment, parameters):
                    data, trouble = _loaded(experiment, parameters, place, device)
                    team.each((getattr(data, "digest", ""), trouble))
                case ("measure", task):
                    ours = replace(task, setting=replace(task.setting, device=device, team=team))
                    measure.measure(ours, data, Monitor(stopping=stopping))
        except Interrupted:
            code = INTERRUPTED
        except Told:
            continue  # rank 0 reports it
        except Lost:
            raise
        except Exception as error:
            raise Lost(f"rank {team.rank} failed: {told(error)}") from error
    return code


def _loaded(experiment: str, parameters: Frozen, place: Place, device: torch.device) -> tuple[Any, str]:
    """Return the data and an empty string, or None and one line that says why there is none."""
    try:
        return measure.load(experiment, parameters, place).to(device), ""
    except Problem as problem:
        return None, first_line(problem)
