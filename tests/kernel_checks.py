"""What the GPU kernels compute, against float64: on a GPU (test_gpu.py), or interpreted on any CPU (test_kernels.py).

Triton decides at import whether it interprets, so pytest runs this file in a process with TRITON_INTERPRET=1.
"""

import pytest
import torch
from torch.nn import functional as F

from repro.models import kernels, normalization, pooling
from repro.models.normalization import ResponseNorm, response_norm
from repro.models.pooling import MaxPool2d
from repro.training import fused

# Maps, towers, size and k: conv1 and conv2 of the paper's towers, the CIFAR net's, and towers of one piece or two.
NORMS = [(48, 1, 5, 2.0), (128, 1, 5, 2.0), (64, 1, 9, 1.0), (16, 2, 5, 2.0)]
# 30 places give 60 to 960 pieces: for most more than a program's, never a whole number of programs, cut within a row.
PLACES = (1, 6, 5)


@pytest.fixture
def device():
    return "cpu"


def noise(*shape, dtype, device, scale=1.0, seed=0):
    """Return noise in channels_last; its values are the same on every device."""
    values = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(device, dtype).contiguous(memory_format=torch.channels_last)


def ulp(x, digits):
    """Return the distance of neighbouring numbers of so many binary digits, at the size of each value of x."""
    return 2.0 ** (torch.frexp(x).exponent - digits)


def check(ours, exact, dtype):
    """Single precision: to a few roundings. bfloat16: to one (the interpreter cuts digits off where GPUs round)."""
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    ours, exact = ours.double().cpu(), exact.detach().double().cpu()
    rounding = 8 * 2.0**-24 * exact.abs().max()  # of terms that may cancel
    if dtype == torch.float32:
        assert (ours - exact).norm() < 4e-7 * exact.norm()
        assert ((ours - exact).abs() <= 1e-6 * exact.abs() + rounding).all()
    else:
        rounded = exact.to(dtype).double()
        assert ((ours - rounded).abs() <= ulp(exact, 8) + rounding).all()


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [1e-4, 2e-5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("maps", "towers", "size", "k"), NORMS)
def test_norm_is_its_formula(device, maps, towers, size, k, scale, alpha, dtype):
    """Value and gradient are those of the plain function in float64, tower by tower."""
    n, height, width = PLACES
    x = noise(n, maps, height, width, dtype=dtype, device=device, scale=scale).requires_grad_()
    grad = noise(n, maps, height, width, dtype=dtype, device=device, seed=1)
    assert kernels.normalises(maps // towers, size=size, power=0.75, k=k, dtype=dtype)
    settings = {"size": size, "scale": alpha, "power": 0.75, "k": k}
    exact_x = x.detach().double().requires_grad_()
    exact = torch.cat([response_norm(tower, **settings) for tower in exact_x.chunk(towers, 1)], 1)
    ours = kernels.norm(x, towers, size, alpha, k)
    check(ours, exact, dtype)
    (ours_grad,) = torch.autograd.grad(ours, x, grad)
    (exact_grad,) = torch.autograd.grad(exact, exact_x, grad.double())
    check(ours_grad, exact_grad, dtype)
    if scale == 100.0:  # at unit scale the gradient's second term is nothing, and a wrong one would pass
        direct = grad.double() * (exact / exact_x).detach()
        assert (direct - exact_grad).norm() > (0.04 if alpha == 2e-5 else 0.1) * exact_grad.norm()


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_norm_does_not_depend_on_the_layout_or_on_how_the_work_is_cut(device, dtype, monkeypatch):
    """Other strides, and programs of other sizes, give the same bits in value and gradient."""
    x = noise(2, 48, 3, 5, dtype=dtype, device=device, scale=100.0).requires_grad_()
    grad = noise(2, 48, 3, 5, dtype=dtype, device=device, seed=1)

    def run(x, grad):
        y = kernels.norm(x, 1, 5, 1e-4, 2.0)
        return y, torch.autograd.grad(y, x, grad)[0]

    first = run(x, grad)
    other = run(x.detach().contiguous().requires_grad_(), grad.contiguous())
    monkeypatch.setattr(kernels, "NORM_PIECES", 64)
    cut = run(x, grad)
    for y, g in (other, cut):
        assert torch.equal(y, first[0])
        assert torch.equal(g, first[1])


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 1), (5, 2)])
@pytest.mark.parametrize("shape", [(2, 24, 7, 10), (1, 6, 5, 8)])
def test_pool_is_torchs(device, shape, kernel, stride, dtype):
    """The same maxima and, in single precision, the same gradient, bit for bit; windows reach over the edge."""
    x = noise(*shape, dtype=dtype, device=device).requires_grad_()
    assert kernels.pools(x, kernel=kernel, stride=stride)
    theirs_x = x.detach().cpu().float().requires_grad_()
    theirs = F.max_pool2d(theirs_x, kernel, stride, ceil_mode=True)
    ours, won = kernels.pool(x, kernel, stride)
    assert torch.equal(ours.float().cpu(), theirs)
    assert won.dtype == torch.uint8
    grad = noise(*theirs.shape, dtype=dtype, device=device, seed=1)
    (ours_grad,) = torch.autograd.grad(ours, x, grad)
    (theirs_grad,) = torch.autograd.grad(theirs, theirs_x, grad.float().cpu())
    assert theirs_grad.count_nonzero() > 0.05 * theirs_grad.numel()
    if dtype == torch.float32:
        assert torch.equal(ours_grad.cpu(), theirs_grad)
    else:
        check(ours_grad, theirs_grad, dtype)


