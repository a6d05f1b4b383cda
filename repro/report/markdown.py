"""The report as Markdown: every claim in one table, and the errata, for a forge's pages and a CI summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro import numbers
from repro.report import sections, tables
from repro.report.summary import counts_line


def render(summary: Mapping[str, Any]) -> str:
    """Return the whole report; text from claim files and records is escaped."""
    rows = [_row(claim) for claim in sections.tested_first(summary)]
    errata = [_erratum(claim) for claim in summary["claims"] if claim["id"] in summary["errata"]]
    parts = [
        "# Which claims of the 2012 AlexNet paper hold",
        f"{counts_line(summary['claims'])}. n is the number of seeds per arm; {numbers.LEVELS}.",
        _table(("claim", "§", "paper", "ours", "verdict"), rows),
    ]
    told = "Measured, but not under the condition named beforehand to decide (the headline):"
    for headline, words in ((False, told), (True, "Decided by training or timing:")):
        groups = sections.by_claim(sections.measured(summary, headline=headline))
        if lines := [line for group in groups for line in _measured(group)]:
            parts[2:2] = [words, "\n".join(lines)]
    parts.insert(2, " ".join(filter(None, [f"{sections.tested(summary)}.", sections.untrained(summary), _asked(rows)])))
    if errata:
        parts += ["## What does not follow from the paper's text or source", "\n".join(errata)]
    parts.append(
        f"Evidence digest `{summary['evidence_digest']}`. This file is made from the records by "
        "`repro report --markdown`; the page that `repro report --html` makes shows every trial."
    )
    return "\n\n".join(parts) + "\n"


def _asked(rows: Sequence[tuple[str, ...]]) -> str:
    """Return what "asked" in the table means; empty where the table has none."""
    return "“asked” marks a question of the paper’s readers." if any("asked: " in row[2] for row in rows) else ""


def _row(claim: Mapping[str, Any]) -> tuple[str, ...]:
    rows, rest = tables.overview(tables.headline(claim))
    more = [rest] if rest else []
    ours = "<br>".join(_escaped(tables.ours_in_full(e)) for e in rows if "value" in e) or "-"
    published = "<br>".join(_escaped(text) for text in [*(tables.published(e) for e in rows), *more])
    title = f"{_escaped(claim['title'])} (`{claim['id']}`)"
    return (title, _escaped(claim["section"]), published, ours, claim["outcome"])


def _measured(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the claim, then a line for each of its conditions."""
    lines = [f"- {_escaped(group[0]['title'])}; paper: {_escaped(tables.published(group[0]['estimate']))}"]
    for b in group:
        how = ", ".join(filter(None, [sections.in_words(b["condition"]), b["planned"]]))
        ours = _escaped(tables.ours_in_full(b["estimate"]))
        lines.append(f"  - {_escaped(how)}: {ours}: {b['condition']['outcome']}")
    return lines


def _erratum(claim: Mapping[str, Any]) -> str:
    why = f"{_escaped(claim['known']['because'])}; " if claim["known"] else ""
    where = f"§ {claim['section']}" if claim["section"][:1].isdigit() else claim["section"]
    return f"- **{_escaped(claim['title'])}** ({_escaped(where)}): {why}{_escaped(claim['reason'])}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it stands, in one line and one cell."""
    text = numbers.signs(text)
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
