"""Errors that a user can put right: they have one base class, so the command line needs to know no other."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130
"""Exit codes: see ``repro --help``."""

EXTRAS = {"run": ("numpy", "PIL", "torch", "torchvision"), "ray": ("ray",)}
"""Extra of this package -> the modules that are imported from the packages which it installs."""


class Problem(Exception):
    """Something that a user can put right; the message says what is wrong and what to do, one line per fault."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known name nearest to ``name``, or nothing."""
    import difflib  # here: most commands need no suggestion

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, or the name of its class if there is none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def told(error: BaseException) -> str:
    """Return an error's class and the first line of its message, or the class alone if it has no message."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Raise Problem where a package that ``what`` needs is not installed: the message says which extra brings it.

    A package that is installed but does not load, say because it misses a library of the system, is a Problem, too. Any
    other missing module is a fault of ours or of the installation, and its error is raised as it is.
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
