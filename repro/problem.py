"""What a user can put right: one base class for it, so that the command line needs to know no other."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130
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


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that is not blank; the name of its kind where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def told(error: BaseException) -> str:
    """Return the kind of an error and its first line, or the kind alone where it says nothing."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Have a package of an extra that is not installed told with how to get it: ``what`` needs it. Raises Problem.

    One that is there and does not load, say for a library of the system that it misses, is told, too. Any other module
    that is missing is a fault of ours, or of the installation, and raised as it is.
    """
    try:
        yield
    except ImportError as error:
        package, missing = (error.name or "").partition(".")[0], isinstance(error, ModuleNotFoundError)
        if package == "repro" or (missing and package not in EXTRAS[extra]):
            raise
        if missing:
            raise Problem(f"{what} needs {package}: install this package with its extra {extra!r}") from error
        raise Problem(
            f"{what} needs what does not load here ({error}); `repro doctor` says what stands in its way"
        ) from error
