"""How the GPU kernels are loaded and launched. They need Triton, which is imported only where there is a GPU."""

import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from repro.problem import Problem


class NoTriton(Problem):
    """Triton is not installed, on a machine with a GPU."""


def _layers() -> ModuleType:
    from repro.models import kernels

    return kernels


NO_KERNELS = "REPRO_NO_KERNELS"
"""Set in the environment, it leaves our kernels out, as where Triton finds no C compiler: slower, and on record."""


def wanted() -> bool:
    """Whether tensors on a GPU go through our kernels."""
    return not os.environ.get(NO_KERNELS)


def kernels_for(x: Tensor, load: Callable[[], ModuleType] = _layers) -> ModuleType | None:
    """Return the module that ``load`` imports (default: ``repro.models.kernels``) where x lies on a GPU, else None.

    None, too, where NO_KERNELS is set. Raises NoTriton where Triton is not installed.
    """
    if not x.is_cuda or not wanted():
        return None
    try:
        return load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        raise NoTriton("layers on a GPU need Triton, which torch for Linux brings along: pip install triton") from error


_in_turn = threading.Lock()


def launch(program: Any, grid: tuple[int, ...], x: Tensor, *rest: Any, **constants: Any) -> None:
    """Launch a Triton kernel on the device of ``x``, its first argument; Triton itself uses the current device.

    Threads launch in turn: while one launches a kernel for the first time, Triton 3.6 gives others the launcher before
    it has loaded the kernel.
    """
    with _in_turn, torch.cuda.device_of(x):
        program[grid](x, *rest, **constants)
