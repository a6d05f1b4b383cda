"""Python's search for cycles of garbage, put off while it would cost more than it frees, or must not free anything."""

import contextlib
import gc
import threading
from collections.abc import Iterator

_turn = threading.Lock()
_inside: list[bool] = []
"""For each ``put_off`` under way whether there was a search before the first of them."""


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Search for no garbage meanwhile. It is of all threads: only when the last of them is out is it searched again."""
    with _turn:
        _inside.append(_inside[0] if _inside else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _turn:
            if _inside.pop() and not _inside:
                gc.enable()
