"""The progress of a run: bars with the time left, a line for each trial that ends, and one for each failure."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich import progress
from rich.console import Console

from repro.experiments import TOLD, Planned
from repro.numbers import with_unit
from repro.store import Trial, TrialSpec


class Progress:
    """Shows a command's trials and counts failures; the runner reports to it while ``bars`` are shown."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failures = 0
        self.one_screen = console.is_terminal and sys.stderr is not None and sys.stderr.isatty()
        """Whether bars and errors go to the same screen, where only the console can write without breaking the bars."""
        self.shown = self._new()
        self.tasks: dict[str, progress.TaskID] = {}
        self.name = ""

    def _new(self) -> progress.Progress:
        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=20),
            progress.TextColumn("{task.fields[words]}", markup=False),
            progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            redirect_stderr=self.one_screen,
        )

    @contextmanager
    def bars(self, name: str = "") -> Iterator[None]:
        """Show bars for the trials that run meanwhile; the line of one that fails starts with ``name``."""
        self.shown, self.tasks, self.name = self._new(), {}, name
        with self.shown:
            yield

    def started(self, planned: Planned) -> None:
        """Add a bar."""
        self.tasks[planned.spec.key] = self.shown.add_task(_name(planned), total=planned.limit, words="")

    def moved(self, spec: TrialSpec, done: float, words: str) -> None:
        """Move a bar on."""
        if (task := self.tasks.get(spec.key)) is not None:
            self.shown.update(task, completed=done, words=words)

    def ended(self, planned: Planned, trial: Trial) -> None:
        """Replace a bar by a line that stays."""
        self._remove(planned)
        shown = (with_unit(f"{m.value:.2f}", m.unit) for m in trial.measurements if m.name in TOLD)
        told = next(shown, trial.message)
        told = f"{trial.status} {told}".rstrip() + f" ({trial.duration_s:.0f} s)"
        self.console.print(f"{_name(planned)}: {told}")

    def failed(self, planned: Planned, why: str) -> None:
        """Replace a bar by a line that tells the failure."""
        self._remove(planned)
        self.tell(f"{self.name}{planned.arm}, {planned.role}, seed {planned.spec.seed}: {why}")

    def tell(self, failure: str) -> None:
        """Say at once what failed: on stderr, or through the console where bars are on the same screen."""
        self.failures += 1
        line = f"repro: failed: {failure}"
        if self.one_screen and self.shown.live.is_started:
            self.console.print(line, soft_wrap=True)
        else:
            click.echo(line, err=True)

    def _remove(self, planned: Planned) -> None:
        if (task := self.tasks.pop(planned.spec.key, None)) is not None:
            self.shown.remove_task(task)


def _name(planned: Planned) -> str:
    rate = planned.spec.config.get("rate")
    return f"{planned.arm} {planned.role} seed {planned.spec.seed}" + (f" rate {rate:g}" if rate else "")
