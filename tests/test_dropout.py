"""Masks that are counted: against plain integers and published words, as fair as coins, and the same however cut."""

import copy
import hashlib
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from repro.models import dropout
from repro.models.alexnet import AlexNet, build, layers
from repro.models.dropout import Draw, Dropout, key, mixed
from repro.seeds import derive

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
ONES = (1 << 64) - 1


def word(seed: int, n: int) -> int:
    """Return word ``n``, from 1, of the SplitMix64 sequence of a seed, in Python's own integers."""
    x = (seed + n * GAMMA) & ONES
    x = (x ^ x >> 30) * FIRST & ONES
    x = (x ^ x >> 27) * SECOND & ONES
    return x ^ x >> 31


def kept(seed: int, step: int, row: int, unit: int, units: int) -> bool:
    """Return whether a neuron is kept, in Python's own integers."""
    words = math.ceil(units / 64)
    return bool(word(seed, step * 2**32 + row * words + unit // 64 + 1) >> unit % 64 & 1)


def layer(seed: int, *, step: int = 0, first: int = 0, part: tuple[int, int] = (0, 1)) -> Dropout:
    """Return a layer with a seed, at a step and a row."""
    made = Dropout(inverted=False, part=part)
    made.seed.fill_(seed)
    made.draw.at(step)
    made.draw.first = first
    return made


def mask(seed: int, step: int, rows: int, units: int) -> Tensor:
    return layer(seed, step=step).mask(torch.empty(rows, units))


# What a mask is.


@pytest.mark.parametrize(
    ("seed", "published"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]),
    ],
)
def test_the_words_are_those_of_splitmix64(seed: int, published: list[int]) -> None:
    """The first words that implementations of SplitMix64 are checked by, from ours and from Python's integers."""
    states = torch.tensor([dropout._signed(seed + n * GAMMA & ONES) for n in range(1, len(published) + 1)])
    assert [value & ONES for value in mixed(states).tolist()] == published
    assert [word(seed, n) for n in range(1, len(published) + 1)] == published
    bits = mask(seed, 0, 1, 64 * len(published)).view(-1, 64).tolist()
    assert [sum(bit << place for place, bit in enumerate(row)) for row in bits] == published


@pytest.mark.parametrize("shape", [(3, 256), (4, 100), (2, 5, 3, 7), (1, 1), (3, 4096)])
@pytest.mark.parametrize(("step", "first"), [(0, 0), (3, 5), (999_999, 96), (2**32 - 1, 65_000)])
def test_a_mask_by_plain_integers(shape: tuple[int, ...], step: int, first: int) -> None:
    """Every bit, of widths that fill their words and of widths that do not, of maps too, at early and late steps."""
    seed, units = derive(3, "dropout", 1), math.prod(shape[1:])
    found = layer(seed, step=step, first=first).mask(torch.empty(shape))
    assert found.shape == shape
    by_hand = [[kept(seed, step, first + row, unit, units) for unit in range(units)] for row in range(shape[0])]
    assert found.flatten(1).tolist() == by_hand


# Trials lie under identities that say so (``final_error.changes``): raise those before writing down another digest.
GOLDEN = "fdc7b04090c2d2f8"


def test_masks_move_only_with_numerics() -> None:
    """Both layers of a net, two steps, 128 rows: the bits written down."""
    model = build(layers(AlexNet(form="alexnet-32", classes=10, size=16)), size=16)
    draw = key(model, seed=3)
    found = hashlib.sha256()
    for step, own in itertools.product((0, 7), (m for m in model if isinstance(m, Dropout))):
        draw.at(step)
        found.update(bytes(own.mask(torch.empty(128, 256)).flatten().tolist()))
    assert found.hexdigest()[:16] == GOLDEN


def test_what_is_kept_and_what_is_tested() -> None:
    """Section 4.2 keeps values or zeroes them, and halves all when tested; today's habit doubles those it keeps."""
    x = torch.linspace(1, 2, 512).reshape(2, 256).requires_grad_()
    for inverted, scale, tested in ((False, 1.0, 0.5), (True, 2.0, 1.0)):
        own = Dropout(inverted=inverted)
        expected = torch.where(own.mask(x), scale * torch.ones(()), torch.zeros(()))
        assert 0 < expected.count_nonzero() < 512
        out = own.train()(x)
        assert torch.equal(out, x * expected)
        assert torch.equal(torch.autograd.grad(out.sum(), x)[0], expected)
        assert torch.equal(own.eval()(x), tested * x)


# How it is cut.


