#!/bin/bash
# The GPU tests and every benchmark on this machine's GPU; results as JSON in a folder, a summary of the tests on stdout.
#
#   benchmarks/on_a_gpu.sh OUT [PRESET]
set -u
out=$1
preset=${2:-deeplabv3p-r50-voc-full}
mkdir -p "$out"
python -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.txt" | tail -n 15
for parameters in irn psa deeplab; do
  wsss bench crf --parameters "$parameters" --backends lattice,triton --json >"$out/crf-$parameters.json"
done
wsss bench crf --height 96 --width 128 --json >"$out/crf-small.json"
wsss bench walk --json >"$out/walk.json"
for kind in cam train eval data; do
  wsss bench "$kind" --preset "$preset" --json >"$out/$kind.json"
done
ls -l "$out"
