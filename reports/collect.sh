#!/usr/bin/env bash
# Collect evidence a bounded piece at a time: each call ends by itself, and the same call again goes on where it stopped.
#
#   reports/collect.sh PIECE STORE [DATA]
#
#   check     the tests that need a GPU: kernels against the reference, recorded steps against eager ones; all of them
#             again in every call, side by side, with what they say in STORE/check-PART.log
#   headline  relu-speedup on CIFAR-10, the condition that decides it
#   steps     repro bench of the step (fp32, bf16) and of response normalisation
#   limits    what the GPU gives at most, and where a step's time goes there, as STORE/limits-TABLE.md
#   speed     repro bench, a case at a time, the step in each precision; then, where DATA has ilsvrc-2012, the claim
#             about throughput
#   first     what readers ask next, on imagenette160: response normalisation, then overlapping pooling
#   relu      relu-speedup on CIFAR-10: the headline first, then the other nets and recipes
#   errors    the other claims that train a network, on imagenette160 and CIFAR-10
#
#   reports/collect.sh pack STORE FILE
#
#   pack      all of STORE but states of unfinished trials above 16 MiB as FILE, a compressed tar; where that is more
#             than PART (15) MiB, as FILE.00, FILE.01 and so on. It takes moments: call it after every piece.
#
# Then `repro publish --store STORE` from a checkout that has the commit. What is measured is published only where the
# source is that of a commit, so all but check, pack and CONDITION=smoke refuse to run elsewhere: in a copy without git
# that is no export. An export knows its commit (`git archive HEAD | tar -x -C DIR`), and its records are held against
# it when they are published.
#
# A STORE without trials begins with the records of reports/: what is decided there is not run again. To measure all
# of it anew, make the folder STORE/trials first; publishing then leaves out what reports/ has, and says so.
#
# From the environment: LIMIT (500) seconds for the call, which may take 40 more to save; DEVICE (cuda), JOBS (4) trials
# side by side, EAGER=1 to record no step of a trial as a CUDA graph, REPRO_NO_KERNELS=1 to do without our own kernels,
# CONDITION to run in place of each condition below (smoke, to try the script without data), PYTHON (python), PART.
#
# Exit code: 0 all done; 2 wrong use, no commit, or a package is missing; 75 the time is over and there is more to do;
# 130 it was interrupted, likewise; else that of the first run that went wrong, when the others have had their turn.
set -uo pipefail

fail() { echo "collect.sh: $*" >&2; exit 2; }
case ${1:-} in
  check | headline | steps | limits | speed | first | relu | errors | pack) ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
piece=$1 data=()
[ -n "${2:-}" ] || fail "name the folder for the records: reports/collect.sh $1 STORE"
if [ "$piece" = pack ]; then
  [ -n "${3:-}" ] || fail "name the file to write: reports/collect.sh pack STORE FILE"
  [ -d "$2" ] || fail "$2: no such folder; it should hold the records"
  folder=$(cd "$(dirname "$3")" 2>/dev/null && pwd) || fail "$(dirname "$3"): no such folder; $(basename "$3") should be in it"
  file=$folder/$(basename "$3")
else
  [ -z "${3:-}" ] || [ -d "$3" ] || fail "$3: no such folder; it should hold the data sets"
  [ -z "${3:-}" ] || data=(--data "$(cd "$3" && pwd)")
  mkdir -p "$2" || exit
fi
store=$(cd "$2" && pwd)
limit=${LIMIT:-500} device=${DEVICE:-cuda} jobs=${JOBS:-4}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PYTHONUNBUFFERED=1
worst=0 stopped=0 rounds=

# Say in words what stands against publishing what this source measures; nothing where nothing does.
unclean() {
  local ask='from repro.source import commit
known, changed = commit()
print("this copy of the source does not know its commit" if known is None
    else "the source is not that of its commit" if changed else "")'
  "${PYTHON:-python}" -c "$ask" || echo "the source does not say which commit it is of"
}

# Print those of the packages that are not here. All by name, as wheels that are brought come without what they need.
lacking() {
  "${PYTHON:-python}" -c 'import sys
from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if not find_spec(name)))' "$@"
}

packages=(annotated_types click jinja2 markdown_it mdurl numpy pandas PIL pydantic pydantic_core pygments rich scipy
  seaborn torch torchvision typing_extensions typing_inspection)
