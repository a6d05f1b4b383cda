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
SETTLE_S = 0.1  # at least, while nobody is timed: what a batch is handed over in, where none takes long to make
IN_MEMORY = 10_240  # pictures of the set that lies in memory: 80 batches of 128
NO_FLOOR = "no floor known for this case"


def cifar(s: Settings, stack: ExitStack) -> Case:
    """Return training a CIFAR-10 net (18pct, unless one was asked for) on a set in memory, by the package's loop.

    Beside it the same net, written plainly: from a set on the device, and from a DataLoader, the loss read every step.
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
    """Return decoding a set once, as the resident loader does, beside Pillow in as many threads."""
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
    """Return what the resident loader decodes by here."""
    try:
        import repro.loading.dali  # noqa: F401
    except ImportError:
        return "Pillow"
    return "DALI"


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


FROM_FILES = {"dali": "DALI", "torchvision": "the package's DataLoader"}
"""The package's loaders that read the files every epoch, and what they are called beside the resident one."""


def loader(s: Settings, stack: ExitStack) -> Case:
    """Return the resident loader, and what reads the files every epoch: DALI, a DataLoader, and torchvision's script.

    The package's each with its finish. The script takes a random part of each picture and resizes it. Ours reads
    nothing while it is timed, so what does stands beside the script as well.
    """
    missing: dict[str, str] = {}
    sides = [_side(s, _stream(s, stack, "resident"))]
    for name, called in FROM_FILES.items():
        sides += peer(missing, called, lambda name=name: _side(s, _stream(s, stack, name)))
    script = "torchvision's script"
    sides += peer(missing, script, lambda: _foreign(s, stream := _script(s, stack), partial(_to, stream, s.device)))
    also = tuple((called, script) for called in FROM_FILES.values())
    what = f"the input of {s.net} from memory ({_told(s)}, decoded once); {_workers(s)}"
    return Case("images", what, tuple(sides), no_floor=NO_FLOOR, missing=missing, also=also)


def loader_and_step(s: Settings, stack: ExitStack) -> Case:
    """Return the step fed by the resident loader, beside the step alone and fed from files, and plain trainings.

    These read the files every epoch, so the steps that do stand beside them as well. That of torchvision's script
    trains torchvision's AlexNet where the net is ``alexnet``, else the same net.
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
        f"the step, {FROM_FILES['torchvision']}": lambda: fed(by_loader()),
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
    """What gives the next batch of a loader as a network's input with its labels, and the queue that it takes from.

    Of what lies in memory there is none.
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
    """Return what takes batches from a DataLoader, and runs none of the package's code, as a side."""
    return queued(Side("", call, s.batch, foreign=True), stream, s.workers)


def queued(side: Side, queue: Iterator[object], workers: int, batches: int = 1) -> Side:
    """Return a side, whose call takes ``batches`` from a queue that ``workers`` fill, as one timed as in a long run.

    What lies ready before the clock starts would be told as made in no time, so the queue is emptied. Then all workers
    start anew at once, and bring a batch each at about the same time, burst after burst: whoever counts from one to
    another, and no whole ones, may tell of half the rate or of twice. So a call takes a whole number of batches a
    worker, and between the emptying and the clock the least such number is taken as the side takes it, which leaves it
    and the workers in the step that they keep. Behind the clock it waits until the queue is full again, by how long the
    workers took for a batch each: the side that is timed next would have to share its cores with them.
    """
    whole = workers // math.gcd(workers, batches)
    times = whole * math.ceil(EACH * workers / (whole * batches))
    filling = 0.0

    def take(count: int) -> None:
        for _ in range(count):
            side.call()

    def before() -> None:
        nonlocal filling
        _pass(queue, AHEAD * max(2, workers))  # of DALI's, too, where there is one worker
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
