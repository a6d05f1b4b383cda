"""The nets of Figure 1 and the layers torch does not have, each against a plain reading of its definition."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.models import cifar
from repro.models.layers import AvgPool, LocallyConnected2d, SameMapNorm

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape, seed=0, scale=1.0):
    """Return float64 normal noise."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(net, activation="relu", protocol="code", seed=0, size=32):
    model = cifar.build(net, activation, size=size)
    cifar.initialise(model, net, activation, protocol, seed)
    return model


# Worked by hand from the cfg files: weights and biases, layer by layer.
PARAMETERS = {
    "conv-local-13pct": [64 * 75 + 64, 64 * 1600 + 64, 64 * (576 * 32 + 32), 64 * (288 * 32 + 32), 2048 * 10 + 10],
    "18pct": [32 * 75 + 32, 32 * 800 + 32, 64 * 800 + 64, 1024 * 10 + 10],
    "19pct": [32 * 75 + 32, 32 * 800 + 32, 64 * 800 + 64, 1024 * 10 + 10],
}
TOTALS = {"conv-local-13pct": 1_901_386, "18pct": 89_578, "19pct": 89_578}
POOLED = {
    "conv-local-13pct": [(64, 16, 16), (64, 8, 8)],
    "18pct": [(32, 16, 16), (32, 8, 8), (64, 4, 4)],
    "19pct": [(32, 16, 16), (32, 8, 8), (64, 4, 4)],
}
LAYERS = {
    "conv-local-13pct": "conv pool act conv pool act local act local act flatten fc",
    "18pct": "conv pool act norm conv act pool norm conv act pool flatten fc",
    "19pct": "conv pool act conv act pool conv act pool flatten fc",
}
STDS = {
    "conv-local-13pct": [1e-4, 0.01, 0.04, 0.04, 0.01],
    "18pct": [1e-4, 0.01, 0.01, 0.01],
    "19pct": [1e-4, 0.01, 0.01, 0.01],
}


@pytest.mark.parametrize("net", cifar.NETS)
def test_every_layer_has_the_parameters_counted_by_hand(net):
    """Weights and biases, layer by layer and in all, are as many as the cfg file says."""
    weighted = [m for m in cifar.build(net, "relu") if list(m.parameters(recurse=False))]
    assert [sum(p.numel() for p in m.parameters()) for m in weighted] == PARAMETERS[net]
    assert sum(PARAMETERS[net]) == TOTALS[net]


@pytest.mark.parametrize("net", cifar.NETS)
def test_layers_stand_in_the_order_of_the_cfg_and_halve_the_image(net):
    """The order of layers, the 32 -> 16 -> 8 -> 4 of the rounded-up pools, and ten logits an image."""
    model = built(net)
    assert " ".join(name.rstrip("12345") for name, _ in model.named_children()) == LAYERS[net]
    x, pooled = torch.zeros(2, 3, 32, 32), []
    for name, layer in model.named_children():
        x = layer(x)
        if name.startswith("pool"):
            pooled.append(tuple(x.shape[1:]))
    assert pooled == POOLED[net]
    assert x.shape == (2, 10)


@pytest.mark.parametrize("net", cifar.NETS)
def test_the_net_equals_the_cfg_written_out_in_its_own_order(net):
    """Activation before max-pool, avg-pool by division by what a window holds: the net is the same function."""
    model = built(net, "tanh", "modern").double()
    p = dict(model.named_parameters())
    x = out = noise(2, 3, 32, 32)
    for i, layer in enumerate(cifar.NETS[net], start=1):
        if isinstance(layer, cifar.Conv):
            out = F.conv2d(out, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=2).tanh()
            pool = F.max_pool2d if layer.pool == "max" else plain_avg_pool
            out = pool(out, 3, 2, ceil_mode=True)
            if layer.norm:
                out = plain_norm(out, 3, 5e-5)
        else:
            out = plain_local(out, p[f"local{i}.weight"], p[f"local{i}.bias"]).tanh()
    out = out.flatten(1) @ p["fc.weight"].T + p["fc.bias"]
    torch.testing.assert_close(model(x), out, rtol=1e-12, atol=1e-13)


