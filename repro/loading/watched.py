"""A watched stream: a loader that hangs ends its trial with a message, instead of halting the whole run in silence."""

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
    """Yield what ``stream`` yields; no item is asked for before it is wanted.

    Raises Hung where an item takes longer than ``timeout_s`` (default: LOADER_TIMEOUT_S). A separate thread reads the
    stream and is then left behind: a call that hangs outside of Python can be neither stopped nor interrupted. On a
    GPU the thread uses the caller's CUDA stream, so that its work and the caller's stay in order.
    """
    timeout_s = LOADER_TIMEOUT_S if timeout_s is None else timeout_s
    queued = torch.cuda.current_stream() if torch.cuda.is_initialized() else None  # a new thread has the default
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
