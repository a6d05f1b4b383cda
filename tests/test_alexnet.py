"""The network of 2012 against integers worked out by hand, and its parts against loops written from the formulas."""

import itertools

import pytest
import torch
from torch import nn

from repro.models.alexnet import AlexNet, build, initialise, layers
from repro.models.normalization import MeanResponseNorm, ResponseNorm, response_norm
from repro.models.presets import presets


def measured(net: AlexNet) -> tuple[int, int, list[tuple[int, ...]]]:
    """Return parameters, multiply-adds and the shapes of the eight layers' outputs, computed on the meta device."""
    with torch.device("meta"):
        model, x = build(layers(net), size=net.size), torch.empty(1, 3, net.size, net.size)
    macs, shapes = 0, []
    for module in model:
        x = module(x)
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs += module.weight.numel() * x[0, 0].numel() if x.dim() == 4 else module.weight.numel()
            shapes.append(tuple(x.shape[1:]))
    return sum(p.numel() for p in model.parameters()), macs, shapes


@pytest.mark.parametrize(
    ("net", "parameters", "macs"),
    [
        (AlexNet(), 60_965_224, 724_406_816),
        (AlexNet(protocol="code"), 60_965_224, 724_406_816),
        (AlexNet(towers="half"), 59_798_312, 391_514_384),
        (AlexNet(towers="ungrouped"), 62_378_344, 1_135_256_096),
        (AlexNet(overlapping=False), 60_965_224, 686_891_552),
        (AlexNet(norm="none", dropout=False, activation="tanh"), 60_965_224, 724_406_816),
    ],
    ids=["paper", "code", "half", "ungrouped", "non-overlapping", "bare"],
)
def test_sizes(net: AlexNet, parameters: int, macs: int) -> None:
    """Each switch gives the parameters and multiply-adds worked out by hand."""
    assert measured(net)[:2] == (parameters, macs)


def test_shapes_of_the_paper() -> None:
    """Maps are 55, 27, 13, 13, 13 wide; without overlap 55, 26, 13, 13, 11; conv5 feeds 6x6 either way."""
    assert [s[-1] for s in measured(AlexNet())[2][:5]] == [55, 27, 13, 13, 13]
    assert [s[-1] for s in measured(AlexNet(overlapping=False))[2][:5]] == [55, 26, 13, 13, 11]
    for overlapping in (True, False):
        fc6 = build(layers(AlexNet(overlapping=overlapping)))[-8:]
        assert any(isinstance(m, nn.Linear) and m.in_features == 9216 for m in fc6)


SMALL = {"form": "alexnet-32", "size": 28, "classes": 200}


def test_the_small_form_by_hand() -> None:
    """For 28 pixels: maps 28, 14, 7, 7, 7 wide, 3x3 into fc6, with overlap and without; every factor still there."""
    parameters, _, shapes = measured(AlexNet(**SMALL))
    convs = 32 * 76 + 64 * (16 * 25 + 1) + 96 * (64 * 9 + 1) + 96 * (48 * 9 + 1) + 64 * (48 * 9 + 1)
    assert parameters == convs + 256 * (64 * 9 + 1) + 256 * 257 + 200 * 257
    assert shapes == [(32, 28, 28), (64, 14, 14), (96, 7, 7), (96, 7, 7), (64, 7, 7), (256,), (256,), (200,)]
    apart = measured(AlexNet(**SMALL, overlapping=False))
    assert apart[0] == parameters
    assert [s[-1] for s in apart[2][:5]] == [28, 14, 7, 7, 5]
    assert measured(AlexNet(**SMALL, towers="half"))[2][0] == (16, 28, 28)


@pytest.mark.parametrize("removed", [2, 3, 4, 5])
def test_one_convolution_less(removed: int) -> None:
    """A removed convolution leaves four, and a network that still runs."""
    assert len(measured(AlexNet(removed=removed))[2]) == 7


def test_only_inner_convolutions_can_go() -> None:
    """Removing conv1, or a layer that is not there, is refused."""
    for removed in (1, 6):
        with pytest.raises(ValueError, match="cannot be removed"):
            layers(AlexNet(removed=removed))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("paper", 60_965_224), ("code", 60_965_224), ("one-gpu", 59_798_312), ("torchvision", 61_100_840),
        ("bvlc_alexnet", 60_965_224), ("caffenet", 60_965_224), ("batch-norm-clone", 62_378_344 + 2 * 1376),
    ],
)  # fmt: skip
def test_presets(name: str, parameters: int) -> None:
    """Every preset has the parameters its source has."""
    preset = presets()[name]
    with torch.device("meta"):
        model = build(preset.table, size=preset.size)
        assert model(torch.empty(2, 3, preset.size, preset.size)).shape == (2, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_torchvision_preset_is_torchvisions() -> None:
    """The torchvision preset has torchvision's own weights in the same order, and gives its outputs."""
    from torchvision.models import alexnet

    theirs = alexnet().eval()
    ours = build(presets()["torchvision"].table, size=224).eval()
    weights = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))


def test_code_and_paper_order() -> None:
    """The source normalises the linear conv1, the paper after ReLU; the same-map norm is in the source alone."""
    names = {p: [type(m).__name__ for m in build(layers(AlexNet(protocol=p)))] for p in ("paper", "code")}
    assert names["paper"][1:5] == ["Conv2d", "ReLU", "ResponseNorm", "MaxPool2d"]
    assert names["code"][1:5] == ["Conv2d", "ResponseNorm", "MaxPool2d", "ReLU"]
    assert names["code"].count("SameMapNorm") == 1
    assert "SameMapNorm" not in names["paper"]


