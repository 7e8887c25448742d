"""Other libraries' attention, loaded in the process that times them and nowhere else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np

from attnbackends import Backend

from .cases import Case, Inputs
from .contenders import Contender, LeftOutError, Loops, Obvious

LARGEST_WEIGHTS = 2**30
"""Bytes of weights from which a contender that holds several arrays of that size is left out."""

Found = dict[str, Callable[[], Contender] | str]
"""By name what makes a contender, or the reason why there is none."""

TF32, THREE_TF32 = "TF32", "3xTF32"
"""Products of float32 on matrix units: rounded to 10 bits, or three such products for one of float32."""

REFUSALS = ("No available kernel", "No viable backend")
"""How PyTorch's error begins where the kernel that was named takes no such call."""

MATRIX_UNITS = (8, 0)
"""Compute capability from which there is TF32."""


class Torch(Contender):
    """``scaled_dot_product_attention`` with autograd, eager, on four axes: its fused kernels take no other."""

    def __init__(
        self,
        case: Case,
        sets: Sequence[Inputs],
        device: str,
        dtype: str,
        kernel: Any = None,
        precision: str | None = None,
    ) -> None:
        import torch

        self.torch = torch
        self.kernel = kernel
        self.device = device
        self.precision = precision

        def move(inputs: Inputs) -> tuple[Any, ...]:
            q, k, v, dout = (
                torch.from_numpy(x).to(device, getattr(torch, dtype))[:, None].contiguous() for x in inputs
            )
            for x in (q, k, v):
                x.requires_grad_(not case.forward_only)
            return q, k, k if case.shared else v, dout

        super().__init__(case, [move(inputs) for inputs in sets])

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        q, k, v, _ = inputs
        allow_tf32(self.torch, self.precision == TF32)
        with nullcontext() if self.kernel is None else self.torch.nn.attention.sdpa_kernel(self.kernel):
            try:
                out = self.torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=self.case.causal, scale=self.case.scale
                )
            except RuntimeError as error:
                if not str(error).startswith(REFUSALS):
                    raise
                raise LeftOutError(f"refuses: {self._why(inputs) or error}") from error
        return out, (out, (q, k) if self.case.shared else (q, k, v))

    def _why(self, inputs: tuple[Any, ...]) -> str:
        """What PyTorch warns of where the kernel that was named refuses a call."""
        q, k, v, _ = inputs
        with warnings.catch_warnings(record=True) as said, suppress(RuntimeError):
            warnings.simplefilter("always")
            self.torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.case.causal)
        texts = (str(warning.message).partition(" (Triggered")[0] for warning in said)
        return " ".join(text for text in dict.fromkeys(texts) if "not used because" not in text)

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        out, inputs = saved
        allow_tf32(self.torch, self.precision == TF32)
        gradients: tuple[Any, ...] = self.torch.autograd.grad(out, inputs, dout, retain_graph=bool(self.kept))
        return gradients

    def wait(self, results: Any) -> None:
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array.detach()[:, 0].float().cpu().numpy())


class Jax(Contender):
    """``jax.nn.dot_product_attention`` under jit; `products` is JAX's word for their precision, None its default."""

    def __init__(
        self,
        case: Case,
        sets: Sequence[Inputs],
        device: Any,
        dtype: str,
        products: str | None = None,
        precision: str | None = None,
    ) -> None:
        import jax

        self.jax: Any = jax
        self.precision = precision

        def attention(q: Any, k: Any, v: Any) -> Any:
            with nullcontext() if products is None else jax.default_matmul_precision(products):
                return jax.nn.dot_product_attention(q, k, v, scale=case.scale, is_causal=case.causal)

        def of_two(q: Any, k: Any) -> Any:
            return attention(q, k, k)

        f = of_two if case.shared else attention

        def both(dout: Any, *inputs: Any) -> tuple[Any, ...]:
            out, pull = jax.vjp(f, *inputs)
            return (out, *pull(dout))

        self._forward, self._both = jax.jit(f), jax.jit(both)
        self._keep = jax.jit(lambda *inputs: jax.vjp(f, *inputs))
        self._pull = jax.jit(lambda pull, dout: pull(dout))
        self.inputs = 2 if case.shared else 3

        def move(inputs: Inputs) -> tuple[Any, ...]:
            return tuple(jax.device_put(x[:, :, None].astype(jax.numpy.dtype(dtype)), device) for x in inputs)

        super().__init__(case, [move(inputs) for inputs in sets])

    def forward(self, i: int) -> Any:
        out = self._forward(*self.sets[i % len(self.sets)][: self.inputs])
        self.wait(out)
        return out, None

    def both(self, i: int) -> tuple[Any, ...]:
        inputs = self.sets[i % len(self.sets)]
        results: tuple[Any, ...] = self._both(inputs[3], *inputs[: self.inputs])
        self.wait(results)
        return results

    def run(self, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        out, pull = self._keep(*inputs[: self.inputs])
        return out, pull

    def pull(self, saved: Any, dout: Any) -> tuple[Any, ...]:
        gradients: tuple[Any, ...] = self._pull(saved, dout)
        return gradients

    def wait(self, results: Any) -> None:
        self.jax.block_until_ready(results)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array[:, :, 0].astype("float32"))


