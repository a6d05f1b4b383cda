"""Measure ``throughput``: time the training step and the loader of every arm, in turn, round after round.

The arms take turns, so that other load on the machine meets all of them. Each round times the step twice; the spread of
the ratio of the two is the noise. On a GPU every clock is read after a synchronisation. Two ranks start together, and
the slower one's time counts; the bytes that they exchange are counted, and must be what the scheme needs.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import torch

from repro import environment
from repro.data.processes import cores
from repro.experiments import final_error
from repro.experiments.throughput import UNITS, Parameters, parameters_of, spread
from repro.loading import Window
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Place, Task, pictures
from repro.measure.member import Network
from repro.models.alexnet import AlexNet, layers
from repro.models.two_gpu import Link, crossings, tower
from repro.store import Measurement, Trial, save, save_curve
from repro.training import precision, ranks
from repro.training.captured import update_for
from repro.training.loop import Interrupted
from repro.training.recipe import Recipe

BATCHES = 2  # timed at a time
AHEAD = 4  # batches that a loader may have ready in advance; they are taken before its clock starts
AHEAD_A_WORKER = 2  # of a DataLoader, whose workers have as many each


def load(parameters: Parameters, place: Place) -> Pictures:
    """Return the condition's set. Raises DataError as ``repro.measure.pictures.load``."""
    training = _training(parameters)
    return pictures.load(training.dataset, training.stored, place)


def _training(p: Parameters) -> final_error.Parameters:
    """Return the training whose step is timed."""
    return final_error.Parameters(
        dataset=p.dataset, protocol=p.protocol, net=p.net, towers=p.towers, batch=p.batch, stored=p.stored, crop=p.crop,
        epochs=1.0, precision=p.precision,
    )  # fmt: skip


def measure(task: Task, data: Pictures, monitor: Monitor) -> Trial:
    """Time every arm and return the record, which is also on disk.

    Raises StoreError where it cannot be written, and Interrupted where it was stopped; a timing is not resumed.
    """
    arms = parameters_of(task.spec)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    rounds = next(iter(arms.values())).rounds
    rows: list[dict[str, float]] = []
    with _timing(arms, data, task, monitor) as timing:
        for number in range(-1, rounds):  # the first warms up
            for index, arm in enumerate(arms):
                if monitor.stopping():
                    raise Interrupted
                row = {"round": number, "arm": index, **timing.round(arm)}
                rows += [row] if number >= 0 else []
            monitor.report((number + 1) / rounds, f"round {number + 1} of {rounds}")
        where, exchanged = timing.environment(), timing.exchanged()
    loaders = ", ".join(sorted({p.loader for p in arms.values()}))
    trial = Trial(
        spec=task.spec,
        data_digest=data.digest,
        status="completed",
        measurements=(
            *_measurements(rows, list(arms), {arm: p.batch for arm, p in arms.items()}),
            *_crossed(arms, data.classes, exchanged),
        ),
        environment={**where, "loader": loaders},
        started=started,
        duration_s=round(time.monotonic() - clock, 3),
    )
    save_curve(task.setting.store, trial.identity, rows)
    save(task.setting.store, trial)
    return trial


class _Timing(Protocol):
    """The nets of a trial, built and ready, wherever they are."""

    def round(self, arm: str) -> dict[str, float]: ...
    def exchanged(self) -> dict[str, int]: ...
    def environment(self) -> dict[str, str | int | bool | None]: ...


