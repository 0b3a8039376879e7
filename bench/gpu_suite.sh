#!/usr/bin/env bash
# Builds for the GPU at hand, tests every op on it, looks for bad accesses and races, times kernels, rounds and decoding.
#
# usage: bench/gpu_suite.sh [folder]      default bench/results/gpu: suite.json, suite.log, timelines of rounds
# PYTHON names the interpreter that has torch (python3), EAGLE_CUDA_ARCHS the architecture (90a-real, an H100 or H200).
# SMOLLM2 is the target to decode with, a directory or a .gguf file, QUESTIONS a folder of .jsonl question files.
# Needs nvcc, cmake, ninja, compute-sanitizer and pytest with hypothesis and pytest-benchmark; no network.
# Ends within SUITE_SECONDS (470): later phases are left out. What was measured so far is in suite.json at any time.
set -uo pipefail
results=$(realpath -m "${1:-$(dirname "$0")/results/gpu}")
[[ -e ${SMOLLM2:-} ]] && SMOLLM2=$(realpath "$SMOLLM2")
[[ -e ${QUESTIONS:-} ]] && QUESTIONS=$(realpath "$QUESTIONS")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
total=${SUITE_SECONDS:-470}
mkdir -p "$results"
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
: > "$parts/phases.txt"
export EAGLE_BUILD_CUDA=1 EAGLE_CUDA_ARCHS=${EAGLE_CUDA_ARCHS:-90a-real} MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PYTHONPATH=$PWD:$PWD/python${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

# phase name seconds command...: runs a command under a time limit and what is left of the whole; keeps log and outcome.
# At the limit it is interrupted, so that it can say how far it got.
phase() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  limit=$((limit < total - SECONDS ? limit : total - SECONDS))
  if ((limit > 0)); then
    timeout --signal INT --kill-after 5 "$limit" "$@" > "$parts/$name.log" 2>&1 || status=$?
  else
    echo "Left out: no time was left." > "$parts/$name.log"
    status=124
  fi
  echo "$name $status $((SECONDS - start))" >> "$parts/phases.txt"
  echo "== $name: exit status $status, $((SECONDS - start)) s"
  tail -n 4 "$parts/$name.log" | cut -c 1-300
}

# keep: puts what the phases have left so far into the folder.
keep() {
  tail -n +1 "$parts"/*.log > "$results/suite.log"
  "$python" -m bench.gpu.collect "$parts" "$results/suite.json"
}

# beside-transformers name seconds command...: a phase in which torch prefers its own SDPA kernels. cuDNN's, which torch 2.11 takes
# first on Hopper, plan on the host for every new length of the keys: each token of transformers would wait for that.
beside-transformers() {
  TORCH_CUDNN_SDPA_DEPRIORITIZED=1 phase "$@"
}

# tests name seconds selection: on the device; with several processes where pytest-xdist is installed, and a limit for
# each test where pytest-timeout is: a kernel that hangs gets a name.
tests() {
  local options=()
  "$python" -c "import xdist" 2> /dev/null && options+=(-n 8)
  "$python" -c "import pytest_timeout" 2> /dev/null && options+=(--timeout 60)
  OMP_NUM_THREADS=2 phase "$1" "$2" "$python" -m pytest tests -k "$3" "${options[@]}" -q -p no:cacheprovider
}

# sanitize name tool selection options...: our kernels alone. Without torch's caching allocator every tensor has its own
# bounds; a graph cannot be captured then.
sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 phase "$1" 130 compute-sanitizer --tool "$2" "${@:4}" --kernel-name kns=eagle \
    --error-exitcode 3 --print-limit 20 "$python" -m pytest tests/test_repeat.py -k "$3" -q -p no:cacheprovider
}

# convert dtype: a .gguf file is read once, beside the tests, and lies converted in the user's cache after it.
convert() {
  phase "convert-$1" 120 "$python" -c "import sys; from eagle_decoding.terminal.models import load_models
load_models(sys.argv[1], None, sys.argv[2], None, speculate=False)" "$SMOLLM2" "$1"
}

# decode dtype limit trees
decode() {
  beside-transformers "decode-$1" "$2" "$python" -m bench.bench_decode "$SMOLLM2" heads/smollm2-135m-instruct-eagle3 \
    --data "$QUESTIONS" --prompts 1 --new-tokens 128 --dtype "$1" --trees "$3" --baselines transformers,plain \
    --device cuda --out "$parts/decode-$1.json"
}

decoding=yes
if [[ -z ${SMOLLM2:-} || -z ${QUESTIONS:-} ]]; then
  decoding=
  echo "Left out: decoding with SmolLM2, because SMOLLM2 (a directory or .gguf file) and QUESTIONS (a folder) are not both given."
elif [[ $SMOLLM2 == *.gguf ]] && ! "$python" -c "import gguf" 2> /dev/null; then
  decoding=
  echo "Left out: decoding with SmolLM2, because SMOLLM2 is a .gguf file and the package gguf is not installed."
fi

phase build 150 "$python" setup.py build_ext --inplace
if grep -q "spilled to local memory" "$parts/build.log"; then # by another nvcc than ours: slower kernels, but kernels
  EAGLE_ALLOW_SPILLS=1 phase build-with-spills 150 "$python" setup.py build_ext --inplace
fi
phase kernels-built 30 "$python" -c "import eagle_kernels; assert eagle_kernels.info()['cuda_kernels'], 'no CUDA kernels'"
if ! tail -n 2 "$parts/phases.txt" | awk '$2 != 0 { exit 1 }'; then
  keep
  echo "Without a build nothing can run: see $results/suite.log."
  exit 1
fi

tests tests 140 "cuda and not emulation and not triton and not exact_bits" &
sanitize memcheck memcheck cuda-again --report-api-errors no &
sanitize racecheck racecheck "cuda-again and not tall" &
sanitize racecheck-wgmma racecheck "cuda-again and tall" & # apart: races between warpgroups are the hardest to tell
if [[ $decoding && $SMOLLM2 == *.gguf ]]; then
  convert bfloat16 &
  convert float32 &
fi
while [[ $(jobs -rp) ]]; do
  sleep 1
  keep > /dev/null
done
if ! grep -q "^tests 0 " "$parts/phases.txt"; then # do kernels that start early read too soon?
  EAGLE_EARLY_LAUNCH=0 tests no-early-launch 60 "cuda and not emulation and (repeat or back_to_back or graph_rounds)"
fi
keep > /dev/null

phase kernels 130 "$python" -m bench.gpu_kernels --out "$parts/kernels.json"
keep > /dev/null
beside-transformers rounds-8b 75 "$python" -m bench.graph_rounds --model Llama-3.1-8B --prompt 1024 --new-tokens 96 --trees 60/8/10 \
  --timelines "$results" --out "$parts/rounds-8b.json"
keep > /dev/null
if [[ $decoding ]]; then
  decode bfloat16 70 5/4/1,24/5/4,60/6/10
  decode float32 45 24/5/4
  keep > /dev/null
fi
beside-transformers rounds 40 "$python" -m bench.graph_rounds --out "$parts/rounds.json"
tests triton 120 "cuda and (triton or exact_bits) and not emulation"

echo "== what is to be shown"
keep
echo "== phase, exit status, seconds; $SECONDS s in all"
cat "$parts/phases.txt"
awk '$2 != 0 { exit 1 }' "$parts/phases.txt"