def test_pool_does_not_depend_on_how_the_work_is_cut(device, monkeypatch):
    """Programs of other sizes give the same bits in value and gradient, and leave nothing out."""
    x = noise(2, 8, 5, 7, dtype=torch.float32, device=device).requires_grad_()
    grad = noise(2, 8, 2, 3, dtype=torch.float32, device=device, seed=1)

    def run():
        y, won = kernels.pool(x, 3, 2)
        return y, won, torch.autograd.grad(y, x, grad)[0]

    first = run()
    assert torch.equal(first[0], F.max_pool2d(x, 3, 2))
    monkeypatch.setattr(kernels, "POOL_PIECES", 4)
    for cut, whole in zip(run(), first, strict=True):
        assert torch.equal(cut, whole)


def test_pool_takes_the_first_of_equals_and_keeps_what_is_not_a_number(device):
    """Zeros behind ReLU: the gradient goes to the first place, as torch's; NaN and infinities come through."""
    x = torch.zeros(1, 8, 5, 5, device=device).requires_grad_()
    grad = noise(1, 8, 2, 2, dtype=torch.float32, device=device)
    (ours,) = torch.autograd.grad(kernels.pool(x, 3, 2)[0], x, grad)
    (theirs,) = torch.autograd.grad(F.max_pool2d(x, 3, 2), x, grad)
    assert torch.equal(ours, theirs)
    odd = torch.zeros(1, 8, 5, 5, device=device)
    odd[0, 0, 0, 2], odd[0, 1, 4, 4], odd[0, 2] = float("nan"), float("inf"), float("-inf")
    torch.testing.assert_close(kernels.pool(odd, 3, 2)[0], F.max_pool2d(odd, 3, 2), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_layers_pass_their_settings_on(device, memory_format, monkeypatch):
    """A layer's value and gradient are its own in double precision, which torch's operations compute."""
    for module in (normalization, pooling):
        monkeypatch.setattr(module, "kernels_for", lambda _: kernels)  # on a CPU too
    norm, pool = ResponseNorm(size=9, scale=5e-5, power=0.75, k=1.0, towers=2), MaxPool2d(2, 2)
    x = noise(2, 32, 5, 8, dtype=torch.float32, device=device, scale=100.0)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    grad = noise(2, 32, 3, 4, dtype=torch.float32, device=device, seed=1)
    ours, exact = norm(x), norm(exact_x)
    assert type(ours.grad_fn) is not type(exact.grad_fn)  # another operation
    ours, exact = pool(ours), pool(exact)
    assert type(ours.grad_fn) is not type(exact.grad_fn)
    check(ours, exact, torch.float32)
    (ours_grad,), (exact_grad,) = torch.autograd.grad(ours, x, grad), torch.autograd.grad(exact, exact_x, grad.double())
    check(ours_grad, exact_grad, torch.float32)


def test_an_empty_batch_goes_through(device):
    """No images give no values, and no gradient."""
    x = torch.zeros(0, 48, 5, 5, device=device).requires_grad_()
    y = kernels.pool(kernels.norm(x, 1, 5, 1e-4, 2.0), 3, 2)[0]
    assert y.shape == (0, 48, 2, 2)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_torch_knows_shapes_and_gradients(device):
    """What torch was told of the operations is true: their outputs' shapes and strides, and that they write nowhere."""
    x = noise(2, 48, 5, 7, dtype=torch.float32, device=device)
    grad, small = noise(2, 48, 5, 7, dtype=torch.float32, device=device), torch.zeros(2, 48, 2, 3, device=device)
    won = torch.zeros(2, 48, 2, 3, dtype=torch.uint8, device=device)
    told = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(kernels.norm, (x.requires_grad_(), 2, 5, 1e-4, 2.0), test_utils=told)
    torch.library.opcheck(kernels.norm_gradient, (x.detach(), grad, 2, 5, 1e-4, 2.0), test_utils=told)
    torch.library.opcheck(kernels.pool, (x, 3, 2), test_utils=told)
    torch.library.opcheck(kernels.pool_gradient, (small, won, 5, 7, 3, 2), test_utils=told)


@pytest.mark.parametrize("shape", [(5,), (1024,), (7, 3, 5, 5), (300, 11)], ids=str)
def test_the_update_is_its_rule(device, shape):
    """Over a fall of the rate, which the velocity outlives, from gradients that lie as weights do and otherwise."""
    generator = torch.Generator().manual_seed(2)
    weight, velocity, gradient = (torch.randn(shape, generator=generator).to(device) for _ in range(3))
    if len(shape) == 4:
        weight, velocity = (part.to(memory_format=torch.channels_last) for part in (weight, velocity))
    exact = [part.double() for part in (weight, velocity, gradient)]
    for rate in (0.01, 0.01, 0.001, 0.0):
        fused.update(weight, velocity, gradient, rate=rate, momentum=0.9, decay=5e-2)
        exact[1] = 0.9 * exact[1] - 5e-2 * rate * exact[0] - rate * exact[2]
        exact[0] = exact[0] + exact[1]
    assert torch.allclose(velocity.double(), exact[1], rtol=1e-5, atol=1e-6)
    assert torch.allclose(weight.double(), exact[0], rtol=1e-5, atol=1e-6)
