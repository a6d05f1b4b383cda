"""What is left to run, for the terminal: a row per condition, the total, and what fits into a budget."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from repro.judging import resolve
from repro.planning.forecast import Fit, Left, Machines, makespan
from repro.planning.plan import duration
from repro.planning.reuse import Looks
from repro.spec import Claim
from repro.store import Trial


def table(found: Sequence[Left]) -> Table:
    """Return one row per condition: trials done of those planned so far, stale ones, time and disk still to be taken.

    In a narrow terminal names are folded, but never figures.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rows = [
        (left.claim, left.condition, f"{left.done}/{left.planned}", str(left.stale or "-"), _time(left),
         size(left.disk) if left.disk else "-")
        for left in found
    ]  # fmt: skip
    for i, name in enumerate(("claim", "condition", "done", "stale", "time left", "disk")):
        if i < 2:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", min_width=max(map(len, (name, *(row[i] for row in rows)))))
    for row in rows:
        table.add_row(*row)
    return table


def against(found: Sequence[Left]) -> list[str]:
    """Return a line for each reason why conditions cannot be run here, with the conditions that it applies to."""
    whose: dict[str, list[str]] = {}
    for left in found:
        if left.against:
            whose.setdefault(left.against, []).append(f"{left.claim} {left.condition}")
    return [f"cannot run here: {', '.join(names)}: {reason}" for reason, names in whose.items()]


def _time(left: Left) -> str:
    if not left.seconds:
        return "minutes" if left.done < left.planned else "-"  # rounds of steps: no epochs to count
    if left.seconds == float("inf"):
        return "unknown"
    return f"{duration(left.seconds)}{'' if left.measured else ' *'}"


def size(count: float) -> str:
    """Return a number of bytes in words: ``950 MB``, ``36 GB``."""
    return f"{count / 1e9:.0f} GB" if count >= 9.5e9 else f"{count / 1e9:.1f} GB" if count >= 1e9 else (
        f"{max(1, count / 1e6):.0f} MB"
    )  # fmt: skip


def together(found: Sequence[Left], machines: Machines, device: str) -> list[str]:
    """Return what all conditions that can be run here take in total, and what that figure assumes.

    A trial that several conditions share is counted once.
    """
    open_ = [left for left in found if not left.against and left.tasks]
    tasks = {key: seconds for left in open_ for key, seconds in left.tasks if seconds != float("inf")}.values()
    where = f"{machines.machines} machine{'s' if machines.machines > 1 else ''}"
    where += f" with {machines.gpus} GPU{'s' if machines.gpus > 1 else ''} each" if machines.gpus else ", CPU"
    took = f"{duration(sum(tasks))} of one {device}, {duration(makespan(tasks, machines.workers))} on {where}"
    place = "GPU" if machines.gpus else "machine"
    told = f"{_count(len(tasks), 'trial')} left in {_count(len(open_), 'condition')}: {took}"
    if not tasks:
        return ["no trials left that can be run here"]
    lines = [f"{told}, one trial a {place} at a time, the longest first"]
    if any(not left.measured for left in open_):
        lines.append("* at the speed that the claim file assumes: no such trial has been timed on such a device yet")
    if any(left.seconds for left in open_):
        lines.append(
            "a trial that reaches its target sooner takes less time, and so does a shared one; a search of rates "
            "whose grid has to grow takes more: its trials are counted as far as they are known"
        )
    return lines


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def resolved(
    claims: Mapping[str, Claim], found: Sequence[Left], trials: Sequence[Trial], looks: Looks, seeds: int | None
) -> list[str]:
    """Return a line for each expectation of each condition: how often its planned seeds would answer."""
    lines = []
    for left in found:
        condition = claims[left.claim].conditions[left.condition]
        found_here = resolve.resolves(
            claims[left.claim], condition, trials, condition.seeds[:seeds], looks.get((left.claim, left.condition), ())
        )
        lines += [f"{left.claim} {left.condition}, {resolve.sentence(r, left.scale)}" for r in found_here]
    return lines


def budget(chosen: Sequence[Fit], refused: Sequence[str], budget_s: float) -> list[str]:
    """Return the commands that fit into a budget, each with what had to be given up, and what does not fit."""
    lines = []
    for fit in chosen:
        seeds = f" --seeds {fit.seeds}" if fit.seeds < fit.planned else ""
        gave_up = f"; given up: {fit.gave_up}" if fit.gave_up else ""
        command = f"repro run claim {fit.claim} --condition {fit.condition}{seeds}"
        lines.append(f"{command}   # {duration(fit.seconds)}{gave_up}")
    lines += [f"left out: {line}" for line in refused]
    spent = sum(fit.seconds for fit in chosen)
    fit_, not_ = "fits" if len(chosen) == 1 else "fit", "does" if len(refused) == 1 else "do"
    work = f"{duration(budget_s)} ({duration(spent)} of work)"
    lines.append(f"{_count(len(chosen), 'claim')} {fit_} into {work}, {len(refused)} {not_} not")
    return lines
