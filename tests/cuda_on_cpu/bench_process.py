"""A small program in a process of its own on the fake device."""

import os
import subprocess
import sys
import textwrap

import pytest

from cuda_on_cpu import FOLDER, HOOK, environment, unavailable

SOURCES = [str(FOLDER.parents[1] / part) for part in ("src", "backends")]

needs_bench = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
"""For tests that start processes on the bench: they run wherever it is available, in this process or not.

`make cuda-tests` selects tests by the word cupy: outside this folder it belongs into their names, or their file's.
"""

PRELUDE = """
import cupy, numpy as np
from cuda_on_cpu.counts import counts
runtime = cupy.cuda.runtime

def kernel(body, parameters="float *x", options=(), before=""):
    code = before + 'extern "C" __global__ void k(' + parameters + ') {' + body + '}'
    return cupy.RawKernel(code, "k", options=options)

def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except (cupy.cuda.driver.CUDADriverError, runtime.CUDARuntimeError, cupy.cuda.cublas.CUBLASError) as error:
        print(str(error).split(":")[0])
    else:
        print("not refused")

"""


def run_on_bench(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """How a program ends; `kernel`, `refused`, `counts`, `cupy` and `np` are defined for it."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        env=environment(**settings) | {"PYTHONPATH": os.pathsep.join([str(HOOK), *SOURCES])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output_of(code: str, **settings: object) -> list[str]:
    """The lines that a program prints; it must succeed."""
    done = run_on_bench(code, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
