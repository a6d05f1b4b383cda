"""The cases that read pictures: decoding, the loaders, and training fed by them or by a set in memory."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from itertools import product, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.bench import scripts
from repro.bench.plain import plain
from repro.bench.results import NETS
from repro.bench.setting import (
    RATE,
    SEED,
    Case,
    Settings,
    batch_of,
    classes,
    model_of,
    ours,
    peer,
    plain_trainer,
    torchvisions,
    trainer,
)
from repro.bench.timing import Side
from repro.data import Dataset
from repro.loading import Job, Loader, make
from repro.loading.finish import Finish
from repro.loading.resident import decoded
from repro.models.cifar import NETS as CIFAR_NETS
from repro.training.inputs import Input, batches
from repro.training.optimizer import optimizer_for

AHEAD = 2  # batches a worker may have ready
EACH = 2  # batches of each worker in a call, at least: with one, rates scatter nearly twice as far
SETTLE_S = 0.1  # the least pause after a slice: time to hand over batches that do not take long to make
IN_MEMORY = 10_240  # pictures of the set that lies in memory: 80 batches of 128
NO_FLOOR = "no floor known for this case"


def cifar(s: Settings, stack: ExitStack) -> Case:
    """Return the case of training a CIFAR-10 net (by default 18pct) on a set in memory, by the package's loop.

    Its peers train the same net in plain torch: from a set on the device, and from a DataLoader with the loss read
    every step.
    """
    s = s if s.net in CIFAR_NETS else replace(s, net="18pct")
    side = NETS[s.net].crop
    generator = np.random.default_rng(SEED)
    count = max(IN_MEMORY, s.batch)
    images = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = generator.integers(0, classes(s), count)
    data = Dataset("synthetic", torch.from_numpy(images), torch.from_numpy(labels), classes(s), "").to(s.device)
    model = model_of(s)
    by_hand = plain(model).to(s.device, memory_format=torch.channels_last)
    missing: dict[str, str] = {}

    def by_loader() -> Side:
        twin = plain(model_of(s)).to(s.device)
        stream = _endless(scripts.InMemory(images, labels), s, stack)
        return _foreign(s, stream, scripts.told(twin, stream, s.device, RATE))

    own = ours(s, model)
    fed = trainer(
        s, own, batches(data, s.batch, SEED), Input(data.images, "modern"), optimizer_for(own, "modern", RATE)
    )
    sides = (
        fed,
        Side("plain torch, set on the device",
             scripts.on_device(by_hand, data.images, data.labels, s.batch, RATE), s.batch, foreign=True),
        *peer(missing, "plain torch, DataLoader", by_loader),
    )  # fmt: skip
    what = f"training {s.net} from {count:,} pictures in memory"
    return Case("images", what, sides, no_floor=NO_FLOOR, missing=missing)


def decode(s: Settings, _stack: ExitStack) -> Case:
    """Return the case of decoding a set once, as the resident loader does; its peer is Pillow in as many threads."""
    assert s.pictures is not None
    root = s.pictures.root
    paths = [root / path for path, _ in s.pictures.files["train"]]
    pictures = replace(s.pictures, files={"train": s.pictures.files["train"]})

    def by_pillow() -> None:
        with ThreadPoolExecutor(s.workers) as pool:
            for _ in pool.map(_pixels, paths):
                pass

    cpu, threads = torch.device("cpu"), f"{s.workers} thread{'s' * (s.workers > 1)}"
    sides = (
        Side("repro", lambda: decoded(pictures, "train", device=cpu, workers=s.workers), len(paths)),
        Side(f"Pillow, {threads}", by_pillow, len(paths), foreign=True),
    )
    return Case("images", f"decoding {_told(s)} by {_decoder()}, {threads}", sides, no_floor=NO_FLOOR)


def _decoder() -> str:
    """Return the name of the library that the resident loader decodes with here."""
    try:
        import repro.loading.dali  # noqa: F401
    except ImportError:
        return "Pillow"
    return "DALI"


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


LOADERS = {"dali": "DALI", "torchvision": "the package's DataLoader"}
"""The package's loaders that read the files every epoch, and their names as peers of the resident one."""


def loader(s: Settings, stack: ExitStack) -> Case:
    """Return the case of the resident loader; peers read the files each epoch: DALI, DataLoader, torchvision's script.

    Each of the package's loaders includes its finish. The script takes a random part of each picture and resizes it.
    The resident loader reads no file while it is timed, so the two that do are compared with the script as well.
    """
    missing: dict[str, str] = {}
    sides = [_side(s, _stream(s, stack, "resident"))]
    for name, called in LOADERS.items():
        sides += peer(missing, called, lambda name=name: _side(s, _stream(s, stack, name)))
    script = "torchvision's script"
    sides += peer(missing, script, lambda: _foreign(s, stream := _script(s, stack), partial(_to, stream, s.device)))
    also = tuple((called, script) for called in LOADERS.values())
    what = f"the input of {s.net} from memory ({_told(s)}, decoded once); {_workers(s)}"
    return Case("images", what, tuple(sides), no_floor=NO_FLOOR, missing=missing, also=also)


