"""The CUDA kernels as `nvcc` compiles them, and the tiles that devices are given."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from attnbackends._cuda.compiled import FILES, FOLDER
from attnbackends._cuda.tiles import RESERVED, tile_for, tiles_for

SHARED_KB = {
    "7.5": (64, 64),
    "8.0": (163, 164),
    "8.6": (99, 100),
    "9.0": (227, 228),
    "10.0": (227, 228),
    "12.0": (99, 100),
}
"""Shared memory of a block and of a multiprocessor."""

COMPILED = "7.5", "9.0", "12.0"
"""The oldest, one that runs are measured on, the newest: each takes minutes. `benchmarks.kernel_resources` has all."""


def test_every_kernel_is_known() -> None:
    assert {path.name for path in FOLDER.glob("*.cu")} == FILES.keys()
    for file, kernels in FILES.items():
        text = (FOLDER / file).read_text(encoding="utf-8")
        assert tuple(re.findall(r"__global__ void\s(?:__launch_bounds__\(.*?\)\s+)?(\w+)\(", text)) == kernels


@pytest.mark.parametrize("capability", COMPILED)
def test_nothing_lies_in_local_memory(capability: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    command = [
        sys.executable,
        "-m",
        "benchmarks.kernel_resources",
        capability,
        "--json",
        str(tmp_path / "resources.json"),
    ]
    path = ":".join(str(ROOT / part) for part in ("src", "backends"))
    done = subprocess.run(  # the compiler's warnings are errors there
        command, cwd=ROOT, env={"PATH": _path(), "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    rows = json.loads((tmp_path / "resources.json").read_text(encoding="utf-8"))
    kernels = {(row["kernel"], row["dtype"]) for row in rows}
    assert {("attention_small", "d"), ("attention_tiled", "f"), ("attention_tiled_backward", "f")} <= kernels
    tiled = [row for row in rows if "WIDTH" in row["macros"]]
    assert len(tiled) >= 4, "both kernels for both widths that every device takes"
    assert all(row["shared"] <= SHARED_KB[capability][0] * 1024 for row in tiled)
    assert [row for row in rows if row["local"]] == []
    assert all(0 < row["registers"] <= 255 for row in rows)
    assert done.returncode == 0, done.stderr


def _path() -> str:
    compiler = shutil.which("nvcc")
    return f"{Path(compiler).parent}:/usr/bin:/bin" if compiler else ""


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("capability", SHARED_KB)
@pytest.mark.parametrize("width", [1, 64, 65, 128])
def test_every_device_has_tiles(width: int, capability: str, backward: bool) -> None:
    """Two blocks share a multiprocessor unless only the smaller tiles would let them."""
    block, multiprocessor = (kb * 1024 for kb in SHARED_KB[capability])
    tile = tile_for(width, backward, block)
    assert tile is not None
    assert width <= tile.width
    assert tile.bytes(backward) <= block
    assert tile.matrix == (capability != "7.5")
    all_tiles = tiles_for(width, backward, matrix=tile.matrix)
    together = multiprocessor // (tile.bytes(backward) + RESERVED)
    for other in all_tiles[: all_tiles.index(tile)]:  # does not fit as often as the one that was taken
        size = other.bytes(backward)
        assert size > block or multiprocessor // (size + RESERVED) < min(together, 2)


def test_rows_that_are_too_wide_have_none() -> None:
    assert tile_for(257, False, 227 * 1024) is None
    assert tile_for(129, False, 64 * 1024) is None
    assert tile_for(128, True, 48 * 1024) is None
