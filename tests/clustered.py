"""A Ray cluster of two nodes on this machine, and what goes wrong on one, as a script that a test runs by itself.

    python tests/clustered.py FOLDER SEEDS [THREADS]

On one cluster, in turn: what is refused; two claims at once; a trial that fails while the other goes on; Ctrl-C, and
the same command again without Ray; a node killed with its trial under way. Printed is a line of JSON each, to stderr.
The script must lead a process group of its own: it sends that group the SIGINT that a terminal would. Files in the
folder switch what workers do, and log what they run. A trial takes THREADS threads, 1 unless told, as many as a node
has CPUs.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from simulation import Heard

from repro import measure, registry, store
from repro.cli import main
from repro.experiments import final_error
from repro.folders import default_claims
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Setting, Task
from repro.running import cluster, remote, runner
from repro.store import Trial
from repro.training import loop

CLAIM = "dropout-overfitting"
SHARING = ("lrn-error", "overlapping-pooling-error")
PATIENCE_S = 120.0


def switched(name: str) -> bool:
    """Whether a switch is on, here or in a worker."""
    return (Path(os.environ["CLUSTERED"]) / name).exists()


class OtherTorch:
    """Torch, of another version where the switch says so."""

    def __getattr__(self, name: str) -> Any:
        return "0.0" if name == "__version__" and switched("other-torch") else getattr(torch, name)


def pictures() -> Pictures:
    """Return a small synthetic set, ten steps of 32."""
    return Pictures.drawn(320, 40, "sha256:made-up")


def load_there(*_: Any) -> Pictures:
    """Return what a worker finds where the data should be."""
    return dataclasses.replace(pictures(), digest="sha256:others") if switched("other-data") else pictures()


def set_up() -> None:
    """Prepare a worker, or this process: small data, a state at every check, and what the folder's switches say."""
    folder = Path(os.environ["CLUSTERED"])
    measure.load = load_there if os.getpid() != int(os.environ["AT_HOME"]) else lambda *_: pictures()
    remote.torch = OtherTorch()
    loop.CHECKPOINT_S = remote.STATE_S = 0.0
    real = measure.measure

    def watched(task: Task, data: Any, monitor: Monitor) -> Trial:
        begun = (store.folder(task.setting.store, task.spec.identity(data.digest)) / "checkpoint.pt").exists()
        with (folder / "log").open("a") as log:
            log.write(json.dumps({"key": task.spec.key, "resumed": begun, "pid": os.getpid()}) + "\n")
        if switched("break") and task.spec.config.get("dropout") is False:
            raise RuntimeError("broken on purpose")

        def slowly(done: float, words: str) -> None:
            monitor.report(done, words)
            if switched("slow"):
                time.sleep(0.4)

        return real(task, data, Monitor(slowly, monitor.stopping))

    measure.measure = watched


def outcomes(root: Path) -> dict[str, Any]:
    """Return what each trial of a store ended with, by its key: all that is no clock, no path and no process."""
    trials, problems = store.load(root)
    assert problems == []
    found = {}
    for trial in trials:
        place = store.folder(root, trial.identity)
        found[trial.spec.key] = {
            "status": trial.status, "measurements": [m.model_dump() for m in trial.measurements],
            "files": {name: (place / name).read_bytes().hex() if (place / name).exists() else None
                      for name in ("curve.csv", "missed.npz")},
            "left": sorted(path.name for path in place.iterdir() if path.name.startswith("checkpoint")),
        }  # fmt: skip
    return found


def command(root: Path, *more: str, claims: tuple[str, ...] = (CLAIM,)) -> int:
    """Return the exit code of ``repro run claim``."""
    try:
        main(["run", "claim", *claims, "--condition", "smoke", "--device", "cpu", "--store", str(root), *more])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def told(folder: Path, *more: str, claims: tuple[str, ...] = (CLAIM,)) -> list[Any]:
    """Return the exit code of a command on the cluster, and what it says on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = command(folder / "refused", "--on", "ray", *more, claims=claims)
    return [code, said.getvalue().splitlines()]


def refused(folder: Path, threads: int) -> dict[str, Any]:
    """What a cluster, and a worker, do not run."""
    found = {"gpu": told(folder, "--device", "cuda"), "one-gpu": told(folder, "--device", "cuda:0")}
    found["times"] = told(folder, claims=("two-gpu-time",))
    torch.set_num_threads(threads + 1)
    found["room"] = told(folder)
    torch.set_num_threads(threads)
    for switch in ("other-torch", "other-data"):
        (folder / switch).touch()
        found[switch] = told(folder, "--seeds", "1")
        (folder / switch).unlink()
    begun = [path.name for path in (folder / "refused").glob("trials/*/record.json")]
    return {**found, "begun": [*begun, *logged(folder)], "host": socket.gethostname()}


def wait_for(true: Any) -> None:
    """Wait until ``true()``."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return what the workers ran since the last call, oldest first."""
    log = folder / "log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def together(folder: Path) -> dict[str, Any]:
    """Two claims that have an arm in common, at once and, without Ray, in turn."""
    found = {}
    for name, more in (("together", ("--on", "ray")), ("in-turn", ())):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = command(folder / name, *more, claims=SHARING)
        ended = [line.partition(" scoring")[0] for line in said.getvalue().splitlines() if " scoring" in line]
        found[name] = {"code": code, "begun": len(logged(folder)), "ended": sorted(ended)}
    return {**found, "same": outcomes(folder / "together") == outcomes(folder / "in-turn")}


