"""Kill trials at chosen points, go on with them, and tell whether they end as if nothing had happened.

    python tests/crash.py STORE KILLS SEED [KIND...]

A point is a training step, or a moment just before or just after a file is synced, moved or removed. Each trial is run
once undisturbed, which counts its points; then, for each kill, a child process runs it afresh in a store of its own and
sends itself SIGKILL at a point drawn at random, a step and a moment of writing in turn, and another child goes on.
Printed is a line of JSON a kill: the kind, the point, what happened there, and whether curve, record and missed images
are those of the undisturbed trial.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro import store
from repro.data import Dataset, drawn
from repro.experiments import epochs_to, final_error, probe
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task
from repro.running import attempt
from repro.training import loop

CPU = torch.device("cpu")
SMALL = {
    "dataset": "embedded", "protocol": "modern", "net": "alexnet-32", "stored": 32, "crop": 28, "batch": 32,
    "rate": 0.02,
}  # fmt: skip


def colours(n: int = 128) -> Dataset:
    """Return noisy patches of one colour a class: learned in a few epochs."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    palette = rng.integers(40, 216, (10, 1, 1, 3))
    images = np.clip(palette[labels] + rng.normal(0, 20, (n, 8, 8, 3)), 0, 255).astype(np.uint8)
    return Dataset("colours", torch.from_numpy(images), torch.from_numpy(labels), 10, "colours-1")


def pictures() -> Pictures:
    """Return a small synthetic set in memory."""
    return Pictures.drawn(160, 40, "sha256:made-up")


def prepared(root: Path) -> Pictures:
    """Return a small synthetic set of JPEG files, for a loader that reads them while it trains."""
    drawn.COUNTS = {"train": 160, "val": 40}
    made = drawn.prepared(root / "set", 32)
    return Pictures("embedded", 10, made.digest, prepared=made)


def trial(kind: str, root: Path) -> tuple[Any, Any]:
    """Return what makes the task of a kind, given its store, and its data."""
    if kind == "epochs-to":
        p = epochs_to.Parameters(
            net="19pct", activation="tanh", dataset="embedded", protocol="modern", batch=8, checks_per_epoch=4,
            max_epochs=5.0, rates=(0.01, 0.02, 0.04),
        )  # fmt: skip
        spec = epochs_to.spec(p, 0, 0.02)
        return lambda at: Task(spec, "scoring", 5.0, Setting(at, CPU)), colours()
    if kind == "probe":
        q = probe.Parameters(**SMALL, epochs=1.0)
        return lambda at: Task(probe.spec(q, 0), "scoring", 1.0, Setting(at, CPU)), pictures()
    if kind == "dali":
        p = final_error.Parameters(**SMALL, epochs=2.0)
        return lambda at: Task(final_error.spec(p, 0), "scoring", 2.0, Setting(at, CPU, "dali")), prepared(root)
    p = final_error.Parameters(**SMALL, epochs=1.5, members=2)
    return lambda at: Task(final_error.spec(p, 0), "scoring", 3.0, Setting(at, CPU)), pictures()


class Points:
    """Counts the points passed, and ends the process at one of them as the kernel would for want of memory."""

    def __init__(self, at: int | None) -> None:
        self.at, self.passed, self.names = at, 0, []

    def pass_(self, name: str) -> None:
        self.passed += 1
        self.names.append(name)
        if self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        """Make a point of the moments before and after ``owner.name``."""
        real: Callable[..., Any] = getattr(owner, name)

        def watched(*arguments: Any, **more: Any) -> Any:
            self.pass_(f"before {name}")
            found = real(*arguments, **more)
            self.pass_(f"after {name}")
            return found

        setattr(owner, name, watched)


def run(kind: str, root: Path, at: Path, point: int | None) -> list[str]:
    """Run the trial of a kind, or what is left of it, in the store ``at``; return the names of the points passed."""
    torch.set_num_threads(1)
    loop.CHECKPOINT_S = 0.0
    make, data = trial(kind, root)
    task = make(at)
    points = Points(point)
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        points.around(owner, name)

    def stopping() -> bool:
        points.pass_("step")
        return False

    seen = store.recall(at, task.spec.identity(data.digest))
    found = attempt.attempt(task, data, Monitor(stopping=stopping), seen)
    assert isinstance(found, store.Trial), found
    return points.names


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Return how a forked process that does ``work`` ended, as ``os.waitpid`` says it, and what it returned."""
    out, into = os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            os.close(out)
            with os.fdopen(into, "w") as file:
                json.dump(work(), file)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as file:
        text = file.read()
    return os.waitpid(pid, 0)[1], json.loads(text) if text else None


def outcome(at: Path) -> dict[str, Any]:
    """Return what a store's one trial ended with: all that is no clock, no path and no process."""
    (found,), problems = store.load(at)
    place = store.folder(at, found.identity)
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    missed = None
    if "missed.npz" in files:
        with np.load(place / "missed.npz") as kept:
            missed = {name: kept[name].tobytes().hex() for name in kept.files}
    return {
        "status": found.status, "message": found.message, "limit": found.limit, "problems": problems, "missed": missed,
        "measurements": [m.model_dump() for m in found.measurements], "curve": files["curve.csv"].decode(),
        "left": sorted(name for name in files if name not in ("curve.csv", "record.json", "lock", "missed.npz",
                                                              "looked.npz", "pictures.npz")),
    }  # fmt: skip


def main(root: Path, kills: int, seed: int, kinds: list[str]) -> None:
    """Do what the module says."""
    rng = random.Random(seed)
    whole: dict[str, Any] = {}
    points: dict[str, list[str]] = {}
    for kind in kinds:
        if kind == "dali":
            assert prepared(root).colours  # drawn and added up once, before it is forked: or one run passes more points
        status, points[kind] = in_child(lambda kind=kind: run(kind, root, root / f"{kind}-whole", None))
        assert status == 0, kind
        whole[kind] = outcome(root / f"{kind}-whole")
    for number in range(kills):
        kind = kinds[number % len(kinds)]
        in_step = number // len(kinds) % 2 == 0  # in turn between two steps, and in the midst of writing
        point = rng.choice([i for i, name in enumerate(points[kind], 1) if (name == "step") == in_step])
        at = root / f"{kind}-{number}"
        status, _ = in_child(lambda kind=kind, at=at, point=point: run(kind, root, at, point))
        assert os.WIFSIGNALED(status), (kind, point, status)
        assert os.WTERMSIG(status) == signal.SIGKILL, (kind, point, status)
        status, rest = in_child(lambda kind=kind, at=at: run(kind, root, at, None))
        same = status == 0 and outcome(at) == whole[kind]
        resumed = rest is not None and rest.count("step") < points[kind].count("step")
        told = {"kind": kind, "point": point, "of": len(points[kind]), "name": points[kind][point - 1]}
        print(json.dumps({**told, "same": same, "resumed": resumed}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] or ["epochs-to", "final-error", "probe"])
