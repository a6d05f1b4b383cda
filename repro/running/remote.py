"""The worker's end of a cluster: run one trial in a temporary folder, and send its files home."""

import contextlib
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError

import repro
from repro import measure
from repro.files import read, write_atomically
from repro.measure import Monitor, Place, Task
from repro.problem import Problem, first_line
from repro.running.attempt import attempt
from repro.running.work import Outcome
from repro.store import RESULTS, folder, recall
from repro.training import checkpoint

STATE_S = 60.0  # seconds between two states sent home; longer where sending would take over 2% of a worker's time
STATE = ("checkpoint.pt", "checkpoint.pt.previous", "checkpoint.pt.new")
FILES = (*STATE, *RESULTS)


@dataclass(frozen=True)
class Order:
    """All that a worker needs to run a trial: the task, where its data comes from, and the state to begin with."""

    task: Task
    source: tuple[str, Any, Place]
    digest: str
    threads: int
    versions: tuple[str, str]
    attempt: int
    poll_s: float
    state: dict[str, bytes]


@dataclass(frozen=True)
class Back:
    """What a worker returns: the trial's outcome (None where it was stopped), and its files (None: it never began)."""

    outcome: Outcome
    files: dict[str, bytes] | None = None


def files_in(place: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of those of the named files that exist in the folder ``place``."""
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = read(place / name)
    return found


def put(place: Path, files: dict[str, bytes]) -> None:
    """Write files into the folder ``place``, each whole or not at all. Raises StoreError."""
    for name in FILES:
        if name in files:
            write_atomically(place / name, files[name])


_data: dict[str, Any] = {}
"""The data that this worker loaded last, under a key that says what it was loaded from."""


def measure_there(order: Order, desk: Any) -> Back:
    """Run one trial on a worker of the cluster, in a temporary folder, and return its outcome and files."""
    host = socket.gethostname()
    if order.versions != (ours := (repro.__version__, torch.__version__)):
        there = " and torch ".join(order.versions)
        return Back(f"{host} has repro {' and torch '.join(ours)}, and this run is of {there}: install the same")
    torch.set_num_threads(order.threads)
    deterministic = order.task.setting.deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    key, identity = order.task.spec.key, order.task.spec.identity(order.digest)
    with tempfile.TemporaryDirectory(prefix="repro-") as root:
        task = replace(order.task, setting=replace(order.task.setting, store=Path(root)))
        place = folder(task.setting.store, identity)
        put(place, order.state)
        with _Line(desk, key, order.attempt, place, order.poll_s) as line:
            try:
                data = _load(ray.get(order.source), task.setting.device)
                if data.digest != order.digest:
                    _data.clear()  # it may be put right before the next trial comes
                    return Back(f"{host} has other data: {data.digest}, not {order.digest}; prepare it alike")
                outcome = attempt(task, data, Monitor(line.report, line.stopping), recall(Path(root), identity))
            except Problem as problem:
                return Back(f"{host}: {first_line(problem)}")
        return Back(outcome, files_in(place, FILES))


def _load(source: tuple[str, Any, Place], device: torch.device) -> Any:
    """Return the data; reuse what the trial before it loaded, where that is the same. Raises DataError."""
    experiment, parameters, place = source
    if not place.own.is_dir():  # the store is not shared with this machine
        place = replace(place, own=Path(tempfile.gettempdir()) / f"repro-sets-{os.getuid()}")
    name = f"{experiment} {parameters!r} {place!r} {device}"
    if name not in _data:
        _data.clear()
        _data[name] = measure.load(experiment, parameters, place).to(device)
    return _data[name]


class _Line:
    """A worker's line home: it reports how far the trial is, sends its state, and hears whether to stop."""

    def __init__(self, desk: Any, key: str, attempt: int, place: Path, poll_s: float) -> None:
        self._desk, self._key, self._attempt, self._place, self._poll_s = desk, key, attempt, place, poll_s
        self._latest = (0.0, "")
        self._stop, self._over = threading.Event(), threading.Event()
        self._sent, self._mark = time.monotonic(), self._stamp()
        self._pause = STATE_S

    def __enter__(self) -> "_Line":
        self._call()
        self._caller = threading.Thread(target=self._calls, daemon=True)
        self._caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._caller.join()

    def stopping(self) -> bool:
        return self._stop.is_set()

    def report(self, done: float, words: str) -> None:
        """Note how far the trial is, and every STATE_S seconds or more send home the state that it has written."""
        self._latest = (done, words)
        mark = self._stamp()
        if mark is None or mark == self._mark or time.monotonic() - self._sent < self._pause:
            return
        begun = time.monotonic()
        try:
            ray.get(self._desk.keep.remote(self._key, self._attempt, files_in(self._place, (STATE[0], "record.json"))))
        except RayError:
            self._stop.set()  # the home process is gone, or cannot write
        self._sent, self._mark = time.monotonic(), mark
        self._pause = checkpoint.pause(STATE_S, self._sent - begun)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = (self._place / STATE[0]).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _calls(self) -> None:
        while not self._over.wait(self._poll_s):
            self._call()

    def _call(self) -> None:
        try:
            if ray.get(self._desk.tell.remote(self._key, self._attempt, *self._latest)):
                self._stop.set()
        except RayError:
            self._stop.set()
