"""What the GPU kernels compute, against float64: on a GPU (test_gpu.py), or interpreted on any CPU (test_kernels.py).

Triton decides at import whether it interprets, so pytest runs this file in a process with TRITON_INTERPRET=1.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.loading import Window, finish, resident, window_kernel
from repro.loading.finish import Finish
from repro.loading.resident import one_by_one
from repro.models import chain, chain_kernel, dropout, dropout_kernel, kernels, normalization, pooling
from repro.models.chain import Chain
from repro.models.dropout import Dropout
from repro.models.normalization import ResponseNorm, response_norm
from repro.models.pooling import MaxPool2d
from repro.training import fused
from repro.training.precision import compute_in

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
    monkeypatch.setattr(kernels, "NORM_PIECES", 128)
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


def dropouts(device, *, step, first, monkeypatch, **settings):
    """Return a layer that takes the kernel, on a CPU too, and one by torch's operations, on the CPU."""
    monkeypatch.setattr(dropout, "kernels_for", lambda x, name: dropout_kernel if x.requires_grad else None)
    found = []
    for where in (device, "cpu"):
        made = Dropout(**settings).to(where)
        made.seed.fill_(-0x123456789ABCDEF)
        made.draw.at(step)
        made.draw.first = first
        found.append(made)
    return found


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy's, of infinity times 0
@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    ("shape", "part", "step", "first"),
    [
        ((3, 130), (0, 1), 0, 0),
        ((2, 1100), (0, 1), 2**32 - 1, 65_000),
        ((5, 33), (1, 2), 999_999, 96),
        ((1, 1), (0, 1), 1, 1),
        ((2, 5, 3, 7), (1, 2), 16, 16),
    ],
)
def test_dropout_is_torchs(device, step, first, shape, part, inverted, dtype, monkeypatch):
    """Value and gradient to the bit, signs of zeros and what is no number with them, of one operation each."""
    own, plain = dropouts(device, step=step, first=first, inverted=inverted, part=part, monkeypatch=monkeypatch)
    x, grad = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1))
    if x.numel() > 100:
        for values, seed in ((x, 2), (grad, 3)):
            places = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(seed))[:60].view(5, 12)
            small = 1e-40 if dtype == torch.float32 else 2.0**-126  # the interpreter mistakes smaller bfloat16
            odd = (float("inf"), float("-inf"), float("nan"), -0.0, small)
            for where, value in zip(places, odd, strict=True):
                values.view(-1)[where] = value
    ours_x = x.to(device).requires_grad_()
    assert dropout_kernel.drops(ours_x)
    ours = own(ours_x)
    (ours_grad,) = torch.autograd.grad(ours, ours_x, grad.to(device))
    for found, given in ((ours, x), (ours_grad, grad)):
        expected = plain(given)
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        number = ~expected.isnan()
        assert torch.equal(found.isnan().cpu(), ~number)
        assert torch.equal(found.cpu().view(bits)[number], expected.view(bits)[number])


def test_dropout_follows_the_step_where_it_lies(device, monkeypatch):
    """Each step's masks are its own, the gradient's those of its values, and one for another step is refused."""
    own, plain = dropouts(device, step=0, first=0, inverted=False, monkeypatch=monkeypatch)
    x = torch.ones(4, 300, device=device, requires_grad=True)
    seen = []
    for step in (5, 6, 70_000):
        for layer in (own, plain):
            layer.draw.at(step)
        y = own(x)
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert torch.equal(y.cpu(), plain.mask(x.cpu()).float())
        assert torch.equal(gradient, y)
        seen.append(y)
    assert not torch.equal(seen[0], seen[1])
    y = own(x)
    own.draw.at(7)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_what_the_dropout_kernel_cannot_do_is_left_to_torch(device):
    """Maps in channels_last, whose values lie in another order, double precision, no images."""
    x = torch.ones(2, 3, 4, 5, device=device)
    assert dropout_kernel.drops(x)
    assert not dropout_kernel.drops(x.to(memory_format=torch.channels_last))
    assert not dropout_kernel.drops(x.double())
    assert not dropout_kernel.drops(x[:0])


def test_torch_knows_the_dropout(device):
    x, counts = torch.rand(3, 70, device=device), [torch.tensor(n, device=device) for n in (3, 4)]
    told = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(dropout_kernel.drop, (x.requires_grad_(), *counts, 1, 1, 2, 2.0), test_utils=told)


