"""Measure ``recorded``: copy the facts of the release into a record."""

from datetime import UTC, datetime

import torch

from repro import environment
from repro.data import Dataset, nothing
from repro.experiments.recorded import KNOWN, Parameters
from repro.measure import Monitor, Place, Task
from repro.release import FACTS
from repro.store import Measurement, Trial, save


def load(parameters: Parameters, place: Place) -> Dataset:  # noqa: ARG001 - every experiment has them
    """Return no data: none is needed."""
    return nothing()


def measure(task: Task, data: Dataset, monitor: Monitor) -> Trial:  # noqa: ARG001 - every experiment has them
    """Copy every fact and return the record, which is also on disk. Raises StoreError where it cannot be written."""
    trial = Trial(
        spec=task.spec,
        data_digest=data.digest,
        status="completed",
        measurements=tuple(Measurement(name=name, value=value, unit=FACTS[name].unit) for name, value in KNOWN.items()),
        environment=environment.describe(torch.device("cpu")),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save(task.setting.store, trial)
    return trial
