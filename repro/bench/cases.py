"""The cases: each is a function of the settings that returns what to time, ours first and then its peers.

Those of a network on a batch that is ready are here; ``feeding``, ``together`` and ``desk`` have the others.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import paper
from repro.bench import apart, desk, feeding, floor
from repro.bench.plain import plain
from repro.bench.results import NETS
from repro.bench.setting import (
    RATE,
    SEED,
    Case,
    Settings,
    batch_of,
    floor_of,
    model_of,
    ours,
    peer,
    plain_trainer,
    replayed,
    torchvisions,
    trainer,
)
from repro.bench.timing import Side
from repro.bench.together import together
from repro.choices import Precision
from repro.loading.finish import Finish
from repro.models.normalization import ResponseNorm
from repro.problem import Problem, first_line
from repro.training.evaluation import Evaluation
from repro.training.precision import compute_in
from repro.training.sgd2012 import SGD2012


def step(s: Settings, stack: ExitStack) -> Case:
    """Return the case of a training step; peers are torch's own layers and, for ``alexnet``, torchvision's AlexNet."""
    model = model_of(s)
    count = floor.counts(model, NETS[s.net].crop)
    images, labels = batch_of(s)
    other = images.contiguous()  # torch's default layout

    def trained(twin: nn.Module) -> Side:
        return Side("", plain_trainer(twin.to(s.device), lambda: (other, labels)), s.batch, foreign=True)

    by_torch = trained(plain(model))
    twins: dict[str, Callable[[], Side]] = {"plain torch": lambda: by_torch}
    if s.precision == "bf16":
        twins["plain torch, autocast"] = lambda: trained(compute_in(plain(model), "bf16"))
    if s.net == "alexnet":
        twins["torchvision's AlexNet, another net"] = lambda: trained(torchvisions(s))
    if s.compiled:
        twins["torch.compile"] = lambda: trained(_compiled(plain(model).to(s.device), other, labels))
    if s.device.type == "cuda":
        twins["plain torch, its own defaults"] = lambda: by_torch._replace(before=_defaults, after=_strict)
    else:
        twins[apart.NAME] = lambda: apart.side(s, stack)
    missing: dict[str, str] = {}
    beside = [side for name, make in twins.items() for side in peer(missing, name, make)]
    sides = (trainer(s, ours(s, model), repeat((images, labels)), lambda x: x), *beside)
    work = floor.step(count, s.batch, s.precision)
    return Case("images", f"a training step of {s.net}", sides, *floor_of(s, work), missing)


def _defaults() -> None:
    """Let convolutions use TF32, as torch does by default."""
    torch.backends.cudnn.conv.fp32_precision = "tf32"


def _strict() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def _compiled(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """Compile the net and return it. Raises Problem where that does not work here."""
    compiled: nn.Module = torch.compile(model)
    try:
        F.cross_entropy(compiled(images), labels).backward()
    except RuntimeError as error:  # what the compiler raises derives from it
        raise Problem(f"torch.compile does not work here; leave --compile out ({first_line(error)})") from error
    return compiled


def evaluation(s: Settings, _stack: ExitStack) -> Case:
    """Return the case of testing a batch of uint8 centre views; its peer does the same with torch's own layers."""
    model, net = model_of(s), NETS[s.net]
    count = floor.counts(model, net.crop)
    generator = torch.Generator().manual_seed(SEED)
    views = torch.randint(256, (s.batch, 1, net.crop, net.crop, 3), generator=generator, dtype=torch.uint8)
    views, mean = views.to(s.device), torch.full((net.stored, net.stored, 3), 120.0, device=s.device)
    labels = torch.zeros(s.batch, dtype=torch.int64, device=s.device)
    finish = Finish.less_mean_image(mean, "window").finish_views
    twin = plain(model).to(s.device).eval()
    edge = (net.stored - net.crop) // 2
    middle = mean[edge : edge + net.crop, edge : edge + net.crop].permute(2, 0, 1)

    @torch.no_grad()
    def by_torch() -> Tensor:
        images = views[:, 0].permute(0, 3, 1, 2).float().contiguous() - middle
        return twin(images).softmax(1).cpu()

    own = Evaluation(ours(s, model), finish, captured=s.device.type == "cuda")
    sides = (
        Side("repro", lambda: own([(views, labels)]), s.batch),
        Side("plain torch", by_torch, s.batch, foreign=True),
    )
    return Case(
        "images", f"testing {s.net}, centre views", sides, *floor_of(s, floor.evaluation(count, s.batch, s.precision))
    )