def maps_of(device, dtype, *shape):
    """Return maps, their bias, and a gradient; some maps begin where the bias puts them, at 0."""
    x = noise(*shape, dtype=dtype, device=device)
    bias = noise(1, shape[1], 1, 1, dtype=torch.float32, device=device, seed=1).flatten()
    bias[0] = 0.5
    x[0, 0] = -0.5
    return x.requires_grad_(), bias.requires_grad_(), noise(*shape, dtype=dtype, device=device, seed=2)


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 96, 5, 7), (3, 24, 9, 11), (1, 3, 3, 3), (2, 2048, 1, 2), (1, 65, 7, 2)], ids=str
)
def test_bias_and_relu_are_their_formula(device, shape, dtype):
    """Value and both gradients are those in float64; in single precision the maps are torch's to the bit."""
    x, bias, grad = maps_of(device, dtype, *shape)
    exact_x, exact_bias = x.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    exact = (exact_x + exact_bias.view(1, -1, 1, 1)).relu()
    exact_grads = torch.autograd.grad(exact, (exact_x, exact_bias), grad.double())
    ours = chain_kernel.bias_relu(x, bias)
    check(ours, exact, dtype)
    ours_grad, ours_bias = torch.autograd.grad(ours, (x, bias), grad)
    assert torch.equal(ours_grad, torch.where(ours > 0, grad, 0.0))
    assert torch.equal(ours > 0, exact > 0)
    assert ours_bias.dtype == torch.float32
    assert ours_bias.abs().max() > 0
    size = grad.double().abs().sum((0, 2, 3))  # of the terms, which may cancel
    assert ((ours_bias.double() - exact_grads[1]).abs() <= 2.0**-22 * size).all()
    if dtype == torch.float32:
        theirs = (x + bias.view(1, -1, 1, 1)).relu()
        assert torch.equal(ours, theirs)
        assert torch.equal(ours_grad, torch.autograd.grad(theirs, x, grad)[0])


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_bias_and_relu_do_not_depend_on_the_layout(device, dtype, monkeypatch):
    """Other strides give the same bits; spans of several tiles, and of another number of rows, leave nothing out."""
    x, bias, grad = maps_of(device, dtype, 2, 96, 5, 7)

    def run(x, grad):
        y = chain_kernel.bias_relu(x, bias)
        return y, *torch.autograd.grad(y, (x, bias), grad)

    first = run(x, grad)
    for again, one in zip(run(x.detach().contiguous().requires_grad_(), grad.contiguous()), first, strict=True):
        assert torch.equal(again, one)
    monkeypatch.setattr(chain_kernel, "VALUES", 256)
    monkeypatch.setattr(chain_kernel, "SPANS", 5)
    cut = run(x, grad)
    assert all(torch.equal(one, other) for one, other in zip(cut[:2], first[:2], strict=True))
    assert not torch.equal(cut[2], torch.zeros_like(cut[2]))
    torch.testing.assert_close(cut[2], first[2], rtol=0, atol=1e-5)


def test_bias_and_relu_keep_what_is_not_a_number(device):
    """As torch's: NaN comes through and has a gradient, minus infinity becomes 0 and has none."""
    x, bias, grad = maps_of(device, torch.float32, 1, 8, 2, 2)
    with torch.no_grad():
        x[0, 1, 0, 0], x[0, 2, 0, 0], x[0, 3, 0, 0] = float("nan"), float("inf"), float("-inf")
    ours, theirs = chain_kernel.bias_relu(x, bias), (x + bias.view(1, -1, 1, 1)).relu()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    ours_grad, theirs_grad = (torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs))
    assert torch.equal(ours_grad, theirs_grad)


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_bias_and_relu_of_many_maps_are_summed_alike(device, dtype):
    """On a GPU those of conv1, in spans of several tiles: the bias has the gradient of float64, and again the same."""
    places = (16, 96, 55, 55) if device == "cuda" else (1, 96, 13, 12)
    x, bias, grad = maps_of(device, dtype, *places)
    y = chain_kernel.bias_relu(x, bias)
    (first,) = torch.autograd.grad(y, bias, grad, retain_graph=True)
    for _ in range(3):
        assert torch.equal(torch.autograd.grad(y, bias, grad, retain_graph=True)[0], first)
    kept = torch.where(y > 0, grad, 0.0).double()
    assert ((first.double() - kept.sum((0, 2, 3))).abs() <= 2.0**-20 * kept.abs().sum((0, 2, 3))).all()


