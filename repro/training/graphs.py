"""CUDA graphs: calls to the GPU recorded once, and replayed at once.

Several threads of a process may have graphs of their own, and replay them side by side on streams of their own. They
are recorded one at a time.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch

from repro import garbage
from repro.problem import Problem, first_line


class Unrecordable(Problem):
    """The GPU's libraries refuse to record what they have just done; the message says what helps."""


_one_at_a_time = threading.Lock()


class Streams:
    """Streams to record on, each lent to one recording at a time.

    torch keeps the memory that cuBLAS works in by stream, and a graph keeps its address. The backward pass of all
    threads runs in one thread of torch, so graphs recorded on one stream share that memory, though they may be replayed
    at once; and torch may free it with the first of them (pytorch/pytorch#193402).
    """

    POOL, PRIORITIES = 32, 3
    """torch has so many streams of a priority, and hands them out in turn; nothing else here wants these priorities.

    They come before the usual one, and a graph keeps its stream's: what is recorded runs before what is not.
    """

    def __init__(self, make: Callable[[int, int], Any]) -> None:
        self.make = make
        self.free: dict[int, list[Any]] = {}
        self.made: dict[int, int] = {}

    def take(self, device: int) -> Any:
        """Return a stream of a device, by its number, that nobody has. Raises Unrecordable where all are taken."""
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
    """A CUDA graph, and the stream that is lent to it as long as it is there."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.device = streams, torch.cuda.current_device()
        self.stream = streams.take(self.device)
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self) -> None:
        self.graph.replay()

    def __del__(self) -> None:
        if hasattr(self, "graph"):
            self.graph.reset()  # before anybody else records on the stream
            self.streams.give(self.device, self.stream)


_failed: list[_Graph] = []
"""Kept for good: torch's allocator goes on asking a graph whose recording failed which memory is its own.

Up to torch 2.11 nothing more can be recorded in such a process (pytorch/pytorch#180395).
"""


def cuda_graph(warm_up: Callable[[], None], body: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Call ``warm_up``, and record ``body`` on the current device without running it.

    Returns what replays it, on whatever stream is then the current one, and its result, whose tensors each replay
    fills. Raises Unrecordable where it is refused.
    """
    with _one_at_a_time:
        made, outside = _Graph(_streams), torch.cuda.current_stream()
        made.stream.wait_stream(outside)
        try:
            with torch.cuda.stream(made.stream):
                warm_up()
        finally:
            outside.wait_stream(made.stream)
        causes: list[Exception] = []
        try:
            # Other threads of this process, say with a loader of their own, may go on meanwhile: "thread_local". And
            # there may be a graph in a cycle: to free it calls what a recording forbids.
            with (
                garbage.put_off(),
                torch.cuda.graph(made.graph, stream=made.stream, capture_error_mode="thread_local"),
            ):
                try:
                    result = body()
                except Exception as error:
                    causes.append(error)  # what ends the recording fails after it, and would be all that is told
                    raise
        except Exception as error:  # noqa: BLE001 - raised below, whatever it is, in words that help
            torch.cuda.set_stream(outside)  # torch leaves its own in place where a recording fails
            _failed.append(made)
            causes.append(error)
        if causes:
            raise _told(causes)
    return made, result


def _told(causes: list[Exception]) -> Exception:
    """Return the first of ``causes`` where callers know it, else what tells a user; and empty the list."""
    cause = causes[0]
    for error in causes:
        error.__traceback__ = None  # whose frames have the network: in a cycle they would keep it in memory
    causes.clear()
    if isinstance(cause, torch.cuda.OutOfMemoryError):
        return cause
    after = ", after another that could not" if _failed[1:] else ""
    return Unrecordable(f"it could not be recorded as a CUDA graph{after}; --eager does without ({first_line(cause)})")
