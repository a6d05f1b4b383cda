"""Time the cases, one after the other, and return what was found."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from repro import environment
from repro.bench import cases
from repro.bench.results import FROM_FILES, NETS, Ran, Run
from repro.bench.setting import Settings
from repro.bench.timing import Side, nothing, rates, why, working
from repro.choices import Precision
from repro.data import DataError
from repro.data.processes import cores
from repro.training.precision import use

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

Heard = Callable[[Ran | Exception, str], None]
"""Called as each case ends, with its result, or the error that kept it from being measured, and its name."""


def settings(
    net: str | None, batch: int, device: torch.device, *, compiled: bool = False, of_ours: Precision = "fp32"
) -> Settings:
    """Return the settings of a run, and set precision and memory as in training; by default the net suits the device.

    Decoding has a thread or a process for each core that this process may use.
    ``of_ours`` is the precision of the package's own sides; their peers have single precision.
    """
    use("fp32")
    environment.keep_memory()
    net = net or ("alexnet" if device.type == "cuda" else "alexnet-32")
    return Settings(net, batch, device, compiled, precision=of_ours, workers=cores())


@contextmanager
def with_pictures(s: Settings, names: Sequence[str], data: Path | None) -> Iterator[Settings]:
    """Yield the settings with the pictures that the cases need: those at ``data``, else drawn ones, deleted at the end.

    Raises DataError where ``data`` holds none, or none that fit.
    """
    if not set(names) & set(FROM_FILES):
        yield s
        return
    from repro.data import drawn, prepared

    with ExitStack() as stack:
        if data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="repro-bench-")))
            found = drawn.prepared(folder, NETS[s.net].stored)
        else:
            found = prepared.load(data)
        _refuse_unfit(found, s)
        yield replace(s, pictures=found)


def _refuse_unfit(found: "Prepared", s: Settings) -> None:
    count, crop = len(found.files["train"]), NETS[s.net].crop
    if found.side < crop:
        raise DataError(f"{found.root} holds pictures of {found.side} pixels, and {s.net} sees {crop}: take another")
    if count < s.batch:
        raise DataError(f"the set has {count} training pictures, fewer than a batch: pass --batch {count} or less")


def described(s: Settings, data: str) -> dict[str, object]:
    """Return what must be equal for two runs to be compared, apart from the machine; ``data`` names the pictures."""
    return {"net": s.net, "batch": s.batch, "precision": s.precision, "pictures": data, "workers": s.workers}


def measure(
    names: Sequence[str], s: Settings, *, rounds: int, command: str, data: str, heard: Heard | None = None
) -> Run:
    """Time the cases called ``names`` in this order; a case that cannot be measured here is listed, with the reason.

    So is one that fails in an unforeseen way, as the results of the others are worth keeping. Each case's networks and
    loaders are gone before the next one's are made.
    """
    made, before = datetime.now(UTC).isoformat(timespec="seconds"), _load()
    found: list[Ran] = []
    not_measured: dict[str, str] = {}
    for name in names:
        try:
            ran = _one(name, s, rounds)
        except Exception as error:  # noqa: BLE001 - not of Ctrl-C, which is none
            not_measured[name] = why(error)
            if heard:
                heard(error, name)
            continue
        found.append(ran)
        if heard:
            heard(ran, name)
    return Run(
        made=made, command=command, rounds=rounds, settings=described(s, data),
        environment=environment.describe(s.device), load=(*before, *_load()), cases=tuple(found),
        not_measured=not_measured,
    )  # fmt: skip


def _one(name: str, s: Settings, rounds: int) -> Ran:
    wait = partial(torch.cuda.synchronize, s.device) if s.device.type == "cuda" else nothing
    with ExitStack() as stack:
        case = cases.CASES[name](s, stack)
        made = [side if side.foreign else _within(s.precision, side) for side in case.sides]
        sides, missing = working(made, wait)
        found = rates(sides, rounds, clock=time.perf_counter, wait=wait)
    return Ran(
        name=name, what=case.what, unit=case.unit, rates={side: tuple(values) for side, values in found.items()},
        foreign=tuple(side.name for side in sides if side.foreign),
        floor=None if case.floor_s is None else 1 / case.floor_s, no_floor=case.no_floor,
        missing={**case.missing, **missing}, also=tuple(pair for pair in case.also if {*pair} <= found.keys()),
    )  # fmt: skip


def _within(precision: Precision, side: Side) -> Side:
    """Return the side, with TF32 on while it is timed where that is its precision: the whole process switches."""
    if precision != "tf32":
        return side

    def before() -> None:
        use("tf32")
        side.before()

    def after() -> None:
        use("fp32")
        side.after()

    return side._replace(before=before, after=after)


def _load() -> tuple[float, ...]:
    """Return how many processes wanted a core, on average over the last minute; empty where that is unknown."""
    try:
        return (round(os.getloadavg()[0], 2),)
    except OSError:
        return ()
