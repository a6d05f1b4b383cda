"""The ranks that train one network together, each on its part of every batch: who they are and what they exchange.

They are started by torchrun, all with the same command. Rank 0 decides what is run, and alone writes and prints; the
others follow it. Tensors on a GPU travel by NCCL, everything else by gloo, in one process group.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from repro.problem import Problem, first_line
from repro.source import code_digest

MEET_S = 1800.0  # within which all ranks must reach the same exchange; reading a data set takes minutes
LOOK = 8  # calls of ``stopping`` from one agreement of the ranks to the next
ROWS = 16_384  # sent at a time by ``Team.whole``

Made = TypeVar("Made")


class Told(Problem):
    """A Problem of rank 0, raised on the other ranks: they may go on to what comes next, as rank 0 does."""


class Lost(Problem):
    """The ranks can no longer work together: one is gone, or failed; the message says what is known of it."""


@dataclass(frozen=True)
class Team:
    """The ``world`` ranks of one training, of which this process is ``rank``; alone by default.

    All ranks must make the same calls in the same order. Each raises Lost where another rank is gone.
    """

    rank: int = 0
    world: int = 1
    backend: str | None = None
    """What carries the gradients, as recorded: "gloo" or "nccl"."""

    @property
    def alone(self) -> bool:
        return self.world == 1

    def add_up(self, values: Tensor) -> Tensor:
        """Return ``values``, replaced by their sum over all ranks: the same bits on each."""
        if not self.alone:
            with _reached():
                dist.all_reduce(values)
        return values

    def agreed(self, stopping: Callable[[], bool]) -> Callable[[], bool]:
        """Return a ``stopping`` that says the same on every rank: whether any of them is to stop.

        They ask each other at the first call and then at every LOOK-th; in between the answer is no.
        """
        if self.alone:
            return stopping
        calls = count()

        def asked() -> bool:
            return next(calls) % LOOK == 0 and bool(self.add_up(torch.tensor([float(stopping())])))

        return asked

    def share(self, make: Callable[[], Made]) -> Made:
        """Call ``make`` on rank 0 alone and return its result on all ranks; a Problem there is Told on the others."""
        told: list[Any] = [None, None]
        problem: Problem | None = None
        if self.rank == 0:
            try:
                told[0] = make()
            except Problem as error:
                problem, told[1] = error, str(error)
        if not self.alone:
            with _reached():
                dist.broadcast_object_list(told, src=0)
        if problem is not None:
            raise problem
        if told[1] is not None:
            raise Told(told[1])
        made: Made = told[0]
        return made

    def told(self, value: Made) -> Made:
        """Return rank 0's ``value`` on all ranks."""
        return self.share(lambda: value)

    def each(self, value: Made) -> list[Made]:
        """Return every rank's small plain ``value``, in order of rank, on all ranks."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.world
        with _reached():
            dist.all_gather_object(found, value)
        return found

    def whole(self, own: Tensor, total: int) -> Tensor:
        """Return on rank 0 all ``total`` rows in order, of which each rank holds its ``part``; elsewhere ``own``.

        All tensors are on the CPU. Raises RuntimeError where ``own`` has another length than the rank's part.
        """
        if self.alone:
            return own
        sizes = [len(range(total)[part(total, rank, self.world)]) for rank in range(self.world)]
        if len(own) != sizes[self.rank]:
            raise RuntimeError(f"rank {self.rank} has {len(own)} rows where its part of {total} is {sizes[self.rank]}")
        found: list[list[Tensor]] = [[] for _ in sizes]
        for at in range(0, max(sizes), ROWS):
            ours = own.new_zeros(min(ROWS, max(sizes) - at), *own.shape[1:])  # of one size on all ranks
            ours[: len(own[at : at + ROWS])] = own[at : at + ROWS]
            theirs = [torch.empty_like(ours) for _ in sizes] if self.rank == 0 else None
            with _reached():
                dist.gather(ours, theirs, dst=0)
            for rows, piece in zip(found, theirs or [], strict=False):
                rows.append(piece)
        if self.rank:
            return own
        return torch.cat([torch.cat(rows)[:size] for rows, size in zip(found, sizes, strict=True)])

    def order(self, *what: Any) -> None:
        """Tell the ranks that wait in ``heard`` what is next. Does nothing alone."""
        self.told(what)

    def heard(self) -> tuple[Any, ...]:
        """Return the next order of rank 0."""
        return self.told(())


ALONE = Team()


def part(total: int, rank: int, world: int) -> slice:
    """Return which of ``total`` things are a rank's: consecutive ones; two ranks' numbers differ by one at most."""
    return slice(total * rank // world, total * (rank + 1) // world)


def asked_for(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int] | None:
    """Return rank, world and local rank as torchrun sets them; None where this process is the only one.

    Raises Problem where some of them are missing, or where they are impossible.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if environ.get("WORLD_SIZE", "1") == "1":
        return None
    if missing := [name for name in names if name not in environ]:
        raise Problem(
            f"WORLD_SIZE = {environ['WORLD_SIZE']} asks for several processes, and {missing[0]} is not set: start them "
            "with torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, world, local = (int(environ[name]) for name in names[:3])
    except ValueError:
        raise Problem(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers; start with torchrun ({names})") from None
    if not 0 <= rank < world or local < 0:
        raise Problem(f"RANK = {rank} is none of {world} processes (WORLD_SIZE): start them with torchrun")
    return rank, world, local


@contextmanager
def joined(
    place: tuple[int, int, int] | None, device: torch.device, environ: Mapping[str, str] = os.environ
) -> Iterator[Team]:
    """Join the other ranks at the address that torchrun gives, and leave them in order when the context ends.

    ``place`` is what ``asked_for`` returned; where it is None, the team is ALONE. On a GPU ``device`` must be the
    rank's own. Raises Lost where the others do not come, Problem where the ranks have unlike GPUs, torch or code.
    """
    if place is None:
        yield ALONE
        return
    rank, world, _ = place
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    if environ.get("LOCAL_WORLD_SIZE") == str(world):
        # All ranks are on this machine: no need to ask what its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    with _reached():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo", rank=rank, world_size=world, timeout=timedelta(seconds=MEET_S)
        )
    team = Team(rank, world, "nccl" if gpu else "gloo")
    name = torch.cuda.get_device_name(device) if gpu else "cpu"
    refuse_unlike(team, (name, torch.__version__, code_digest()), "GPU, torch or code")  # a record names rank 0's
    try:
        yield team
    except Lost:
        raise  # nobody may be there to say good-bye to
    except Exception:
        _leave(team)
        raise
    _leave(team)


def _leave(team: Team) -> None:
    """Leave the group; rank 0, whether it succeeded or not, first ends the others, which wait for an order."""
    with suppress(Lost):
        if team.rank == 0:
            team.order("end")
        dist.destroy_process_group()


def refuse_unlike(team: Team, values: Sequence[Any], what: str) -> None:
    """Raise Problem on all ranks where ``values`` differ between them; ``what`` names them in the message."""
    found = team.each(tuple(values))
    if other := [rank for rank, theirs in enumerate(found) if theirs != found[0]]:
        raise Problem(f"{what} of rank {other[0]} differ from those of rank 0; the ranks cannot train together")


@contextmanager
def _reached() -> Iterator[None]:
    """Turn what torch says when an exchange fails into Lost, in one line."""
    try:
        yield
    except RuntimeError as error:  # as all errors of torch.distributed are
        why = first_line(error).partition(". This is typically")[0]
        raise Lost(
            f"another rank is gone, or was never there; run the same command again to continue ({why})"
        ) from error
