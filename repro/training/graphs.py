"""CUDA graphs: calls to the GPU recorded once, and replayed at once.

Several threads of a process may have graphs of their own, and replay them side by side on streams of their own. They
are recorded one at a time.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from repro import garbage
from repro.problem import Problem, first_line


class Unrecordable(Problem):
    """The GPU's libraries refuse to record what they have just done; the message says what helps."""


_one_at_a_time = threading.Lock()


class Streams:
    """Streams to record on, each lent to one recording at a time.

    torch keeps one cuBLAS workspace for each stream, and a graph keeps its address. The backward pass of all threads
    runs in one thread of torch, so graphs recorded on one stream would share that workspace, though they may be
    replayed at once; and torch may free it with the first of them (pytorch/pytorch#193402).
    """

    POOL, PRIORITIES = 32, 3
    """torch has POOL streams of each priority, and hands them out in turn; nothing else here uses these priorities.

    They are above the default, and a graph keeps that of its stream: recorded work runs before other work.
    """

    def __init__(self, make: Callable[[int, int], Any]) -> None:
        self.make = make
        self.free: dict[int, list[Any]] = {}
        self.made: dict[int, int] = {}

    def take(self, device: int) -> Any:
        """Return a free stream of the device with this number. Raises Unrecordable where all are taken."""
        if free := self.free.setdefault(device, []):
            return free.pop()
        made = self.made.get(device, 0)
        if made == self.POOL * self.PRIORITIES:
            raise Unrecordable(f"{made} CUDA graphs at once are all there can be: fewer --jobs, or --eager, do without")
        self.made[device] = made + 1
        return self.make(device, -1 - made // self.POOL)

    def give(self, device: int, stream: Any) -> None:
        self.free[device].append(stream)


_streams = Streams(lambda device, priority: torch.cuda.Stream(device, priority=priority))


class _Graph:
    """A CUDA graph, and the stream that is lent to it as long as it exists."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.device = streams, torch.cuda.current_device()
        self.stream = streams.take(self.device)
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self) -> None:
        self.graph.replay()

    def free(self) -> None:
        """Free the recording; then its stream may be lent again."""
        try:
            self.graph.reset()
        finally:
            self.streams.give(self.device, self.stream)

    def __del__(self) -> None:
        if hasattr(self, "graph"):
            _retired.append(self.free)
            _free_retired()


_retired: list[Callable[[], None]] = []
"""What frees each graph that nobody has any more. torch 2.11 keeps the graphs of a device in a set, without a lock: so
none is freed while a thread records another."""


def _free_retired() -> None:
    """Free what was retired, unless some thread records, which does so when it is done."""
    while _retired and _one_at_a_time.acquire(blocking=False):
        try:
            while _retired:
                with contextlib.suppress(RuntimeError):  # nobody is left who could be told
                    _retired.pop()()
        finally:
            _one_at_a_time.release()


_failed: list[_Graph] = []
"""Never freed: torch's allocator goes on asking a graph whose recording failed which memory belongs to it.

Up to torch 2.11 nothing more can be recorded in such a process (pytorch/pytorch#180395).
"""


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """Let nobody else record, or free a recording."""
    try:
        with _one_at_a_time:
            yield
    finally:
        _free_retired()


def cuda_graph(warm_up: Callable[[], None], body: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Call ``warm_up``, and record ``body`` on the current device without running it.

    Returns a function that replays ``body`` on the stream that is then current, and its result, whose tensors each
    replay fills. Raises Unrecordable where the recording fails, or torch's OutOfMemoryError where memory runs out.
    """
    with _recording():
        torch.cuda.synchronize()  # a stream that was given back may still have replays of its former graph to run
        made, outside = _Graph(_streams), torch.cuda.current_stream()
        made.stream.wait_stream(outside)
        try:
            with torch.cuda.stream(made.stream):
                warm_up()
        finally:
            outside.wait_stream(made.stream)
        causes: list[Exception] = []
        try:
            # "thread_local" lets other threads of this process, say with a loader, go on meanwhile; none may wait for
            # the whole device, which ends a recording in any mode. Garbage collection waits: to free a graph that is
            # part of a reference cycle takes calls that a recording forbids.
            with (
                garbage.put_off(),
                torch.cuda.graph(made.graph, stream=made.stream, capture_error_mode="thread_local"),
            ):
                try:
                    result = body()
                except Exception as error:
                    causes.append(error)  # ending the recording then fails too, and would hide this error
                    raise
        except Exception as error:  # noqa: BLE001 - raised below, whatever it is, in words that help
            torch.cuda.set_stream(outside)  # where a recording fails, torch does not restore it
            _failed.append(made)
            causes.append(error)
        if causes:
            raise _told(causes)
    return made, result


def _told(causes: list[Exception]) -> Exception:
    """Return what to raise: the first of ``causes`` where memory ran out, else Unrecordable; empty the list."""
    cause = causes[0]
    for error in causes:
        error.__traceback__ = None  # its frames refer to the network: a cycle would keep that in memory
    causes.clear()
    if isinstance(cause, torch.cuda.OutOfMemoryError):
        return cause
    after = ", after another that could not" if _failed[1:] else ""
    return Unrecordable(f"it could not be recorded as a CUDA graph{after}; --eager does without ({first_line(cause)})")
