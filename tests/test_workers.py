"""Trials side by side in threads of one process, as on a GPU: each is what it would be alone."""

import multiprocessing
import os
import queue
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import forkserver, resource_tracker, util

import crash
import pytest
import torch
from simulation import Heard

from repro import measure, store
from repro.data.processes import in_processes, unheard
from repro.experiments import final_error
from repro.files import StoreError
from repro.measure import Setting
from repro.running import runner, workers
from repro.training.loop import Interrupted

CPU = torch.device("cpu")


def condition_and_source():
    """Return two arms, one with dropout, whose masks must not depend on who else trains; and their data."""
    arms = {
        arm: final_error.Parameters(**crash.SMALL, epochs=1.0, dropout=arm == "with") for arm in ("with", "without")
    }
    condition = type("C", (), {"arms": arms})
    return condition, runner.Source(crash.pictures(), "final-error", arms["with"], None)


def run(root, **options):
    """Run both arms, each with two seeds, and return what was heard of them."""
    heard = Heard()
    assert not runner.run(runner.Wanted(*condition_and_source(), (0, 1)), Setting(root, CPU), observer=heard, **options)
    return heard


def threaded(jobs):
    return partial(workers.threads, jobs=jobs, device=CPU)


def curves(root):
    return {path.parent.name: path.read_bytes() for path in root.rglob("curve.csv")}


def test_threads_do_not_change_a_trial(tmp_path, monkeypatch):
    """Four trials, three at a time: their curves and which images they miss are those of one after the other."""
    at_once, most = [], []
    real = measure.measure

    def measured(*arguments):
        at_once.append(1)
        most.append(len(at_once))
        try:
            return real(*arguments)
        finally:
            at_once.pop()

    monkeypatch.setattr(measure, "measure", measured)
    alone, together = run(tmp_path / "alone"), run(tmp_path / "together", pool=threaded(3))
    assert max(most[-4:]) == 3
    assert not alone.failures
    assert not together.failures
    assert len(curves(tmp_path / "alone")) == 4
    assert curves(tmp_path / "together") == curves(tmp_path / "alone")
    found = [{t.identity: t.measurements for t in store.load(tmp_path / name)[0]} for name in ("alone", "together")]
    assert found[0] == found[1]


def test_a_gpu_is_shared_by_threads_and_a_cpu_by_processes(tmp_path, monkeypatch):
    asked = []

    def noted(name):
        def pool(*_arguments, **_options):
            asked.append(name)
            raise workers.WorkerDied(name)

        return pool

    monkeypatch.setattr(runner, "threads", noted("threads"))
    monkeypatch.setattr(runner, "processes", noted("processes"))
    wanted = runner.Wanted(*condition_and_source(), (0,))
    for device in ("cuda:0", "cpu"):
        with pytest.raises(workers.WorkerDied):
            runner.run(wanted, Setting(tmp_path, torch.device(device)), jobs=2)
    assert asked == ["threads", "processes"]


def test_a_store_that_cannot_be_written_stops_the_others(tmp_path, monkeypatch):
    """The error comes out, and a trial under way is asked to save and leave."""
    left = threading.Event()

    def measured(task, _data, monitor):
        if "dropout" in task.spec.config:
            raise StoreError("the disk is full")
        while not monitor.stopping():
            pass
        left.set()
        raise Interrupted

    monkeypatch.setattr(measure, "measure", measured)
    with pytest.raises(StoreError, match="full"):
        run(tmp_path, pool=threaded(2))
    assert left.is_set()


def test_what_came_back_goes_before_what_broke_at_the_same_time():
    """In whichever order they are found, an error is raised when the others have been given."""
    futures = {Future(): name for name in ("broken", "fell over") * 4}
    for future, name in futures.items():
        if name == "broken":
            future.set_exception(StoreError("no room"))
        else:
            future.set_result(name)
    pool = workers._SideBySide(8, None, Heard(), threading.Event(), threading.Event(), queue.SimpleQueue(), futures)
    ended = pool.ended()
    assert [next(ended) for _ in range(4)] == [("fell over", "fell over")] * 4
    with pytest.raises(StoreError, match="no room"):
        next(ended)


def test_a_process_that_starts_does_not_hear_of_ctrl_c():
    """From its first instruction on, long before it can ask for that; here it is heard again at once."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with unheard():
            found = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.SIGINT in found.result(120)


@pytest.mark.parametrize("beside", [0, 1])
def test_ctrl_c_is_put_off_while_a_process_starts(beside):
    """Also where another thread gets the signal, say that of the bars on the terminal: half a start is none."""
    leave, reached = threading.Event(), []

    @unheard()
    def start():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        reached.append("the end")

    others = [threading.Thread(target=leave.wait) for _ in range(beside)]
    for other in others:
        other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        leave.set()
        for other in others:
            other.join()
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_processes_of_a_run_and_of_a_preparation_are_started_so(monkeypatch):
    """Where each is made, Ctrl-C is blocked."""
    masks = []

    def noted(*_arguments):
        masks.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise OSError("not made")

    resource_tracker.ensure_running()
    _, source = condition_and_source()
    with (
        workers.processes(source, str, None, threading.Event(), jobs=1, device=CPU) as pool,
        monkeypatch.context() as m,
    ):
        m.setattr(util, "spawnv_passfds", noted)
        with pytest.raises(OSError, match="not made"):
            pool.begin({}, None)
    monkeypatch.setattr(forkserver, "ensure_running", noted)
    with pytest.raises(OSError, match="not made"):
        next(in_processes(abs, [-1], 1))
    assert masks == [True, True]
