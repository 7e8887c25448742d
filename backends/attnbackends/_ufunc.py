"""Libraries that have NumPy's ``copyto`` and ``out=`` of element-wise functions: NumPy and CuPy."""

from collections.abc import Callable, Sequence

from ._base import Array, Backend, DType


class UfuncBackend(Backend):
    """The in-place operations, with no temporary larger than a row sum."""

    def empty(self, shape: tuple[int, ...], like: Array, dtype: DType = None) -> Array:
        return self.xp.empty(shape, dtype=dtype or like.dtype)

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        whole = arrays[0].base
        if not isinstance(whole, self.xp.ndarray) or whole.ndim != 2 or not whole.flags.c_contiguous:
            return None
        begin = end = self._address(whole)
        for array in arrays:
            if array.base is not whole or not array.flags.c_contiguous or self._address(array) != end:
                return None
            end += array.nbytes
        same = all(array.dtype == whole.dtype and array.shape[-1] == whole.shape[1] for array in arrays)
        return whole if same and end == begin + whole.nbytes else None

    def _address(self, array: Array) -> int:
        """Where an array begins in memory."""
        return int(array.__array_interface__["data"][0])

    def apply(self, function: Callable[..., Array], array: Array) -> Array:
        return function(array, out=array)

    def fill(self, array: Array, where: Array, value: float) -> None:
        self.xp.copyto(array, value, where=where)