def plain_local(x, weight, bias, kernel=3):
    """Return the locally connected layer, one place at a time."""
    size, half = x.shape[-1], kernel // 2
    padded = F.pad(x, (half,) * 4)
    rows = []
    for row in range(size):
        places = []
        for column in range(size):
            patch = padded[:, :, row : row + kernel, column : column + kernel].reshape(len(x), -1)
            place = row * size + column
            places.append(patch @ weight[place] + bias[place])
        rows.append(torch.stack(places, dim=-1))
    return torch.stack(rows, dim=-2)


def plain_norm(x, size, scale):
    """Return the norm from its formula: for each place the sum of squares over the clipped window."""
    half, (height, width) = size // 2, x.shape[2:]
    rows = []
    for i in range(height):
        columns = []
        for j in range(width):
            window = x[:, :, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            total = window.square().sum((2, 3))
            columns.append(x[:, :, i, j] * (1 + scale / size**2 * total) ** -0.75)
        rows.append(torch.stack(columns, dim=-1))
    return torch.stack(rows, dim=-2)


def plain_avg_pool(x, kernel, stride, *, ceil_mode=True):
    """Return the mean over each window of the cells that it holds; the last windows may be partial."""
    out = math.ceil((x.shape[-1] - kernel) / stride) + 1
    rows = []
    for i in range(out):
        windows = [x[:, :, i * stride :, j * stride :][:, :, :kernel, :kernel] for j in range(out)]
        rows.append(torch.stack([window.mean((2, 3)) for window in windows], dim=-1))
    return torch.stack(rows, dim=-2)


def test_a_locally_connected_layer_is_a_loop_over_places():
    """Forward and all three gradients equal the explicit loop, with other weights and biases at every place."""
    layer = LocallyConnected2d(3, 4, kernel=3, size=5).double()
    with torch.no_grad():
        layer.weight.copy_(noise(*layer.weight.shape, seed=1))
        layer.bias.copy_(noise(*layer.bias.shape, seed=2))
    x, grad = noise(2, 3, 5, 5, seed=3).requires_grad_(), noise(2, 4, 5, 5, seed=4)
    out, expected = layer(x), plain_local(x, layer.weight, layer.bias)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=1e-13)
    wanted = [x, layer.weight, layer.bias]
    ours, theirs = (torch.autograd.grad(y, wanted, grad) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_locally_connected_layer_passes_gradcheck(memory_format):
    """Its gradients agree with finite differences in either memory format, also with a 5 x 5 kernel."""
    layer = LocallyConnected2d(2, 3, kernel=5, size=4).double()
    x = noise(2, 2, 4, 4).to(memory_format=memory_format).requires_grad_()
    weight, bias = (
        noise(*layer.weight.shape, seed=1).requires_grad_(),
        noise(*layer.bias.shape, seed=2).requires_grad_(),
    )

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, weight, bias))


def test_a_locally_connected_layer_with_one_kernel_everywhere_is_a_convolution():
    """With the same weights at every place it equals conv2d, so the order of its weights is that of a kernel's."""
    kernel, bias = noise(4, 3, 3, 3), noise(4, seed=1)
    layer = LocallyConnected2d(3, 4, kernel=3, size=6).double()
    with torch.no_grad():
        layer.weight.copy_(kernel.reshape(4, -1).T.expand_as(layer.weight))
        layer.bias.copy_(bias.expand_as(layer.bias))
    x = noise(2, 3, 6, 6, seed=2)
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, bias, padding=1), rtol=1e-12, atol=1e-12)


# At unit activations the norm's second term is 1e-4 of the gradient and a wrong one would pass; from 100 on it shows.
@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_norm_is_its_formula(scale, memory_format):
    """Forward and gradient equal a float64 loop over clipped windows, also where activations are large."""
    x = noise(2, 3, 6, 6, scale=scale).to(memory_format=memory_format).requires_grad_()
    grad = noise(2, 3, 6, 6, seed=1)
    out, expected = SameMapNorm(size=3, scale=5e-5)(x), plain_norm(x, 3, 5e-5)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=0)
    (ours,), (theirs,) = (torch.autograd.grad(y, x, grad) for y in (out, expected))
    assert (ours - theirs).norm() < 1e-13 * theirs.norm()
    if scale >= 100:
        direct = grad * (1 + 5e-5 * F.avg_pool2d(x * x, 3, 1, 1)) ** -0.75
        assert (direct - theirs).norm() > 0.1 * theirs.norm()  # the second term is really tested


