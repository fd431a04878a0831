#!/bin/bash
# The GPU tests and every benchmark on this machine's GPU; results as JSON in a folder, a summary of the tests on stdout.
# From the checkout, whether the package is installed or only what it needs. What takes too long is cut off, and the
# rest goes on: PATIENCE seconds for a benchmark, twice that for the tests.
#
#   benchmarks/on_a_gpu.sh OUT [PRESET]
set -u
out=$(realpath -m "$1")
preset=${2:-deeplabv3p-r50-voc-full}
patience=${PATIENCE:-120}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"

bench() { # NAME ARGUMENTS...: NAME.json, what went wrong in NAME.err
  local name=$1 begin=$SECONDS code
  shift
  timeout "$patience" python -m wsss_cli bench "$@" --json >"$out/$name.json" 2>"$out/$name.err"
  code=$?
  echo "$name: exit $code after $((SECONDS - begin)) s"
}

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader
bench crf-irn crf --parameters irn --backends lattice,triton
bench walk walk
bench train train --preset "$preset"
bench eval eval --preset "$preset"
bench cam cam --preset "$preset"
bench data data --preset "$preset"
bench crf-psa crf --parameters psa --backends lattice,triton
bench crf-deeplab crf --parameters deeplab --backends lattice,triton
bench crf-small crf --height 96 --width 128
timeout $((2 * patience)) python -m pytest -q -m gpu tests >"$out/tests.txt" 2>&1
tail -n 15 "$out/tests.txt"
