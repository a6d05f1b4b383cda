"""Where reports go on the command line, and in what colours."""

import os
import sys
from io import TextIOWrapper

from rich.console import Console
from rich.text import Text

from repro.outcomes import OUTCOMES
from repro.problem import Problem

STYLES = {"good": "green", "unsure": "yellow", "bad": "red", "broken": "bold magenta", "quiet": "dim"}
"""Terminal styles, by the tone of an outcome."""

WHOLE = 4000
"""Width in characters where none is known: every row fits on one line, so that lines can be searched and counted."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line decides what that means


def terminal() -> Console:
    """Return a console as wide as the terminal, or as ``COLUMNS`` says; piped without it, every row is one line.

    Text of claim files is shown as it stands: no markup, no emoji codes. Raises Problem where the output is closed.
    """
    if sys.stdout is None:
        raise Problem("cannot write the output: the standard output is closed")
    told = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(told) if told.isdecimal() and int(told) else WHOLE
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can encode “ and ∞
    return _Output(width=width, markup=False, emoji=False, highlight=False)


def outcome(name: str) -> Text:
    """Return an outcome in its colour, any other text without one; the word alone says it all without colours."""
    return Text(name, style=STYLES[OUTCOMES[name].tone] if name in OUTCOMES else "")