def test_what_bias_and_relu_cannot_do_is_left_to_torch():
    """No bias, double precision, maps whose rows are longer than a tile, other borders than zeros."""
    assert chain_kernel.fuses(nn.Conv2d(1, 5, 1))
    assert chain_kernel.fuses(nn.Conv2d(1, 2048, 1, dtype=torch.bfloat16))
    assert not chain_kernel.fuses(nn.Conv2d(1, 5, 1, bias=False))
    assert not chain_kernel.fuses(nn.Conv2d(1, 5, 1).double())
    assert not chain_kernel.fuses(nn.Conv2d(1, 2049, 1))
    assert not chain_kernel.fuses(nn.Conv2d(1, 5, 3, padding=1, padding_mode="reflect"))


def test_no_maps_have_no_gradient(device):
    x, bias = torch.zeros(0, 8, 2, 2, device=device).requires_grad_(), torch.ones(8, device=device).requires_grad_()
    y = chain_kernel.bias_relu(x, bias)
    found = torch.autograd.grad(y.sum(), (x, bias))
    assert y.shape == found[0].shape == (0, 8, 2, 2)
    assert torch.equal(found[1].cpu(), torch.zeros(8))


def test_torch_knows_bias_and_relu(device):
    x, bias, grad = maps_of(device, torch.float32, 2, 24, 5, 3)
    told = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(chain_kernel.bias_relu, (x, bias), test_utils=told)
    torch.library.opcheck(chain_kernel.bias_relu_gradient, (x.detach(), grad, bias.detach()), test_utils=told)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("shape", "border"), [((3, 3, 10, 12), (0, 3, 0, 3)), ((1, 5, 7, 1), (2, 0, 1, 4)),
                                               ((2, 1, 4, 3), (0, 0, 0, 0))])  # fmt: skip
def test_a_border_is_torchs(device, shape, border, narrow, monkeypatch):
    """To the bit, in single precision; else rounded once (the interpreter cuts digits off), with zeros around it."""
    x = noise(*shape, dtype=torch.float32, device=device)
    if narrow:
        x = x.bfloat16().float()
    assert chain_kernel.pads(x, border)
    expected = F.pad(x, border)
    for values in (chain_kernel.VALUES, 64):
        monkeypatch.setattr(chain_kernel, "VALUES", values)
        found = chain_kernel.pad(x.contiguous(), *border, narrow)
        assert found.dtype == (torch.bfloat16 if narrow else torch.float32)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found.float(), expected)
    told = ("test_schema", "test_faketensor")
    torch.library.opcheck(chain_kernel.pad, (x, *border, narrow), test_utils=told)


def test_what_the_border_kernel_cannot_do_is_left_to_torch(device):
    """Pictures that want a gradient, another precision, borders that cut off, lines beyond a tile."""
    x = torch.zeros(1, 3, 4, 5, device=device)
    assert chain_kernel.pads(x, (0, 3, 0, 3))
    assert not chain_kernel.pads(x.requires_grad_(), (0, 3, 0, 3))
    assert not chain_kernel.pads(x.detach().double(), (0, 3, 0, 3))
    assert not chain_kernel.pads(x.detach(), (0, -1, 0, 3))
    assert not chain_kernel.pads(x.detach(), (0, 3000, 0, 3))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_chain_takes_neighbours_together(device, precision, monkeypatch):
    """The convolution in front of a norm keeps its bias, as under `code`; values and gradients are the layers' own.

    In bf16 the kernels are given maps in bf16 and a bias in single precision, and so is the bias's gradient.
    """
    generator = torch.Generator().manual_seed(0)
    relu = nn.ReLU()  # a layer may be there several times
    layers = (
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.MaxPool2d(2), relu,
        nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.Conv2d(12, 4, 1), relu, nn.Flatten(),
        nn.Linear(36, 5), relu,
    )  # fmt: skip
    model = Chain(*layers).to(device)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x = noise(2, 3, 12, 12, dtype=torch.float32, device=device)
    plain = nn.Sequential(*copy.deepcopy(layers)).double()
    exact = plain(x.double())
    exact_grads = torch.autograd.grad(exact.square().sum(), [*plain.parameters()])
    seen, own, pad = [], chain_kernel.bias_relu, chain_kernel.pad
    monkeypatch.setattr(
        chain_kernel, "bias_relu", lambda x, bias: seen.append((len(bias), x.dtype, bias.dtype)) or own(x, bias)
    )
    monkeypatch.setattr(chain_kernel, "pad", lambda x, *border: seen.append(border) or pad(x, *border))
    monkeypatch.setattr(chain, "kernels_for", lambda *_: chain_kernel)  # on a CPU too
    compute_in(model, precision)
    found = model(x)
    grads = torch.autograd.grad(found.square().sum(), [*model.parameters()])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert seen == [(0, 1, 0, 1, precision == "bf16"), (12, dtype, torch.float32), (4, dtype, torch.float32)]
    for ours, theirs in zip((found, *grads), (exact, *exact_grads), strict=True):
        assert ours.dtype == torch.float32
        assert (ours.double() - theirs).norm() < (1e-5 if precision == "fp32" else 0.1) * theirs.norm()
    assert [*model.state_dict()] == [*plain.state_dict()]