def test_initial_values() -> None:
    """std 0.01 everywhere and bias 1 in conv2, 4, 5, fc6, fc7 (section 5); the source has 0.03 in conv3 to conv5."""
    for protocol, deep in (("paper", 0.01), ("code", 0.03)):
        table = layers(AlexNet(protocol=protocol))
        model = build(table)
        initialise(model, table, protocol, seed=0)
        weighted = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
        stds = [m.weight.std().item() for m in weighted]
        assert stds == pytest.approx([0.01, 0.01, deep, deep, deep, 0.01, 0.01, 0.01], rel=0.02)
        assert [m.bias.unique().tolist() for m in weighted] == [[b] for b in (0.0, 1, 0, 1, 1, 1, 1, 0)]


def by_the_formula(x: torch.Tensor, n: int, alpha: float, beta: float, k: float, towers: int) -> torch.Tensor:
    """Section 3.3's formula, place by place and map by map."""
    out = torch.empty_like(x)
    maps = x.shape[1] // towers
    for tower, i in itertools.product(range(towers), range(maps)):
        low, high = max(0, i - n // 2), min(maps - 1, i + n // 2)
        squares = sum(x[:, tower * maps + j] ** 2 for j in range(low, high + 1))
        out[:, tower * maps + i] = x[:, tower * maps + i] / (k + alpha * squares) ** beta
    return out


@pytest.mark.parametrize("alpha", [1e-4, 2e-5])
@pytest.mark.parametrize("towers", [1, 2])
def test_response_norm(alpha: float, towers: int) -> None:
    """LRN equals the formula in value and gradient, at activations of the size raw pixels give (100 and more)."""
    norm = ResponseNorm(size=5, scale=alpha, power=0.75, k=2.0, towers=towers)
    x = (
        200 * torch.randn(2, 12, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ).requires_grad_()
    weight = torch.randn(2, 12, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = by_the_formula(x, 5, alpha, 0.75, 2.0, towers)
    torch.testing.assert_close(norm(x), theirs, rtol=1e-12, atol=0)
    (ours_grad,) = torch.autograd.grad((norm(x) * weight).sum(), x)
    (theirs_grad,) = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(norm, (x[:1, :, :1, :2].detach().requires_grad_(),))


def test_response_norm_against_torch() -> None:
    """torch's LocalResponseNorm divides alpha by n: its 1e-4 is the source's 2e-5, its 5e-4 the paper's formula."""
    x = 100 * torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    for scale in (2e-5, 1e-4):
        ours = ResponseNorm(size=5, scale=scale, power=0.75, k=2.0)(x)
        torch.testing.assert_close(ours, nn.LocalResponseNorm(5, alpha=5 * scale, beta=0.75, k=2.0)(x))


def test_towers_do_not_see_each_other() -> None:
    """Per tower, a change in one tower's maps leaves the other's output alone; over all maps it does not."""
    x = torch.full((1, 8, 1, 1), 300.0)
    changed = x.clone()
    changed[:, 4] = 900.0
    apart, together = (ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=t) for t in (2, 1))
    assert torch.equal(apart(x)[:, :4], apart(changed)[:, :4])
    assert not torch.equal(together(x)[:, :4], together(changed)[:, :4])


def test_input_scale_trap() -> None:
    """On activations of unit scale LRN is the constant 2 ** -0.75; on those that raw pixels give it is not."""
    noise = torch.randn(4, 96, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = ResponseNorm(size=5, scale=2e-5, power=0.75, k=2.0, towers=2)
    gain = norm(noise) / noise
    assert gain.min().item() == pytest.approx(2**-0.75, rel=1e-3)
    strong = norm(300 * noise) / (300 * noise)
    assert strong.min().item() < 0.2 < strong.max().item()


def test_mean_response_norm_is_as_strong() -> None:
    """Where all activations are alike, the mean over all maps normalises as the inner window does."""
    x = torch.full((1, 16, 2, 2), 150.0)
    local = ResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=2)(x)
    torch.testing.assert_close(MeanResponseNorm(size=5, scale=1e-4, power=0.75, k=2.0, towers=2)(x)[:, 3], local[:, 3])


def test_two_towers_are_a_grouped_convolution() -> None:
    """conv2 as two convolutions on two halves equals the grouped one, forward and backward."""
    grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64, requires_grad=True)
    weights, biases = grouped.weight.chunk(2), grouped.bias.chunk(2)
    halves = [
        nn.functional.conv2d(half, w, b, padding=1) for half, w, b in zip(x.chunk(2, 1), weights, biases, strict=True)
    ]
    towers = torch.cat(halves, 1)
    torch.testing.assert_close(towers, grouped(x), rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (towers, grouped(x)))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_layer_is_the_plain_function() -> None:
    """The gradient written by hand is autograd's of the plain function, tower by tower, in single precision too."""
    generator = torch.Generator().manual_seed(3)
    x = (300 * torch.randn(2, 24, 5, 5, generator=generator)).requires_grad_()
    weight = torch.randn(2, 24, 5, 5, generator=generator)
    settings = {"size": 5, "scale": 1e-4, "power": 0.75, "k": 2.0}
    plain = torch.cat([response_norm(tower, **settings) for tower in x.chunk(2, 1)], 1)
    ours = ResponseNorm(**settings, towers=2)(x)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, plain)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