@contextmanager
def _timing(arms: Mapping[str, Parameters], data: Pictures, task: Task, monitor: Monitor) -> Iterator[_Timing]:
    """Build every net in this process, or in rank processes, and yield what times them."""
    p = next(iter(arms.values()))
    if p.ranks == 1:
        here = _Here(task.setting.device, arms, data, task.spec.seed, captured=task.setting.captured)
        try:
            yield here
        finally:
            here.close()
        return
    if data.prepared is not None:
        _ = data.colours  # computed here once and cached on disk, rather than by each rank
    devices = [f"cuda:{rank}" if p.gpus else "cpu" for rank in range(p.ranks)]
    with ranks.started(
        _Here, arms, data.to(torch.device("cpu")), task.spec.seed,
        devices=devices, threads=max(1, torch.get_num_threads() // p.ranks), stopping=monitor.stopping,
    ) as group:  # fmt: skip
        yield _InRanks(arms, group)
        group.ask("close")


class _InRanks:
    """The same nets in rank processes: rank 0 answers for all, and a rank that an arm does not need waits."""

    def __init__(self, arms: Mapping[str, Parameters], group: ranks.Ranks) -> None:
        self.arms, self.group = arms, group

    def round(self, arm: str) -> dict[str, float]:
        return self.group.ask("round", arm, of=None if spread(self.arms[arm]) else (0,))[0]

    def exchanged(self) -> dict[str, int]:
        one, other = self.group.ask("exchanged")
        if one != other:
            raise RuntimeError(f"the ranks sent unlike amounts, {one} and {other}")
        return one

    def environment(self) -> dict[str, str | int | bool | None]:
        return self.group.ask("environment", of=(0,))[0]


class _Here:
    """The nets that this process trains: all of them, or the ones that its rank has a part in."""

    def __init__(
        self, device: torch.device, arms: Mapping[str, Parameters], data: Pictures, seed: int, *, captured: bool = False
    ) -> None:
        environment.keep_memory()
        self.captured = captured
        self.device, data = device, data if data.device == device else data.to(device)
        self.link = Link() if any(p.ranks == 2 for p in arms.values()) else None
        self.arms: dict[str, _Arm] = {}
        for arm, p in arms.items():
            if self.link is None or self.link.rank == 0 or spread(p):
                self.arms[arm] = _Arm(p, data, seed, self.link if spread(p) else None, captured=captured)

    def round(self, arm: str) -> dict[str, float]:
        return self.arms[arm].round()

    def exchanged(self) -> dict[str, int]:
        """Return the bytes that this rank sends in a step, by arm."""
        return {name: arm.exchanged for name, arm in self.arms.items() if arm.link is not None}

    def environment(self) -> dict[str, str | int | bool | None]:
        found = {**environment.describe(self.device), "captured": self.captured}
        if self.link is None:
            return found
        direct = torch.cuda.can_device_access_peer(0, 1) if self.device.type == "cuda" else None
        return {**found, "ranks": 2, "backend": torch.distributed.get_backend(), "peer_access": direct}

    def close(self) -> None:
        for arm in self.arms.values():
            arm.network.loader.close()


class _Arm:
    """One arm: its network, a batch that lies ready, and its loader; with a ``link``, only this rank's tower."""

    def __init__(self, p: Parameters, data: Pictures, seed: int, link: Link | None, *, captured: bool) -> None:
        self.device, self.link, self.precision = data.device, link, p.precision
        precision.use(self.precision)
        training = _training(p)
        self.network = Network(training, data, seed, p.loader)
        if link is not None:
            half = tower(self.network.model, link).to(memory_format=torch.channels_last)
            self.network.model = precision.compute_in(half, p.precision)
            self.network.recipe = Recipe(
                half, net=p.net, protocol=p.protocol, rate=training.rate, weight_decay=training.weight_decay,
                kind=training.schedule,
            )  # fmt: skip
        network = self.network
        workers = cores() if p.loader == "torchvision" else 0
        self.ahead, self.batches = max(AHEAD, AHEAD_A_WORKER * workers), max(BATCHES, workers)
        self.update = update_for(network.model, network.recipe.optimizer, captured=captured)
        self.windows = network.loader.train(0)
        window = next(self.windows)
        self.ready, self.labels = self.network.finish(window, 0), window.labels
        if link is not None:
            _refuse_unlike_batches(window, link)
            link.sent.clear()
            self._step()
            self.exchanged = link.sent.total()

    def round(self) -> dict[str, float]:
        """Return the seconds per batch of the loader (with its finish), of the step, and of the step once more."""
        precision.use(self.precision)
        for _ in range(self.ahead):
            next(self.windows)
        loader_s = self._timed(lambda: self.network.finish(next(self.windows), 0), self.batches)
        # Until it is ready again: what it does meanwhile, also on the GPU, would count as the step's.
        time.sleep((self.ahead + 1) * loader_s)
        return {"loader_s": loader_s, "step_s": self._timed(self._step), "again_s": self._timed(self._step)}

    def _step(self) -> None:
        self.network.before(0)
        self.update(self.ready, self.labels)

    def _timed(self, call: Callable[[], object], times: int = BATCHES) -> float:
        if self.link is not None:
            self.link.largest(0.0, self.device)  # neither rank starts before the other is there
        self._wait()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self._wait()
        took = (time.perf_counter() - start) / times
        return took if self.link is None else self.link.largest(took, self.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _refuse_unlike_batches(window: Window, link: Link) -> None:
    """Raise RuntimeError where the ranks hold different batches: that is as fast, but not the paper's scheme."""
    mine = torch.cat([window.images.flatten(1).sum(1, dtype=torch.int64), window.labels])  # whole numbers: exact
    if not torch.equal(mine, link.swap(mine, "check")):
        raise RuntimeError("the ranks hold different batches")


def _measurements(rows: list[dict[str, float]], arms: list[str], batch: dict[str, int]) -> list[Measurement]:
    """Return the medians over the rounds, named ``metric/arm``, and the noise: the s.d. of again_s / step_s."""
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


def _crossed(arms: Mapping[str, Parameters], classes: int, exchanged: Mapping[str, int]) -> list[Measurement]:
    """Return the bytes that a rank sent in a step, and the bytes that it had to send given the layers' shapes.

    Raises RuntimeError where the two differ, because what was timed is then not the scheme of section 3.2.
    """
    found = []
    for arm, sent in exchanged.items():
        p = arms[arm]
        table = layers(AlexNet(protocol=p.protocol, form=p.net, classes=classes, size=p.crop))
        itemsize = 2 if p.precision == "bf16" else 4
        needed = sum(c.forward + c.backward for c in crossings(table, batch=p.batch, size=p.crop, itemsize=itemsize))
        if sent != needed:
            raise RuntimeError(f"the ranks of {arm} sent {sent} bytes a step, and the scheme needs {needed}")
        found += [
            Measurement(name=f"bytes-exchanged/{arm}", value=sent, unit="bytes"),
            Measurement(name=f"bytes-needed/{arm}", value=needed, unit="bytes"),
        ]
    return found