def test_the_norm_passes_gradcheck_at_scale_100():
    """Its hand-written gradient agrees with finite differences."""
    x = noise(1, 2, 4, 5, scale=100.0).requires_grad_()
    assert torch.autograd.gradcheck(SameMapNorm(size=3, scale=5e-5), (x,), eps=1e-3)


def test_the_norm_in_float32_is_as_good_as_pow():
    """Square roots in place of pow cost no accuracy: 1e-6 of the float64 result at any size of activation."""
    for scale in (0.0, 1.0, 1e3, 1e6):
        x = noise(2, 4, 8, 8, scale=scale)
        expected = plain_norm(x, 3, 5e-5)
        assert (SameMapNorm(size=3, scale=5e-5)(x.float()) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("size", [4, 5, 8, 32])
def test_average_pooling_divides_partial_windows_by_what_they_hold(size):
    """Partial windows at the right and bottom are means of the cells they hold, and their gradients say so."""
    x = noise(2, 3, size, size).requires_grad_()
    out, expected = AvgPool(3, 2)(x), plain_avg_pool(x, 3, 2)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=1e-14)
    grad = noise(*out.shape, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (out, expected)), rtol=1e-12, atol=1e-13)


def test_average_pooling_of_a_corner_by_hand():
    """Of 0..15 on 4 x 4 the four windows hold 9, 6, 6 and 4 cells: means 5, 6.5, 11 and 12.5."""
    out = AvgPool(3, 2)(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert out.flatten().tolist() == [5.0, 6.5, 11.0, 12.5]


@pytest.mark.parametrize("activation", cifar.ACTIVATIONS)
def test_max_pooling_before_or_after_an_increasing_activation_is_the_same(activation):
    """Values are equal to the bit, and gradients too where there are no ties."""
    act, pool = cifar.ACTIVATIONS[activation](), nn.MaxPool2d(3, 2, ceil_mode=True)
    x = noise(2, 3, 8, 8).requires_grad_()
    before, after = act(pool(x)), pool(act(x.clone()))
    assert torch.equal(before, after)
    grad = noise(*before.shape, seed=1)
    # Not equal to the bit: where windows share a maximum, the sum of gradients is scaled before or after adding.
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (before, after)), rtol=1e-12, atol=1e-14)


def weights_of(model):
    return [m.weight for m in model if hasattr(m, "weight")]


@pytest.mark.parametrize("net", cifar.NETS)
def test_code_starts_from_the_released_standard_deviations(net):
    """Each layer is normal noise with its initW, within five standard errors; biases are 0."""
    model = built(net, protocol="code", seed=3)
    for weight, std in zip(weights_of(model), STDS[net], strict=True):
        n = weight.numel()
        assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(n)
    assert all(not m.bias.any() for m in model if hasattr(m, "bias"))


@pytest.mark.parametrize("net", cifar.NETS)
def test_under_code_all_activations_start_alike_and_seeds_differ(net):
    """The same weights to the bit for every activation; others, in every layer, for another seed."""
    relu, tanh, other = built(net, "relu"), built(net, "tanh"), built(net, "relu", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(relu), weights_of(tanh), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights_of(relu), weights_of(other), strict=True))


@pytest.mark.parametrize(("activation", "gain"), [("relu", math.sqrt(2)), ("tanh", 5 / 3), ("sigmoid", 1.0)])
@pytest.mark.parametrize("net", cifar.NETS)
def test_modern_scales_the_same_noise_by_gain_and_fan_in(net, activation, gain):
    """Hidden layers are the noise of `code` at gain / sqrt(fan-in), the last one at 1 / sqrt(fan-in)."""
    fan_ins = {"conv-local-13pct": [75, 1600, 576, 288, 2048]}.get(net, [75, 800, 800, 1024])
    gains = [gain] * (len(fan_ins) - 1) + [1.0]
    modern, code = built(net, activation, "modern"), built(net, activation, "code")
    layers = zip(weights_of(modern), weights_of(code), STDS[net], fan_ins, gains, strict=True)
    for weight, noise_of_code, std, fan_in, layer_gain in layers:
        torch.testing.assert_close(weight, noise_of_code / std * (layer_gain / math.sqrt(fan_in)), rtol=1e-5, atol=0)