def response_norm(s: Settings, _stack: ExitStack) -> Case:
    """Return the case of LRN over all maps of two batches, forward and backward.

    Ours is in channels_last as in training, torch's in its default layout. The two batches take turns, so that neither
    comes from a cache as large as a GPU's. On a GPU memory traffic limits LRN, so a copy of as many bytes is a peer. On
    a CPU arithmetic does; docs/profile.md has LRN's share of a copy there.
    """
    maps, side = NETS[s.net].maps, NETS[s.net].map_side
    generator = torch.Generator().manual_seed(SEED)
    both = [torch.randn(s.batch, maps, side, side, generator=generator).to(s.device) for _ in range(2)]
    both = [x.bfloat16() for x in both] if s.precision == "bf16" else both
    n, a = paper.LRN_SIZE, paper.LRN_ALPHA
    torchs = "nn.LocalResponseNorm" + (", bf16" if s.precision == "bf16" else "")
    layers = {
        "repro": (ResponseNorm(size=n, scale=a, power=paper.LRN_BETA, k=paper.LRN_K), torch.channels_last),
        torchs: (nn.LocalResponseNorm(n, a * n, paper.LRN_BETA, paper.LRN_K), torch.contiguous_format),
    }
    units = len(both) * s.batch

    def of(name: str) -> Side:
        layer, layout = layers[name]
        own = [x.clone(memory_format=layout).requires_grad_() for x in both]
        gradients = [torch.ones_like(x) for x in own]
        call = replayed(s.device, partial(_there_and_back, layer, own, gradients))
        return Side(name, call, units, foreign=name != "repro")

    sides = [of("repro")]
    missing: dict[str, str] = {}
    sides += peer(missing, torchs, partial(of, torchs))
    if s.device.type == "cuda":
        sides += peer(
            missing, "a copy of as many bytes",
            lambda: Side("", replayed(s.device, partial(_copied, moving(both))), units, foreign=True),
        )  # fmt: skip
    work = floor.response_norm(sum(x.numel() for x in both), s.precision)
    what = f"LRN forward and backward on {maps} maps of {side} x {side}"
    return Case("images", what, tuple(sides), *floor_of(s, work, units), missing)


def moving(both: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return for each tensor a pair of buffers; copying one to the other moves as many bytes as LRN of it must."""
    pairs = []
    for x in both:
        precision: Precision = "bf16" if x.dtype == torch.bfloat16 else "fp32"
        one_way = int(floor.response_norm(x.numel(), precision).bytes_) // 2  # a copy reads them and writes them
        source = torch.randint(256, (one_way,), dtype=torch.uint8, device=x.device)
        pairs.append((torch.empty_like(source), source))
    return pairs


def _copied(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for to, source in pairs:
        to.copy_(source)


def _there_and_back(layer: nn.Module, both: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for x, y, gradient in zip(both, [layer(x) for x in both], gradients, strict=True):
        torch.autograd.grad(y, x, gradient)


def optimizer(s: Settings, _stack: ExitStack) -> Case:
    """Return the case of a step of the 2012 rule; its peer is torch's SGD, foreach (tensor lists) or on a GPU fused."""
    model = model_of(s)
    count = floor.counts(model, NETS[s.net].crop)
    generator = torch.Generator().manual_seed(SEED)
    theirs_is = "fused" if s.device.type == "cuda" else "foreach"

    def of(name: str) -> Side:
        parameters = [nn.Parameter(p.detach().clone().to(s.device)) for p in model.parameters()]
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(s.device)
        own = SGD2012(parameters, RATE, paper.MOMENTUM, paper.WEIGHT_DECAY)
        theirs = torch.optim.SGD(
            parameters, RATE, paper.MOMENTUM, weight_decay=paper.WEIGHT_DECAY, **{theirs_is: True}
        )  # fmt: skip
        one = own if name == "repro" else theirs
        return Side(name, replayed(s.device, one.step), 1, foreign=name != "repro")

    missing: dict[str, str] = {}
    other = f"torch's SGD, {theirs_is}"
    sides = (of("repro"), *peer(missing, other, lambda: of(other)))
    return Case("steps", f"the update of {s.net}", sides, *floor_of(s, floor.optimizer(count), 1), missing)


CASES: dict[str, Callable[[Settings, ExitStack], Case]] = {
    "step": step,
    "evaluation": evaluation,
    "lrn": response_norm,
    "optimizer": optimizer,
    "together": together,
    "cifar": feeding.cifar,
    "decode": feeding.decode,
    "loader": feeding.loader,
    "loader-and-step": feeding.loader_and_step,
    "start": desk.start,
    "judge": desk.judge,
    "report": desk.report,
}
"""Keyed by the names of ``repro.bench.results.CASES``."""
