"""Whether this installation trains as ours did: a fresh seed's losses have to lie where stored runs predict them.

Nothing here is about the paper. Two small nets, one for each way of training, are trained on the embedded pictures as
they were when the reference was made (``health.json``: raw values, seeds, commit, versions, hardware). A check trains
them with a seed that is not in the reference, and each loss has to lie in the prediction interval of a further run.

The reference also holds runs of the same nets at half and at double the learning rate. They show how surely the check
tells a wrong rate from the right one. All seeds were fixed here before any of them was run: none was left out, and
none was added because of what it gave. A change of what is trained needs other seeds.

On an AMD EPYC with torch 2.15, the 99% intervals from 20 seeds are 1.488 to 1.633 for the 19pct net and 1.404 to 1.592
for AlexNet. Five seeds at half the rate gave 1.683 to 1.807 and 1.742 to 1.838, and at double the rate 1.326 to 1.427
and 1.227 to 1.397. In logarithms, the means of these four lie 2.7, 5.0, 2.9 and 1.35 of their own standard deviations
beyond the nearest end of the interval. So, if they are normal, a further seed falls outside with a chance of 99% at
half the rate and of 97% at double (Student's t, by the better of the two nets). Smaller changes, and those that tanh
forgives (a net without LRN passes), are left to tests/test_golden.py. The 30 runs took 454 s of processor time, so a
check takes 15 s, without its imports.

    OMP_NUM_THREADS=1 python -m repro.health    makes a new reference: commit it with the change that moved the values
"""

import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, JsonValue

from repro import environment, files, measure, store
from repro.experiments import epochs_to, final_error
from repro.frozen import Frozen
from repro.judging.stats import Estimate, prediction_interval, sample
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Setting, Task
from repro.problem import Problem
from repro.store import TrialSpec

REFERENCE = Path(__file__).with_name("health.json")
SEEDS = tuple(range(1000, 1020))
"""The seeds of the reference; a check takes one that is not among them."""

SHIFTED = {"half": 0.5, "double": 2.0}
"""The other learning rates that the reference holds, as multiples of the right one."""

SHIFTED_SEEDS = tuple(range(1100, 1105))

CONFIDENCE = 0.99
"""The confidence of each interval. A seed gives two values, so at most one in fifty fresh seeds is a false alarm; for a
seed that is always the same, no such rate holds."""


class HealthError(Problem):
    """The reference cannot be read, or a run for it failed."""


Values = dict[str, tuple[float, ...]]


class Reference(Frozen):
    """Stored runs: the values of the seeds by name, the same at other learning rates, and where they were made."""

    schema_: int = Field(alias="schema", default=2)
    made: str
    seconds: float
    """Seconds of processor time, for all runs together."""
    seeds: tuple[int, ...]
    values: Values
    shifted_seeds: tuple[int, ...]
    shifted: dict[str, Values]
    environment: dict[str, JsonValue]

    def expected(self, name: str) -> Estimate:
        """Return the prediction interval of a further run's value; the logarithms of losses are taken as normal."""
        logs = prediction_interval(sample([math.log(value) for value in self.values[name]]), CONFIDENCE)
        return logs._replace(value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high))


class Finding(NamedTuple):
    """One value of a fresh run, and the interval in which it has to lie."""

    name: str
    value: float
    expected: Estimate

    @property
    def fine(self) -> bool:
        return self.expected.low <= self.value <= self.expected.high


def read() -> Reference:
    """Return the stored reference. Raises HealthError where it cannot be read, or is of other runs than these."""
    try:
        reference = Reference.model_validate_json(REFERENCE.read_bytes())
    except (OSError, ValueError) as error:
        raise HealthError(f"{REFERENCE}: not a usable reference ({error}); install this package again") from error
    if set(reference.values) != {CURVE, FINAL} or not set(reference.seeds).isdisjoint(reference.shifted_seeds):
        raise HealthError(f"{REFERENCE}: not a usable reference (of other runs); install this package again")
    return reference


def check(seed: int, device: str = "cpu") -> Iterator[Finding]:
    """Yield each value of a fresh run with ``seed``.

    Raises HealthError for a seed of the reference, a reference that cannot be read, or a run that failed.
    """
    reference = read()
    if seed in (*reference.seeds, *reference.shifted_seeds):
        raise HealthError(f"seed {seed} made the reference; check with another")
    for name, value in measured(seed, device):
        yield Finding(name, value, reference.expected(name))