def drawn(device, *, side, crop, batch=5):
    """Return images, rows, places, among them the corners, and flips."""
    generator = torch.Generator().manual_seed(side)
    images = torch.randint(256, (7, side, side, 3), dtype=torch.uint8, generator=generator)
    chosen = torch.randint(7, (batch,), generator=generator)
    offsets = torch.randint(side - crop + 1, (batch, 2), generator=generator)
    offsets[0], offsets[1] = 0, side - crop
    flips = torch.arange(batch) % 2 == 1
    return tuple(part.to(device) for part in (images, chosen, offsets, flips))


@pytest.mark.parametrize(("side", "crop"), [(36, 28), (70, 45), (9, 9), (8, 1)])
def test_windows_are_those_of_a_cpu(device, side, crop, monkeypatch):
    """To the bit, of images in any order, also where a tile holds no whole number of lines."""
    given = drawn(device, side=side, crop=crop)
    expected = one_by_one(*(part.cpu() for part in given), crop)
    monkeypatch.setattr(resident, "kernels_for", lambda *_: window_kernel)  # on a CPU too
    found = resident.at_once(*given, crop)
    assert torch.equal(found.cpu(), expected)
    monkeypatch.setattr(window_kernel, "NUMBERS", 512)
    assert torch.equal(resident.at_once(*given, crop).cpu(), expected)
    with monkeypatch.context() as without:
        without.setattr(window_kernel, "cut", None)
        gaps = given[0].permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
        assert torch.equal(resident.at_once(gaps, *given[1:], crop).cpu(), expected)


@pytest.mark.parametrize("colour", [None, torch.tensor([[3.0, 1.0, 0.2], [0.1, 5.0, 0.3], [0.7, 0.9, 4.0]])])
@pytest.mark.parametrize("mode", ["window", "centre", None])
@pytest.mark.parametrize(("side", "crop"), [(36, 28), (71, 44), (9, 9)])
def test_the_networks_input_is_that_of_a_cpu(device, side, crop, mode, colour, monkeypatch):
    """To the bit, of training windows and of both kinds of views, in channels_last."""
    images, chosen, offsets, flips = drawn("cpu", side=side, crop=crop)
    window = Window(one_by_one(images, chosen, offsets, flips, crop), chosen, offsets, flips)
    mean = 255 * torch.rand(side, side, 3, generator=torch.Generator().manual_seed(1))

    def finish_on(where):
        if mode is None:
            level, spread = mean.mean((0, 1)), torch.tensor([61.3, 0.7, 3.1])
            return Finish.standardised(level.to(where), spread.to(where), colour=colour, seed=3)
        divisor = 1.1 if mode == "centre" else 1.0
        return Finish.less_mean_image(mean.to(where), mode, colour=colour, seed=3, divisor=divisor)

    seen = [images[:2, None, :crop, :crop], images[:20].repeat(2, 1, 1, 1)[:10].view(1, 10, side, side, 3)]
    seen[1] = seen[1][:, :, :crop, :crop]
    expected = [finish_on("cpu")(window, 4), *(finish_on("cpu").finish_views(views) for views in seen)]
    calls, own = [], window_kernel.finish
    monkeypatch.setattr(window_kernel, "finish", lambda *args, **more: calls.append(1) or own(*args, **more))
    monkeypatch.setattr(finish, "kernels_for", lambda *_: window_kernel)
    there = finish_on(device)
    found = [there(Window(*(part.to(device) for part in window)), 4)]
    found += [there.finish_views(views.to(device)) for views in seen]
    assert len(calls) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(ours.cpu(), theirs)


def test_torch_knows_windows_and_input(device):
    images, chosen, offsets, flips = drawn(device, side=12, crop=8)
    mean, shift = torch.rand(2, 12, 12, 3, device=device), torch.rand(5, 3, device=device)
    told = ("test_schema", "test_faketensor")
    torch.library.opcheck(window_kernel.cut, (images, chosen, offsets, flips, 8), test_utils=told)
    windows = window_kernel.cut(images, chosen, offsets, flips, 8)
    given = (windows, offsets, flips, mean, shift, None)
    torch.library.opcheck(window_kernel.finish, given, {"centred": False}, test_utils=told)