def _torch(case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str) -> Found:
    torch = load("torch")
    if backend.on_host:
        return {"PyTorch": partial(Torch, case, sets, "cpu", dtype)}
    if not torch.cuda.is_available():
        raise LeftOutError("this PyTorch has no CUDA device")
    return torch_kernels(torch, case, sets, "cuda", dtype)


def torch_kernels(torch: Any, case: Case, sets: Sequence[Inputs], device: str, dtype: str) -> Found:
    """PyTorch's own choice, then each of its kernels by name, with TF32 on and off where that decides."""
    kernels = torch.nn.attention.SDPBackend
    on_matrix_units = device == "cuda" and dtype == "float32" and torch.cuda.get_device_capability() >= MATRIX_UNITS
    # The kernel of float32 that PyTorch prefers: its products are those whatever `allow_tf32` says.
    efficient = THREE_TF32 if on_matrix_units else None
    found: Found = {"PyTorch": partial(Torch, case, sets, device, dtype, None, efficient)}
    for name in ("FLASH", "EFFICIENT", "CUDNN", "MATH"):
        heading = f"PyTorch {name.lower()}"
        kernel = getattr(kernels, name if name == "MATH" else f"{name}_ATTENTION", None)
        if kernel is None:
            found[heading] = f"PyTorch {torch.__version__} has no such kernel"
        elif name == "MATH" and case.weights_bytes >= LARGEST_WEIGHTS:
            found[heading] = _too_large(case)
        else:
            precision = efficient if name == "EFFICIENT" else None
            found[heading] = partial(Torch, case, sets, device, dtype, kernel, precision)
            if name == "MATH" and on_matrix_units:
                found[f"{heading}, {TF32}"] = partial(Torch, case, sets, device, dtype, kernel, TF32)
    return found


def _jax(case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str) -> Found:
    jax = load("jax")
    try:
        device = jax.devices("cpu" if backend.on_host else "cuda")[0]
    except RuntimeError as error:
        raise LeftOutError(f"this JAX has no CUDA device ({error})") from error
    on_matrix_units = dtype == "float32" and capability(device) >= MATRIX_UNITS
    if not on_matrix_units:
        return {"JAX": partial(Jax, case, sets, device, dtype)}
    return {
        f"JAX, {TF32}": partial(Jax, case, sets, device, dtype, None, TF32),  # its default there
        "JAX, float32": partial(Jax, case, sets, device, dtype, "float32"),
    }


def _obvious(case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str) -> Found:
    if case.weights_bytes >= LARGEST_WEIGHTS:
        raise LeftOutError(_too_large(case))
    return {OBVIOUS[backend.name]: partial(Obvious, case, sets, backend, dtype)}


def _loops(case: Case, sets: Sequence[Inputs], backend: Backend, dtype: str) -> Found:
    return {"book's loops": partial(Loops, case, sets, backend, dtype)}


OBVIOUS = {"numpy": "NumPy", "cupy": "CuPy, plain"}

PEERS: dict[str, Callable[[Case, Sequence[Inputs], Backend, str], Found]] = {
    "torch": _torch,
    "jax": _jax,
    "numpy": _obvious,
    "loops": _loops,
}
"""What ``--peers`` takes."""


def allow_tf32(torch: Any, allowed: bool) -> None:
    """Whether PyTorch may round float32 to TF32 in products and in cuDNN, which it does in the latter by default."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def capability(device: Any) -> tuple[int, int]:
    """Compute capability of a device of JAX; (0, 0) for one that is not CUDA's."""
    major, _, minor = str(getattr(device, "compute_capability", "0.0")).partition(".")
    return int(major), int(minor or 0)


def takes_part(peer: str, case: Case, backend: str) -> bool:
    """Whether a peer has a way to compute the case at all: the book's loops are one layer, on the CPU."""
    return peer != "loops" or (case.shared and backend == "numpy")


def load(name: str) -> Any:
    """The module `torch` or `jax`.

    Raises
    ------
    LeftOutError
        If it cannot be imported.
    """
    from importlib import import_module

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of a device
    try:
        return import_module(name)
    except ImportError as error:
        raise LeftOutError(f"{name} cannot be imported ({error}): pip install {name}") from error


def _too_large(case: Case) -> str:
    return f"its weights alone would take {case.weights_bytes / 2**30:.0f} GiB"
