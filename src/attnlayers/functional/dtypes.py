"""The dtypes to compute and to multiply in."""

from attnbackends import Array, Backend, DType


def wide(backend: Backend, dtype: DType) -> DType:
    """float32 for half precision, else `dtype` itself."""
    return backend.xp.float32 if backend.bits(dtype) < 32 else dtype


def widen(backend: Backend, array: Array) -> Array:
    """`array` in the dtype to compute in; itself where it has that already."""
    dtype = wide(backend, array.dtype)
    return array if array.dtype == dtype else backend.xp.astype(array, dtype)


def narrow(backend: Backend, array: Array, dtype: DType) -> Array:
    """A result in the dtype of the arguments; itself where it has that already."""
    return array if array.dtype == dtype else backend.xp.astype(array, dtype)


def operand(backend: Backend, array: Array) -> Array:
    """`array` as `Backend.matmul` takes it; itself where it has that dtype already."""
    return narrow(backend, array, backend.operand_dtype(array.dtype))
