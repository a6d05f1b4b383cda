"""The two towers of section 3.2, each on its own device; they communicate where the paper's GPUs did and nowhere else.

Conv3 and the fully connected layers read the maps of both towers; conv2, conv4 and conv5 read only their own tower's. A
rank holds half the kernels of every layer. The other rank's maps arrive over a ``Link``, and their gradient goes back
over it.

The net is the two-tower net that ``repro.models.alexnet`` builds in one process, up to the order of a few sums: in
float64 the two stay within 1e-14 of each other over 50 steps of the 2012 recipe (docs/two-gpus.md). In float32 they
agree to within rounding until rounding decides which place wins a pooling window, or on which side of zero a neuron
falls. From then on the two learn from different pixels, and diverge.
"""

import copy
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from repro import paper
from repro.models.alexnet import Layer, build
from repro.models.chain import Chain
from repro.models.dropout import Dropout
from repro.models.normalization import MeanResponseNorm, ResponseNorm

TOWERS = 2


class Link:
    """A rank's connection to the other one, over torch's default process group of two.

    ``sent`` counts the bytes this rank has sent by ``swap``, by place: ``conv3 forward``, ``fc6 backward``.
    """

    def __init__(self) -> None:
        if dist.get_world_size() != TOWERS:
            raise ValueError(f"two towers need two ranks, not {dist.get_world_size()}")
        self.rank = dist.get_rank()
        self.sent: Counter[str] = Counter()

    def swap(self, x: Tensor, place: str) -> Tensor:
        """Send ``x`` to the other rank and return what it sends at the same ``place``, which has the same shape.

        Maps (N, C, H, W) travel with their channels last, so that maps already in channels_last are not copied.
        """
        maps = x.dim() == 4
        ours = (x.permute(0, 2, 3, 1) if maps else x).contiguous()
        theirs = torch.empty_like(ours)
        other = 1 - self.rank
        both = [dist.P2POp(dist.isend, ours, other), dist.P2POp(dist.irecv, theirs, other)]
        for request in dist.batch_isend_irecv(both):
            request.wait()
        self.sent[place] += ours.numel() * ours.element_size()
        return theirs.permute(0, 3, 1, 2) if maps else theirs

    def largest(self, value: float, device: torch.device) -> float:
        """Return the larger of the two ranks' values; neither goes on before both are here. Not counted in ``sent``."""
        mine = torch.tensor([value], dtype=torch.float64, device=device)
        theirs = self.swap(mine, "apart")
        del self.sent["apart"]
        return max(value, float(theirs))


class _Gather(torch.autograd.Function):
    """Joins (N, C, ...) of each tower to (N, 2 C, ...) on both.

    Each rank uses the whole in its own way, so the gradient of a tower's part is the sum of both ranks' gradients of
    it: a rank sends its gradient of the other's part, and adds the one it receives to its own. Where both ranks compute
    the same from the whole (``alike``: the loss of the same logits), each already has the full gradient, and the sum
    would be twice that.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Link, place: str, alike: bool) -> Tensor:
        ctx.link, ctx.place, ctx.alike = link, place, alike
        theirs = link.swap(x, f"{place} forward")
        return torch.cat((x, theirs) if link.rank == 0 else (theirs, x), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = grad.chunk(TOWERS, 1)
        own, other = parts[ctx.link.rank], parts[1 - ctx.link.rank]
        if not ctx.alike:
            own = own + ctx.link.swap(other, f"{ctx.place} backward")
        return own, None, None, None


class Gather(nn.Module):
    """Joins both towers' maps or neurons, those of rank 0 first; ``place`` names the layer that reads them."""

    def __init__(self, link: Link, place: str, *, alike: bool = False) -> None:
        super().__init__()
        self.link, self.place, self.alike = link, place, alike

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Gather.apply(x, self.link, self.place, self.alike)
        return out

    def extra_repr(self) -> str:
        return f"for {self.place}"


