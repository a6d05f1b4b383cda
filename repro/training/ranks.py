"""Processes of one trial that work in step, one on each device, and how they are watched.

The ranks talk to each other over torch.distributed (NCCL between GPUs, gloo between CPUs, on this machine alone). The
process that started them sends each task over a pipe and waits for every answer. So it is the one that is interrupted,
that notices a rank's death, and that ends all ranks. None outlives it: a rank whose parent is gone exits by itself.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from repro.data.processes import leave_with_parent
from repro.problem import Problem, told
from repro.training.loop import Interrupted

ANSWER_S = 1800.0  # a rank that is alive but has not answered by then is given up; reading a data set takes minutes
MEET_S = 600.0  # within which two ranks must reach the same exchange
GRACE_S = 2.0  # to hear which of several ranks failed first
LEAVE_S = 10.0  # to leave when told, before a rank is killed


class RankError(Problem):
    """A rank died, failed or fell silent, and the trial ended with it; the message says which and how."""


class Ranks:
    """The processes as their parent sees them; each holds what ``build`` returned, and ``ask`` calls its methods."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self.processes: list[Any] = []
        self._channels: list[Any] = []
        self._stopping = stopping
        self._failed: dict[int, tuple[float, str]] = {}

    def ask(self, method: str, *arguments: Any, of: Sequence[int] | None = None) -> list[Any]:
        """Call a method on the ranks ``of`` (default: all) at once and return their answers in this order.

        Raises RankError where a rank dies, raises or does not answer, and Interrupted where the trial is stopped.
        """
        asked = range(len(self.processes)) if of is None else of
        for rank in asked:
            with contextlib.suppress(OSError):  # the rank is dead; ``_answers`` reports why
                self._channels[rank].send((method, arguments))
        return self._answers(asked)

    def _answers(self, asked: Sequence[int]) -> list[Any]:
        answers: dict[int, Any] = {}
        limit = time.monotonic() + ANSWER_S
        while left := [rank for rank in asked if rank not in answers]:
            sentinels = [process.sentinel for process in self.processes]
            multiprocessing.connection.wait([self._channels[rank] for rank in left] + sentinels, timeout=0.5)
            for rank in left:
                if (answer := self._read(rank)) is not None:
                    answers[rank] = answer[0]
            if self._stopping():
                raise Interrupted
            if self._failed or any(process.exitcode is not None for process in self.processes):
                raise RankError(self._who_failed())
            if time.monotonic() > limit:
                raise RankError(f"rank {left[0]} has not answered for {ANSWER_S:.0f} s, and the trial was given up")
        return [answers[rank] for rank in asked]

    def _read(self, rank: int) -> tuple[Any] | None:
        """Return a rank's answer in a tuple of one, or None where there is none; note the error of one that failed."""
        try:
            if not self._channels[rank].poll():
                return None
            when, error, answer = self._channels[rank].recv()
        except (EOFError, OSError):
            return None
        if error is None:
            return (answer,)
        self._failed[rank] = (when, error)
        return None

    def _who_failed(self) -> str:
        """Return one line on the rank that failed first; the others fail too, because they miss it."""
        limit = time.monotonic() + GRACE_S
        while time.monotonic() < limit:
            dead = [rank for rank, process in enumerate(self.processes) if process.exitcode is not None]
            for rank in range(len(self.processes)):
                self._read(rank)
            if silent := [rank for rank in dead if rank not in self._failed]:
                how = _how(self.processes[silent[0]].exitcode)
                return f"rank {silent[0]} died ({how}) and the trial ended with it; the same command starts it again"
            if self._stopping():
                raise Interrupted
            time.sleep(0.05)
        rank = min(self._failed, key=lambda rank: self._failed[rank][0])
        return f"rank {rank} failed: {self._failed[rank][1]}"

    def leave(self) -> None:
        """Have every rank end by itself, and kill those that do not."""
        for channel in self._channels:
            with contextlib.suppress(OSError):
                channel.send(None)
        limit = time.monotonic() + LEAVE_S
        for process in self.processes:
            process.join(max(0.0, limit - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End every rank at once; nothing they hold is worth saving."""
        for process in self.processes:
            if process.exitcode is None:
                process.kill()
        for process in self.processes:
            process.join()
        for channel in self._channels:
            channel.close()


@contextmanager
def started(
    build: Callable[..., Any], *arguments: Any, devices: Sequence[str], threads: int = 1,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Ranks]:  # fmt: skip
    """Start a rank on each of ``devices`` ("cpu", "cuda:1"), all joined in torch's default process group.

    Each calls ``build(device, *arguments)``, a function that can be imported, and keeps the result for ``Ranks.ask``;
    torch has ``threads`` CPU threads there. All ranks are gone when the context ends, however it ends. Raises what
    ``ask`` raises.
    """
    context = multiprocessing.get_context("spawn")
    multiprocessing.resource_tracker.ensure_running()  # now, because starting it unblocks Ctrl-C
    ranks = Ranks(stopping)
    with tempfile.TemporaryDirectory(prefix="repro-ranks-") as meeting:
        try:
            for rank, device in enumerate(devices):
                ours, theirs = context.Pipe()
                ranks._channels.append(ours)
                place = (rank, len(devices), str(Path(meeting) / "meeting"), device, threads)
                process = context.Process(target=_serve, args=(place, theirs, build, arguments), name=f"rank {rank}")
                # Ctrl-C reaches the whole process group, but only the parent acts on it: ranks start with it blocked.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                    theirs.close()
                ranks.processes.append(process)
            ranks._answers(range(len(devices)))
            yield ranks
        except BaseException:
            ranks.kill()
            raise
        ranks.leave()


def _how(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    words = "most likely for want of memory" if exitcode == -signal.SIGKILL else "see its last lines above"
    return f"{signal.Signals(-exitcode).name}, {words}"


def _serve(place: tuple[int, int, str, str, int], channel: Any, build: Callable[..., Any], arguments: Any) -> None:
    """Run as a rank: build, then do what is asked until told to leave."""
    threading.Thread(target=leave_with_parent, daemon=True).start()
    try:
        device = _join(*place)
        worker = build(device, *arguments)
        channel.send((time.monotonic(), None, None))
        while (asked := channel.recv()) is not None:
            method, given = asked
            channel.send((time.monotonic(), None, getattr(worker, method)(*given)))
        dist.destroy_process_group()
    except EOFError:  # the parent is gone
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - whatever ails it, the parent tells it
        with contextlib.suppress(OSError):
            channel.send((time.monotonic(), told(error), None))
        os._exit(1)  # at once, as an orderly end may wait for the other rank


def _join(rank: int, world: int, meeting: str, device: str, threads: int) -> torch.device:
    """Join the process group and return the rank's device."""
    here = torch.device(device)
    torch.set_num_threads(threads)
    limit = timedelta(seconds=MEET_S)
    store = dist.FileStore(meeting, world)
    if here.type == "cuda":
        torch.cuda.set_device(here)
        dist.init_process_group("nccl", store=store, rank=rank, world_size=world, timeout=limit, device_id=here)
    else:
        # All ranks are on this machine: no need to ask what its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
    return here
