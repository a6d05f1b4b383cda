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
PLACE = re.compile(r"(?<=<!-- from reports/bench, by tests/speed.py -->\n).*?(?=\n<!-- to here -->)", flags=re.DOTALL)
"""Of what is written into a page, and held against the records."""


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


def quoted(runs):
    """Return what the README says: every figure is one of the records."""
    alexnet, small = runs["alexnet"], runs["18pct"]
    big, step, fed, lrn = (case(*of) for of in (
        (alexnet, "step"), (small, "step"), (small, "cifar"), (alexnet, "lrn"),
    ))  # fmt: skip
    again = [results.again(ran).value for ran in (big, step, fed, lrn)]
    at, few = f"batch {alexnet.settings['batch']}", f"batch {small.settings['batch']}"
    by_loader, torchs = ratio(fed, "plain torch, DataLoader"), ratio(lrn, "nn.LocalResponseNorm")
    rows = [
        ("float32, on a CPU", "images a second", "over plain torch", "over it in a process of its own"),
        ("---", "--:", "--:", "--:"),
        (f"a training step of AlexNet, {at}", number(results.rate(big)), ratio(big, PLAIN), ratio(big, APART)),
        (
            f"a training step of the 18pct net, {few}",
            number(results.rate(step)),
            ratio(step, PLAIN),
            ratio(step, APART),
        ),
        ("training 18pct from pictures in memory", number(results.rate(fed)), f"{by_loader}, fed by a DataLoader", ""),
        (f"AlexNet's first LRN, there and back, {at}", number(results.rate(lrn)), f"{torchs}, torch's LRN", ""),
    ]
    text = (
        "Medians of the ratios of interleaved rounds, ours over the other "
        f"(n = {alexnet.rounds} for AlexNet, {small.rounds} for 18pct), with 90% intervals; ours over itself: "
        f"{min(again):.2f} to {max(again):.2f}. Nothing of this was measured on a GPU. ({where(small)}; "
        f"`{small.command}` and `{alexnet.command}`.) From the records in [reports/bench/](reports/bench/), told in "
        "full in [docs/bench.md](docs/bench.md#what-was-measured), which also says what is plain about the other; "
        "where the time goes is in [docs/profile.md](docs/profile.md)."
    )
    lines = textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", *lines])


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
    for page, text in (("README.md", quoted(runs)), ("docs/bench.md", table(runs))):
        path = ROOT / page
        found, count = PLACE.subn(lambda _, text=text: text, path.read_text(), count=1)
        assert count == 1, page
        path.write_text(found)


if __name__ == "__main__":
    main()
