"""Work in processes side by side: a bounded amount is under way, and it ends soon after it is no longer wanted."""

import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from repro.data import DataError

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux gives a container's quota of the cores: microseconds of use (or "max"), and the period they are for."""


def cores() -> int:
    """Return how many cores this process may use, 1 or more: those it may run on, within its container's quota.

    Decoding, preparing and counting use one thread or process for each of them.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return min(found, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # not a Linux with such files, or no quota
        return found


Task = TypeVar("Task")
Result = TypeVar("Result")

_worker: dict[str, Any] = {}


def in_processes(work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """Yield ``work(task)`` for each task as it is done, in no particular order, from ``jobs`` processes.

    Close the iterator to stop early: tasks not begun are dropped, and in running ones ``stopping`` turns true. What
    ``work`` raises is raised here. Raises DataError where a process dies.
    """
    # Not fork: the progress bars run in a thread here. Workers are forked from a server that has only read the module.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    with unheard():
        forkserver.ensure_running()
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(stop,))
    left = iter(tasks)
    running: set[Future[Result]] = set()
    try:
        while True:
            new = list(itertools.islice(left, 3 * jobs - len(running)))
            with unheard():  # Ctrl-C waits while a process is started, which needs us until it is up
                running |= {pool.submit(work, task) for task in new}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, probably for want of memory; run the same command again, better with fewer --jobs"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def unheard() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started in this context; in this process put it off until the context ends.

    Ctrl-C reaches the whole process group, and a process that still imports cannot ignore it: it would print an error.
    """
    resource_tracker.ensure_running()  # now, because starting it changes the signal mask
    heard: list[int] = []
    # A new process inherits this thread's mask. Another thread may still receive the signal, and then the handler
    # set here is called.
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number)) if ours else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if ours:
            signal.signal(signal.SIGINT, handler)
        for number in heard[:1]:
            signal.raise_signal(number)


def stopping() -> bool:
    """Return whether the results of the running task are no longer wanted; always false outside of a worker."""
    return bool(_worker) and _worker["stop"].is_set()


def _start(stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on in order
    _worker["stop"] = stop
    threading.Thread(target=leave_with_parent, daemon=True).start()


def start_a_reader(_number: int) -> None:
    """Have a worker of a DataLoader leave Ctrl-C to the process that reads from it, and end when that has died.

    torch's own watch over the parent does not see this, where the worker was forked by a server.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent() -> None:
    """End this process when its parent has died; otherwise it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
