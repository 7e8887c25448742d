"""Libraries that have NumPy's ``copyto`` and ``out=`` of element-wise functions: NumPy and CuPy."""

from collections.abc import Callable

from ._base import Array, Backend, DType


class UfuncBackend(Backend):
    """The in-place operations, with no temporary larger than a row sum."""

    def empty(self, shape: tuple[int, ...], like: Array, dtype: DType = None) -> Array:
        return self.xp.empty(shape, dtype=dtype or like.dtype)

    def apply(self, function: Callable[..., Array], array: Array) -> Array:
        return function(array, out=array)

    def fill(self, array: Array, where: Array, value: float) -> None:
        self.xp.copyto(array, value, where=where)
