"""The cases: each a function of the settings that returns what to time, ours first and its peers behind it.

Peers run in the same process under the same switches (strict single precision, memory that is kept), so that a ratio
tells of the code alone. Weights, pictures and gradients are random, rates of learning small: nothing is learned.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import paper
from repro.bench import floor
from repro.bench.plain import plain
from repro.bench.results import NETS
from repro.bench.timing import Side, nothing
from repro.loading import Job, Loader, make
from repro.loading.finish import Finish
from repro.models.cifar import NETS as CIFAR_NETS
from repro.models.nets import network
from repro.models.normalization import ResponseNorm
from repro.problem import Problem
from repro.training.evaluation import probabilities
from repro.training.loop import Recent, train
from repro.training.recipe import Recipe
from repro.training.sgd2012 import SGD2012

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

RATE = 1e-6  # of learning: weights stay as large as they were
SEED = 0
WORKERS = 2  # threads or processes that decode, as in training
AHEAD = 4  # batches a loader may have ready: taken before its clock starts
SETTLE_S = 0.5  # in which its queue fills again, while nobody is timed
LOOK_EVERY = 20  # steps between two looks at the running error on a GPU, where a look waits for it


@dataclass(frozen=True)
class Settings:
    """What a run times: a net of ``NETS`` at ``batch``, and the pictures its loaders read, where a case needs them."""

    net: str
    batch: int
    device: torch.device
    compiled: bool = False
    pictures: "Prepared | None" = None


class Case(NamedTuple):
    """The unit of work, what is timed in words, the sides, and the floor of a unit of ours in seconds, or why none."""

    unit: str
    what: str
    sides: tuple[Side, ...]
    floor_s: float | None = None
    no_floor: str = ""


@dataclass(frozen=True)
class _Switches:
    """The network of section 3, or a CIFAR-10 net, under the text's protocol."""

    net: str
    crop: int
    norm: str
    protocol: str = "paper"
    activation: str = "relu"
    overlapping: bool = True
    towers: str = "two"
    removed: int | None = None
    dropout: bool = True


def _classes(s: Settings) -> int:
    return max(NETS[s.net].classes, len(s.pictures.classes) if s.pictures else 0)


def _model(s: Settings) -> nn.Sequential:
    """Return ours, on the CPU and in torch's default layout."""
    switches = _Switches(s.net, NETS[s.net].crop, norm="none" if s.net in CIFAR_NETS else "lrn")
    return network(switches, _classes(s), SEED)  # type: ignore[arg-type]


def _ours(s: Settings, model: nn.Sequential) -> nn.Sequential:
    return model.to(s.device, memory_format=torch.channels_last)


def _batch(s: Settings) -> tuple[Tensor, Tensor]:
    """Return pixels less their mean, (B, 3, crop, crop) in channels_last, and labels."""
    crop, generator = NETS[s.net].crop, torch.Generator().manual_seed(SEED)
    images = 60 * torch.randn(s.batch, crop, crop, 3, generator=generator)
    labels = torch.randint(_classes(s), (s.batch,), generator=generator)
    return images.to(s.device).permute(0, 3, 1, 2), labels.to(s.device)


def _trainer(s: Settings, model: nn.Module, stream: Iterator[Any], prepare: Callable[[Any], Tensor]) -> Side:
    """Return the package's loop as a side: a call is so many steps as lie between two looks."""
    every = LOOK_EVERY if s.device.type == "cuda" else 1
    recipe = Recipe(model, net=s.net, protocol="paper", rate=RATE, weight_decay=paper.WEIGHT_DECAY, kind="released")  # type: ignore[arg-type]
    recent = Recent(every, s.batch, s.device)
    checks = train(model, recipe.optimizer, stream, prepare, recent, first_step=0, check_every=every)
    return Side("repro", lambda: next(checks), s.batch * every)