[ "$piece" != check ] || packages+=(pytest pytest_benchmark)
if [ "$piece" != pack ] && why=$(lacking "${packages[@]}") && [ -n "$why" ]; then
  fail "Python lacks $why; docs/gpu.md says how to bring packages"
fi
if [ "$piece" != pack ] && why=$(unclean) && [ -n "$why" ]; then
  help='run from an export of a commit: git archive HEAD | tar -x -C DIR'
  if [ "$piece" = check ] || [ "${CONDITION:-}" = smoke ]; then
    echo "collect.sh: $why, and of it nothing could be published; for what is to be, $help" >&2
  else
    fail "$why, and nothing measured here could be published; $help"
  fi
fi

# Triton compiles a launcher for each kernel with the machine's C compiler, at the first launch.
try='import torch
if torch.cuda.is_available():
    from repro.training import fused
    x = torch.zeros(16, device="cuda")
    fused.update(x, x.clone(), x.clone(), rate=0.1, momentum=0.9, decay=0.0)
    torch.cuda.synchronize()'
if [ "$piece" != pack ] && [ "$device" != cpu ] && [ -z "${REPRO_NO_KERNELS:-}" ]; then
  why=$("${PYTHON:-python}" -c "$try" 2>&1) ||
    fail "our kernels do not run here (${why##*$'\n'}); Triton needs a C compiler and Python.h, and REPRO_NO_KERNELS=1 does without"
fi

# Run a command until it ends or the time is over. A first INT makes repro save what is under way (half a
# gigabyte a trial of AlexNet); 40 s later it is killed. The terminal's Ctrl-C does not reach what `timeout` runs, and
# the shell hears of it only while it waits: so it is passed on. How it ended is left in `code`.
bounded() {
  local left=$((limit - SECONDS))
  if ((left < 5)); then
    echo "collect.sh: $limit s are over; make the same call again to continue" >&2
    exit 75
  fi
  echo "collect.sh: $left s left: $*" >&2
  trap stopped=1 INT TERM # until there is what it can be passed on to
  env --default-signal=INT timeout --signal INT --kill-after 40 "$left" "$@" &
  trap 'stopped=1; kill -INT $!' INT TERM
  ((stopped)) && kill -INT $!
  wait $!
  code=$?
  while kill -0 $! 2>/dev/null; do wait $! && code=0 || code=$?; done
  trap - INT TERM
  ((stopped)) && code=130 # pytest says 2
  case $code in
    0) ;;
    1) [[ $* == *" -m repro "* ]] || worst=1 ;; # of repro an answer, say that a claim did not hold; of others a fault
    124 | 130 | 137 | 143)
      if ((SECONDS >= limit)); then
        echo "collect.sh: $limit s are over; make the same call again to continue" >&2
        exit 75
      elif ((code == 137)); then
        echo "collect.sh: it was killed, most likely for want of memory: fewer JOBS need less" >&2
        worst=$((worst ? worst : code))
      else
        echo "collect.sh: interrupted; make the same call again to continue" >&2
        exit 130
      fi
      ;;
    *) worst=$((worst ? worst : code)) ;;
  esac
}

repro() { bounded "${PYTHON:-python}" -m repro "$@"; }

claim() {
  repro run claim "$1" --condition "${CONDITION:-$2}" --device "$device" --jobs "$jobs" --store "$store" "${data[@]}" \
    ${EAGER:+--eager}
}

there() { echo "collect.sh: $1 is there and not timed again; remove it to have it timed anew" >&2; }

