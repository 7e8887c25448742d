#!/usr/bin/env bash
# The one run on a CUDA device, in less than 560 seconds and without a network: what is installed, every kernel against
# float64, the tests, sanitizers, attention and training against PyTorch, what tuning needs, and a table of it.
#
#   benchmarks/gpu_check.sh [folder for the results, default $OUT or benchmarks/results/cuda]
#
# A step (benchmarks/device) is a process of its own with a hard limit; one that fails, hangs or is killed does not keep
# the next from running. $PYTHON chooses the interpreter; `make gpu-kit` fetches wheels that it lacks into .gpu-kit.
# GPU_CHECK_REHEARSAL=short, or full: small or all shapes and longer limits, for a device that is not there (results say
# "device: fake"): after `make cuda-tests`, with PYTHON=".venv-cuda/bin/python tests/cuda_on_cpu/run.py".
# GPU_CHECK_STEPS="attention table": these steps alone.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
read -ra python <<<"$PYTHON"
out=${1:-${OUT:-benchmarks/results/cuda}}
stretched=${GPU_CHECK_STRETCH:-$(test -n "${GPU_CHECK_REHEARSAL:-}" && echo 10 || echo 1)}
steps=${GPU_CHECK_STEPS:-versions exactness tests sanitizer attention training recurrent tuning table}
mkdir -p "$out"
log=$out/log.txt
: >"$log"
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
roots=".:src:backends:tests:tests/plugins"
export PYTHONPATH="$roots${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-2}  # several workers
failed=()

# step NAME SECONDS COMMAND...: run it for so long at most, on the screen and into the log
step() {
    local name=$1 seconds=$(($2 * stretched))
    shift 2
    echo "--- $name" | tee -a "$log"
    # The signal goes to all processes of the step: `timeout` leads a group of its own.
    timeout --signal=TERM --kill-after=1 "$seconds" "$@" 2>&1 | tee -a "$log"
    local code=${PIPESTATUS[0]}
    if test "$code" -ne 0; then
        failed+=("$name (exit code $code)")
    fi
}

if compgen -G '.gpu-kit/*.whl' >/dev/null; then
    step kit 15 "${python[@]}" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --root-user-action ignore --target "$room" .gpu-kit/*.whl
    export PYTHONPATH="$PYTHONPATH:$room"
fi
# One clear error where there is no CUDA at all; only a plain "no" ends the run, not a slow disk.
timeout --kill-after=1 $((15 * stretched)) "${python[@]}" -c 'from attnbackends import get_backend; get_backend("cupy")' \
    2>&1 | tee -a "$log"
if test "${PIPESTATUS[0]}" -eq 1; then
    echo "gpu_check: CUDA cannot be used here; the line above says why" | tee -a "$log"
    exit 1
fi

# Seconds of each step: with 15 for the kit and 15 for the question above they add up to 540, and to 550 with the second
# after which what is left is killed. A step ends by itself two seconds before.
declare -A limits=(
    [versions]=50 [exactness]=60 [tests]=90 [sanitizer]=50 [attention]=110 [training]=60 [recurrent]=20 [tuning]=60
    [table]=10
)
for name in $steps; do
    step "$name" "${limits[$name]}" "${python[@]}" -m benchmarks.device "$name" "$out" "$((limits[$name] * stretched - 2))"
done

if test ${#failed[@]} -ne 0; then
    printf 'gpu_check: failed: %s\n' "${failed[@]}" | tee -a "$log"
    exit 1
fi
echo "gpu_check: all steps passed; keep $out" | tee -a "$log"