def test_the_global_random_state_plays_no_part():
    """Building and filling a net neither depends on torch's global generator, nor, in filling it, moves it."""
    model = cifar.build("19pct", "relu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        cifar.initialise(model, "19pct", "relu", "code", 0)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_errors_are_counted():
    """Three of four rows whose largest logit is not the label's are three errors."""
    logits = torch.eye(4)
    assert cifar.count_errors(logits, torch.tensor([0, 0, 0, 0])).item() == 3


def gradients(run, inputs):
    return torch.autograd.grad(run().square().sum(), inputs)


def far_apart(ours, theirs):
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_compiled_average_pooling_has_the_gradient_of_eager(monkeypatch):
    """AvgPool keeps clear of the compiler's wrong gradient of ceil_mode pooling (pytorch issue 198119): 30% here."""
    config = pytest.importorskip("torch._inductor.config")
    monkeypatch.setattr(config, "cpp_cache_precompile_headers", False)  # they take longer than these two kernels
    monkeypatch.setattr(config, "compile_threads", 1)
    pool = AvgPool(3, 2)
    x = noise(1, 1, 8, 8).requires_grad_()
    expected = plain_avg_pool(x, 3, 2)
    eager, by_hand = gradients(lambda: pool(x), [x]), gradients(lambda: expected, [x])
    compiled = torch.compile(pool, fullgraph=True)
    assert far_apart(eager, by_hand) < 1e-14
    assert far_apart(gradients(lambda: compiled(x), [x]), by_hand) < 1e-14


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", cifar.NETS)
def test_compiled_nets_have_the_gradients_of_eager(net):
    """In float64 every gradient of the compiled net equals eager's to rounding; the compiler's bug would be 20% off."""
    model = built(net, protocol="modern").double().to(memory_format=torch.channels_last)
    x = noise(2, 3, 32, 32).to(memory_format=torch.channels_last)
    compiled, parameters = torch.compile(model, fullgraph=True), list(model.parameters())
    eager = gradients(lambda: model(x), parameters)
    assert far_apart(gradients(lambda: compiled(x), parameters), eager) < 1e-12


@pytest.mark.parametrize("activation", cifar.ACTIVATIONS)
@pytest.mark.parametrize("net", cifar.NETS)
def test_channels_last_is_a_matter_of_speed_only(net, activation):
    """Gradients in float64 are those of the ordinary layout."""
    model = built(net, activation, "modern").double()
    x, parameters = noise(1, 3, 32, 32), list(model.parameters())
    plain = gradients(lambda: model(x), parameters)
    model.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert far_apart(gradients(lambda: model(x), parameters), plain) < 1e-12


def test_cross_map_normalisation_stands_where_the_11pct_net_has_it():
    """After the first pooling, and between the second convolution's activation and its pooling."""
    plain, normed = (cifar.build("conv-local-13pct", "relu", size=24, cross_map=on) for on in (False, True))
    names = [name for name, _ in normed.named_children()]
    assert names[:7] == ["conv1", "pool1", "act1", "norm1", "conv2", "act2", "norm2"]
    assert names[7] == "pool2"
    assert [p.shape for p in plain.parameters()] == [p.shape for p in normed.parameters()]
    for model in (plain, normed):
        cifar.initialise(model, "conv-local-13pct", "relu", "modern", seed=0)
    x = torch.rand(2, 3, 24, 24)
    assert not torch.allclose(normed(x * 255), plain(x * 255), rtol=0.01)
    for norm in (normed.norm1, normed.norm2):
        norm.scale = 0.0
    assert torch.allclose(normed(x), plain(x), atol=1e-5)  # with nothing to sum it changes nothing