# Time cases, as PRECISION BATCH CASE...: in one process and one file, as a start costs seconds.
bench() {
  local precision=$1 batch=$2 file name
  shift 2
  name=$* file=$store/bench-${name// /-}-$precision-$batch.json
  if [ -e "$file" ]; then
    there "$file"
    return
  fi
  repro bench "$@" --device "$device" --precision "$precision" --batch "$batch" ${rounds:+--rounds "$rounds"} \
    --json "$file.part"
  if grep -qs '"not_measured": {}' "$file.part"; then mv "$file.part" "$file"; fi # else the next call tries again
}

# Have a store that is new begin with what is published.
begin() {
  [ -e "$store/trials" ] && return
  echo "collect.sh: $store begins with the records of reports/" >&2
  rm -rf "$store/trials.part" || exit
  cp -r reports/plans reports/bands "$store" && cp -r reports/trials "$store/trials.part" &&
    mv "$store/trials.part" "$store/trials" || exit
}

steps() {
  for precision in fp32 bf16; do
    for batch in 128 1024; do bench $precision $batch step lrn; done
  done
}

# Bring everything but large states into one file, and cut that where it is too large.
pack() {
  local states parts whole=$file.part name large=(-name checkpoint.pt -size +16M)
  name=$(basename "$file")
  find "$store" -mindepth 1 ! -name '*.part' ! -name lock ! -name .lock ! -name 'checkpoint.pt.*' \
    ! \( "${large[@]}" \) -printf '%P\0' | tar -C "$store" --null --no-recursion -czf "$whole" -T - || exit
  rm -f "$file" "$file".[0-9][0-9]
  if (($(stat -c %s "$whole") <= ${PART:-15} << 20)); then
    mv "$whole" "$file" || exit
    echo "collect.sh: $(stat -c %s "$file") bytes in $file; elsewhere: tar -xf $name -C STORE" >&2
  else
    split -d -a 2 -b "${PART:-15}M" "$whole" "$file." && rm "$whole" || exit
    parts=("$file".[0-9][0-9])
    echo "collect.sh: ${#parts[@]} parts, $file.00 and so on; elsewhere: cat $name.* | tar -xz -C STORE" >&2
  fi
  states=$(find "$store" "${large[@]}" -printf '%s\n' |
    awk '{ bytes += $1 } END { if (NR) printf "%d (%.1f MiB)", NR, bytes / 2^20 }')
  [ -z "$states" ] || echo "collect.sh: states left out: $states; elsewhere, those trials begin anew" >&2
}

case $piece in
  check)
    here='import torch; raise SystemExit(None if torch.cuda.is_available() else "torch sees no GPU, all is left out")'
    [ "$device" = cpu ] || bounded "${PYTHON:-python}" -c "$here"
    bounded "${PYTHON:-python}" tests/gpu_checks.py "$store"
    ;;
  headline)
    begin
    claim relu-speedup cifar10
    ;;
  steps) steps ;;
  limits)
    export TEARDOWN_CUPTI=0 # torch's profiler is opened several times in a process, around CUDA graphs
    # A file a table: what is cut off is measured again, and nothing else.
    for table in ceilings kernels {steps-{fp32,bf16,tf32}{,-tried},busiest-{fp32,bf16,tf32}} \
      convolutions-{fp32,bf16,tf32}{,-tried}; do
      file=$store/limits-$table.md
      if [ -e "$file" ]; then
        there "$file"
        continue
      fi
      bounded "${PYTHON:-python}" tests/benchmarks/gpu_limits.py "$table" --device "$device" >"$file.part"
      ((code)) || mv "$file.part" "$file"
    done
    ;;
  speed)
    begin
    steps
    # A file a case: a run of `repro bench` that is cut off leaves nothing.
    for batch in 128 1024; do bench tf32 $batch step; done
    for case in evaluation optimizer together cifar; do bench fp32 128 $case; done
    rounds=4 # what is fed from files takes seconds a round on many cores
    for case in loader loader-and-step; do bench fp32 128 $case; done
    if [ -n "${CONDITION:-}" ] || [ -d "${data[1]:-/nowhere}/prepared/ilsvrc-2012" ]; then
      claim free-augmentation ilsvrc-2012
    else
      echo "collect.sh: free-augmentation is not run: DATA has no prepared/ilsvrc-2012" >&2
    fi
    ;;
  first)
    begin
    claim lrn-error imagenette160
    claim overlapping-pooling-error imagenette160
    ;;
  relu)
    begin
    for condition in cifar10 cifar10-modern cifar10-19pct cifar10-18pct cifar10-modern-18pct cifar10-modern-19pct; do
      claim relu-speedup $condition
    done
    ;;
  errors)
    begin
    claim relu-against-sigmoid cifar10
    for id in ten-views dropout-overfitting weight-decay-training-error crops-overfitting colour-augmentation \
      conv-layer-removal two-gpu-error lrn-against-mean lrn-against-batch-norm pooling-overfitting \
      nearest-neighbours colour-towers dropout-convergence; do
      claim $id imagenette160
    done
    claim lrn-cifar10 cifar10
    claim batch-norm-clone cifar10
    ;;
  pack) pack ;;
esac
exit "$worst"
