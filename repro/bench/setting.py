"""What the cases share: settings, networks and batches made from them, and ours and a plain training as sides.

Unless its name says otherwise, a peer runs in the same process under the same switches (strict single precision, memory
that is kept), so that a ratio shows the code alone. Weights, pictures and gradients are random and learning rates
small, so nothing is learned.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import paper
from repro.bench import floor
from repro.bench.results import NETS
from repro.bench.timing import Side, why
from repro.choices import Precision
from repro.models.cifar import NETS as CIFAR_NETS
from repro.models.nets import network
from repro.training.captured import WARM_UPS, update_for
from repro.training.graphs import cuda_graph
from repro.training.loop import Recent, train
from repro.training.precision import compute_in
from repro.training.recipe import Recipe

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

RATE = 1e-6  # learning rate: weights keep their size
SEED = 0
LOOK_EVERY = 20  # steps at most between two looks at the running error on a GPU, where a look waits for it


@dataclass(frozen=True)
class Settings:
    """What a run times: a net of ``NETS`` at ``batch``, and the pictures its loaders read, where a case needs them.

    ``precision`` is that of ours; a peer has single precision, unless its name says otherwise. ``workers`` is how many
    threads or processes decode, for ours and the peers alike.
    """

    net: str
    batch: int
    device: torch.device
    compiled: bool = False
    pictures: "Prepared | None" = None
    precision: Precision = "fp32"
    workers: int = 1


class Case(NamedTuple):
    """The unit of work, what is timed in words, the sides, and the floor of a unit of ours in seconds, or why none.

    ``missing``: peers that cannot be made here, and why. ``also``: pairs of peers, by name, of which the ratio of the
    first over the second is reported as well, where both could be timed.
    """

    unit: str
    what: str
    sides: tuple[Side, ...]
    floor_s: float | None = None
    no_floor: str = ""
    missing: Mapping[str, str] = {}
    also: tuple[tuple[str, str], ...] = ()


def peer(missing: dict[str, str], name: str, make: Callable[[], Side]) -> tuple[Side, ...]:
    """Return the peer that ``make`` makes, or nothing where that fails: ``missing`` then says why, under ``name``."""
    try:
        return (make()._replace(name=name),)
    except Exception as error:  # noqa: BLE001 - of libraries that are not ours: the other sides are timed nonetheless
        missing[name] = why(error)
        return ()


@dataclass(frozen=True)
class _Switches:
    """The network of section 3, or a CIFAR-10 net, under the protocol ``paper``."""

    net: str
    crop: int
    norm: str
    protocol: str = "paper"
    activation: str = "relu"
    overlapping: bool = True
    towers: str = "two"
    removed: int | None = None
    dropout: bool = True


def classes(s: Settings) -> int:
    """Return how many classes the net tells apart: those of its data set, and no fewer than the pictures have."""
    return max(NETS[s.net].classes, len(s.pictures.classes) if s.pictures else 0)


def model_of(s: Settings, seed: int = SEED) -> nn.Sequential:
    """Return the net as the package builds it, on the CPU and in torch's default layout."""
    switches = _Switches(s.net, NETS[s.net].crop, norm="none" if s.net in CIFAR_NETS else "lrn")
    return network(switches, classes(s), seed)  # type: ignore[arg-type]


def ours(s: Settings, model: nn.Sequential) -> nn.Module:
    """Return the net as the package trains it: on the device, in channels_last, in the precision asked for."""
    return compute_in(model.to(s.device, memory_format=torch.channels_last), s.precision)


def torchvisions(s: Settings) -> nn.Module:
    """Return torchvision's AlexNet, another net than the paper's, for as many classes."""
    from torchvision.models import alexnet

    found: nn.Module = alexnet(num_classes=classes(s))
    return found


def batch_of(s: Settings) -> tuple[Tensor, Tensor]:
    """Return pixels less their mean, (B, 3, crop, crop) in channels_last, and labels."""
    crop, generator = NETS[s.net].crop, torch.Generator().manual_seed(SEED)
    images = 60 * torch.randn(s.batch, crop, crop, 3, generator=generator)
    labels = torch.randint(classes(s), (s.batch,), generator=generator)
    return images.to(s.device).permute(0, 3, 1, 2), labels.to(s.device)


def steps_a_look(s: Settings) -> int:
    """Return how many steps lie between two looks: on a GPU LOOK_EVERY, or fewer for batches of more than 128 images.

    A call takes all the steps to the next look, and 20 steps of a large batch would be many slices long. What is timed
    stays a step with its share of a look; an image's share does not grow, as the images between looks stay as many.
    """
    if s.device.type != "cuda":
        return 1
    return max(1, min(LOOK_EVERY, LOOK_EVERY * paper.BATCH // s.batch))


def trainer(
    s: Settings, model: nn.Module, stream: Iterator[Any], prepare: Callable[[Any], Tensor],
    optimizer: torch.optim.Optimizer | None = None, *, name: str = "repro",
) -> Side:  # fmt: skip
    """Return the package's loop as a side: a call takes all the steps between two looks.

    ``optimizer`` is by default that of the protocol ``paper``.
    """
    every = steps_a_look(s)
    if optimizer is None:
        decay = paper.WEIGHT_DECAY
        optimizer = Recipe(model, net=s.net, protocol="paper", rate=RATE, weight_decay=decay, kind="released").optimizer  # type: ignore[arg-type]
    update = update_for(model, optimizer, captured=s.device.type == "cuda")
    recent = Recent(every, s.batch, s.device)
    checks = train(update, stream, prepare, recent, check_every=every)
    return Side(name, lambda: next(checks), s.batch * every)


def plain_trainer(model: nn.Module, take: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Return a step as one writes it with torch, whose loss is left on the device: the host never waits for it."""
    optimizer = torch.optim.SGD(model.parameters(), RATE, paper.MOMENTUM, weight_decay=paper.WEIGHT_DECAY)

    def call() -> None:
        images, labels = take()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return call


def replayed(device: torch.device, call: Callable[[], object]) -> Callable[[], object]:
    """Return a call as a trial makes it on ``device``: on a GPU recorded and replayed, so that no launch is timed."""
    if device.type != "cuda":
        return call

    def warm_up() -> None:
        for _ in range(WARM_UPS):
            call()

    replay, _ = cuda_graph(warm_up, call)
    return partial(_keeping, replay, call)


def _keeping(replay: Callable[[], object], _call: Callable[[], object]) -> None:
    """Replay a recording of ``_call``, which is held here because it keeps the tensors that the recording reads."""
    replay()


def floor_of(s: Settings, work: floor.Work, units: int | None = None) -> tuple[float | None, str]:
    """Return the floor in seconds of one of the ``units`` of ``work`` (default: a batch), or why there is none."""
    name = torch.cuda.get_device_name(s.device) if s.device.type == "cuda" else "cpu"
    peak = floor.PEAKS.get(name)
    if peak is None:
        return None, "no floor known for this device"
    return work.seconds(peak, s.precision) / (units or s.batch), ""
