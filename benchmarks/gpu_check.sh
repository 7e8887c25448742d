#!/usr/bin/env bash
# On a machine with CUDA and CuPy, within ten minutes: tests on CUDA, attention against its peers on CUDA and on the
# CPU, every layer by itself, a short training. Needs the environment of `make test` (or its packages in $PYTHON) and
# nothing from a network. A part that fails does not keep the others from running; the last lines say which failed.
#
#   benchmarks/gpu_check.sh [folder for the results, default benchmarks/results]
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
out=${1:-benchmarks/results}
stamp=$(date +%Y-%m-%d)
log=$out/cuda-$stamp.txt
export PYTHONPATH="src:backends:tests:tests/plugins${PYTHONPATH:+:$PYTHONPATH}"
failed=()
mkdir -p "$out"
: >"$log"

# part TITLE SECONDS COMMAND...: run it for so long at most, on the screen and into the log
part() {
    local title=$1 seconds=$2
    shift 2
    echo "--- $title" | tee -a "$log"
    # Interrupted first, so that a measurement still writes what it has.
    timeout --signal=INT --kill-after=15 "$seconds" "$@" 2>&1 | tee -a "$log"
    local code=${PIPESTATUS[0]}
    if test "$code" -ne 0; then
        failed+=("$title (exit code $code)")
    fi
}

if ! ATTN_GPU=1 "$PYTHON" -c 'from attnbackends import backend; print(backend)'; then
    echo "gpu_check: CUDA cannot be used here; the line above says why" >&2
    exit 1
fi
date | tee -a "$log"
run=$(mktemp -d)/run
trap 'rm -rf "$(dirname "$run")"' EXIT
part "the device" 20 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
part "what is installed" 30 env ATTN_GPU=1 "$PYTHON" -m attnlayers.cli info
part "attention on CUDA against its peers" 200 \
    "$PYTHON" -m attnlayers.cli bench --backends cupy --seconds 1 --minutes 2.8 --out "$out/cuda-$stamp"
# The fixture of the tests runs every body on CuPy wherever a device answers; ATTN_GPU=1 makes it the default too.
part "tests on CUDA" 100 "$PYTHON" -m pytest -q -k cupy
part "models and training on CUDA" 60 env ATTN_GPU=1 "$PYTHON" -m pytest -q tests/attnlayers/models tests/attnlayers/training
part "every layer on CUDA" 50 env ATTN_GPU=1 "$PYTHON" -m pytest benchmarks/test_layers.py benchmarks/test_training_step.py \
    -q --benchmark-max-time 0.3 --benchmark-json "$out/layers-cuda-$stamp.json"
part "every layer on the CPU" 50 "$PYTHON" -m pytest benchmarks/test_layers.py -q --benchmark-max-time 0.3 \
    --benchmark-json "$out/layers-cpu-$stamp.json"
part "training on CUDA" 40 env ATTN_GPU=1 "$PYTHON" -m attnlayers.cli train dates --epochs 1 --out "$run"
part "attention on both" 70 "$PYTHON" -m attnlayers.cli bench --backends numpy,cupy --cases book,mid,sweep \
    --peers torch --seconds 1 --minutes 0.8 --out "$out/both-$stamp"

if test ${#failed[@]} -ne 0; then
    printf 'gpu_check: failed: %s\n' "${failed[@]}" | tee -a "$log"
    exit 1
fi
echo "gpu_check: all parts passed; keep $out/*-$stamp*" | tee -a "$log"
