"""CuPy: CUDA. The only file of the repository that imports cupy."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial, wraps
from typing import Any

import numpy as np

from .._attention import AttentionCall, OwnAttention
from .._base import Array, DType
from .._cross_entropy import CrossEntropyCall, OwnCrossEntropy
from .._dtypes import float_bits
from .._errors import BackendError
from .._ids import Check
from .._lstm import LSTMCall, OwnLSTM
from .._machine import Machine
from .._random import COUNT, Index, panel
from .._ufunc import UfuncBackend
from .call import CudaCall
from .compiled import Kernels
from .cross_entropy import CudaCrossEntropy
from .cross_entropy import Kept as KeptCrossEntropy
from .cudnn import CudnnAttention
from .ids import DeviceIds
from .lstm import CudaLSTM, Kept
from .machine import CudaMachine
from .optimizer import CudaOptimizer
from .plans import CudaAttention
from .products import Products
from .rows import CudaRows
from .weighted import WeightedAttention

NO_CUDNN = "for fused attention in half precision install attnlayers[cudnn12] or attnlayers[cudnn13]"
INSTALL = "install attnlayers[cuda12] or attnlayers[cuda13], after the CUDA version that nvidia-smi shows"


def _blocks(count: int) -> tuple[int, int]:
    """Blocks and threads for one thread an item."""
    return -(-count // 256), 256


HERE = nullcontext()
"""Where the device of an array is the current one already."""


def _on_its_device(method: Callable[..., Any], at: int) -> Callable[..., Any]:
    """A method with the device of its argument number `at` as the current one: there CuPy computes."""

    @wraps(method)
    def there(self: "CupyBackend", *arguments: Any, **options: Any) -> Any:
        array = arguments[at][0] if isinstance(arguments[at], list) else arguments[at]
        with self._on(array[0] if isinstance(array, (LSTMCall, CrossEntropyCall)) else array):
            return method(self, *arguments, **options)

    return there


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


def _lstm_vjp(backend: "CupyBackend", call: LSTMCall, kept: Kept, *grads: Array | None) -> tuple[Array, ...]:
    """`OwnLSTM.vjp`: with the backend in it and not its kernels, what was saved can be copied."""
    return backend._lstm_kernels.backward(call, kept, *grads)


def _cross_entropy_vjp(
    backend: "CupyBackend", call: CrossEntropyCall, kept: KeptCrossEntropy, dloss: float | Array
) -> Array:
    """`OwnCrossEntropy.vjp`."""
    with backend._on(call.logits):
        return backend._cross_entropy_kernels.backward(call, kept, dloss)


class CupyBackend(UfuncBackend):
    """CuPy on a CUDA device."""

    name = "cupy"

    def __init__(self) -> None:
        self.xp = _load()
        self._kernels = Kernels(self.xp)

    def asarray(self, data: Any, dtype: DType = None, like: Array | None = None) -> Array:
        if not isinstance(data, self.xp.ndarray):
            data = np.asarray(data)
        with self._on(like):
            return self.xp.asarray(data, dtype=dtype)

    def empty(self, shape: tuple[int, ...], like: Array, dtype: DType = None) -> Array:
        with self._on(like):
            return super().empty(shape, like, dtype)

    def _on(self, array: Array | None) -> AbstractContextManager[object]:
        """The device of an array as the current one, entered only where it is another: that takes the host time."""
        if array is None or array.data.device_id == self.xp.cuda.runtime.getDevice():
            return HERE
        return self.xp.cuda.Device(array.data.device_id)

    def _are_here(self, arrays: tuple[Array, ...]) -> bool:
        # CuPy's own objects for devices take ten times as long to compare.
        current, devices = self.xp.cuda.runtime.getDevice(), [array.data.device_id for array in arrays]
        if devices.count(current) == len(devices):
            return True
        if devices.count(devices[0]) == len(devices):
            raise BackendError(
                f"the arrays live on CUDA device {devices[0]}, and the current one is {current}, where CuPy would "
                f"compute: call within `with cupy.cuda.Device({devices[0]}):`"
            )
        return False

    def to_numpy(self, array: Array) -> np.ndarray:
        values = np.asarray(self.xp.asnumpy(array))
        self._ids.raise_found()
        return values

    def synchronize(self) -> None:
        self.xp.cuda.Device().synchronize()
        self._ids.raise_found()

    def take_rows(self, table: Array, ids: Array, name: str, advice: str) -> Array:
        return self._ids.take_rows(table, ids, Check(name, table.shape[0], advice, None))

    @cached_property
    def _ids(self) -> DeviceIds:
        return DeviceIds(self.xp)

    @property
    def on_host(self) -> bool:
        return False

    def uniform(self, key: int, index: Index, R: int, T: int, like: Array | None = None) -> Array:
        entries, rows, keys = index
        shape = b, r, _ = tuple(part.stop - part.start for part in index)
        threads = b * r * (-(-keys.stop // COUNT) - keys.start // COUNT)
        words = np.array([key % 2**64, key >> 64], np.uint64).view(np.int64)
        width = panel(T)
        with self._on(like):
            out = self.xp.empty(shape, dtype=np.float32)
            if out.size:
                where = (*map(np.int32, (*shape, entries.start, rows.start)), np.int64(keys.start), np.int32(R))
                arguments = (out, *words, *where, np.int64(-(-T // width)), np.int32(width))
                self._kernels.launch("uniform", _blocks(threads), arguments)
        return out

    def scatter_add(self, target: Array, ids: Array, values: Array, anew: bool = False) -> None:
        if float_bits(self.xp, target.dtype):
            self._rows.scatter_add(target, ids, values, anew)
            return
        if anew:
            target.fill(0)
        self.xp.add.at(target, ids, values)

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        cublas_reads_it = x.dtype.itemsize == 2
        return super().sum_rows(x, out) if cublas_reads_it else self._rows.sum(x, out)

    def _address(self, array: Array) -> int:
        return int(array.data.ptr)

    @cached_property
    def _rows(self) -> CudaRows:
        return CudaRows(self._kernels)

    # -- few kernels: what costs at the book's sizes is their number

    def matmul(self, a: Array, b: Array, out: Array | None = None, dtype: DType = None) -> Array:
        product = None if self._products is None else self._products(a, b, out, dtype)
        if product is not None:
            return product
        return super().matmul(a, b, out, dtype)

    def vecdot(self, a: Array, b: Array) -> Array:
        dtype = np.promote_types(np.promote_types(a.dtype, b.dtype), np.float32)
        return self._vecdot(a, b, self.xp.empty(a.shape[:-1], dtype=dtype), axis=-1)

    @cached_property
    def _vecdot(self) -> Any:
        return self.xp.ReductionKernel("A a, B b", "R sum", "R(a) * R(b)", "a + b", "sum = a", "0", "vecdot")

    @cached_property
    def _products(self) -> Products | None:
        # A first product, not the choice of a backend, pays for loading cuBLAS.
        try:
            return Products(self.xp)
        except (ImportError, AttributeError):
            return None

    # -- attention as a whole: the first way that takes a call

    def attention(self, call: AttentionCall) -> OwnAttention | None:
        device = call.q.data.device_id
        if device != self.xp.cuda.runtime.getDevice():
            with self.xp.cuda.Device(device):
                return self.attention(call)
        own = CudaCall.of(call)
        return None if own is None else self._serve(own, own.key)

    def _serve(self, own: CudaCall, key: Hashable) -> OwnAttention | None:
        """A call with its key, whose arrays lie on the current device."""
        kernels, weighted = self._attention_kernels, self._weighted
        plan = kernels.plan(own, key)
        result: OwnAttention | None = None
        if plan.gives_way and weighted is not None:
            result = weighted.attention(own, key)
        if result is None:
            result = kernels.attention(own, plan)
        if result is None and self._cudnn is not None:
            result = self._cudnn.attention(own, key)
        if result is None and weighted is not None:
            result = weighted.attention(own, key)
        return result

    @cached_property
    def _attention_kernels(self) -> CudaAttention:
        return CudaAttention(self._kernels)

    @cached_property
    def _weighted(self) -> WeightedAttention | None:
        products = self._products
        return None if products is None else WeightedAttention(self._kernels, products, self._attention_kernels)

    @property
    def _cudnn(self) -> CudnnAttention | None:
        return None if isinstance(self._cudnn_or_reason, str) else self._cudnn_or_reason

    @cached_property
    def _cudnn_or_reason(self) -> CudnnAttention | str:
        """cuDNN, or why it cannot be used."""
        try:
            return CudnnAttention(self.xp)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reason = f"not used ({type(error).__name__}: {' '.join(str(error).split())})"
            return f"{reason}: {NO_CUDNN}" if isinstance(error, ModuleNotFoundError) else reason

    def clip_norm(self, arrays: list[Array], max_norm: float) -> Array:
        if not self._optimizer.takes(arrays):
            return super().clip_norm(arrays, max_norm)
        return self._optimizer.clip(arrays, max_norm)

    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        T = scores.shape[-1] if scores.ndim else 0
        if mask is not None or T == 0 or not self._has_kernels(scores):
            return super().softmax(scores, mask)
        threads = min(256, max(32, 1 << (T - 1).bit_length()))
        self._kernels.launch(
            "softmax_rows", (scores.size // T, threads), (scores, np.int32(T)), shared=threads * scores.itemsize
        )
        return scores

    def lstm(self, call: LSTMCall) -> OwnLSTM | None:
        found = self._lstm_kernels.forward(call)
        if found is None:
            return None
        hs, h, c, kept = found
        return OwnLSTM(hs, h, c, partial(_lstm_vjp, self, call, kept))

    def cross_entropy(self, call: CrossEntropyCall) -> OwnCrossEntropy | None:
        found = self._cross_entropy_kernels.forward(call)
        return found and OwnCrossEntropy(found[0], partial(_cross_entropy_vjp, self, call, found[1]))

    @cached_property
    def _cross_entropy_kernels(self) -> CudaCrossEntropy:
        return CudaCrossEntropy(self._kernels, self._ids)

    @cached_property
    def _lstm_kernels(self) -> CudaLSTM:
        return CudaLSTM(self.xp, self.matmul, self._kernels)

    def adam_step(
        self,
        params: list[Array],
        grads: list[Array],
        means: list[Array],
        squares: list[Array],
        lr: float,
        beta1: float,
        beta2: float,
        decay: float = 0.0,
        decayed: Sequence[bool] = (),
    ) -> None:
        rows = params, grads, means, squares
        if not self._optimizer.takes(*rows):
            super().adam_step(*rows, lr, beta1, beta2, decay, decayed)
            return
        self._optimizer.adam_step(rows, lr, beta1, beta2, decay, decayed or [False] * len(params))

    @cached_property
    def _optimizer(self) -> CudaOptimizer:
        return CudaOptimizer(self._kernels)

    def _has_kernels(self, *arrays: Array) -> bool:
        """Whether the kernels can be launched on these arrays: one dtype that they are compiled for, no gaps."""
        first = arrays[0].dtype
        return first.char in "fd" and all(
            array.dtype == first and array.flags.c_contiguous and 0 < array.size < 2**31 for array in arrays
        )

    @cached_property
    def machine(self) -> Machine:
        return CudaMachine(self)


for _name in (
    *("matmul", "vecdot", "pack_keys"),
    *("clip_norm", "softmax", "fill", "apply", "scatter_add", "sum_rows"),
    *("take_rows", "adam_step", "lstm", "cross_entropy"),
):
    setattr(CupyBackend, _name, _on_its_device(getattr(CupyBackend, _name), at=1 if _name == "apply" else 0))
