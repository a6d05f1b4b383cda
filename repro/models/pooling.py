"""Overlapping max pooling of section 3.4."""

from torch import Tensor, nn

from repro.models.gpu import kernels_for


class MaxPool2d(nn.MaxPool2d):
    """torch's layer over square windows, the last of which may reach over the edge; quicker on a GPU.

    There, maps in single precision or bfloat16 go through a kernel where ``kernels.pools`` allows it. For the gradient
    it keeps one byte an output where torch keeps eight, and it uses no atomic additions. A window that holds NaN gives
    NaN, as torch's does.
    """

    kernel_size: int
    stride: int

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x)
        if kernels and x.dim() == 4 and kernels.pools(x, kernel=self.kernel_size, stride=self.stride):
            maxima: Tensor = kernels.pool(x, self.kernel_size, self.stride)[0]
            return maxima
        return super().forward(x)
