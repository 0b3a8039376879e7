#!/usr/bin/env bash
# Builds for the GPU at hand, tests every op on it, looks for bad accesses and races, times kernels and rounds. Under 8 minutes.
#
# usage: bench/gpu_suite.sh [folder]      results and logs, default bench/results/gpu
# PYTHON names the interpreter that has torch (python3), EAGLE_CUDA_ARCHS the architecture (90a-real, an H100 or H200).
# Needs nvcc, cmake, ninja, compute-sanitizer and pytest with hypothesis and xdist; no network.
set -uo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-bench/results/gpu}")
python=${PYTHON:-python3}
mkdir -p "$results"
: > "$results/phases.txt"
export EAGLE_BUILD_CUDA=1 EAGLE_CUDA_ARCHS=${EAGLE_CUDA_ARCHS:-90a-real} MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PYTHONPATH=$PWD:$PWD/python PYTHONUNBUFFERED=1

# phase name seconds command...: runs a command under a time limit; its log and outcome go to the folder.
phase() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  timeout "$limit" "$@" > "$results/$name.log" 2>&1 || status=$?
  echo "$name $status $((SECONDS - start))" >> "$results/phases.txt"
  echo "== $name: exit status $status, $((SECONDS - start)) s"
  tail -n 5 "$results/$name.log"
}

# Without torch's caching allocator every tensor has its own bounds; a graph cannot be captured then.
sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 phase "$1" 110 compute-sanitizer --tool "$1" --error-exitcode 3 \
    "$python" -m pytest tests/test_repeat.py -k cuda-again -q -p no:cacheprovider
}

phase build 150 "$python" setup.py build_ext --inplace
phase tests 150 "$python" -m pytest tests -k "cuda and not emulation" -n 8 -q -p no:cacheprovider
sanitize memcheck &
sanitize racecheck &
wait
phase kernels 60 "$python" -m bench.gpu_kernels "$results/kernels.json"
phase rounds 50 "$python" -m bench.graph_rounds --out "$results/rounds.json"
phase rounds-8b 60 "$python" -m bench.graph_rounds --model Llama-3.1-8B --out "$results/rounds-8b.json"

echo "== phase, exit status, seconds"
cat "$results/phases.txt"
! awk '$2 != 0' "$results/phases.txt" | grep -q .
