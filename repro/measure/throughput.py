"""Measure ``throughput``: the training step and the loader of every arm, in turn, round after round.

Rounds are interleaved, so what else the machine does meets all arms; each round times the step twice, and how far
the two are apart is the noise. On a GPU every clock is read after a synchronisation.
"""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch
from torch.nn import functional as F

from repro import environment
from repro.experiments import final_error
from repro.experiments.throughput import UNITS, Parameters, parameters_of
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Task
from repro.measure.final_error import Network
from repro.measure.final_error import load as load_pictures
from repro.store import Measurement, Trial, save, save_curve
from repro.training.loop import Interrupted

BATCHES = 2  # timed at a time
AHEAD = 4  # batches a loader may have ready: drawn before its clock starts


def load(parameters: Parameters, place: Place) -> Pictures:
    """Return the condition's set. Raises DataError where it is missing, altered or not prepared."""
    return load_pictures(_training(parameters), place)


def _training(p: Parameters) -> final_error.Parameters:
    """Return the training whose step is timed."""
    return final_error.Parameters(
        dataset=p.dataset, protocol=p.protocol, net=p.net, towers=p.towers, batch=p.batch, stored=p.stored, crop=p.crop,
        epochs=1.0,
    )  # fmt: skip


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Time every arm and return the record, which is also on disk.

    Raises StoreError where it cannot be written, Interrupted where it was stopped: a timing does not resume.
    """
    arms = parameters_of(task.spec)
    if any(p.gpus > 1 for p in arms.values()):
        raise RuntimeError("a network over several GPUs is not built")
    environment.strict_fp32()
    environment.keep_memory()
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    timed = {arm: _Arm(p, data, task.spec.seed) for arm, p in arms.items()}
    rounds = next(iter(arms.values())).rounds
    rows: list[dict[str, float]] = []
    for number in range(-1, rounds):  # the first warms up
        for index, arm in enumerate(timed):
            if monitor.stopping():
                raise Interrupted(max(0, number))
            row = {"round": number, "arm": index, **timed[arm].round()}
            rows += [row] if number >= 0 else []
        monitor.report((number + 1) / rounds, f"round {number + 1} of {rounds}")
    for arm in timed.values():
        arm.network.loader.close()
    loaders = ", ".join(sorted({p.loader for p in arms.values()}))
    trial = Trial(
        spec=task.spec,
        data_digest=data.digest,
        status="completed",
        measurements=tuple(_measurements(rows, list(timed), {arm: p.batch for arm, p in arms.items()})),
        environment={**environment.describe(task.device), "loader": loaders},
        started=started,
        duration_s=round(time.monotonic() - clock, 3),
    )
    save_curve(task.store, trial.identity, rows)
    save(task.store, trial)
    return trial


class _Arm:
    """One arm: its network, a batch that lies ready, and its loader."""

    def __init__(self, p: Parameters, data: Pictures, seed: int) -> None:
        self.device = data.device
        self.network = Network(_training(p), data, seed, p.loader)
        self.windows = self.network.loader.train(0)
        window = next(self.windows)
        self.ready, self.labels = self.network.finish(window, 0), window.labels

    def round(self) -> dict[str, float]:
        """Return the seconds a batch of the loader with its finish, of the step, and of the step once more."""
        for _ in range(AHEAD):
            next(self.windows)
        return {
            "loader_s": self._timed(lambda: self.network.finish(next(self.windows), 0)),
            "step_s": self._timed(self._step),
            "again_s": self._timed(self._step),
        }

    def _step(self) -> None:
        network = self.network
        network.before(0)
        F.cross_entropy(network.model(self.ready), self.labels).backward()
        network.recipe.optimizer.step()
        network.recipe.optimizer.zero_grad(set_to_none=True)

    def _timed(self, call: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(BATCHES):
            call()
        self._wait()
        return (time.perf_counter() - start) / BATCHES

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _measurements(rows: list[dict[str, float]], arms: list[str], batch: dict[str, int]) -> list[Measurement]:
    """Return the medians over the rounds, named ``metric/arm``, and the noise: the spread of step over step again."""
    found = []
    for index, arm in enumerate(arms):
        own = [row for row in rows if row["arm"] == index]
        ratio = statistics.median(row["step_s"] / row["loader_s"] for row in own)
        step = statistics.median(row["step_s"] for row in own) / batch[arm]
        noise = statistics.stdev(row["again_s"] / row["step_s"] for row in own)
        found += [
            Measurement(name=f"time-per-image/{arm}", value=step, unit=UNITS["time-per-image"]),
            Measurement(name=f"loader-over-step/{arm}", value=ratio, unit=UNITS["loader-over-step"]),
            Measurement(name=f"noise/{arm}", value=noise, unit="ratio"),
        ]
    return found
