"""A Ray cluster of two nodes on this machine, and what goes wrong on one, as a script that a test runs by itself.

    python tests/clustered.py FOLDER SEEDS

On one cluster, in turn: a trial that fails while the other goes on; Ctrl-C, and the same command again without Ray;
a node killed with its trial under way. Printed is a line of JSON each, to stderr. The script must lead a process
group of its own: it sends that group the SIGINT that a terminal would. Files in the folder switch what workers do, and
log what they run.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from repro import measure, registry, store
from repro.cli import main
from repro.data import embedded
from repro.experiments import final_error
from repro.folders import default_claims
from repro.loading.pictures import Pictures
from repro.measure import Monitor, Task
from repro.measure import final_error as measure_final_error
from repro.running import cluster, remote, runner
from repro.store import Trial

CLAIM = "dropout-overfitting"
PATIENCE_S = 120.0


def pictures() -> Pictures:
    """Return a small synthetic set, ten steps of 32."""
    halves = {}
    for seed, (split, n) in enumerate((("train", 320), ("val", 40))):
        images, labels = embedded.draw(n, 32, seed)
        halves[split] = (torch.from_numpy(images), torch.from_numpy(labels))
    return Pictures("embedded", 10, "sha256:made-up", halves=halves)


def set_up() -> None:
    """Prepare a worker, or this process: small data, a state at every check, and what the folder's switches say."""
    folder = Path(os.environ["CLUSTERED"])
    measure.load = lambda *_: pictures()
    measure_final_error.CHECKPOINT_S = remote.STATE_S = 0.0
    real = measure.measure

    def watched(task: Task, data: Any, monitor: Monitor) -> Trial:
        begun = (store.folder(task.store, task.spec.identity(data.digest)) / "checkpoint.pt").exists()
        with (folder / "log").open("a") as log:
            log.write(json.dumps({"key": task.spec.key, "resumed": begun, "pid": os.getpid()}) + "\n")
        if (folder / "break").exists() and task.spec.config.get("dropout") is False:
            raise RuntimeError("broken on purpose")

        def slowly(done: float, words: str) -> None:
            monitor.report(done, words)
            if (folder / "slow").exists():
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


def command(root: Path, *more: str) -> int:
    """Return the exit code of ``repro run claim``."""
    try:
        main(["run", "claim", CLAIM, "--condition", "smoke", "--device", "cpu", "--store", str(root), *more])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


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


def failing(folder: Path) -> dict[str, Any]:
    """One of two trials fails."""
    (folder / "break").touch()
    code = command(folder / "failing", "--on", "ray")
    (folder / "break").unlink()
    trials = store.load(folder / "failing")[0]
    told = sorted((t.status, t.message) for t in trials)
    return {"code": code, "trials": told, "begun": len(logged(folder))}


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
    ended: list[str] = []

    class Heard(runner.Silent):
        def ended(self, planned: Any, trial: Trial) -> None:
            ended.append(planned.spec.key)

    def kill() -> None:
        wait_for(lambda: len(list(root.glob("trials/*/checkpoint.pt"))) == 2)
        nodes.remove_node(node, allow_graceful=False)
        (folder / "slow").unlink()

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    options: dict[str, Any] = {"seeds": tuple(range(seeds)), "device": torch.device("cpu")}
    with cluster.joined("ray", "cpu", None) as there:
        result = runner.run(made, source, store=root, observer=Heard(), pool=there.pool, **options)
    killing.join()
    begun = logged(folder)
    runner.run(made, source, store=folder / "undisturbed", **options)
    logged(folder)
    keys = {final_error.spec(arm, seed).key for arm in arms.values() for seed in range(seeds)}
    return {
        "failed": result.failed, "ended": sorted(ended) == sorted(keys), "trials": len(keys), "begun": len(begun),
        "resumed": sum(line["resumed"] for line in begun),
        "same": outcomes(root) == outcomes(folder / "undisturbed"),
    }  # fmt: skip


def script(folder: Path, seeds: int) -> None:
    """Do what the module says."""
    os.environ |= {"CLUSTERED": str(folder), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    torch.set_num_threads(1)
    set_up()
    import ray
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # a dead node is noticed in seconds
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    node = nodes.add_node(num_cpus=1)
    ray.init(
        nodes.address, log_to_driver=False, logging_level="error", configure_logging=False,
        runtime_env={"worker_process_setup_hook": "clustered.set_up"},
    )  # fmt: skip
    for name, play in (("failing", failing), ("stopped", stopped), ("killed", lambda f: killed(f, nodes, node, seeds))):
        print(json.dumps({name: play(folder)}), file=sys.stderr, flush=True)
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    script(Path(sys.argv[1]), int(sys.argv[2]))
