"""The figures about speed in README.md and docs/bench.md, from the records in reports/bench/: ``speed.py`` writes them.

A CPU's records lie there, as `make record` names them, and those of a GPU in a folder of its name, as
reports/bench/nvidia-h200/alexnet-step-bf16-128.json: ``speed.py FILE...`` first puts a GPU's runs there.
``tests/test_docs.py`` holds what is written against the records.
"""

import re
import sys
import textwrap
from itertools import groupby
from pathlib import Path

from repro.bench import results

ROOT = Path(__file__).parents[1]
PLAIN, APART = "plain torch", "plain torch, a process of its own"
RECORDS = ROOT / "reports" / "bench"
PLACE = re.compile(r"(?<=<!-- from reports/bench, by tests/speed.py -->\n).*?(?=\n<!-- to here -->)", flags=re.DOTALL)
"""Of what is written into a page, and held against the records."""


def gpu(run):
    """Return the name of the GPU that a run was made on, or nothing."""
    device = run.environment["device"]
    return "" if device == "cpu" else device


def folder_of(run):
    """Return the folder of a run's file, as it stands in RECORDS: of a GPU its name in small letters and hyphens."""
    return re.sub("[^a-z0-9]+", "-", gpu(run).lower()).strip("-")


def place(run):
    """Return where the file of a GPU's run belongs, relative to RECORDS: by device, net, cases, precision and batch."""
    assert gpu(run), "a CPU's records are made by `make record`"
    s, cases = run.settings, "-".join(ran.name for ran in run.cases)
    return Path(folder_of(run), f"{s['net']}-{cases}-{s['precision']}-{s['batch']}.json")


def records(folder=RECORDS):
    """Return the runs by their files, relative to ``folder`` and without the suffix: first a CPU's, then GPU by GPU.

    Raises AssertionError where one lies among those of another device. What lies in gate/ is no such record.
    """
    paths = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]
    runs = {p.relative_to(folder).with_suffix(""): results.load(p) for p in paths if p.parent != folder / "gate"}
    for path, run in runs.items():
        assert path.parent.as_posix() == (folder_of(run) or "."), f"{path} is a record of {gpu(run) or 'a CPU'}"
    return {path.as_posix(): run for path, run in runs.items()}


def case(run, name):
    """Return one case of a run."""
    return next(ran for ran in run.cases if ran.name == name)