def _plain_trainer(model: nn.Module, take: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Return a step as one writes it with torch, whose loss is left on the device: the host never waits for it."""
    optimizer = torch.optim.SGD(model.parameters(), RATE, paper.MOMENTUM, weight_decay=paper.WEIGHT_DECAY)

    def call() -> None:
        images, labels = take()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return call


def step(s: Settings, _stack: ExitStack) -> Case:
    """Return the training step, beside torch's own layers, and torchvision's AlexNet where it takes such pictures."""
    model = _model(s)
    count = floor.counts(model, NETS[s.net].crop)
    images, labels = _batch(s)
    other = images.contiguous()  # torch's default layout
    twins: dict[str, nn.Module] = {"plain torch": plain(model)}
    if s.net == "alexnet":
        from torchvision.models import alexnet

        twins["torchvision's AlexNet, another net"] = alexnet(num_classes=_classes(s))
    if s.compiled:
        twins["torch.compile"] = _compiled(plain(model).to(s.device), other, labels)
    sides = [_trainer(s, _ours(s, model), repeat((images, labels)), lambda x: x)]
    for name, twin in twins.items():
        call = _plain_trainer(twin.to(s.device), lambda: (other, labels))
        sides.append(Side(name, call, s.batch, foreign=True))
    return Case("images", f"a training step of {s.net}", tuple(sides), *_floor(s, floor.step(count, s.batch)))


def _compiled(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """Return the compiled net, having compiled it. Raises Problem where that does not work here."""
    compiled: nn.Module = torch.compile(model)
    try:
        F.cross_entropy(compiled(images), labels).backward()
    except RuntimeError as error:  # what the compiler raises derives from it
        why = str(error).splitlines()[0]
        raise Problem(f"torch.compile does not work here; leave --compile out ({why})") from error
    return compiled


def evaluation(s: Settings, _stack: ExitStack) -> Case:
    """Return testing a batch of centre views from uint8, beside the same with torch's own layers."""
    model, net = _model(s), NETS[s.net]
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

    ours = _ours(s, model)
    sides = (
        Side("repro", lambda: probabilities(ours, [(views, labels)], finish), s.batch),
        Side("plain torch", by_torch, s.batch, foreign=True),
    )
    return Case("images", f"testing {s.net}, centre views", sides, *_floor(s, floor.evaluation(count, s.batch)))


def response_norm(s: Settings, _stack: ExitStack) -> Case:
    """Return LRN over all maps, ours in channels_last as in training, torch's in its default layout."""
    maps, side = NETS[s.net].maps, NETS[s.net].map_side
    x = torch.randn(s.batch, maps, side, side, generator=torch.Generator().manual_seed(SEED)).to(s.device)
    n, a = paper.LRN_SIZE, paper.LRN_ALPHA
    layers = {
        "repro": (ResponseNorm(size=n, scale=a, power=paper.LRN_BETA, k=paper.LRN_K), torch.channels_last),
        "nn.LocalResponseNorm": (nn.LocalResponseNorm(n, a * n, paper.LRN_BETA, paper.LRN_K), torch.contiguous_format),
    }
    sides = []
    for name, (layer, layout) in layers.items():
        own = x.clone(memory_format=layout).requires_grad_()
        gradient = torch.ones_like(own)
        call = partial(_there_and_back, layer, own, gradient)
        sides.append(Side(name, call, s.batch, foreign=name != "repro"))
    what = f"LRN forward and backward on {maps} maps of {side} x {side}"
    return Case("images", what, tuple(sides), *_floor(s, floor.response_norm(x.numel()), s.batch))


def _there_and_back(layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
    torch.autograd.grad(layer(x), x, gradient)


def optimizer(s: Settings, _stack: ExitStack) -> Case:
    """Return a step of the 2012 rule, beside torch's SGD in the same form, tensor lists (foreach)."""
    model = _model(s)
    count = floor.counts(model, NETS[s.net].crop)
    generator = torch.Generator().manual_seed(SEED)
    sides = []
    for name in ("repro", "torch's SGD, foreach"):
        parameters = [nn.Parameter(p.detach().clone().to(s.device)) for p in model.parameters()]
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator).to(s.device)
        ours = SGD2012(parameters, RATE, paper.MOMENTUM, paper.WEIGHT_DECAY)
        theirs = torch.optim.SGD(parameters, RATE, paper.MOMENTUM, weight_decay=paper.WEIGHT_DECAY, foreach=True)
        one = ours if name == "repro" else theirs
        sides.append(Side(name, one.step, 1, foreign=name != "repro"))
    return Case("steps", f"the update of {s.net}", tuple(sides), *_floor(s, floor.optimizer(count), 1))


def loader(s: Settings, stack: ExitStack) -> Case:
    """Return DALI, the resident loader and the package's plain DataLoader, each with its finish."""
    sides = []
    for name in ("dali", "resident", "torchvision"):
        take, around = _stream(s, stack, name)
        sides.append(Side(name, take, s.batch, **around))
    return Case("images", f"{_told(s)}, to the input of {s.net}", tuple(sides), no_floor="no floor known for this case")


def loader_and_step(s: Settings, stack: ExitStack) -> Case:
    """Return the step fed by DALI, beside the step alone, and plain torch fed by the package's plain DataLoader."""
    model = _model(s)
    twin = plain(model).to(s.device)
    take, around = _stream(s, stack, "dali")
    fed = _trainer(s, _ours(s, model), iter(take, None), lambda x: x)
    other, other_around = _stream(s, stack, "torchvision")
    images, labels = _batch(s)
    alone = _trainer(s, _ours(s, _model(s)), repeat((images, labels)), lambda x: x)
    sides = (
        fed._replace(**around),
        alone._replace(name="the step alone"),
        Side("plain torch, DataLoader", _plain_trainer(twin, lambda: _contiguous(other())), s.batch, **other_around),
    )
    what = f"a training step of {s.net} fed from {_told(s)}"
    return Case("images", what, sides, no_floor="no floor known for this case")


def _contiguous(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].contiguous(), batch[1]


def _told(s: Settings) -> str:
    assert s.pictures is not None
    return f"JPEG files of {s.pictures.side} pixels"


def _stream(s: Settings, stack: ExitStack, name: str) -> tuple[Callable[[], tuple[Tensor, Tensor]], dict[str, Any]]:
    """Return what gives the next batch of a loader as a network's input with its labels, and what is done around it."""
    assert s.pictures is not None
    net, side = NETS[s.net], s.pictures.side
    found: Loader = make(name, s.pictures, Job(s.batch, net.crop, SEED), device=s.device, workers=WORKERS)
    stack.callback(found.close)
    windows = found.train(0)
    finish = Finish.less_mean_image(torch.full((side, side, 3), 120.0, device=s.device), "window")

    def take() -> tuple[Tensor, Tensor]:
        window = next(windows)
        return finish(window, 0), window.labels

    def empty() -> None:
        for _ in range(AHEAD):
            next(windows)

    if name == "resident":
        return take, {"before": nothing, "after": nothing}
    return take, {"before": empty, "after": partial(time.sleep, SETTLE_S)}


def start(_s: Settings, _stack: ExitStack) -> Case:
    """Return the command line from nothing to its help, beside what it cannot do without."""
    sides = (
        Side("repro", partial(_program, "-m", "repro", "--help"), 1),
        Side("import click", partial(_program, "-c", "import click"), 1, foreign=True),
    )
    return Case("starts", "repro --help in a process of its own", sides, no_floor="no floor known for this case")


def _program(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def _floor(s: Settings, work: floor.Work, units: int | None = None) -> tuple[float | None, str]:
    """Return the floor of a unit in seconds, of ``units`` that the work is (default: a batch), or why there is none."""
    name = torch.cuda.get_device_name(s.device) if s.device.type == "cuda" else "cpu"
    peak = floor.PEAKS.get(name)
    if peak is None:
        return None, "no floor known for this device"
    return work.seconds(peak) / (units or s.batch), ""


CASES: dict[str, Callable[[Settings, ExitStack], Case]] = {
    "step": step,
    "evaluation": evaluation,
    "lrn": response_norm,
    "optimizer": optimizer,
    "loader": loader,
    "loader-and-step": loader_and_step,
    "start": start,
}
"""By the names of ``repro.bench.results.CASES``."""