def tower(model: nn.Sequential, link: Link) -> nn.Sequential:
    """Return the rank's half of ``model``, a two-tower net of ``repro.models.alexnet`` with its weights.

    Modules keep their names, so that recipes know them. Weights are copies. Dropout shares its seeds and its step with
    that of ``model``, which both ranks must have keyed alike. The half maps pictures (N, 3, size, size) to all the
    logits (N, classes); both are the same on the two ranks, which must run it in step. Raises ValueError for a net that
    does not have two towers, cannot be halved, or whose towers would have to communicate elsewhere.
    """
    _refuse_other_nets(model)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    first, last = (names := [name for name, m in model.named_children() if _weighted(m)])[0], names[-1]
    for name, module in model.named_children():
        if _crosses(module) and name != first:
            parts[f"gather-{name}"] = Gather(link, name)
        parts[name] = _half(module, link.rank)
        if name == last:
            parts["gather-logits"] = Gather(link, "logits", alike=True)
    return Chain(parts)


def _refuse_other_nets(model: nn.Sequential) -> None:
    modules = list(model)
    if not any(isinstance(m, nn.Conv2d) and m.groups == TOWERS for m in modules):
        raise ValueError("only a net of two towers can be laid over two ranks (towers = 'two')")
    if any(isinstance(m, ResponseNorm | MeanResponseNorm) and m.towers != TOWERS for m in modules):
        raise ValueError("a normalisation over all maps reads the other tower where the paper's GPUs did not talk")
    odd = [name for name, value in model.named_parameters() if value.shape[0] % TOWERS]
    if odd:
        raise ValueError(f"{odd[0]} has an odd number of outputs and cannot be halved")


def _weighted(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def _crosses(module: nn.Module) -> bool:
    """Whether a layer reads both towers."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def half(value: Tensor, rank: int) -> Tensor:
    """Return the rank's half of a parameter or buffer of the whole net, split along its first axis, the outputs."""
    return value.chunk(TOWERS, 0)[rank] if value.dim() else value


def _half(module: nn.Module, rank: int) -> nn.Module:
    match module:
        case nn.Conv2d():
            inputs = module.in_channels // module.groups
            own: nn.Module = nn.Conv2d(
                inputs, module.out_channels // TOWERS, module.kernel_size, module.stride, module.padding
            )  # fmt: skip
        case nn.Linear():
            own = nn.Linear(module.in_features, module.out_features // TOWERS)
        case nn.BatchNorm2d():
            own = nn.BatchNorm2d(module.num_features // TOWERS, module.eps, module.momentum)
        case Dropout():
            mine = Dropout(inverted=module.inverted, draw=module.draw, part=(rank, TOWERS))
            mine.seed = module.seed
            return mine
        case _:
            own = copy.deepcopy(module)
            if isinstance(own, ResponseNorm | MeanResponseNorm):
                own.towers = 1
            return own
    like = next(iter(module.parameters()))
    own.to(device=like.device, dtype=like.dtype)
    own.load_state_dict({name: half(value, rank).clone() for name, value in module.state_dict().items()})
    return own


class Crossing(NamedTuple):
    """What one rank must send for one layer in a training step, in bytes; ``values`` counts numbers an image."""

    layer: str
    values: int
    forward: int
    backward: int


def crossings(table: Sequence[Layer], *, batch: int, size: int = paper.CROP, itemsize: int = 4) -> list[Crossing]:
    """Return what the scheme of section 3.2 must send, from the shapes of the net in one process (nothing is sent).

    A layer that reads both towers needs the other tower's half of its input, and sends the gradient of that back. The
    softmax needs the other rank's logits, but sends no gradient back: both ranks take the loss of the same logits.
    ``itemsize`` is the bytes of a number. (In the released source fc8 and the softmax lie on GPU 0 alone, see
    layers/layers-145.cfg. Half of fc8 on each rank costs 2,048 more numbers an image one way, and 500 logits each way.)
    """
    with torch.device("meta"):
        model, x = build(table, size=size), torch.empty(1, 3, size, size)
    found: list[Crossing] = []
    seen = False
    for name, module in model.named_children():
        if _crosses(module) and seen:
            found.append(_crossing(name, x, batch * itemsize, backward=True))
        seen = seen or _weighted(module)
        x = module(x)
    return [*found, _crossing("logits", x, batch * itemsize, backward=False)]


def _crossing(name: str, x: Tensor, scale: int, *, backward: bool) -> Crossing:
    values = x.numel() // TOWERS
    return Crossing(name, values, values * scale, values * scale if backward else 0)
