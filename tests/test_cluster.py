"""Trials on a Ray cluster end as they do in one process, whatever becomes of machines, users and trials."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from repro.cli import main

HERE = Path(__file__).parent
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra 'ray'")


def played(folder: Path, seeds: int) -> dict[str, Any]:
    """Return what came of each scene of ``clustered.py``, in a process group of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "clustered.py"), str(folder), str(seeds)],
        capture_output=True, text=True, check=False, start_new_session=True, timeout=900,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    for line in done.stderr.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return played(tmp_path_factory.mktemp("clustered"), 1)


@needs_ray
def test_a_trial_that_fails_is_recorded_and_the_others_go_on(scenes: dict[str, Any]) -> None:
    scene = scenes["failing"]
    assert scene["code"] == 3
    assert scene["trials"] == [["completed", ""], ["failed", "RuntimeError: broken on purpose"]]
    assert scene["begun"] == 2


@needs_ray
def test_ctrl_c_brings_the_states_home_and_the_same_command_goes_on(scenes: dict[str, Any]) -> None:
    """Also without Ray, and to the bit where an undisturbed run comes out."""
    scene = scenes["stopped"]
    assert scene["code"] == 130
    assert scene["left"] == ["running", "running"]
    assert scene["resumed"] == [True, True]
    assert scene["again"] == scene["whole"] == 0
    assert scene["same"]


@needs_ray
def test_trials_of_a_machine_that_dies_end_elsewhere_once_each_and_alike(scenes: dict[str, Any]) -> None:
    scene = scenes["killed"]
    assert scene["failed"] == []
    assert scene["ended"]
    assert scene["begun"] == scene["trials"] + 1
    assert scene["resumed"] == 1
    assert scene["same"]


@needs_ray
@pytest.mark.long
def test_twenty_trials_outlive_a_machine(tmp_path: Path) -> None:
    scene = played(tmp_path, 10)["killed"]
    assert scene["trials"] == 20
    assert (scene["failed"], scene["ended"], scene["begun"], scene["same"]) == ([], True, 21, True)


@pytest.mark.parametrize("name", ["slurm", "ray:/auto", "ray://", "ray:// here"])
def test_a_cluster_that_makes_no_sense_is_refused(name: str) -> None:
    found = CliRunner().invoke(main, ["run", "claim", "lrn-error", "--on", name])
    assert found.exit_code == 2
    assert "write ray, ray://auto or ray://HOST:PORT" in found.output


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "repro.running.cluster", raising=False)
    options = ["--on", "ray", "--store", str(tmp_path)]
    found = CliRunner().invoke(main, ["run", "claim", "lrn-error", *options])
    assert found.exit_code == 2
    assert found.output.splitlines() == ["repro: --on needs Ray: install this package with its extra 'ray'"]
