"""The CUDA device that is current, and the libraries that serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._device_sums import DeviceSums
from .._machine import Machine
from .call import CudaCall
from .nccl import NcclSums, nccl_of
from .nccl import describe as nccl_version

if TYPE_CHECKING:
    from .backend import CupyBackend

TRIAL_LENGTH = 64
"""Length and head size of the attention that tells whether cuDNN works at all."""


class CudaMachine(Machine):
    """CUDA, cuDNN and NCCL as CuPy sees them."""

    backend: CupyBackend

    def describe(self) -> dict[str, str]:
        xp = self.backend.xp
        runtime = xp.cuda.runtime
        device = runtime.getDevice()
        free, total = runtime.memGetInfo()
        nccl = nccl_of(xp)
        return {
            "library": f"cupy {xp.__version__}",
            "device": f"{self._name()} (number {device} of {runtime.getDeviceCount()}, "
            f"compute capability {self._capability()})",
            "memory": f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB",
            "CUDA": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
            "cuDNN": self._cudnn(),
            "NCCL": nccl if isinstance(nccl, str) else f"version {nccl_version(nccl)}",
        }

    def trial(self) -> dict[str, str]:
        """Attention in half precision, forward and backward, by cuDNN."""
        cudnn, xp = self.backend._cudnn, self.backend.xp
        if cudnn is None:
            return {}
        q, k, v, dout, out, dq, dk, dv = (xp.zeros((2, TRIAL_LENGTH, TRIAL_LENGTH), dtype=xp.float16) for _ in range(8))
        stats = xp.zeros((2, 2, TRIAL_LENGTH, 1), dtype=xp.float32)
        call = CudaCall(q, k, v, 1.0, 1, None, None, 0, None, None)
        taken = cudnn.forward(call, out, stats) and cudnn.backward(call, out, stats, dout, None, dq, dk, dv)
        what = "takes float16" if taken else f"refuses float16: {'; '.join(cudnn.refused.values())}"
        return {"cuDNN": f"{self._cudnn()}, {what}"}

    def refusals(self) -> dict[str, str]:
        cudnn = self.backend.__dict__.get("_cudnn_or_reason")  # not loaded, it was not asked
        if cudnn is None:
            return {}
        if isinstance(cudnn, str):
            return {"cuDNN": cudnn}
        return {f"cuDNN, {call}": reason for call, reason in cudnn.refused.items()}

    def use_device(self, place: int) -> str:
        runtime = self.backend.xp.cuda.runtime
        number = place % runtime.getDeviceCount()
        self.backend.xp.cuda.Device(number).use()
        found = runtime.getDeviceProperties(number)
        # Parts of one device share its place on the bus, and CuPy reads a UUID up to its first 0.
        uuid = bytes(found["uuid"]).hex()
        return f"{found['pciDomainID']}:{found['pciBusID']}:{found['pciDeviceID']} {uuid}"

    def device_sums(self) -> DeviceSums | str:
        xp = self.backend.xp
        nccl = nccl_of(xp)
        return nccl if isinstance(nccl, str) else NcclSums(xp, nccl)

    def rounding(self) -> dict[str, str]:
        xp = self.backend.xp
        return {
            "library": f"cupy {xp.__version__}",
            "device": f"{self._name()}, compute capability {self._capability()}",
            "CUDA": f"runtime {xp.cuda.runtime.runtimeGetVersion()}",
        }

    def _name(self) -> str:
        runtime = self.backend.xp.cuda.runtime
        return str(runtime.getDeviceProperties(runtime.getDevice())["name"].decode())

    def _capability(self) -> str:
        runtime = self.backend.xp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        return f"{properties['major']}.{properties['minor']}"

    def _cudnn(self) -> str:
        cudnn = self.backend._cudnn_or_reason
        return cudnn if isinstance(cudnn, str) else f"frontend {cudnn.version}"
