#!/usr/bin/env bash
# Time this machine's cases, and write what was found: reports/bench/*.json, docs/profile.md, and the figures that
# README.md and docs/bench.md quote. From a clean commit, on a machine that does nothing else; about a quarter of an hour.
# With --compile the tables of docs/profile.md have lines for torch.compile, too: much longer where cores are few.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH="$PWD/.venv/bin:$PATH"
export CUDA_VISIBLE_DEVICES= # what is quoted from here is of the processor

if [ $# -gt 0 ] && [ "$*" != --compile ]; then
    echo "usage: record.sh [--compile]" >&2
    exit 2
fi

if [ -z "${DIRTY:-}" ] && [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    echo "There are changes that are not committed: commit them first (DIRTY=1 to try it out)" >&2
    exit 2
fi

# Kept apart until the end: a record written over its predecessor would be a change, and the next run no clean one.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

bench() { # NAME, then what `repro bench` is asked
    repro bench "${@:2}" --json "$folder/$1.json"
}

rounds=${ROUNDS:-20}
bench 18pct step cifar together --net 18pct --rounds "$rounds"
bench alexnet step evaluation lrn optimizer --net alexnet --batch 32 --rounds "$((rounds / 2))"
bench alexnet-32 decode loader loader-and-step start judge report --net alexnet-32 --rounds "$rounds"
for net in alexnet 18pct; do
    python tests/benchmarks/where_time_goes.py "$net" "$@" >"$folder/$net.md"
done

mkdir -p reports/bench
cp "$folder"/*.json reports/bench/
python tests/benchmarks/where_time_goes.py --write "$folder/alexnet.md" "$folder/18pct.md"
python tests/speed.py
