"""PyTorch as an array library, through array-api-compat: for tests, and for devices that CuPy does not serve.

Its autograd is not used: every gradient in this project is explicit.
"""

import os
from functools import cached_property
from typing import Any

import numpy as np

from ._base import Array, Backend, DType
from ._errors import BackendError
from ._machine import Machine


class TorchBackend(Backend):
    """PyTorch tensors.

    New tensors live where ``torch.set_default_device`` or the environment variable ``ATTN_TORCH_DEVICE``
    (``cuda:0``, ``mps``, …) says; the default is the CPU.
    """

    name = "torch"

    def __init__(self) -> None:
        try:
            import array_api_compat.torch as xp
            import torch
        except ImportError as error:
            raise BackendError(f"PyTorch cannot be imported ({error}): install attnlayers[torch]") from error
        self.xp = xp
        self._torch = torch
        device = os.environ.get("ATTN_TORCH_DEVICE", "").strip() or torch.get_default_device()
        try:
            self._device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise BackendError(f"ATTN_TORCH_DEVICE={device} does not answer ({str(error).splitlines()[0]})") from error

    def asarray(self, data: Any, dtype: DType = None, like: Array | None = None) -> Array:
        if not isinstance(data, self._torch.Tensor):
            data = np.asarray(data)
            if not data.flags.writeable:
                data = data.copy()
        return self._torch.asarray(data, dtype=dtype, device=self._device if like is None else like.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        array = array.detach().cpu()
        if array.dtype == self._torch.bfloat16:  # NumPy has none
            array = array.float()
        return np.asarray(array)

    def synchronize(self) -> None:
        if self._device.type != "cpu":
            getattr(self._torch, self._device.type).synchronize()

    @property
    def on_host(self) -> bool:
        return bool(self._device.type == "cpu")

    def scatter_add(self, target: Array, ids: Array, values: Array) -> None:
        target.index_add_(0, ids.to(self._torch.int64), values)

    @cached_property
    def machine(self) -> Machine:
        return TorchMachine(self)


class TorchMachine(Machine):
    """PyTorch's device and threads."""

    backend: TorchBackend

    def describe(self) -> dict[str, str]:
        torch = self.backend._torch
        return {
            "library": f"torch {torch.__version__}",
            "device": str(self.backend._device),
            "threads": str(torch.get_num_threads()),
        }
