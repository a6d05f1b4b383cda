"""Trials on a Ray cluster end as they do in one process, whatever becomes of machines, users and trials."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import repro
from repro import running
from repro.cli import main
from repro.running import runner, session
from repro.running.work import Silent
from repro.training.parallel import Team

HERE = Path(__file__).parent
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra 'ray'")


def played(folder: Path, seeds: int, threads: int = 1) -> dict[str, Any]:
    """Return what came of each scene of ``clustered.py``, in a process group of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "clustered.py"), str(folder), str(seeds), str(threads)],
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
@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ("gpu", 2, "repro: no machine of the cluster has a GPU; try --device cpu"),
        ("one-gpu", 2, "repro: --device cuda:0: on a cluster it is auto, cpu or cuda, and Ray chooses the GPU"),
        ("room", 2, "repro: no machine of the cluster has the 2 CPUs and 0 GPUs that a trial takes (at most 1 and 0 "),
        ("times", 2, "repro: throughput: a machine that other trials share tells no times; run it without --on"),
        (
            "other-torch",
            3,
            "seed 0: {host} has repro {repro} and torch 0.0, and this run is of {repro} and torch {torch}",
        ),
        ("other-data", 3, "seed 0: {host} has other data: sha256:others, not sha256:made-up; prepare it alike"),
    ],
)
def test_what_a_cluster_cannot_run_alike_is_refused(scenes: dict[str, Any], asked: str, code: int, words: str) -> None:
    """In one line a trial, which names the machine where one is to blame; and nothing is measured or recorded."""
    found, lines = scenes["refused"][asked]
    assert found == code
    assert len(lines) == (2 if asked.startswith("other") else 1)
    versions = {"host": scenes["refused"]["host"], "repro": repro.__version__, "torch": torch.__version__}
    assert all(words.format(**versions) in line for line in lines)
    assert scenes["refused"]["begun"] == []


@needs_ray
@pytest.mark.parametrize(
    ("gpus", "jobs", "threads", "most"), [(2, None, 8, 3), (2, 2, 8, 2), (0, None, 4, 10), (0, 5, 4, 5)]
)
def test_a_trial_takes_a_gpu_and_its_share_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int, jobs: int | None, threads: int, most: int
) -> None:
    """On CPUs as many as torch would use here; on machines with two GPUs, one and none, as many trials as have room.

    How many CPUs a machine without a GPU has makes no difference to those that have one.
    """
    from repro.running import cluster

    machines = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 128.0 if gpus else 16.0}]
    monkeypatch.setattr(cluster, "_machines", lambda: machines)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    there = cluster.Cluster(torch.device("cuda" if gpus else "cpu"), gpus, jobs, None)
    with there.pool(lambda _: None, lambda _: None, Silent(), threading.Event()) as pool:
        assert (pool.threads, pool.gpus) == (threads, 1 if gpus else 0)
        for number in range(most):
            assert pool.room()
            pool.running[number] = None
        assert not pool.room()


@needs_ray
def test_under_torchrun_a_cluster_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rank 0, before a cluster is looked for."""

    @contextmanager
    def met(_device: str) -> Iterator[tuple[Team, torch.device]]:
        yield Team(0, 2), torch.device("cpu")

    monkeypatch.setattr(runner, "joined", met)
    monkeypatch.setattr(session, "_cluster", lambda: pytest.fail("a cluster was looked for"))
    options = ["--condition", "smoke", "--on", "ray://192.0.2.1:1", "--store", str(tmp_path)]
    found = CliRunner().invoke(main, ["run", "claim", "lrn-error", *options])
    assert found.exit_code == 2
    told = "repro: --on ray://192.0.2.1:1: run it without torchrun; each trial is one process there"
    assert found.output.splitlines() == [told]


@needs_ray
@pytest.mark.parametrize("mode", [None, "token"])
def test_a_cluster_that_does_not_answer_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    """Ray itself does not say that a token is wanted, and takes none unless told."""
    import ray

    def refuses(**_: Any) -> None:
        raise ConnectionError("Failed to connect to 192.0.2.1:6379\nand more")

    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.setenv("RAY_AUTH_MODE", mode) if mode else monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    options = ["--on", "ray://192.0.2.1:6379", "--store", str(tmp_path)]
    found = CliRunner().invoke(main, ["run", "claim", "lrn-error", *options])
    assert found.exit_code == 2
    how = "" if mode else "where it asks for a token, set RAY_AUTH_MODE=token; "
    told = "repro: --on ray://192.0.2.1:6379: no cluster was joined (Failed to connect to 192.0.2.1:6379); "
    assert found.output.splitlines() == [f"{told}{how}see docs/cluster.md"]


@needs_ray
def test_claims_are_run_at_once_and_end_as_in_turn(scenes: dict[str, Any]) -> None:
    """The trial that both want is run once, and what is told names the claim."""
    scene = scenes["together"]
    assert scene["together"]["code"] == scene["in-turn"]["code"] == 0
    assert scene["together"]["begun"] == scene["in-turn"]["begun"] == 3
    assert scene["together"]["ended"] == ["lrn-error: lrn", "lrn-error: none", "overlapping-pooling-error: apart"]
    assert scene["in-turn"]["ended"] == ["apart", "lrn", "none"]
    assert scene["same"]


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
    """With two threads a trial, of which the results are to the bit as well."""
    scene = played(tmp_path, 10, threads=2)["killed"]
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
    monkeypatch.delattr(running, "cluster", raising=False)
    options = ["--on", "ray", "--store", str(tmp_path)]
    found = CliRunner().invoke(main, ["run", "claim", "lrn-error", *options])
    assert found.exit_code == 2
    assert found.output.splitlines() == ["repro: --on needs ray: install this package with its extra 'ray'"]
