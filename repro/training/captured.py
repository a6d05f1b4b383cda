"""Work on tensors as one recording that is replayed: on a GPU, a CUDA graph.

A small network's step is dozens of kernels of a few microseconds each, and Python needs longer to launch one than the
GPU to run it. A graph launches them all at once. What it does is fixed when it is recorded: the addresses of tensors,
learning rates, what an ``if`` decided. So batches are copied to a place of the recording's own, a changed learning rate
is recorded anew (a schedule has a handful), and numbers that change with every step must lie in tensors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from repro.training.graphs import cuda_graph
from repro.training.loop import Learn, Update, learn, updating

WARM_UPS = 3
"""Calls before recording, so that libraries have chosen and allocated what they need; undone afterwards."""

Record = Callable[[Callable[[], None], Callable[[], Any]], tuple[Callable[[], Any], Any]]
"""Calls a first function, and records a second without running it.

Returns what replays it, and its result, whose tensors each replay fills.
"""


def update_for(model: nn.Module, optimizer: torch.optim.Optimizer, learn: Learn = learn, *, captured: bool) -> Update:
    """Return how ``model`` is updated with a batch: recorded and replayed where ``captured``, else call by call."""
    eager = updating(model, optimizer, learn)
    return recorded_update(eager, model, optimizer) if captured else eager


def recorded_update(update: Update, model: nn.Module, optimizer: torch.optim.Optimizer) -> "Recording":
    """Return ``update``, which changes nothing but the model's and the optimizer's state, as a recording."""
    return Recording(update, partial(_state, model, optimizer), partial(_fixed, model, optimizer))


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *model.buffers(), *(v for v in kept if isinstance(v, Tensor))]


def _fixed(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    return (model.training, *(float(group["lr"]) for group in optimizer.param_groups))


class Recording:
    """A body that is recorded at its first tensors and replayed from then on, with the same results.

    ``body`` takes tensors, changes nothing but those of ``changed()``, in place, and never waits for the device; what
    it reads besides must stay where it lies. Tensors of another form (shape, dtype, strides), and another answer of
    ``fixed()``, are recorded anew, once the former recording's memory is free. What is returned lies in that memory:
    the next call overwrites it.
    """

    def __init__(
        self, body: Callable[..., Any], changed: Callable[[], list[Tensor]] = list,
        fixed: Callable[[], tuple[Any, ...]] = tuple,
    ) -> None:  # fmt: skip
        self.body, self.changed, self.fixed = body, changed, fixed
        self.record: Record = cuda_graph
        self._forget()

    def __call__(self, *tensors: Tensor) -> Any:
        if not self.fits(*tensors):
            self._forget()
            self._record(tensors)
            self._recorded_for = self._form(tensors)
        for own, given in zip(self._tensors, tensors, strict=True):
            own.copy_(given)
        self._replay()
        return self._result

    def fits(self, *tensors: Tensor) -> bool:
        """Whether a call with ``tensors`` would be a replay."""
        return self._recorded_for == self._form(tensors)

    def _form(self, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (*self.fixed(), *((t.shape, t.dtype, t.stride()) for t in tensors))

    def _forget(self) -> None:
        self._recorded_for: tuple[Any, ...] | None = None
        self._tensors: tuple[Tensor, ...] = ()
        self._replay: Callable[[], Any] = lambda: None
        self._result: Any = None

    def _record(self, tensors: tuple[Tensor, ...]) -> None:
        own = self._tensors = tuple(t.clone(memory_format=torch.preserve_format) for t in tensors)
        before = {t: t.detach().clone() for t in self.changed()}

        def warm_up() -> None:
            """Go through the body, and put everything back; a velocity that was not there before starts at 0."""
            for _ in range(WARM_UPS):
                self.body(*own)
            with torch.no_grad():
                for tensor in self.changed():
                    if tensor in before:
                        tensor.copy_(before[tensor])
                    else:
                        tensor.zero_()

        with torch.cuda.device_of(own[0]):  # on a CPU nothing
            self._replay, self._result = self.record(warm_up, lambda: self.body(*own))
