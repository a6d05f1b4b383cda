"""A run as it goes: bars with time left for who watches, a line for each trial that ends."""

from rich import progress
from rich.console import Console

from repro.experiments import Planned
from repro.store import Trial, TrialSpec


class Progress:
    """Shows a run's trials on a console; a context manager, and what the runner reports to."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=20),
            progress.TextColumn("{task.fields[words]}", markup=False),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, progress.TaskID] = {}

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, planned: Planned) -> None:
        """Add a bar."""
        self.tasks[planned.spec.key] = self.bars.add_task(_name(planned), total=planned.limit, words="")

    def moved(self, spec: TrialSpec, done: float, words: str) -> None:
        """Move a bar on."""
        if (task := self.tasks.get(spec.key)) is not None:
            self.bars.update(task, completed=done, words=words)

    def ended(self, planned: Planned, trial: Trial) -> None:
        """Replace a bar by a line that stays."""
        if (task := self.tasks.pop(planned.spec.key, None)) is not None:
            self.bars.remove_task(task)
        shown = next((m for m in trial.measurements if m.name in ("epochs-to", "top1-error-ten")), None)
        told = trial.message if shown is None else f"{shown.value:.2f} {shown.unit}"
        told = f"{trial.status} {told}".rstrip() + f" ({trial.duration_s:.0f} s)"
        self.console.print(f"{_name(planned)}: {told}")


def _name(planned: Planned) -> str:
    rate = planned.spec.config.get("rate")
    return f"{planned.arm} {planned.role} seed {planned.spec.seed}" + (f" rate {rate:g}" if rate else "")
