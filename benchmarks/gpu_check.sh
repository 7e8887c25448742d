#!/usr/bin/env bash
# On a machine with CUDA and CuPy: run the tests on CUDA, then time the layers on the CPU and on CUDA.
# Needs the environment of `make test` (or its packages in $PYTHON) and nothing from a network.
#
#   benchmarks/gpu_check.sh [folder for the results, default benchmarks/results]
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
out=${1:-benchmarks/results}
mkdir -p "$out"
export PYTHONPATH="src:backends:tests:tests/plugins${PYTHONPATH:+:$PYTHONPATH}"
stamp=$(date +%Y-%m-%d)

if ! ATTN_GPU=1 "$PYTHON" -c 'from attnbackends import backend; print(backend)'; then
    echo "gpu_check: CUDA cannot be used here; the line above says why" >&2
    exit 1
fi
{
    date
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    ATTN_GPU=1 "$PYTHON" -m attnlayers.cli info
} | tee "$out/cuda-$stamp.txt"

# The fixture of the tests runs every body on CuPy wherever a device answers; ATTN_GPU=1 makes it the default too.
"$PYTHON" -m pytest -q -k cupy 2>&1 | tee -a "$out/cuda-$stamp.txt"
ATTN_GPU=1 "$PYTHON" -m pytest -q tests/attnlayers/models tests/attnlayers/training 2>&1 | tee -a "$out/cuda-$stamp.txt"
"$PYTHON" -m pytest benchmarks -q --benchmark-json "$out/layers-cpu-$stamp.json" | tee -a "$out/cuda-$stamp.txt"
ATTN_GPU=1 "$PYTHON" -m pytest benchmarks -q --benchmark-json "$out/layers-cuda-$stamp.json" \
    | tee -a "$out/cuda-$stamp.txt"
ATTN_GPU=1 "$PYTHON" -m attnlayers.cli train dates --epochs 2 --out "$(mktemp -d)/run" | tee -a "$out/cuda-$stamp.txt"
echo "gpu_check: done; keep $out/*-$stamp.*"
