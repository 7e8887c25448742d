"""Whole programs with ATTN_GPU=1 on the real CuPy: examples of README and docs, and the command up to its pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, search_path, tiny_gpt2

from cuda_on_cpu import environment
from cuda_on_cpu.bench_process import needs_bench

pytestmark = needs_bench

COMMAND = "from attnlayers.cli import main; main()"
TINY_CASES = """
from attnlayers.bench import cases
cases.TABLE = (cases.Case("book", 2, 3, 5, 7, shared=True), cases.Case("mid", 2, 3, 5, 7))
"""
PAIRS = "".join(f"{a}{b}{c}\t{c}{b}{a}\n" for a in "abc" for b in "abc" for c in "abc")
SMALL = ("--epochs", "1", "--embedding-size", "8", "--hidden-size", "8", "--batch-size", "9", "--out", "run")
CHOICES = {
    "dot": ("--attention", "dot"),
    "general": ("--attention", "general"),
    "additive": ("--attention", "additive"),
    "transformer": ("--architecture", "transformer", "--heads", "2", "--depth", "1"),
}


def on_cuda(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    """What a program prints that ends well."""
    env = environment() | {"ATTN_GPU": "1"}
    env["PYTHONPATH"] = os.pathsep.join([search_path(ROOT / "src", ROOT / "backends"), env["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_examples_of_the_readme(name: str, tmp_path: Path) -> None:
    ten_lines, writing = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert "input 1" in on_cuda(ten_lines)
    where = "\nfrom attnbackends import backend; print(); print(backend.name)"
    tiny_gpt2(tmp_path / "gpt2")
    assert on_cuda(writing + where, cwd=tmp_path).splitlines()[-1] == "cupy"


def test_decoding_step_by_step() -> None:
    page = (ROOT / "docs" / "howto" / "caches.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    difference, library = on_cuda(example + "\nfrom attnbackends import backend; print(backend.name)").split()
    assert float(difference) < 5e-6
    assert library == "cupy"


@pytest.mark.parametrize("choice", CHOICES)
def test_from_training_to_a_heat_map(choice: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    assert "cupy" in on_cuda(COMMAND, "train", "pairs.tsv", *CHOICES[choice], *SMALL, cwd=tmp_path)
    on_cuda(COMMAND, "train", "--resume", "--epochs", "2", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].startswith("2,")
    assert len(on_cuda(COMMAND, "translate", "run", "abc", "cab", cwd=tmp_path).splitlines()) == 2
    drawn = ("--beam-size", "3", "--heatmap", "heat.png", *(("--each-head",) if choice == "transformer" else ()))
    assert len(on_cuda(COMMAND, "translate", "run", "abc", "cab", *drawn, cwd=tmp_path).splitlines()) == 2
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark(tmp_path: Path) -> None:
    arguments = ("bench", "--cases", "book,mid", "--backends", "cupy", "--peers", "numpy", "--seconds", "0.01")
    printed = on_cuda(TINY_CASES + COMMAND, *arguments, "--out", "found", cwd=tmp_path)
    assert "forward + backward" in printed
    assert (tmp_path / "found" / "bench.json").stat().st_size > 0
