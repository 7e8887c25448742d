"""A fake of cuDNN's frontend for the tests of graphs of attention. It is not cuDNN.

Graphs are checked by the rules that the real frontend (1.32) states for them, and computed in NumPy from the pointers,
dims and strides: the memory of the bench's device is the host's. Which graphs a device has kernels for, it cannot tell.
"""

import ctypes
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

__version__ = "1.32.0"

data_type = Enum("data_type", ["HALF", "BFLOAT16", "FLOAT"])
heur_mode = Enum("heur_mode", ["A", "FALLBACK"])
diagonal_alignment = Enum("diagonal_alignment", ["TOP_LEFT", "BOTTOM_RIGHT"])
DTYPES = {data_type.HALF: np.float16, data_type.BFLOAT16: ml_dtypes.bfloat16, data_type.FLOAT: np.float32}

calls: list[str] = []
"""What was built and executed, in order."""

refuse: set[str] = set()
"""Operations that no device has a kernel for."""


class cudnnGraphNotSupportedError(Exception):
    pass


class Handle:
    stream: int | None = None


def create_handle() -> Handle:
    calls.append("handle")
    return Handle()


def set_stream(handle: Handle, stream: int) -> None:
    handle.stream = stream


class Tensor:
    uid: int
    dim: list[int]
    stride: list[int]
    data_type: data_type
    output = False

    def _set(self, name: str, value: Any) -> "Tensor":
        setattr(self, name, value)
        return self

    def set_output(self, value: bool) -> "Tensor":
        return self._set("output", value)

    def set_uid(self, value: int) -> "Tensor":
        return self._set("uid", value)

    def set_data_type(self, value: Any) -> "Tensor":
        return self._set("data_type", value)

    def set_dim(self, value: list[int]) -> "Tensor":
        return self._set("dim", value)

    def set_stride(self, value: list[int]) -> "Tensor":
        return self._set("stride", value)

    def at(self, pointer: int) -> np.ndarray:
        """The array that lies there."""
        dtype = np.dtype(DTYPES[self.data_type])
        if type(pointer) is not int or pointer % 16:
            raise ValueError(f"not the pointer of an aligned array: {pointer}")
        count = 1 + sum((size - 1) * step for size, step in zip(self.dim, self.stride, strict=True))
        flat = np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(pointer), dtype=dtype)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [step * dtype.itemsize for step in self.stride])


