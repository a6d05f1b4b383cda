"""Timing: every arm in every round, medians and noise from the rounds, and what a machine lacks."""

from pathlib import Path

import pytest
import torch

from repro.experiments import throughput
from repro.folders import default_claims
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task, measure
from repro.planning import plan
from repro.registry import load_claim
from repro.store import load_curve


def test_a_timing_measures_all_arms_in_turn(tmp_path: Path) -> None:
    """Two nets, five rounds: a row an arm and round, and what is recorded follows from the rows."""
    pictures = Pictures.drawn(64, 16, "sha256:made-up")
    common = {"dataset": "embedded", "protocol": "modern", "net": "alexnet-32", "stored": 32, "crop": 28, "batch": 8}
    arms = {
        towers: throughput.Parameters(**common, towers=towers, loader="resident", rounds=5, gpus=0)
        for towers in ("two", "half")
    }
    seen: list[float] = []
    task = Task(throughput.spec(arms, 0), "timing", 1.0, Setting(tmp_path, torch.device("cpu")))
    trial = measure(task, pictures, Monitor(lambda done, _: seen.append(done)))
    rows = load_curve(tmp_path, trial.identity)
    assert [(row["round"], row["arm"]) for row in rows] == [(n, arm) for n in range(5) for arm in (0, 1)]
    steps = sorted(row["step_s"] for row in rows if row["arm"] == 0)
    assert trial.value("time-per-image/two") == pytest.approx(steps[2] / 8, rel=1e-6)
    assert {m.name.split("/")[0] for m in trial.measurements} == {"time-per-image", "loader-over-step", "noise"}
    assert trial.environment["loader"] == "resident"
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("gpus", "lack"), [(0, "needs 2 GPUs, and the run has 0"), (1, "needs 2 GPUs, and the run has 1"), (2, None)]
)
def test_a_timing_on_two_gpus_needs_two(gpus: int, lack: str | None) -> None:
    """What a machine lacks is said before anything is run."""
    condition = load_claim(default_claims() / "two-gpu-time.toml").conditions["two-gpus"]
    assert plan.lacks(condition, gpus) == lack
