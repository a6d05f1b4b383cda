"""The recipe of 2012: update rule, crops, colour noise, ten views."""

import itertools
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from repro.training import schedule, views
from repro.training.recipe import Recipe
from repro.training.sgd2012 import SGD2012


def test_update_rule_through_a_change_of_rate() -> None:
    """The optimizer is section 5's recurrence in float64, also after the rate was divided by 10."""
    w = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    optimizer = SGD2012([w], lr=0.01, momentum=0.9, weight_decay=0.0005)
    expected, v = 1.5, 0.0
    for step in range(60):
        rate = 0.01 if step < 30 else 0.001
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (w**4 / 4 + w.sin()).sum().backward()
        optimizer.step()
        gradient = expected**3 + torch.tensor(expected, dtype=torch.float64).cos().item()
        v = 0.9 * v - 0.0005 * rate * expected - rate * gradient
        expected += v
        assert w.item() == pytest.approx(expected, rel=1e-14)


def trained(make: Any, rates: list[float]) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    optimizer = make(model.parameters())
    x = torch.randn(20, 6, dtype=torch.float64)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model.weight.detach()


def test_same_as_torch_until_the_rate_changes() -> None:
    """At a constant rate the rule is torch's SGD; after the first change it is not."""

    def ours(p: Any) -> SGD2012:
        return SGD2012(p, lr=0.1, momentum=0.9, weight_decay=0.01)

    def theirs(p: Any) -> torch.optim.SGD:
        return torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)

    torch.testing.assert_close(trained(ours, [0.1] * 20), trained(theirs, [0.1] * 20), rtol=1e-12, atol=1e-14)
    changed = [0.1] * 10 + [0.01] * 3
    assert (trained(ours, changed) - trained(theirs, changed)).abs().max() > 1e-3


def test_rate_zero_freezes_a_layer_whole() -> None:
    """At rate 0 neither weights nor velocity move, so that training goes on as if the steps had not been."""
    w = torch.tensor([1.0], requires_grad=True)
    optimizer = SGD2012([w], lr=0.1)
    for rate in (0.1, 0.0, 0.0):
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.ones(1)
        optimizer.step()
    assert w.item() == pytest.approx(1.0 - 0.1 - 0.1 * 0.0005, rel=1e-6)
    assert optimizer.state[w]["v"].item() == pytest.approx(-0.1 - 0.1 * 0.0005, rel=1e-6)


@pytest.mark.parametrize(
    ("net", "layer", "at_the_end"),
    [("alexnet", "conv2", 0.1), ("conv-local-13pct", "conv2", 1.0), ("conv-local-13pct", "conv1", 1.0)],
)
def test_rates_of_biases_fall_once_or_never(net: str, layer: str, at_the_end: float) -> None:
    """Of AlexNet's biases the released rate fell once; of the CIFAR-10 net's the weights' rate alone was lowered."""
    model = nn.Sequential(OrderedDict({layer: nn.Conv2d(3, 4, 3)}))
    recipe = Recipe(model, net=net, protocol="code", rate=0.01, weight_decay=0.0, kind="released")
    recipe.set_rates(0.99)
    weights, biases = (
        next(group["lr"] for group in recipe.optimizer.param_groups if group["params"][0].dim() == dim)
        for dim in (4, 1)
    )
    assert biases == pytest.approx(0.02 * at_the_end)
    assert weights == pytest.approx(0.01 * recipe.released.factor(0.99))
    assert weights < 0.001


def test_the_biases_of_conv1_fall_once_and_stop_with_its_weights() -> None:
    """As run4.sh of the release has it for its sibling net: 0.02, 0.002, then nothing from where conv1 is frozen."""
    model = nn.Sequential(OrderedDict({"conv1": nn.Conv2d(3, 4, 3)}))
    recipe = Recipe(model, net="alexnet", protocol="code", rate=0.01, weight_decay=0.0005, kind="released")
    rates = {}
    for epoch in (0, 30, 60, 70, 75, 90):
        recipe.set_rates(epoch / 93)
        rates[epoch] = [group["lr"] for group in recipe.optimizer.param_groups]
    found = {epoch: pytest.approx(pair, rel=1e-9) for epoch, pair in rates.items()}
    assert found == {0: [0.01, 0.02], 30: [1e-3, 2e-3], 60: [1e-4, 2e-3], 70: [1e-5, 2e-3], 75: [0, 0], 90: [0, 0]}


