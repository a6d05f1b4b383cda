"""Whether this installation trains as ours did: fresh runs against stored ones, within their prediction interval.

Nothing here is about the paper. A few small nets are trained on the embedded pictures, as they were when the reference
was made (``health.json``: raw values, seeds, commit, versions, hardware), and a fresh seed's value has to fall where a
further run of the same code would. It is what continuous integration gates on.

    python -m repro.health    makes the reference anew; to be committed with the change that moved it
"""

import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, JsonValue

from repro import environment, measure, store
from repro.experiments import epochs_to, final_error
from repro.frozen import Frozen
from repro.judging.stats import Estimate, prediction_interval, sample
from repro.measure import Monitor, Place, Task
from repro.problem import Problem
from repro.store import TrialSpec

REFERENCE = Path(__file__).with_name("health.json")
SEEDS = (*range(100, 108), 200)
"""Of the reference; a check takes one that is not among them."""

CONFIDENCE = 0.99
"""Of the interval: one in fifty fresh seeds would be a false alarm, with two values each; a fixed one is not drawn."""


class HealthError(Problem):
    """The reference cannot be read, or a run for it failed."""


class Reference(Frozen):
    """Stored runs: by name the value of each seed, and where they were made."""

    schema_: int = Field(alias="schema", default=1)
    made: str
    seeds: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    environment: dict[str, JsonValue]


class Finding(NamedTuple):
    """One value of a fresh run beside the interval it has to lie in."""

    name: str
    value: float
    expected: Estimate

    @property
    def fine(self) -> bool:
        return self.expected.low <= self.value <= self.expected.high


def check(seed: int, device: str = "cpu") -> Iterator[Finding]:
    """Yield each value of a fresh run with ``seed``, about half a minute of two CPU cores in all.

    Raises HealthError for a seed of the reference, a reference that cannot be read, or a run that failed.
    """
    try:
        reference = Reference.model_validate_json(REFERENCE.read_bytes())
    except (OSError, ValueError) as error:
        raise HealthError(f"{REFERENCE}: not a usable reference ({error}); install this package again") from error
    if seed in reference.seeds:
        raise HealthError(f"seed {seed} made the reference; check with another")
    for name, value in measured(seed, device):
        stored = sample(reference.values[name])
        yield Finding(name, value, prediction_interval(stored, CONFIDENCE))


def measured(seed: int, device: str) -> Iterator[tuple[str, float]]:
    """Yield name and value of each run of the reference with ``seed``. Raises HealthError where one fails."""
    rate = 0.02
    relu = epochs_to.Parameters(
        net="19pct", activation="relu", dataset="embedded", protocol="modern", max_epochs=30.0, rates=(rate,) * 3
    )
    net = final_error.Parameters(
        dataset="embedded", protocol="modern", net="alexnet-32", stored=32, crop=28, batch=32, rate=0.01, epochs=4.0,
        dropout=False, crops=False, colour=False,  # so that four epochs learn something
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        trial = _run("epochs-to", relu, epochs_to.spec(relu, seed, rate), 30.0, root, device)
        yield "epochs of the 19pct net to a training error of 0.25", trial.value(epochs_to.MEASUREMENT)
        trial = _run("final-error", net, final_error.spec(net, seed), 4.0, root, device)
        last = store.load_curve(root, trial.identity)[-1]
        yield "training loss of alexnet-32 in its fourth epoch", last["loss"]


def _run(experiment: str, parameters: Frozen, spec: TrialSpec, limit: float, root: Path, device: str) -> store.Trial:
    data = measure.load(experiment, parameters, Place(root=None, own=root / "sets"))
    task = Task(spec, "scoring", limit, root, torch.device(device))
    trial: store.Trial = measure.measure(task, data.to(task.device), Monitor())
    if trial.status != "completed":
        raise HealthError(f"a run for the reference ended as {trial.status}: {trial.message}")
    return trial


def make(device: str = "cpu") -> Reference:
    """Return a reference measured now, and by what."""
    found = [dict(measured(seed, device)) for seed in SEEDS]
    where: dict[str, Any] = environment.describe(torch.device(device))
    values = {name: tuple(run[name] for run in found) for name in found[0]}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return Reference(made=made, seeds=SEEDS, values=values, environment=where)


if __name__ == "__main__":
    text = make().model_dump_json(indent=1, by_alias=True)
    store.write_atomically(REFERENCE, text.encode() + b"\n")
    sys.stdout.write(f"wrote {REFERENCE}\n")
