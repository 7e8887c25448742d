"""CuPy: CUDA. The only file of the repository that imports cupy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ._base import Array, DType
from ._errors import BackendError
from ._ufunc import UfuncBackend

INSTALL = "install attnlayers[cuda12] or attnlayers[cuda13], after the CUDA version that nvidia-smi shows"


def _load() -> Any:
    """The module `cupy`, once it is certain that a device answers."""
    try:
        import cupy
    except ImportError as error:
        raise BackendError(f"CuPy cannot be imported ({error}): {INSTALL}") from error
    try:
        # `import cupy` succeeds without a driver; asking for a device is what tells.
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"CuPy {cupy.__version__} is installed, but CUDA does not answer ({error}): "
            "check that nvidia-smi runs here and lists a device, or unset ATTN_GPU to use NumPy"
        ) from error
    if devices == 0:
        raise BackendError(
            f"CuPy {cupy.__version__} is installed, but CUDA has no device: "
            "check CUDA_VISIBLE_DEVICES and nvidia-smi, or unset ATTN_GPU to use NumPy"
        )
    if int(cupy.__version__.split(".")[0]) < 14:
        raise BackendError(f"CuPy 14 or newer is needed, {cupy.__version__} is installed: {INSTALL}")
    return cupy


class CupyBackend(UfuncBackend):
    """CuPy on a CUDA device."""

    name = "cupy"

    def __init__(self) -> None:
        self.xp = _load()

    def asarray(self, data: Any, dtype: DType = None, like: Array | None = None) -> Array:
        if not isinstance(data, self.xp.ndarray):
            data = np.asarray(data)
        return self.xp.asarray(data, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.asarray(self.xp.asnumpy(array))

    def synchronize(self) -> None:
        self.xp.cuda.Device().synchronize()

    @property
    def reading_is_free(self) -> bool:
        return False

    def generator(self, seed: int) -> Callable[..., Array]:
        draw = self.xp.random.default_rng(seed)
        return lambda shape, like=None: draw.random(shape, dtype=self.xp.float32)

    def scatter_add(self, target: Array, ids: Array, values: Array) -> None:
        self.xp.add.at(target, ids, values)

    def describe(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        device = runtime.getDevice()
        properties = runtime.getDeviceProperties(device)
        free, total = runtime.memGetInfo()
        capability = f"{properties['major']}.{properties['minor']}"
        return {
            "library": f"cupy {self.xp.__version__}",
            "device": f"{properties['name'].decode()} (number {device} of {runtime.getDeviceCount()}, "
            f"compute capability {capability})",
            "memory": f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB",
            "CUDA": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
        }
