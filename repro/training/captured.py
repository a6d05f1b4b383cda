"""Work on tensors that is recorded once and then replayed: on a GPU, a CUDA graph.

A small network's step is dozens of kernels of a few microseconds each, and Python needs longer to launch one than the
GPU to run it. A graph launches them all at once. All that it does is fixed when it is recorded: the addresses of
tensors, learning rates, what an ``if`` decided. So batches are copied into tensors of the recording, a changed learning
rate takes a new recording (a schedule has a handful), and numbers that change with every step must lie in tensors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from repro.training.graphs import cuda_graph
from repro.training.loop import Learn, Update, learn, updating

WARM_UPS = 3
"""Calls before recording, so that libraries choose and allocate what they need; their effects are undone."""

Record = Callable[[Callable[[], None], Callable[[], Any]], tuple[Callable[[], Any], Any]]
"""Calls its first argument, and records its second without running it.

Returns a function that replays the recording, and the recorded result, whose tensors each replay fills.
"""


def update_for(model: nn.Module, optimizer: torch.optim.Optimizer, learn: Learn = learn, *, captured: bool) -> Update:
    """Return how ``model`` is updated with a batch: recorded and replayed where ``captured``, else call by call."""
    eager = updating(model, optimizer, learn)
    return recorded_update(eager, model, optimizer) if captured else eager


def recorded_update(update: Update, model: nn.Module, optimizer: torch.optim.Optimizer) -> "Recording":
    """Return ``update`` as a recording; it may change only the state of the model and of the optimizer."""
    return Recording(update, partial(_state, model, optimizer), partial(_fixed, model, optimizer))


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *model.buffers(), *(v for v in kept if isinstance(v, Tensor))]


def _fixed(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    return (model.training, *(float(group["lr"]) for group in optimizer.param_groups))


class Recording:
    """A function of tensors that is recorded at its first call and replayed from then on, with the same results.

    ``body`` may change only the tensors of ``changed()``, in place, and must never wait for the device; anything else
    that it reads must keep its address. A call with tensors of another form (shape, dtype, strides), or after the value
    of ``fixed()`` has changed, frees the old recording and makes a new one. The result lies in the recording's memory,
    so the next call overwrites it.
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
            """Run the body and restore all that it changed; a velocity that did not exist before is set to 0."""
            for _ in range(WARM_UPS):
                self.body(*own)
            with torch.no_grad():
                for tensor in self.changed():
                    if tensor in before:
                        tensor.copy_(before[tensor])
                    else:
                        tensor.zero_()

        with torch.cuda.device_of(own[0]):  # does nothing on a CPU
            self._replay, self._result = self.record(warm_up, lambda: self.body(*own))