def test_parts_are_slices_of_the_whole() -> None:
    """Rows from any on, and a tower's neurons, also where neither fills its words."""
    for units in (256, 100, 2 * 33, 130):
        whole = layer(11, step=4).mask(torch.empty(16, units))
        for first, rows in ((0, 5), (5, 5), (10, 6), (15, 1)):
            assert torch.equal(layer(11, step=4, first=first).mask(torch.empty(rows, units)), whole[first:][:rows])
        for which in (0, 1):
            own = layer(11, step=4, part=(which, 2)).mask(torch.empty(16, units // 2))
            assert torch.equal(own, whole.chunk(2, 1)[which])


def test_one_draw_for_all_layers_wherever_the_model_goes() -> None:
    """Copied, brought to another precision or device, the layers share one step; weights and names know nothing."""
    model = build(layers(AlexNet(form="alexnet-32", classes=10, size=16)), size=16)
    draw = key(model, seed=5)
    assert not any("dropout" in name for name in model.state_dict())
    for other in (copy.deepcopy(model), copy.deepcopy(model).double(), copy.deepcopy(model).to("meta")):
        draws = {id(m): m for m in other.modules() if isinstance(m, Draw)}
        assert len(draws) == 1
        (own,) = draws.values()
        assert own is not draw
        assert own.step.dtype == torch.int64
    one, two = (m for m in model if isinstance(m, Dropout))
    assert one.draw is two.draw is draw
    assert (int(one.seed), int(two.seed)) == (derive(5, "dropout", 0), derive(5, "dropout", 1))


def test_neither_company_nor_chance_changes_a_mask() -> None:
    """Another net's steps and draws from torch's generator between two looks; and none is drawn from here."""
    one, other = (build(layers(AlexNet(form="alexnet-32", classes=10, size=16)), size=16) for _ in range(2))
    x = torch.ones(4, 3, 16, 16)
    alone, company = key(one, seed=1), key(other, seed=2)
    state = torch.get_rng_state()
    alone.at(3)
    before = one(x)
    assert torch.equal(torch.get_rng_state(), state)
    company.at(9)
    other(x)
    torch.rand(5)
    assert torch.equal(one(x), before)
    assert not torch.equal(other(x), before)
    alone.at(4)
    assert not torch.equal(one(x), before)


# What may be recorded: the step is read where it lies, and nobody waits for the device.


class Counted(TorchDispatchMode):
    """The operations that are more than another look at the same memory: on a GPU, its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if not func.is_view and func.name() != "prim::device":
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inverted", [False, True])
def test_on_a_gpu_nothing_is_waited_for(inverted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be run without one, but as torch would: all on the device, no value asked for, a kernel each way.

    Maps in channels_last take torch's operations there too.
    """
    pytest.importorskip("triton", reason="Triton is for Linux")
    with FakeTensorMode():
        own, x = Dropout(inverted=inverted).to("cuda"), torch.empty(128, 4096, device="cuda")
        with Counted() as forward:
            assert own(x).device.type == "cuda"
        maps = torch.empty(2, 8, 3, 3, device="cuda").to(memory_format=torch.channels_last)
        with Counted() as by_torch:
            assert own(maps).device.type == "cuda"
    assert forward.names == ["repro::drop"]
    asked = {"aten::_local_scalar_dense", "aten::_to_copy", "aten::copy_", "aten::lift_fresh"}
    assert not asked & {*by_torch.names}
    assert len(by_torch.names) > 20
    from repro.models import dropout_kernel

    monkeypatch.setattr(dropout, "kernels_for", lambda *_: dropout_kernel)
    with FakeTensorMode():  # a gradient on a CPU: torch can imagine a GPU's tensors, but not its streams
        x = torch.ones(128, 4096, requires_grad=True)
        out = Dropout(inverted=inverted)(x)
        gradient = torch.ones_like(out)
        with Counted() as backward:
            torch.autograd.grad(out, x, gradient)
    assert backward.names == ["repro::drop"]


def test_a_recorded_net_goes_from_step_to_step() -> None:
    """torch.fx writes down the operations of one call, numbers and all, as a CUDA graph does; the step is no number."""
    model = build(layers(AlexNet(form="alexnet-32", classes=10, size=16)), size=16)
    draw, x = key(model, seed=5), torch.ones(4, 3, 16, 16)
    written = make_fx(lambda: model(x))()
    for step in (0, 1, 70_000):
        draw.at(step)
        assert torch.equal(written(), model(x))


# As fair as coins: fixed seeds, so these pass or fail for good. A bound of five standard deviations lets one honest
# count in 1.7 million through.


def fair(bits: Tensor) -> None:
    """Columns of (n, m) coins: heads as often as tails in all, in each, and in each as uneven as chance is."""
    n, m = bits.shape
    heads = 2.0 * bits.sum(0, dtype=torch.float64) - n
    assert abs(float(heads.sum())) < 5 * math.sqrt(n * m)
    assert float(heads.abs().max()) < 6 * math.sqrt(n)
    squares = float((heads.square() / n).sum())
    assert abs(squares - m) < 5 * math.sqrt(2 * m)


STEPS, ROWS, UNITS = 16, 128, 4096


@pytest.fixture(scope="module")
def masks() -> Tensor:
    """Return two layers of two trials: (4, steps, rows, units)."""
    seeds = [derive(trial, "dropout", number) for trial in (0, 1) for number in (0, 1)]
    return torch.stack([torch.stack([mask(seed, step, ROWS, UNITS) for step in range(STEPS)]) for seed in seeds])


def test_each_neuron_row_and_step_is_fair(masks: Tensor) -> None:
    fair(masks.reshape(-1, UNITS))
    fair(masks.transpose(2, 3).reshape(-1, ROWS))
    fair(masks.permute(2, 3, 0, 1).reshape(-1, 4 * STEPS))


def test_neighbours_are_independent(masks: Tensor) -> None:
    """The next neurons up to a word away, the next row, the next step, the other layer, the other trial."""
    for lag in (1, 2, 3, 7, 8, 31, 32, 63, 64, 65):
        fair((masks[..., lag:] ^ masks[..., :-lag]).reshape(-1, UNITS - lag))
    fair((masks[:, :, 1:] ^ masks[:, :, :-1]).reshape(-1, UNITS))
    fair((masks[:, 1:] ^ masks[:, :-1]).reshape(-1, UNITS))
    fair((masks[0::2] ^ masks[1::2]).reshape(-1, UNITS))
    fair((masks[:2] ^ masks[2:]).reshape(-1, UNITS))


def test_eight_neurons_take_all_their_patterns(masks: Tensor) -> None:
    """Each of 256 as often as the others: chi-squared, of neighbours in a row, of rows and of steps."""
    weights = 2 ** torch.arange(8, dtype=torch.uint8)
    for places in (masks, masks.transpose(2, 3), masks.movedim(1, -1)):
        patterns = (places.reshape(-1, 8) * weights).sum(1, dtype=torch.uint8)
        counts = torch.bincount(patterns.flatten(), minlength=256).double()
        expected = float(counts.sum()) / 256
        assert abs(float(((counts - expected).square() / expected).sum()) - 255) < 5 * math.sqrt(2 * 255)


def test_steps_are_independent_near_and_far() -> None:
    """Steps differ in the upper half of the state only: one row over many, and steps that differ in a single bit."""
    own, x = layer(derive(4, "dropout", 0)), torch.empty(1, 64)

    def row(step: int) -> Tensor:
        own.draw.at(step)
        return own.mask(x)

    steps = torch.cat([row(step) for step in range(4096)])
    fair(steps)
    for lag in (1, 2, 3, 64):
        fair(steps[lag:] ^ steps[:-lag])
    for power in range(32):
        pairs = [(step, step ^ 1 << power) for step in range(1024) if not step >> power & 1]
        fair(torch.cat([row(one) ^ row(other) for one, other in pairs]))


def test_every_bit_of_a_seed_changes_half_of_the_mask() -> None:
    own = mask(derive(5, "dropout", 0), 3, 16, 512)
    changed = [mask(dropout._signed(derive(5, "dropout", 0) ^ 1 << place), 3, 16, 512) ^ own for place in range(64)]
    for one in changed:
        fair(one)
    fair(torch.stack(changed).flatten(1).T)


@pytest.mark.parametrize("poor", [lambda x: x, lambda x: x * GAMMA_SIGNED, lambda x: x ^ x >> 1])
def test_poor_words_are_told(poor, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The tests can fail: a counter that is not mixed, or by a multiplication alone, is found unfair."""
    monkeypatch.setattr(dropout, "mixed", poor)
    bits = torch.stack([mask(derive(0, "dropout", 0), step, ROWS, UNITS) for step in range(STEPS)])
    with pytest.raises(AssertionError):
        test_neighbours_are_independent(bits.expand(4, -1, -1, -1))


GAMMA_SIGNED = GAMMA - (1 << 64)
