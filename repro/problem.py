"""What a user can put right: one base class for it, so that the command line needs to know no other."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: see ``repro --help``."""

EXTRAS = {"run": ("numpy", "PIL", "torch", "torchvision"), "ray": ("ray",)}
"""Extra of this package -> what is imported of the packages that it brings."""


class Problem(Exception):
    """Something is wrong that a user can put right; the message says what and what to do, a line each."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known name nearest to ``name``, or nothing."""
    import difflib  # here: most commands need no suggestion

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Have a package of an extra that is not installed told with how to get it: ``what`` needs it. Raises Problem.

    Any other module that is missing is a fault of ours, or of the installation, and raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS[extra]:
            raise
        raise Problem(f"{what} needs {package}: install this package with its extra {extra!r}") from error