def loader_and_step(s: Settings, stack: ExitStack) -> Case:
    """Return the case of a step fed by the resident loader; peers: the step alone or fed from files, plain trainings.

    Plain trainings read the files every epoch, so the steps fed from files are compared with them as well, and with the
    step alone. Torchvision's script trains torchvision's AlexNet where the net is ``alexnet``, else the same net.
    """
    missing: dict[str, str] = {}
    by_loader = cache(partial(_stream, s, stack, "torchvision"))  # one for two sides, which take from it in turn

    def fed(stream: "_Stream") -> Side:
        own = trainer(s, ours(s, model_of(s)), iter(stream.take, None), lambda x: x)
        return _timed(s, stream, own)

    def plainly() -> Side:
        take = by_loader().take
        call = plain_trainer(plain(model_of(s)).to(s.device), lambda: _contiguous(take()))
        return _timed(s, by_loader(), Side("", call, s.batch))

    def by_script() -> Side:
        stream, net = _script(s, stack), torchvisions(s) if s.net == "alexnet" else plain(model_of(s))
        return _foreign(s, stream, scripts.told(net.to(s.device), stream, s.device, RATE))

    alone = trainer(s, ours(s, model_of(s)), repeat(batch_of(s)), lambda x: x, name="the step alone")
    from_files = {
        "the step, DALI": lambda: fed(_stream(s, stack, "dali")),
        f"the step, {LOADERS['torchvision']}": lambda: fed(by_loader()),
    }
    others = {
        "plain torch, DataLoader": plainly,
        f"torchvision's {'AlexNet and ' * (s.net == 'alexnet')}script": by_script,
    }
    sides = [fed(_stream(s, stack, "resident")), alone]
    for name, made in {**from_files, **others}.items():
        sides += peer(missing, name, made)
    also = tuple(product(from_files, (alone.name, *others)))
    what = f"a training step of {s.net} fed from memory ({_told(s)}, decoded once); {_workers(s)}"
    return Case("images", what, tuple(sides), no_floor=NO_FLOOR, missing=missing, also=also)


def _contiguous(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].contiguous(), batch[1]


def _told(s: Settings) -> str:
    assert s.pictures is not None
    return f"JPEG files of {s.pictures.side} pixels"


def _workers(s: Settings) -> str:
    return f"what reads them every epoch has {s.workers} worker{'s' * (s.workers > 1)}"


class _Stream(NamedTuple):
    """A loader: ``take`` gives its next batch, as a network's input with labels; ``queue`` is what it takes from.

    A set in memory has no queue.
    """

    take: Callable[[], Any]
    queue: Iterator[object] | None = None


def _stream(s: Settings, stack: ExitStack, name: str) -> _Stream:
    """Return the batches of the package's loader of that name, through its finish."""
    assert s.pictures is not None
    net, side = NETS[s.net], s.pictures.side
    found: Loader = make(name, s.pictures, Job(s.batch, net.crop, SEED), device=s.device, workers=s.workers)
    stack.callback(found.close)
    windows = found.train(0)
    finish = Finish.less_mean_image(torch.full((side, side, 3), 120.0, device=s.device), "window")

    def take() -> tuple[Tensor, Tensor]:
        window = next(windows)
        return finish(window, 0), window.labels

    return _Stream(take, None if name == "resident" else windows)


def _side(s: Settings, stream: _Stream) -> Side:
    return _timed(s, stream, Side("repro", stream.take, s.batch))


def _timed(s: Settings, stream: _Stream, side: Side) -> Side:
    return side if stream.queue is None else queued(side, stream.queue, s.workers, round(side.units / s.batch))


def _foreign(s: Settings, stream: Any, call: Callable[[], object]) -> Side:
    """Return ``call``, which takes batches from a DataLoader and runs none of the package's code, as a side."""
    return queued(Side("", call, s.batch, foreign=True), stream, s.workers)


def queued(side: Side, queue: Iterator[object], workers: int, batches: int = 1) -> Side:
    """Return a side timed as in a long run; its call takes ``batches`` from a queue that ``workers`` fill.

    Batches that are ready before the clock starts would count as made in no time, so the queue is emptied first. All
    workers then start at once, and each delivers a batch at about the same time, in bursts: a slice that does not hold
    whole bursts may show half the rate or twice. So a call takes a whole number of batches a worker. Between emptying
    the queue and starting the clock the side itself takes the least such number, which brings it and the workers into
    the rhythm that they keep. After the clock stops, it waits until the queue should be full again, judged by how long
    the workers took for a batch each: else they would share the cores with the side that is timed next.
    """
    whole = workers // math.gcd(workers, batches)
    times = whole * math.ceil(EACH * workers / (whole * batches))
    filling = 0.0

    def take(count: int) -> None:
        for _ in range(count):
            side.call()

    def before() -> None:
        nonlocal filling
        _pass(queue, AHEAD * max(2, workers))  # 2 at least, for DALI's queue where there is one worker
        start = time.perf_counter()
        _pass(queue, workers)
        filling = (AHEAD + 1) * (time.perf_counter() - start)  # one more: not all take equally long
        take(whole)

    def after() -> None:
        time.sleep(max(filling, SETTLE_S))

    return side._replace(call=partial(take, times), units=times * side.units, before=before, after=after)


def _pass(queue: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(queue)


def _script(s: Settings, stack: ExitStack) -> Any:
    """Return the batches of torchvision's script."""
    assert s.pictures is not None
    return _endless(scripts.folder(s.pictures.root / "train", NETS[s.net].crop), s, stack)


def _endless(data: Any, s: Settings, stack: ExitStack) -> Any:
    """Return the batches of a DataLoader, whose processes end with the case."""
    found = scripts.loader(data, s.batch, s.workers, pin=s.device.type == "cuda")
    stream = (batch for batch in found)
    stack.callback(stream.close)
    return stream


def _to(stream: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = next(stream)
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
