"""The figures about speed in README.md and docs/bench.md, from the records in reports/bench/: ``speed.py`` writes them.

``tests/test_docs.py`` holds what is written against the records.
"""

import re
import textwrap
from pathlib import Path

from repro.bench import results

ROOT = Path(__file__).parents[1]
PLAIN, APART = "plain torch", "plain torch, a process of its own"
RECORDS = ROOT / "reports" / "bench"
PARAGRAPH = re.compile(r"^Speed, on .*?(?=\n\n)", flags=re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(?<=<!-- from reports/bench, by tests/speed.py -->\n).*?(?=\n<!-- to here -->)", flags=re.DOTALL)


def records(folder=RECORDS):
    """Return the runs by the names of their files."""
    return {path.stem: results.load(path) for path in sorted(folder.glob("*.json"))}


def case(run, name):
    """Return one case of a run."""
    return next(ran for ran in run.cases if ran.name == name)


def number(value):
    """Return three digits, or all those of a whole number above 100."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(ran, peer):
    """Return ours over a peer, with its interval."""
    told = results.ratio(ran, peer)
    return f"{told.median:.2f} [{told.mean.low:.2f}, {told.mean.high:.2f}]"


def where(run):
    """Return hardware, versions and commit, in a few words."""
    e = run.environment
    changed = " with changes" if e["dirty"] else ""
    threads = "1 thread" if e["threads"] == 1 else f"{e['threads']} threads"
    return (
        f"{e['cpu']}, {e['cores']} cores, {threads}, Python {e['python']}, torch {e['torch']}, "
        f"commit {str(e['commit'])[:10]}{changed}"
    )


def paragraph(runs):
    """Return what the README says: every figure is one of the records."""
    alexnet, small = runs["alexnet"], runs["18pct"]
    big, step, fed, lrn = (case(*of) for of in (
        (alexnet, "step"), (small, "step"), (small, "cifar"), (alexnet, "lrn"),
    ))  # fmt: skip
    again = [results.again(ran).value for ran in (big, step, fed, lrn)]
    text = (
        "Speed, on the same two cores, beside the same nets in torch's own layers and default layout: a training step "
        f"of AlexNet (batch {alexnet.settings['batch']}, float32) ran at {ratio(big, PLAIN)} times the images a second "
        f"({number(results.rate(big))}), and at {ratio(big, APART)} times beside a process of its own, whose C library "
        f"gives memory back as it does unless told; one of the 18pct net (batch {small.settings['batch']}) at "
        f"{ratio(step, PLAIN)} and {ratio(step, APART)} times ({number(results.rate(step))}), and, fed from memory, at "
        f"{ratio(fed, 'plain torch, DataLoader')} times a loop with a DataLoader. AlexNet's first LRN, there and back, "
        f"ran at {ratio(lrn, 'nn.LocalResponseNorm')} times torch's. Medians of the ratios of interleaved rounds "
        f"(n = {alexnet.rounds} for AlexNet, {small.rounds} for 18pct), with 90% intervals; ours over itself: "
        f"{min(again):.2f} to {max(again):.2f}. Nothing of this was measured on a GPU. ({where(small)}; "
        f"`{small.command}` and `{alexnet.command}`.) From the records in [reports/bench/](reports/bench/), told in "
        "full in [docs/bench.md](docs/bench.md#what-was-measured); where the time goes is in "
        "[docs/profile.md](docs/profile.md)."
    )
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def table(runs):
    """Return a table of all cases of all records and their peers, and where and how each record was made."""
    lines = ["| case | ours | ours over itself | beside it | ours over it | |", "|---|---|---|---|---|---|"]
    for run in runs.values():
        for ran in run.cases:
            again = results.again(ran)
            first = f"{ran.name}: {ran.what} | {number(results.rate(ran))} {ran.unit}/s"
            itself = f"{again.value:.2f} [{again.low:.2f}, {again.high:.2f}]"
            for peer in ran.peers:
                lines.append(f"| {first} | {itself} | {peer} | {ratio(ran, peer)} | {results.ratio(ran, peer).word} |")
                first, itself = " | ", ""
    told = [
        f"- `{run.command}`: {where(run)}; n = {run.rounds} rounds; load {' to '.join(f'{x:g}' for x in run.load)}; "
        f"reports/bench/{name}.json"
        + "".join(f"; {missing} not measured: {why}" for missing, why in run.not_measured.items())
        for name, run in runs.items()
    ]
    return "\n".join([*lines, "", *told])


def main():
    """Write both."""
    runs = records()
    for page, pattern, text in (("README.md", PARAGRAPH, paragraph(runs)), ("docs/bench.md", TABLE, table(runs))):
        path = ROOT / page
        found, count = pattern.subn(lambda _, text=text: text, path.read_text(), count=1)
        assert count == 1, page
        path.write_text(found)


if __name__ == "__main__":
    main()
