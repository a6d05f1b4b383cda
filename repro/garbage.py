"""Put off Python's search for garbage cycles while it would cost more than it frees, or must not free anything."""

import contextlib
import gc
import threading
from collections.abc import Iterator

_turn = threading.Lock()
_inside: list[bool] = []
"""For each ``put_off`` under way: whether the search was enabled before the first of them."""


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Suspend the search for garbage. It concerns all threads, so it resumes only when the last of them has left."""
    with _turn:
        _inside.append(_inside[0] if _inside else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _turn:
            if _inside.pop() and not _inside:
                gc.enable()
