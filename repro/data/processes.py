"""Work in processes side by side: a bounded amount under way, and gone soon after it is no longer wanted."""

import itertools
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
from typing import Any, TypeVar

from repro.data import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_worker: dict[str, Any] = {}


def in_processes(work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """Yield ``work(task)`` of each task as it is done, in no order, from ``jobs`` processes.

    Close the iterator to stop early: tasks not begun are dropped, and a running one is told so by ``stopping``. What
    ``work`` raises is raised here. Raises DataError where a process dies.
    """
    # Not fork: the bars on the terminal have a thread. Each is forked from a clean process that has read the module.
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
            with unheard():  # a process that is being started is waited for: it has nothing without us
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
    """Have processes that are started meanwhile never hear of Ctrl-C; here it is put off until the end of this.

    It reaches the whole group of processes, and one that still imports, and so cannot ignore it, would tell of it.
    """
    resource_tracker.ensure_running()  # it sets masks of its own when it starts
    heard: list[int] = []
    # The mask is this thread's, which a process takes over. Another thread may get the signal all the same, and then
    # Python calls what handles it here.
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


def leave_with_parent() -> None:
    """End this process when its parent is killed, which would otherwise leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