def number(value):
    """Return three digits, or all those of a whole number above 100."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(ran):
    """Return which share of the serial roofline ours reaches, where that is known."""
    return f"{results.rate(ran) / ran.floor:.0%}" if ran.floor else ""


def ratio(ran, peer, of=results.OURS):
    """Return ours, or another peer, over a peer, with its interval."""
    found = results.ratio(ran, peer, of)
    return f"{found.median:.2f} [{found.mean.low:.2f}, {found.mean.high:.2f}]"


def told(ran, peer, of=results.OURS):
    """Return ``ratio``, and behind it the word, unless that is "faster"."""
    found = results.ratio(ran, peer, of)
    return ratio(ran, peer, of) + f", {found.judged}" * (found.word != "faster")


def where(run):
    """Return hardware, versions and commit, in a few words."""
    e = run.environment
    card = f"{gpu(run)}, CUDA {e['cuda']}, cuDNN {e['cudnn']}, " if gpu(run) else ""
    changed = " with changes" if e["dirty"] else ""
    threads = "1 thread" if e["threads"] == 1 else f"{e['threads']} threads"
    if workers := run.settings.get("workers"):
        threads += f", {workers} worker{'s' * (workers > 1)}"
    return (
        f"{card}{e['cpu']}, {e['cores']} cores, {threads}, Python {e['python']}, torch {e['torch']}, "
        f"commit {str(e['commit'])[:10]}{changed}"
    )


def quoted(runs):
    """Return what the README says: every figure is one of the records, whose peers of other code are all named."""
    alexnet, small = runs["alexnet"], runs["18pct"]
    big, step, fed, lrn, tested, update = (case(*of) for of in (
        (alexnet, "step"), (small, "step"), (small, "cifar"), (alexnet, "lrn"), (alexnet, "evaluation"),
        (alexnet, "optimizer"),
    ))  # fmt: skip
    again = [results.again(ran).value for ran in (big, step, fed, lrn, tested, update)]
    at, few = f"batch {alexnet.settings['batch']}", f"batch {small.settings['batch']}"
    on_device, by_loader = told(fed, "plain torch, set on the device"), told(fed, "plain torch, DataLoader")
    torchs = told(lrn, "nn.LocalResponseNorm")
    other = next(peer for peer in big.peers if peer.startswith("torchvision's AlexNet"))
    sgd = next(peer for peer in update.peers if peer.startswith("torch's SGD"))
    rows = [
        ("float32, on a CPU", "images a second", "over plain torch", "over plain torch in a process of its own"),
        ("---", "--:", "--:", "--:"),
        (f"a training step of AlexNet, {at}", number(results.rate(big)), told(big, PLAIN), told(big, APART)),
        (
            f"a training step of the 18pct net, {few}",
            number(results.rate(step)),
            told(step, PLAIN),
            told(step, APART),
        ),
        (
            "training 18pct from pictures in memory",
            number(results.rate(fed)),
            f"with the set on the device: {on_device}; fed by a DataLoader: {by_loader}",
            "",
        ),
        (f"AlexNet's first LRN, forward and backward, {at}", number(results.rate(lrn)), f"torch's LRN: {torchs}", ""),
    ]
    on_gpus, of_gpus = _quoted_of_gpus(runs)
    text = (
        "The ratios are ours over the other: medians over interleaved rounds "
        f"(n = {alexnet.rounds} for AlexNet, {small.rounds} for 18pct), with 90% intervals. Ours is faster "
        f"where nothing else is said; ours over itself gave {min(again):.2f} to {max(again):.2f}. "
        f"Further ratios: AlexNet's step over that of {other}: {told(big, other)}; "
        f"its update over {sgd}: {told(update, sgd)}; testing it, over plain torch: {told(tested, PLAIN)}. "
        f"{of_gpus} ({where(small)}; "
        f"`{small.command}` and `{alexnet.command}`.) The records are in [reports/bench/](reports/bench/). "
        "[docs/bench.md](docs/bench.md#what-was-measured) gives all of them, and says what plain torch, noise and "
        "not resolved mean; [docs/profile.md](docs/profile.md) says where the time goes."
    )
    lines = textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", *on_gpus, *lines])


QUOTED = ("step", "evaluation", "lrn", "cifar", "loader-and-step")
"""The cases of a GPU that the README quotes, with all their peers that run none of our code."""


def _quoted_of_gpus(runs):
    """Return a table, as lines, of each GPU there are records of, and a sentence about them."""
    made = [run for run in runs.values() if gpu(run)]
    if not made:
        return [], "Nothing of this was measured on a GPU."
    lines = []
    for device, of_it in groupby(made, gpu):
        rows = [(f"on an {device}", "a second", "of the serial roofline", "over"), ("---", "--:", "--:", "---")]
        for run in of_it:
            where_ = f"{run.settings['precision']}, batch {run.settings['batch']}"
            for ran in (ran for ran in run.cases if ran.name in QUOTED):
                over = [f"{told(ran, peer)} {peer}" for peer in ran.peers if peer in ran.foreign]
                over += [f"{told(ran, b, a)} {a} over {b}" for a, b in ran.also if b in ran.foreign]
                ours = f"{number(results.rate(ran))} {ran.unit}"
                rows.append((f"{ran.what}, {where_}", ours, share(ran), "; ".join(over)))
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    again = [results.again(ran).value for run in made for ran in run.cases if ran.name in QUOTED]
    rounds = sorted({run.rounds for run in made})
    said = f"On the GPU n is {' or '.join(map(str, rounds))}"
    if again:
        said += f", and ours over itself {min(again):.2f} to {max(again):.2f}"
    wheres = "; ".join(dict.fromkeys(where(run) for run in made))
    return lines, f"{said} ({wheres}; each command is in docs/bench.md)."


def table(runs):
    """Return a table of all cases and peers of each device's records, and where and how each record was made."""
    lines = []
    for device, of_it in groupby(runs.values(), gpu):
        lines += ([f"On an {device}:", ""] if device else []) + [*_rows([*of_it]), ""]
    made = [
        f"- `{run.command}`: {where(run)}; n = {run.rounds} rounds; load {results.loads(run)}; "
        f"reports/bench/{name}.json"
        + "".join(f"; {missing} not measured: {why}" for missing, why in run.not_measured.items())
        + "".join(f"; {ran.name}: {peer} not measured: {why}" for ran in run.cases for peer, why in ran.missing.items())
        for name, run in runs.items()
    ]
    return "\n".join([*lines, *made])


def _rows(runs):
    """Return the lines of one device's table; what share of the roofline ours reaches stands there if any is known."""
    known = any(ran.floor for run in runs for ran in run.cases)
    lines = [f"| case | ours | {'of the roofline | ' * known}ours over itself | peer | ours over it | |"]
    lines.append("|---" * (6 + known) + "|")
    for run in runs:
        for ran in run.cases:
            again = results.again(ran)
            at = f", {run.settings['precision']}, batch {run.settings['batch']}" if gpu(run) else ""
            first = f"{ran.name}: {ran.what}{at} | {number(results.rate(ran))} {ran.unit}/s"
            first += f" | {share(ran)}" * known
            itself = f"{again.value:.2f} [{again.low:.2f}, {again.high:.2f}]"
            pairs = [(peer, peer, results.OURS) for peer in ran.peers]
            pairs += [(f"{a} over {b}", b, a) for a, b in ran.also]
            for called, over, of in pairs or [("", "", "")]:
                found = f"{ratio(ran, over, of)} | {results.ratio(ran, over, of).judged}" if over else " | "
                lines.append(f"| {first} | {itself} | {called} | {found} |")
                first, itself = " | " * (1 + known), ""
    return lines


def main():
    """Write both, having put the records that were named where they belong."""
    for name in sys.argv[1:]:
        path = RECORDS / place(results.load(Path(name)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Path(name).read_bytes())
    runs = records()
    for page, text in (("README.md", quoted(runs)), ("docs/bench.md", table(runs))):
        path = ROOT / page
        found, count = PLACE.subn(lambda _, text=text: text, path.read_text(), count=1)
        assert count == 1, page
        path.write_text(found)


if __name__ == "__main__":
    main()
