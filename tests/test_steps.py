"""A few training steps, and the layers of 2011, on each device that is here, against double precision on a CPU.

How far single precision may be off is derived too: it is what errors of one part in 100,000 in every product do to the
same steps in double precision, and three times that. So much a right GPU may do (convolutions by Winograd's way are
the least exact); factors of 11 bits (TF32) or a wrong sum do more.
"""

import functools

import pytest
import torch
from test_captured import parameters
from torch import nn

from repro.models import cifar
from repro.models.layers import AvgPool, LocallyConnected2d, SameMapNorm
from repro.models.nets import network
from repro.models.pooling import MaxPool2d
from repro.training import precision
from repro.training.captured import update_for
from repro.training.optimizer import optimizer_for
from repro.training.recipe import Recipe

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

NOISE = 1e-5  # of the largest value of a product
STEPS, BATCH, SIZE = 3, 4, 32
RATES = {"paper": 0.01, "code": 0.01}  # weights have to move by more than they are rounded to
PRODUCTS = (nn.Conv2d, nn.Linear, LocallyConnected2d)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_a_gpu)])
def device(request):
    """Return where single precision is computed, which is strict."""
    precision.use("fp32")
    yield torch.device(request.param)
    precision.use("fp32")


def made(net, *, kinks):
    """Return a CIFAR-10 net, or the small form of the network of section 3, and what makes its optimizer.

    Without ``kinks``, what decides (ReLU, max pooling) is put smooth: where a rounding decides, either answer is right.
    """
    rate = RATES.get(net, 0.001)
    if net in cifar.NETS:
        model = cifar.build(net, "relu")
        cifar.initialise(model, net, "relu", "modern", 0)
        optimizer_of = functools.partial(optimizer_for, protocol="code", rate=rate)
    else:
        p = parameters(protocol=net)
        model = network(p, 10, 0)

        def optimizer_of(m):
            return Recipe(m, net=p.net, protocol=net, rate=rate, weight_decay=5e-4, kind="released").optimizer

    for name, module in [] if kinks else [*model.named_modules()]:
        if isinstance(module, nn.ReLU):
            model.set_submodule(name, nn.Softplus())
        elif isinstance(module, MaxPool2d):
            model.set_submodule(name, AvgPool(module.kernel_size, module.stride))
    return model, optimizer_of


class Noisy(torch.autograd.Function):
    """What a product gives, and the gradient that comes back to it, each off by noise."""

    @staticmethod
    def forward(ctx, x, generator):
        ctx.generator = generator
        return off(x, generator)

    @staticmethod
    def backward(ctx, grad):
        return off(grad, ctx.generator), None


def off(x, generator):
    return x + NOISE * x.abs().max() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def moved(net, device, dtype, *, kinks, noise=None):
    """Return how each parameter moves, on the CPU in double precision, and how far it lay from 0."""
    model, optimizer_of = made(net, kinks=kinks)
    model = model.to(device, dtype, memory_format=torch.channels_last)
    if noise is not None:
        generator = torch.Generator().manual_seed(noise)
        for module in model.modules():
            if isinstance(module, PRODUCTS):
                module.register_forward_hook(lambda _module, _x, y: Noisy.apply(y, generator))
    before = [p.detach().double().cpu().clone() for p in model.parameters()]
    update = update_for(model, optimizer_of(model), captured=device.type == "cuda")
    drawn = torch.Generator().manual_seed(7)
    for step in range(STEPS):
        images = 60 * torch.randn(BATCH, 3, SIZE, SIZE, generator=drawn)
        labels = torch.randint(10, (BATCH,), generator=drawn)
        for module in model.modules():
            if hasattr(module, "draw"):
                module.draw.at(step)
        update(images.to(device, dtype, memory_format=torch.channels_last), labels.to(device))
    after = [p.detach().double().cpu() for p in model.parameters()]
    return [end - start for end, start in zip(after, before, strict=True)], [float(start.norm()) for start in before]


@functools.cache
def reference(net, kinks):
    """Return how the parameters move in double precision, and how far noise puts the worst of them off."""
    cpu = torch.device("cpu")
    exact, lengths = moved(net, cpu, torch.float64, kinks=kinks)
    worst = [apart(moved(net, cpu, torch.float64, kinks=kinks, noise=seed)[0], exact, lengths) for seed in range(3)]
    return exact, max(worst)


def apart(found, exact, lengths):
    """Return how far the worst parameter is off, of how far it moved, beyond what its own digits round away."""
    return max(
        max(0.0, float((ours - move).norm()) - STEPS * 2.0**-24 * length) / float(move.norm())
        for ours, move, length in zip(found, exact, lengths, strict=True)
    )


@pytest.mark.parametrize("kinks", [False, True], ids=["smooth", "as-it-is"])
@pytest.mark.parametrize("net", [*cifar.NETS, "paper", "code", "modern"])
def test_three_steps_move_the_weights_as_in_double_precision(net, kinks, device):
    """Forward, backward and update as a trial runs them, recorded on a GPU; each parameter moves, and rightly.

    As they are, the nets show gross faults only: a place that wins a window by a rounding moves weights by a percent.
    """
    exact, noisy = reference(net, kinks)
    assert 0 < noisy < (0.2 if kinks else 1e-3)  # or the test says too little
    found, lengths = moved(net, device, torch.float32, kinks=kinks)
    assert min(float(move.norm()) for move in exact) > 0
    assert apart(found, exact, lengths) < 3 * noisy


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: LocallyConnected2d(32, 16, kernel=3, size=8), (4, 32, 8, 8)),
        (lambda: SameMapNorm(size=3, scale=5e-5), (4, 32, 16, 16)),
        (lambda: AvgPool(3, 2), (4, 32, 16, 16)),
    ],
    ids=["local", "same-map-norm", "mean-pooling"],
)
def test_a_layer_of_2011_is_its_own_in_double_precision(make, shape, device):
    """Value and every gradient, of values about 100, where the norm divides by as much as they are."""
    generator = torch.Generator().manual_seed(0)
    layer, x = make(), 100 * torch.randn(shape, generator=generator)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    found = {}
    for where, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
        own = layer.to(where, dtype)
        given = x.to(where, dtype, memory_format=torch.channels_last).requires_grad_()
        y = own(given)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(where, dtype)
        parts = [y, *torch.autograd.grad(y, [given, *own.parameters()], grad)]
        found[dtype] = [part.detach().double().cpu() for part in parts]
    for ours, exact in zip(found[torch.float32], found[torch.float64], strict=True):
        assert (ours - exact).norm() < 1e-5 * exact.norm()
