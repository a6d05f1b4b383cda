"""A stream that is watched: a loader that hangs ends its trial with a word, not the whole run without one."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import torch

LOADER_TIMEOUT_S = 600.0
"""Seconds without a batch after which a loader counts as hung: a first batch from a slow disk takes a few."""

Item = TypeVar("Item")


class Hung(Exception):
    """Something gave nothing for far longer than it should; the message names it and says for how long."""


def timely(stream: Iterator[Item], name: str, timeout_s: float | None = None) -> Iterator[Item]:
    """Yield what ``stream`` yields, each item asked for when it is wanted and no sooner.

    Raises Hung where one takes longer than ``timeout_s`` (default: LOADER_TIMEOUT_S). The stream is read by a thread
    of its own, which is then left behind: a call that hangs outside of Python can be neither stopped nor interrupted.
    On a GPU what it launches goes where the caller's own work does, so that one comes after the other.
    """
    timeout_s = LOADER_TIMEOUT_S if timeout_s is None else timeout_s
    queued = torch.cuda.current_stream() if torch.cuda.is_initialized() else None  # a thread begins with the default
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    given: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        if queued is not None:
            torch.cuda.set_stream(queued)
        while wanted.get():
            try:
                given.put(("item", next(stream)))
            except StopIteration:
                given.put(("end", None))
            except BaseException as error:  # noqa: BLE001 - raised again, where it is waited for
                given.put(("error", error))

    threading.Thread(target=read, name=f"reading {name}", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            try:
                kind, item = given.get(timeout=timeout_s)
            except queue.Empty:
                raise Hung(f"{name} gave nothing for {timeout_s:g} s: it hangs, or its disk does") from None
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        wanted.put(False)
