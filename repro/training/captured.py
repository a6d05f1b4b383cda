"""The update of a training step as one recording that is replayed: on a GPU, a CUDA graph.

A small network's step is dozens of kernels of a few microseconds each, and Python needs longer to launch one than the
GPU to run it. A graph launches them all at once. What it does is fixed when it is recorded: the addresses of tensors,
learning rates, what an ``if`` decided. So batches are copied to a place of the recording's own, a changed learning rate
is recorded anew (a schedule has a handful), and numbers that change with every step must lie in tensors.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.training.loop import Learn, Update, learn, updating

WARM_UPS = 3
"""Updates before recording, so that libraries have chosen and allocated what they need; undone afterwards."""

Record = Callable[[Callable[[], Any]], tuple[Callable[[], Any], Any]]
"""Records a body without running it: returns what replays it, and its result, whose tensors each replay fills."""

_one_at_a_time = threading.Lock()


def cuda_graph(body: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """Record ``body`` as a CUDA graph on the current device."""
    graph = torch.cuda.CUDAGraph()
    # Other threads of this process, say with trials or a loader of their own, may go on meanwhile: "thread_local".
    with _one_at_a_time, torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = body()
    return graph.replay, result


def update_for(model: nn.Module, optimizer: torch.optim.Optimizer, learn: Learn = learn, *, captured: bool) -> Update:
    """Return how ``model`` is updated with a batch: recorded and replayed where ``captured``, else call by call."""
    eager = updating(model, optimizer, learn)
    return Captured(eager, model, optimizer) if captured else eager


class Captured:
    """An update that is recorded at its first batch and replayed from then on, with the same results.

    ``update`` changes nothing but ``model``'s parameters and buffers and ``optimizer``'s state, all of them in place,
    and never waits for the device; what it reads besides must stay where it lies. The errors and the loss returned are
    overwritten by the next call.
    """

    def __init__(
        self, update: Update, model: nn.Module, optimizer: torch.optim.Optimizer, record: Record = cuda_graph
    ) -> None:
        self.update, self.model, self.optimizer, self.record = update, model, optimizer, record
        self.recorded_for: tuple[Any, ...] | None = None
        self.replay: Callable[[], Any] = lambda: None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        what = (*rates, self.model.training, images.shape, images.dtype, images.stride())
        if what != self.recorded_for:
            self._record(images, labels)
            self.recorded_for = what
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()
        return self.found

    def _record(self, images: Tensor, labels: Tensor) -> None:
        self.replay = lambda: None  # frees the former recording's memory before the next takes its own
        self.images, self.labels = images.clone(memory_format=torch.preserve_format), labels.clone()
        before = {t: t.detach().clone() for t in self._state()}
        if images.is_cuda:
            side = torch.cuda.Stream(images.device)  # where torch asks for what runs before a recording
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._warm_up(before)
            torch.cuda.current_stream().wait_stream(side)
        else:
            self._warm_up(before)
        self.replay, self.found = self.record(lambda: self.update(self.images, self.labels))

    def _warm_up(self, before: dict[Tensor, Tensor]) -> None:
        """Update a few times, and put everything back; a velocity that was not there before starts at 0."""
        for _ in range(WARM_UPS):
            self.update(self.images, self.labels)
        with torch.no_grad():
            for tensor in self._state():
                if tensor in before:
                    tensor.copy_(before[tensor])
                else:
                    tensor.zero_()

    def _state(self) -> list[Tensor]:
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *(v for v in kept if isinstance(v, Tensor))]
