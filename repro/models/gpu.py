"""The way to the kernels for GPUs, which need Triton: no other machine imports it."""

from types import ModuleType

from torch import Tensor

from repro.problem import Problem


class NoTriton(Problem):
    """Triton is not installed, on a machine with a GPU."""


def kernels_for(x: Tensor) -> ModuleType | None:
    """Return ``repro.models.kernels`` if x lies on a GPU, else None. Raises NoTriton."""
    if not x.is_cuda:
        return None
    try:
        from repro.models import kernels
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        raise NoTriton("layers on a GPU need Triton, which torch for Linux brings along: pip install triton") from error
    return kernels
