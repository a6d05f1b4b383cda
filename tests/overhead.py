"""What a cluster costs a trial: the same made-up trial in this process and as a Ray task, in turn.

    python tests/overhead.py SECONDS ROUNDS

A trial sleeps, and reports ten times a second; so what is told is what the harness and Ray add, not how fast a network
trains beside others. Ray's worker and desk are warm: a first trial of each kind is run and not counted. Printed are,
for each round, the seconds in this process, those on the cluster, and the difference in percent.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import clustered
import torch
from simulation import Heard

from repro import measure, registry, store
from repro.folders import default_claims
from repro.measure import Monitor, Setting, Task
from repro.running import cluster, runner
from repro.store import Trial

CPU = torch.device("cpu")


def set_up() -> None:
    """Have trials sleep, here or in a worker."""
    seconds = float(os.environ["OVERHEAD_S"])
    measure.load = lambda *_: clustered.pictures()

    def sleeps(task: Task, data: Any, monitor: Monitor) -> Trial:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not monitor.stopping():
            time.sleep(min(0.1, left))
            monitor.report(1 - max(0.0, left) / seconds, "asleep")
        trial = Trial(spec=task.spec, data_digest=data.digest, status="completed")
        store.save(task.setting.store, trial)
        return trial

    measure.measure = sleeps


def main(rounds: int) -> None:
    """Do what the module says."""
    condition = registry.load_registry(default_claims())[clustered.CLAIM].conditions["smoke"]
    made: Any = type("C", (), {"arms": {"with": condition.arms["with"]}})
    folder = Path(tempfile.mkdtemp())
    source = runner.Source(clustered.pictures(), "final-error", condition.any_arm, runner.Place(None, folder))
    with cluster.joined("ray", "cpu", 1) as there:
        for number in range(rounds + 1):
            took = []
            wanted, heard = runner.Wanted(made, source, (number,)), Heard()
            for run in (
                lambda w=wanted, o=heard: runner.run(w, Setting(folder / "here", CPU), observer=o),
                lambda w=wanted, o=heard: runner.run_together(
                    [w], Setting(folder / "there", CPU), there.pool, observer=o
                ),
            ):
                begun = time.perf_counter()
                run()
                took.append(time.perf_counter() - begun)
            assert len(heard.finished) == 2
            if number:
                load = os.getloadavg()[0]
                print(f"{took[0]:.3f} s  {took[1]:.3f} s  {100 * (took[1] / took[0] - 1):+.2f} %  (load {load:.1f})")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    os.environ |= {"OVERHEAD_S": sys.argv[1], "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    torch.set_num_threads(1)
    set_up()
    import ray

    hook = {"worker_process_setup_hook": "overhead.set_up"}
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=hook)
    main(int(sys.argv[2]))