def test_bad_settings_are_refused() -> None:
    """A negative rate or a momentum of 1 is an error."""
    with pytest.raises(ValueError, match="need lr"):
        SGD2012([torch.zeros(1)], lr=-1)
    with pytest.raises(ValueError, match="momentum"):
        SGD2012([torch.zeros(1)], momentum=1.0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_variants_of_an_image() -> None:
    """256 pixels hold 33 crops of 224 along a side: 2,178 variants with the mirrored ones, not 2,048."""
    assert views.OFFSETS == 33
    assert views.OFFSETS**2 * 2 == 2178


def test_crop_and_mirror(images: torch.Tensor) -> None:
    """Crops and flips are what slicing by hand gives."""
    offsets = torch.tensor([[0, 0], [4, 4], [1, 3], [2, 0], [0, 4], [3, 3]])
    flips = torch.tensor([False, True, False, True, True, False])
    got = views.mirror(views.crop(images, offsets, 12), flips)
    for k, (y, x) in enumerate(offsets.tolist()):
        by_hand = images[k, y : y + 12, x : x + 12]
        assert torch.equal(got[k], by_hand.flip(1) if flips[k] else by_hand)


def test_crop_over_the_edge_is_refused(images: torch.Tensor) -> None:
    """A window that does not lie in the image is an error, not a wrapped-around picture."""
    for offset in ([5, 0], [0, -1]):
        with pytest.raises(IndexError, match="does not lie in"):
            views.crop(images, torch.tensor([offset] * 6), 12)


def test_colour_noise_has_the_covariance_it_should() -> None:
    """For each reading the shift's covariance is analytic: std^2 V diag(f^2) V', f = sqrt(l), l / 255 or l."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 32, 32, 3), generator=generator).double()
    pixels[..., 1] = 0.5 * pixels[..., 0] + 0.5 * pixels[..., 1]
    values, vectors = torch.linalg.eigh(pixels.reshape(-1, 3).T.cov())
    noise = torch.randn(200_000, 3, dtype=torch.float64, generator=generator)
    for reading, factor in (("code", values.sqrt()), ("unit", values / 255), ("literal", values)):
        matrix = views.colour_matrix(values, vectors, reading)
        found = (noise @ matrix.T).T.cov()
        expected = 0.01 * vectors @ torch.diag(factor**2) @ vectors.T
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
    with pytest.raises(ValueError, match="unknown reading"):
        views.colour_matrix(values, vectors, "guess")  # type: ignore[arg-type]


def test_ten_views_by_an_explicit_loop(images: torch.Tensor) -> None:
    """Four corners and the centre, each also mirrored; the prediction is the mean of ten softmaxes."""
    got = views.ten_views(images, 12)
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for k, (flip, (y, x)) in enumerate(itertools.product((False, True), places)):
        view = images[:, y : y + 12, x : x + 12]
        assert torch.equal(got[:, k], view.flip(2) if flip else view)
    logits = torch.randn(6, 10, 4, generator=torch.Generator().manual_seed(1))
    by_hand = sum(torch.softmax(logits[:, k], 1) for k in range(10)) / 10
    torch.testing.assert_close(views.mean_softmax(logits), by_hand)


def test_the_released_schedule_by_hand() -> None:
    """The rate drops where the notes say, whatever the epochs there are; conv1 is slowed, then frozen."""
    at = [schedule.ALEXNET.factor(e / 93) for e in (0, 22.9, 23, 50, 51, 77, 78, 93)]
    assert at == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert [schedule.conv1_factor(e / 93) for e in (0, 67, 68, 71, 72, 90)] == pytest.approx(
        [1, 0.01, 0.001, 0.001, 0, 0]
    )
    assert [schedule.colour_noise_on(e / 93) for e in (0, 67.9, 68)] == [True, True, False]
    assert [schedule.CONV_LOCAL.factor(e / 160) for e in (139.9, 140, 150)] == pytest.approx([1, 0.1, 0.01])


def test_the_papers_heuristic_drops_three_times_and_stops() -> None:
    """Each time the error stops improving the rate falls to a tenth; after the third time it ends; state survives."""
    rule = schedule.Plateau(patience=2)
    rule.add([0.5, 0.4, 0.4, 0.3])
    assert (rule.factor, rule.converged) == (1.0, False)
    rule.add([0.3, 0.31])
    assert rule.factor == pytest.approx(0.1)
    resumed = schedule.Plateau(patience=2)
    resumed.load_state_dict(rule.state_dict())
    for one in (rule, resumed):
        one.add([0.25, 0.26, 0.26, 0.27, 0.27])
        assert (one.factor, one.converged) == (pytest.approx(0.001), False)
        one.add([0.2, 0.2, 0.2])
        assert one.converged
        assert one.factor == pytest.approx(0.001)
