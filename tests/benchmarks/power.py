"""What the gate would have said of runs of one and the same code: ``power.py FILE...``, each `repro bench --json FILE`.

Of the runs, in the order in which they were made, as many neighbours as a gate takes are dealt to two sides, by lot
within each pair, often; ours of one side is then slowed by a factor. It prints how often any case would be named where
nothing was slowed (false alarms), and how often each case where all were (power). With ``--pairs 1`` it is
`repro bench --against` that is asked: two runs that follow each other, by their rounds.
"""

import argparse
import random
from math import log
from pathlib import Path
from statistics import fmean, stdev

from repro.bench import results
from repro.bench.timing import AGAIN, OURS


def cut(run, rounds):
    """Return the first rounds of a run."""
    cases = [ran.model_copy(update={"rates": {k: v[:rounds] for k, v in ran.rates.items()}}) for ran in run.cases]
    return run.model_copy(update={"cases": tuple(cases), "rounds": rounds})


def slowed(run, factor):
    """Return a run in which ours took ``factor`` times as long."""

    def of(ran):
        rates = {k: tuple(x / factor for x in v) if k in (OURS, AGAIN) else v for k, v in ran.rates.items()}
        return ran.model_copy(update={"rates": rates})

    return run.model_copy(update={"cases": tuple(of(ran) for ran in run.cases)})


def dealt(runs, pairs, rng):
    """Return so many runs of either side: of neighbours, one each."""
    first = rng.randrange(len(runs) - 2 * pairs + 1)
    both = [runs[first + 2 * i : first + 2 * i + 2] for i in range(pairs)]
    for pair in both:
        rng.shuffle(pair)
    return [results.joined([pair[side] for pair in both]) for side in (0, 1)]


def shares(runs, pairs, factors, times, seed=0):
    """Return the share of ``times`` gates that name any case of unslowed runs, and by factor that of each case."""
    rng, rounds = random.Random(seed), runs[0].rounds if pairs > 1 else 1
    gates = [dealt(runs, pairs, rng) for _ in range(times)]

    def named(factor):
        return [{c.name for c in results.changes(slowed(now, factor), then, rounds) if c.gross} for now, then in gates]

    false = sum(map(bool, named(1.0))) / times
    power = {}
    for factor in factors:
        found = named(factor)
        power[factor] = {ran.name: sum(ran.name in names for names in found) / times for ran in runs[0].cases}
    return false, power


def scatter(runs):
    """Return by case the standard deviations of the processes, in logarithms: of ours, and of ours beside its peers."""
    found = {}
    for at, ran in enumerate(runs[0].cases):
        each = [{k: fmean(map(log, v)) for k, v in run.cases[at].rates.items()} for run in runs]
        ours = [(means[OURS] + means[AGAIN]) / 2 for means in each]
        beside = [fmean(means[peer] for peer in ran.foreign) if ran.foreign else 0.0 for means in each]
        found[ran.name] = stdev(ours), stdev(a - b for a, b in zip(ours, beside, strict=True))
    return found


def main():
    """Read the command line and the runs, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="12 or more, made by one code on one machine")
    parser.add_argument("--pairs", type=int, default=6, help="processes of each side (default: 6); 1: --against")
    parser.add_argument("--rounds", type=int, default=4, help="rounds taken of each (default: 4)")
    parser.add_argument("--times", type=int, default=1000, help="how often they are dealt (default: 1000)")
    args = parser.parse_args()
    runs = sorted((results.load(path) for path in args.files), key=lambda run: run.made)
    if len(runs) < 2 * args.pairs or min(run.rounds for run in runs) < args.rounds:
        parser.error(f"a gate of {args.pairs} pairs takes {2 * args.pairs} files of {args.rounds} rounds each")
    if len({run.environment["code_digest"] for run in runs}) > 1:
        parser.error("the files are of different code: what differs is not noise alone")
    runs = [cut(run, args.rounds) for run in runs]
    false, power = shares(runs, args.pairs, (1.2, 1.5, 2.0, 5.0), args.times)
    load = [x for run in runs for x in run.load]
    e = runs[0].environment
    print(
        f"{len(runs)} processes of {args.rounds} rounds, {runs[0].made} to {runs[-1].made}, load {min(load)} to "
        f"{max(load)}; {e['cpu']}, {e['cores']} cores, {e['threads']} threads, Python {e['python']}, torch {e['torch']}"
    )
    print(f"{args.times} comparisons of {args.pairs} + {args.pairs}: {false:.1%} named a case of unslowed code")
    for name, (alone, beside) in scatter(runs).items():
        print(f"{name}: processes scatter by {alone:.2f}, beside their peers by {beside:.2f}")
    names = [ran.name for ran in runs[0].cases]
    print("\n".join(["", f"| slowed | {' | '.join(names)} |", "|--:|" + "--:|" * len(names)]))
    for factor, found in power.items():
        print(f"| {factor:g} times | {' | '.join(f'{found[name]:.0%}' for name in names)} |")


if __name__ == "__main__":
    main()
