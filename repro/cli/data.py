"""The commands on data sets: parse, call, print."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from repro.cli.group import Group
from repro.cli.options import Folder

path_type = Folder(path_type=Path)


@contextmanager
def _bar(words: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on the terminal while the body runs; yield what moves it, a function of (done, total)."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(words, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@click.group(cls=Group)
def data() -> None:
    """Prepare data sets in the paper's form, and check them."""


@data.command()
@click.argument("source", type=path_type)
@click.argument("out", type=path_type)
@click.option("--side", type=click.IntRange(8, 4096), default=256, show_default=True, help="Pixels a side.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes side by side; default: one a core.")
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be decoded.")
def prepare(source: Path, out: Path, side: int, jobs: int | None, skip_bad: bool) -> None:
    """Cut every picture of SOURCE to its central 256 x 256 pixels, into OUT; run it again to continue.

    SOURCE holds class folders, or train/ and val/ with class folders, or files named CLASS_ANYTHING.JPEG, or Tiny
    ImageNet as distributed, or the archives of ImageNet: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and
    ILSVRC2012_devkit_t12.tar.gz.
    """
    from repro.data.prepare import prepare as make
    from repro.data.prepared import difference

    try:
        with _bar("pictures") as moved:
            made, bad = make(source, out, side=side, jobs=jobs, skip_bad=skip_bad, progress=moved)
    except KeyboardInterrupt:
        click.echo("repro: what is done stays; run the same command again to continue", err=True)
        raise
    for line in bad:
        click.echo(f"left out, {line}")
    counts = ", ".join(f"{len(files)} {split}" for split, files in made.files.items())
    click.echo(f"{out}: {len(made.classes)} classes, {counts}, {made.skipped} left out; {made.digest}")
    if wrong := difference(out.resolve().name, made):
        click.echo(f"repro: {out} {wrong}; no claim takes it by this name", err=True)


@data.command()
@click.argument("out", type=path_type)
def verify(out: Path) -> None:
    """Read every file of a prepared set, and name each that is altered, missing or extra."""
    from repro.data import DataError
    from repro.data.prepared import load
    from repro.data.prepared import verify as examine

    with _bar("files") as moved:
        wrong = examine(out, moved)
    if wrong:
        told = f"{out}: {len(wrong)} files are not as they were prepared; delete them and prepare it again"
        raise DataError("\n".join([told, *wrong]))
    made = load(out)
    click.echo(f"{out}: {sum(map(len, made.files.values()))} files as they were prepared; {made.digest}")


@data.command()
@click.argument("out", type=path_type)
def stats(out: Path) -> None:
    """Print the mean of the training pictures, and the principal components of their colours."""
    from repro.data.prepared import load, statistics

    with _bar("pictures") as moved:
        found = statistics(load(out), progress=moved)

    def row(values: object) -> str:
        return "  ".join(f"{value:9.4f}" for value in values)  # type: ignore[attr-defined]

    click.echo("                 red      green       blue")
    click.echo(f"mean      {row(found.channel_mean)}")
    click.echo(f"std       {row(found.channel_std)}")
    for value, vector in zip(found.eigenvalues, found.eigenvectors.T, strict=True):
        click.echo(f"component {row(vector)}   eigenvalue {value:.4f}")