CURVE = "training loss of the 19pct net over its last epoch"
FINAL = "training loss of alexnet-32 over its last epoch"
CURVE_RATE, FINAL_RATE = 0.005, 0.0025
"""At most half of the rates that learn fastest: there, half the rate gives a larger loss and double a smaller one."""


def measured(seed: int, device: str, factor: float = 1.0) -> Iterator[tuple[str, float]]:
    """Yield the name and the loss, in nats, of each net trained with ``seed`` at ``factor`` times its learning rate.

    The nets have tanh and small batches: compared with the effect of a halved rate, their losses scatter less between
    seeds than those of ReLU. AlexNet's loss is the geometric mean of two members. Raises HealthError where a run fails.
    """
    rate, epochs = factor * CURVE_RATE, 1.5
    curve = epochs_to.Parameters(
        net="19pct", activation="tanh", dataset="embedded", protocol="modern", batch=32, target=0.001,
        max_epochs=epochs, rates=(rate,) * 3,
    )  # fmt: skip
    net = final_error.Parameters(
        dataset="embedded", protocol="modern", net="alexnet-32", activation="tanh", stored=32, crop=28, batch=16,
        rate=factor * FINAL_RATE, schedule="plateau", epochs=2.0, members=2,
        dropout=False, crops=False, colour=False,  # so that two epochs learn something
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # A target out of reach, so that every seed trains alike: the limit ends it.
        images = measure.load("epochs-to", curve, Place(root=None, own=root))
        rows = _run(epochs_to.spec(curve, seed, rate), images, epochs, root, device, "censored")
        yield CURVE, rows[-1]["loss"]
        rows = _run(final_error.spec(net, seed), pictures(), net.members * net.epochs, root, device)
        ends = [row["loss"] for row in rows if row["epochs"] in (net.epochs, 2 * net.epochs)]
        yield FINAL, math.exp(math.fsum(map(math.log, ends)) / len(ends))


def pictures() -> Pictures:
    """Return the pictures AlexNet is trained on, drawn in memory; few are for testing, which says nothing here."""
    return Pictures.drawn(1024, 32, "health")


def _run(
    spec: TrialSpec, data: Any, limit: float, root: Path, device: str, status: str = "completed"
) -> list[dict[str, float]]:
    """Run a trial and return its curve, whose losses are means over the preceding epoch."""
    setting = Setting(root, torch.device(device))
    trial = measure.measure(Task(spec, "scoring", limit, setting), data.to(setting.device), Monitor())
    if trial.status != status:
        raise HealthError(f"a run for the reference ended as {trial.status}: {trial.message}")
    return store.load_curve(root, trial.identity)


def _timed(run: tuple[int, float], device: str) -> tuple[dict[str, float], float]:
    torch.set_num_threads(1)
    begun = time.process_time()
    return dict(measured(run[0], device, run[1])), time.process_time() - begun


def make(device: str = "cpu") -> Reference:
    """Return a reference that is measured now, one process per core, with the environment that measured it."""
    runs = [(seed, 1.0) for seed in SEEDS] + [(seed, f) for f in SHIFTED.values() for seed in SHIFTED_SEEDS]
    torch.set_num_threads(1)  # as in the processes
    where: dict[str, Any] = environment.describe(torch.device(device))
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(runs, pool.map(partial(_timed, device=device), runs), strict=True))
    return Reference(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(math.fsum(seconds for _, seconds in found.values()), 1),
        seeds=SEEDS,
        values=_by_name({seed: found[seed, 1.0][0] for seed in SEEDS}),
        shifted_seeds=SHIFTED_SEEDS,
        shifted={name: _by_name({seed: found[seed, f][0] for seed in SHIFTED_SEEDS}) for name, f in SHIFTED.items()},
        environment=where,
    )


def _by_name(runs: Mapping[int, Mapping[str, float]]) -> Values:
    return {name: tuple(run[name] for run in runs.values()) for name in (CURVE, FINAL)}


if __name__ == "__main__":
    text = make().model_dump_json(indent=1, by_alias=True)
    files.write_atomically(REFERENCE, text.encode() + b"\n")
    sys.stdout.write(f"wrote {REFERENCE}\n")
