"""Two stores side by side, for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from repro.judging.diff import Change, Row
from repro.judging.stats import Estimate
from repro.numbers import LEVELS, cell_text, estimate_texts, number_text
from repro.report.console import outcome


def table(rows: Sequence[Row]) -> Table:
    """Return a row per estimate of each condition: verdicts, the estimate in both stores, a test of the difference."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=LEVELS, caption_justify="left")
    for name in ("claim", "condition", "old", "new", "old ours", "new ours", "new against old"):
        table.add_column(name, overflow="fold")
    for row in rows:
        named = (row.claim, row.condition + (" *" if row.headline else ""), outcome(row.old), outcome(row.new))
        cells = [(_interval(c.old), _interval(c.new), _difference(c)) for c in row.changes] or [("-", "-", "-")]
        for i, told in enumerate(cells):
            table.add_row(*(named if i == 0 else ("",) * len(named)), *told)
    return table


def _interval(i: Estimate | None) -> str:
    if i is None:
        return "-"
    if i.low == i.high:
        return number_text(i.value)
    return cell_text(*i)


def _difference(change: Change) -> str:
    if change.difference is None:
        return change.note
    i = change.difference
    kind = "times" if change.ratio else "more"
    value, low, high = estimate_texts(i.value, i.low, i.high)
    return f"{value} {kind} [{low}, {high}]: {change.note}"


def counts(rows: Sequence[Row]) -> str:
    """Return in one line how many verdicts changed, and how many estimates differ by more than chance."""
    tested = [change for row in rows for change in row.changes if change.difference is not None]
    changed = sum(row.old != row.new for row in rows)
    differ = sum(change.differs for change in tested)
    return (
        f"{len(rows)} conditions compared: {changed} verdicts changed; {len(tested)} estimates tested at 10%, "
        f"{differ} differ, where chance alone would make about {0.1 * len(tested):.1f} differ"
    )
