#!/usr/bin/env bash
# Collect evidence a bounded piece at a time: each call ends by itself, and the same call again goes on where it stopped.
#
#   reports/collect.sh PIECE STORE [DATA]
#
#   check    the tests that need a GPU: kernels against the reference, recorded steps against eager ones
#   limits   what the GPU gives at most, and where a step's time goes there, as STORE/limits.md
#   relu     relu-speedup on CIFAR-10: the headline first, then the other nets and recipes
#   first    what readers ask next, on imagenette160: response normalisation, then overlapping pooling
#   errors   the other claims about errors, on imagenette160 and CIFAR-10
#   speed    repro bench, a case at a time, the step in each precision; then the claim about throughput
#
# Then `repro publish --store STORE` from a checkout that has the commit. An export of it will do to run this
# (`git archive HEAD`): its records are held against the commit when they are published.
#
# From the environment: LIMIT (540) seconds for the call, DEVICE (cuda), JOBS (4) trials side by side, CONDITION to run
# in place of each condition below (smoke, to try the script without data), PYTHON (python).
#
# Exit code: 0 all done; 75 the time is over and there is more to do; 130 it was interrupted, likewise; else that of the
# first run that went wrong, when the others have had their turn.
set -uo pipefail

case ${1:-} in check | limits | relu | first | errors | speed) ;; *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;; esac
[ -n "${2:-}" ] || { echo "collect.sh: name the folder for the records: reports/collect.sh $1 STORE [DATA]" >&2; exit 2; }
[ -z "${3:-}" ] || [ -d "$3" ] || { echo "collect.sh: $3: no such folder; it should hold the data sets" >&2; exit 2; }
mkdir -p "$2" || exit
piece=$1 store=$(cd "$2" && pwd)
data=() && [ -z "${3:-}" ] || data=(--data "$(cd "$3" && pwd)")
limit=${LIMIT:-540} device=${DEVICE:-cuda} jobs=${JOBS:-4}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PYTHONUNBUFFERED=1
worst=0

# Run a command until it ends or the time is over. A first INT makes repro save what is under way (half a
# gigabyte a trial of AlexNet); 40 s later it is killed. The terminal's Ctrl-C does not reach what `timeout` runs, and
# the shell hears of it only while it waits: so it is passed on.
bounded() {
  local left=$((limit - SECONDS)) code
  if ((left < 5)); then
    echo "collect.sh: $limit s are over; the same call goes on" >&2
    exit 75
  fi
  echo "collect.sh: $left s left: $*" >&2
  env --default-signal=INT timeout --signal INT --kill-after 40 "$left" "$@" &
  trap 'kill -INT $!' INT TERM
  wait $!
  code=$?
  while kill -0 $! 2>/dev/null; do wait $! && code=0 || code=$?; done
  trap - INT TERM
  case $code in
    0) ;;
    1) [[ $* == *" -m repro "* ]] || worst=1 ;; # of repro an answer, say that a claim did not hold; of others a fault
    124 | 130 | 137 | 143)
      if ((SECONDS >= limit)); then
        echo "collect.sh: $limit s are over; the same call goes on" >&2
        exit 75
      elif ((code == 137)); then
        echo "collect.sh: it was killed, most likely for want of memory: fewer JOBS need less" >&2
        worst=$((worst ? worst : code))
      else
        echo "collect.sh: interrupted; the same call goes on" >&2
        exit 130
      fi
      ;;
    *) worst=$((worst ? worst : code)) ;;
  esac
}

repro() { bounded "${PYTHON:-python}" -m repro "$@"; }

claim() {
  repro run claim "$1" --condition "${CONDITION:-$2}" --device "$device" --jobs "$jobs" --store "$store" "${data[@]}"
}

bench() {
  local file=$store/bench-$1-$2-$3.json
  [ -e "$file" ] && return
  repro bench "$1" --device "$device" --precision "$2" --batch "$3" --json "$file.part"
  if grep -qs '"not_measured": {}' "$file.part"; then mv "$file.part" "$file"; fi # else the next call tries again
}

case $piece in
  check)
    export CUBLAS_WORKSPACE_CONFIG=:4096:8 # torch looks at the first product of matrices only, and remembers
    here='import torch; raise SystemExit(None if torch.cuda.is_available() else "torch sees no GPU, all is left out")'
    [ "$device" = cpu ] || bounded "${PYTHON:-python}" -c "$here"
    # -W: a warning of torch's is told and fails nothing: which libraries it speaks of differs from GPU to GPU.
    bounded "${PYTHON:-python}" -m pytest -q -W default -p no:cacheprovider tests/test_gpu.py tests/test_gpu_training.py
    ;;
  limits)
    [ -e "$store/limits.md" ] ||
      bounded "${PYTHON:-python}" tests/benchmarks/gpu_limits.py --device "$device" >"$store/limits.part"
    ((worst)) || [ -e "$store/limits.md" ] || mv "$store/limits.part" "$store/limits.md"
    ;;
  relu)
    for condition in cifar10 cifar10-modern cifar10-19pct cifar10-18pct cifar10-modern-18pct cifar10-modern-19pct; do
      claim relu-speedup $condition
    done
    ;;
  first)
    claim lrn-error imagenette160
    claim overlapping-pooling-error imagenette160
    ;;
  errors)
    claim relu-against-sigmoid cifar10
    for id in ten-views dropout-overfitting weight-decay-training-error crops-overfitting colour-augmentation \
      conv-layer-removal two-gpu-error lrn-against-mean lrn-against-batch-norm pooling-overfitting \
      nearest-neighbours colour-towers dropout-convergence; do
      claim $id imagenette160
    done
    claim lrn-cifar10 cifar10
    claim batch-norm-clone cifar10
    ;;
  speed)
    # A file a case: a run of `repro bench` that is cut off leaves nothing.
    for precision in fp32 bf16 tf32; do
      for batch in 128 1024; do bench step $precision $batch; done
    done
    for precision in fp32 bf16; do bench lrn $precision 1024; done
    for case in evaluation optimizer together cifar loader loader-and-step; do bench $case fp32 128; done
    claim free-augmentation ilsvrc-2012
    ;;
esac
exit "$worst"
