"""What a user can put right: one base class for it, so that the command line needs to know no other."""

from collections.abc import Iterable

DONE, REFUTED, WRONG_USE, NOT_DONE, NOTHING, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: see ``repro --help``."""


class Problem(Exception):
    """Something is wrong that a user can put right; the message says what and what to do, a line each."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known name nearest to ``name``, or nothing."""
    import difflib  # here: most commands need no suggestion

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
