"""What tests share: array libraries, random arrays of them, fresh interpreters, tolerances."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import Backend

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Library:
    """An array library as a test sees it."""

    backend: Backend
    read_only: bool = False

    @property
    def xp(self) -> Any:
        return self.backend.xp

    def array(self, values: Any, dtype: str | None = None) -> Any:
        """An array of this library that shares no memory with `values`."""
        array = self.backend.asarray(np.array(values), dtype=None if dtype is None else getattr(self.xp, dtype))
        if self.read_only:
            array.flags.writeable = False
        return array

    def numpy(self, array: Any) -> np.ndarray:
        """A NumPy array with the same values, after a check that `array` is one of this library."""
        own = type(self.xp.zeros(1)), *((np.generic,) if self.xp is np else ())
        assert isinstance(array, own), f"not an array of {self.backend.name}: {type(array)}"
        return self.backend.to_numpy(array)

    def wait(self, result: Any) -> Any:
        """`result`, when the device has computed it: an error that it reports comes here at the latest."""
        self.backend.synchronize()
        return result


class Draw:
    """Random arrays of one library, the same for all libraries."""

    def __init__(self, library: Library, dtype: str = "float64", seed: int = 0) -> None:
        self.library = library
        self.dtype = dtype
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Any:
        """Normally distributed numbers."""
        return self.library.array(self.rng.standard_normal(shape), self.dtype)

    def ids(self, size: int, *shape: int) -> Any:
        """Integers from 0 to size - 1."""
        return self.library.array(self.rng.integers(size, size=shape), "int64")

    def mask(self, *shape: int) -> Any:
        """Booleans, two in three of them True."""
        return self.library.array(self.rng.random(shape) < 2 / 3)


def search_path(*folders: Path) -> str:
    """PYTHONPATH for a process of its own: these folders, and the fake device where this process has it."""
    hook = str(ROOT / "tests" / "cuda_on_cpu" / "hook")
    inherited = [hook] if hook in os.environ.get("PYTHONPATH", "").split(os.pathsep) else []
    return os.pathsep.join([*inherited, *map(str, folders)])


def run_python(code: str, timeout: float = 60, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a fresh interpreter whose ``ATTN_…`` variables are those of `environ` alone."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ATTN_")}
    roots = (ROOT / "src", ROOT / "backends", ROOT / "tests", ROOT / "tests" / "plugins")
    env = inherited | {"PYTHONPATH": search_path(*roots)} | environ
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def output_of(code: str, timeout: float = 60, **environ: str) -> str:
    """What `code` prints in a fresh interpreter, after a check that it ended well and without a warning."""
    ended = run_python(code, timeout, **environ)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout.strip()


def tiny_gpt2(folder: Path) -> Path:
    """A folder as `transformers` writes one of GPT-2: weights by chance, and a token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from attnlayers.models import CausalLM

    model = CausalLM(256, 8, 2, 16, 1, max_length=64)
    model.tokenizer = Tokenizer(
        models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    model.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.tokenizer.decoder = decoders.ByteLevel()
    model.save_pretrained(folder)
    return folder


def largest_error(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, relative to the largest of the exact numbers."""
    assert actual.shape == exact.shape
    size = float(np.max(np.abs(exact), initial=0.0)) or 1.0
    return float(np.max(np.abs(actual.astype(exact.dtype) - exact), initial=0.0)) / size


def assert_as_exact_as(plain: np.ndarray, actual: np.ndarray, exact: np.ndarray, factor: float = 4) -> None:
    """Hold `actual` to the error that a plain evaluation in the same dtype makes against `exact`, in float64."""
    assert actual.dtype == plain.dtype
    allowed = factor * (largest_error(plain, exact) + float(np.finfo(plain.dtype).eps))
    error = largest_error(actual, exact)
    assert error <= allowed, f"an error of {error:.1e}, where a plain evaluation would make {allowed / factor:.1e}"
