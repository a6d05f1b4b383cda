"""Where reports go on the command line, and in what colours."""

import os
import sys
from io import TextIOWrapper

from rich.console import Console
from rich.text import Text

from repro.outcomes import OUTCOMES

STYLES = {"good": "green", "unsure": "yellow", "bad": "red", "broken": "bold magenta", "quiet": "dim"}
"""By the tone of an outcome."""

WHOLE = 4000
"""Columns where nobody says how many there are: every row on one line, for who searches or counts lines."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line decides what that means


def terminal() -> Console:
    """Return a console as wide as the terminal, or as ``COLUMNS`` says; piped without it, every row is one line.

    Text of claim files is shown as it stands: no markup, no emoji codes.
    """
    if sys.stdout is None:
        raise OSError("the standard output is closed")
    told = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(told) if told.isdecimal() and int(told) else WHOLE
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can say “ and ∞
    return _Output(width=width, markup=False, emoji=False, highlight=False)


def outcome(name: str) -> Text:
    """Return an outcome, or a dash for none, in its colour; the word itself says it all where there are no colours."""
    return Text(name, style=STYLES[OUTCOMES[name].tone] if name in OUTCOMES else "")
