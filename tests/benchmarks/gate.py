"""Whether the working tree is grossly slower than a commit, on this machine: ``gate.py COMMIT [CASE...]``.

The commit is unpacked beside the working tree, and `repro bench` run in both, each time in a process of its own with
one thread, in turns: then, now, now, then, and so on. The means of the processes of either side are compared, ours over
what runs none of our code, by the rule of docs/bench.md. Exit codes: 0 not grossly slower; 1 grossly slower; 2 wrong
use; 3 a case could not be measured, or the two sides time unlike work, say where the commit had other settings.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from repro.bench import results

ROOT = Path(__file__).parents[2]
CASES = ("step", "evaluation", "lrn", "optimizer", "start")
"""Those that need neither files nor minutes."""


def turns(pairs):
    """Return whose turn it is, so that a machine that slows down steadily slows both sides alike."""
    return [side for pair in range(pairs) for side in (("then", "now") if pair % 2 == 0 else ("now", "then"))]


def unpacked(commit, folder):
    """Write the files of ``commit`` to ``folder``. Ends with code 2 where there is no such commit."""
    found = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=False)
    if found.returncode:
        print(f"{commit}: {found.stderr.decode().strip()}", file=sys.stderr)
        sys.exit(2)
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")


def bench(root, words, out, threads=1):
    """Run `repro bench` of the checkout at ``root`` and return the run. Ends with code 3 where a case failed.

    On a busy machine one thread is off its core now and then; of two that wait for each other, one often is.
    """
    command = [sys.executable, "-m", "repro", "bench", *words, "--json", str(out)]
    where = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
    found = subprocess.run(command, cwd=root, env=where, capture_output=True, text=True, check=False)
    if found.returncode:
        print(f"repro bench of {root} failed:\n{found.stdout}{found.stderr}", file=sys.stderr)
        sys.exit(3)
    return results.load(out)


def refuse_unlike(now, then):
    """End with code 3, naming key and both values, where the two trees were asked alike and time unlike work."""
    try:
        results.refuse_unlike(now.environment, now.settings, [ran.name for ran in now.cases], then)
    except results.BenchError as error:
        print(f"not compared: {error} (here: now; there: then)", file=sys.stderr)
        sys.exit(3)


def told(now, then, rounds):
    """Print what changed, ``rounds`` of either side being one process, and return the exit code."""
    changes = results.changes(now, then, rounds)
    for change in changes:
        print("\n".join(results.told(change, "processes")))
    worse = [change.name for change in changes if change.gross]
    print(f"{len(changes)} compared; grossly slower: {', '.join(worse) or 'none'}")
    return 1 if worse else 0


def main():
    """Read the command line, measure, and end with the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="what to compare with, say origin/main")
    parser.add_argument("cases", nargs="*", default=CASES, help="of `repro bench --list`")
    parser.add_argument("--pairs", type=int, default=6, help="processes of each side (default: 6)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each process (default: 4)")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (default: 32)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the processes' runs there, for power.py")
    args = parser.parse_args()
    if args.pairs < 2:
        parser.error("--pairs: at least 2, or there is no noise to compare with")
    words = [*args.cases, "--rounds", str(args.rounds), "--batch", str(args.batch)]
    with tempfile.TemporaryDirectory(prefix="repro-gate-") as folder:
        base = Path(folder, "then")
        unpacked(args.commit, base)
        kept = args.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        roots, runs = {"then": base, "now": ROOT}, {"then": [], "now": []}
        for number, side in enumerate(turns(args.pairs)):
            out = kept.absolute() / f"{number:02}-{side}.json"
            runs[side].append(bench(roots[side], words, out, args.threads))
            print(f"{side}: {len(runs[side])} of {args.pairs}", flush=True)
            if number % 2:  # at once: it would be for nothing that the others are timed
                refuse_unlike(runs["now"][-1], runs["then"][-1])
    now, then = results.joined(runs["now"]), results.joined(runs["then"])
    if results.same_code(now, then):
        print(results.SAME_CODE)
    sys.exit(told(now, then, runs["now"][0].rounds))


if __name__ == "__main__":
    main()