class pygraph:
    def __init__(self, *, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any, handle: Any) -> None:
        if {intermediate_data_type, compute_data_type} != {data_type.FLOAT} or not isinstance(handle, Handle):
            raise ValueError("sums belong in float32")
        self.io, self.steps = io_data_type, []

    def tensor(self, *, dim: list[int], stride: list[int], data_type: Any, uid: int) -> Tensor:
        return Tensor().set_dim(dim).set_stride(stride).set_data_type(data_type).set_uid(uid)

    def sdpa(self, *, generate_stats: bool, **options: Any) -> list[Tensor]:
        return self._node("sdpa", ["o", "stats"][: 1 + generate_stats], options)

    def sdpa_backward(self, **options: Any) -> list[Tensor]:
        return self._node("sdpa_backward", ["dQ", "dK", "dV"], options)

    def _node(self, name: str, results: list[str], options: dict[str, Any]) -> list[Tensor]:
        self.name = name
        self.tensors = {key: value for key, value in options.items() if isinstance(value, Tensor)}
        self.options = {key: value for key, value in options.items() if not isinstance(value, Tensor)}
        outputs = {key: Tensor() for key in results}
        self.tensors |= outputs
        return list(outputs.values())

    def validate(self) -> None:
        (B, H, T_q, D), (_, _, T_k, D_v) = self.tensors["q"].dim, self.tensors["v"].dim
        heads = self.tensors["k"].dim[1]
        shapes = {name: [B, H, T_q, D] for name in ("q", "dQ")} | {name: [B, heads, T_k, D] for name in ("k", "dK")}
        shapes |= {name: [B, heads, T_k, D_v] for name in ("v", "dV")} | {
            name: [B, H, T_q, D_v] for name in ("o", "dO")
        }
        shapes["stats"] = [B, H, T_q, 1]
        for name, tensor in self.tensors.items():
            kind = data_type.FLOAT if name == "stats" else self.io
            if tensor.dim != shapes[name] or tensor.stride[-1] != 1 or tensor.data_type != kind:
                raise ValueError(f"{name}: {tensor.dim}, {tensor.stride}, {tensor.data_type}")
            if name in ("o", "stats") and self.name == "sdpa" and not tensor.output:
                raise ValueError(f"{name} is no output")
            if name == "stats" and tensor.stride != [H * T_q, T_q, 1, 1]:
                raise ValueError("stats are packed")
        left, right, at_end = self._band()
        if D % 8 or D_v % 8 or H % heads or (self.name == "sdpa_backward" and T_q == T_k == 1):
            raise cudnnGraphNotSupportedError(self.name)
        if T_q > T_k and (left is not None or (at_end and right is not None)):
            raise cudnnGraphNotSupportedError("more queries than keys")
        if (left is not None and left <= 0) or (right is not None and right < 0):
            raise ValueError("bounds")
        self.steps.append("validate")

    def _band(self) -> tuple[int | None, int | None, bool]:
        bounds = (self.options.get(f"diagonal_band_{side}_bound") for side in ("left", "right"))
        return *bounds, self.options.get("diagonal_alignment") == diagonal_alignment.BOTTOM_RIGHT

    def build_operation_graph(self) -> None:
        self.steps.append("graph")

    def create_execution_plans(self, modes: list[Any]) -> None:
        self.steps.append("plans")

    def check_support(self) -> None:
        calls.append(f"build {self.name}")
        if self.name in refuse:
            raise cudnnGraphNotSupportedError(self.name)
        self.steps.append("support")

    def build_plans(self) -> None:
        if self.steps != ["validate", "graph", "plans", "support"]:
            raise RuntimeError(f"out of order: {self.steps}")
        self.steps.append("built")

    def get_workspace_size(self) -> int:
        return 0 if self.name == "sdpa" else 64

    def execute(self, pack: dict[int, int], workspace: int, *, handle: Handle) -> None:
        if self.steps[-1] != "built" or handle.stream is None or not workspace:
            raise RuntimeError("not ready")
        if set(pack) != {tensor.uid for tensor in self.tensors.values()}:
            raise ValueError(f"pointers for {sorted(pack)}")
        calls.append(self.name)
        arrays = {name: tensor.at(pack[tensor.uid]) for name, tensor in self.tensors.items()}
        q, k, v = (arrays[name].astype(np.float32) for name in "qkv")
        (T_q, T_k), (left, right, at_end) = (q.shape[2], k.shape[2]), self._band()
        apart = np.arange(T_k) - np.arange(T_q)[:, None] - (T_k - T_q if at_end else 0)
        seen = (apart > -(T_k + T_q if left is None else left)) & (apart <= (T_k + T_q if right is None else right))
        scale = np.float32(self.options["attn_scale"])
        scores = np.where(seen, scale * (q @ k.mT), -np.inf)

        def half(x: np.ndarray) -> np.ndarray:
            return x.astype(DTYPES[self.io]).astype(np.float32)

        if self.name == "sdpa":
            top = scores.max(axis=-1, keepdims=True)
            weights = np.exp(scores - top)
            total = weights.sum(axis=-1, keepdims=True)
            arrays["o"][...], arrays["stats"][...] = half(weights) @ v / total, np.log(total) + top
            return
        weights, dout = np.exp(scores - arrays["stats"]), arrays["dO"].astype(np.float32)
        delta = (dout * arrays["o"].astype(np.float32)).sum(axis=-1, keepdims=True)
        dscores = half(weights * (dout @ v.mT - delta))
        into_k, into_v = scale * (dscores.mT @ q), half(weights).mT @ dout
        arrays["dQ"][...] = scale * (dscores @ k)
        for name, each in (("dK", into_k), ("dV", into_v)):  # heads that share keys add up
            arrays[name][...] = each.reshape(len(each), arrays[name].shape[1], -1, *each.shape[2:]).sum(axis=2)
