"""The table of the host's time, on the real CuPy over a device that is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import unavailable
from cuda_on_cpu.bench_process import needs_bench
from support import ROOT

from attnbackends._cuda.compiled import FILES
from benchmarks import host_time


def table(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.host_time", *arguments], cwd=ROOT, env=dict(os.environ), capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_parameters_of_kernels_are_counted_from_their_sources() -> None:
    found = host_time.signatures()
    assert {name for names in FILES.values() for name in names} <= {*found}
    assert found["softmax_rows"] == 2
    assert min(found.values()) > 1
    assert max(found.values()) < 60
    assert found["attention_small_backward"] > found["attention_small"] > 12  # with those that say who sees whom


def test_arguments_by_the_name_of_a_kernel() -> None:
    assert host_time.arguments_of("product") == host_time.BLAS_ARGUMENTS
    assert host_time.arguments_of("cupy_multiply__float32_float_float32") == 4
    assert host_time.arguments_of("cupy_fill") == 2
    assert host_time.arguments_of("softmax_rows") == 2


def test_the_floor_allocates_and_launches_as_told() -> None:
    asked: list[Any] = []

    def kernel(code: str, name: str) -> Any:
        return lambda blocks, threads, arguments: asked.append(len(arguments))

    xp = SimpleNamespace(
        RawKernel=kernel, zeros=np.zeros, float32=np.float32, empty=lambda count, dtype: asked.append((count, dtype))
    )
    call = host_time.floor(xp, [400, 0], [2, 20, 5])
    assert asked == []
    call()
    assert asked == [(100, np.float32), (1, np.float32), 2, 20, 5]


@needs_bench
def test_the_table_with_cupy(tmp_path: Path) -> None:
    ended = table("--seconds", "0.01", "--out", str(tmp_path / "found.json"))
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    heading, _, *lines = ended.stdout.splitlines()
    assert heading.startswith("The host's time of the real CuPy")
    assert ", on no device" in heading
    assert len(lines) == len(found["rows"]) == 14
    by_name = {row["call"]: row for row in found["rows"]}
    book = by_name["`TimeAttention` at book, both"]
    assert (book["launches"], book["copies"], book["synchronizations"]) == (2, 0, 0)
    assert book["by_name"] == {"attention_small": 1, "attention_small_backward": 1}
    for row in found["rows"]:
        assert row["launches"] >= 1, row
        assert row["host_us"] > 0, row
        assert row["floor_us"] > 0, row


def test_where_there_is_no_bench_the_reason_is_told() -> None:
    reason = unavailable()
    if reason is None:
        pytest.skip("the bench is here")
    ended = table()
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"benchmarks.host_time: {reason}\n")