def failing(folder: Path) -> dict[str, Any]:
    """One of two trials fails."""
    (folder / "break").touch()
    code = command(folder / "failing", "--on", "ray")
    (folder / "break").unlink()
    trials = store.load(folder / "failing")[0]
    ends = sorted((t.status, t.message) for t in trials)
    return {"code": code, "trials": ends, "begun": len(logged(folder))}


def stopped(folder: Path) -> dict[str, Any]:
    """Ctrl-C with trials under way; the rest without Ray, and all of it undisturbed."""
    (folder / "slow").touch()
    root = folder / "stopped"

    def press() -> None:
        wait_for(lambda: len(list(root.glob("trials/*/checkpoint.pt"))) == 2)
        os.killpg(0, signal.SIGINT)

    pressing = threading.Thread(target=press, daemon=True)
    pressing.start()
    code = command(root, "--on", "ray")
    pressing.join()
    (folder / "slow").unlink()
    left = sorted(one["status"] for one in outcomes(root).values())
    logged(folder)
    again = command(root)
    resumed = [line["resumed"] for line in logged(folder)]
    whole = command(folder / "whole")
    logged(folder)
    same = outcomes(root) == outcomes(folder / "whole")
    return {"code": code, "left": left, "again": again, "resumed": resumed, "whole": whole, "same": same}


def killed(folder: Path, nodes: Any, node: Any, seeds: int) -> dict[str, Any]:
    """A node dies with its trial under way."""
    (folder / "slow").touch()
    root = folder / "killed"
    condition = registry.load_registry(default_claims())[CLAIM].conditions["smoke"]
    arms = {name: p.model_copy(update={"epochs": 1.5}) for name, p in condition.arms.items()}
    made: Any = type("C", (), {"arms": arms})
    source = runner.Source(pictures(), "final-error", condition.any_arm, runner.Place(None, folder / "sets"))
    heard = Heard()

    def kill() -> None:
        wait_for(lambda: len(list(root.glob("trials/*/checkpoint.pt"))) == 2)
        nodes.remove_node(node, allow_graceful=False)
        (folder / "slow").unlink()

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    wanted, cpu = tuple(range(seeds)), torch.device("cpu")
    with cluster.joined("ray", "cpu", None) as there:
        runner.run_together([runner.Wanted(made, source, wanted)], Setting(root, cpu), there.pool, observer=heard)
    killing.join()
    begun = logged(folder)
    runner.run(runner.Wanted(made, source, wanted), Setting(folder / "undisturbed", cpu))
    logged(folder)
    keys = {final_error.spec(arm, seed).key for arm in arms.values() for seed in range(seeds)}
    return {
        "failed": heard.failures, "ended": sorted(trial.spec.key for trial in heard.finished) == sorted(keys),
        "trials": len(keys), "begun": len(begun),
        "resumed": sum(line["resumed"] for line in begun),
        "same": outcomes(root) == outcomes(folder / "undisturbed"),
    }  # fmt: skip


def script(folder: Path, seeds: int, threads: int) -> None:
    """Do what the module says."""
    os.environ |= {"CLUSTERED": str(folder), "OMP_NUM_THREADS": str(threads), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["AT_HOME"] = str(os.getpid())
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    torch.set_num_threads(threads)
    set_up()
    import ray
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # a dead node is noticed in seconds
    head = {"num_cpus": threads, "include_dashboard": False, "_system_config": soon}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    node = nodes.add_node(num_cpus=threads)
    ray.init(
        nodes.address, log_to_driver=False, logging_level="error", configure_logging=False,
        runtime_env={"worker_process_setup_hook": "clustered.set_up"},
    )  # fmt: skip
    for name, play in (
        ("refused", lambda: refused(folder, threads)), ("together", lambda: together(folder)),
        ("failing", lambda: failing(folder)),
        ("stopped", lambda: stopped(folder)), ("killed", lambda: killed(folder, nodes, node, seeds)),
    ):  # fmt: skip
        print(json.dumps({name: play()}), file=sys.stderr, flush=True)
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    script(Path(sys.argv[1]), int(sys.argv[2]), int((*sys.argv, 1)[3]))
