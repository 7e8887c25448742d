"""Kinds of dtypes, and those to compute and to multiply in."""

from attnbackends import Array, Backend, DType, float_bits


def is_dtype(backend: Backend, dtype: DType, kind: str) -> bool:
    """Whether a dtype is of a kind, in the standard's words: "real floating", "integral", "bool"."""
    bits = float_bits(backend.xp, dtype)
    return bits > 0 if kind == "real floating" else bits == 0 and bool(backend.xp.isdtype(dtype, kind))


def wide(backend: Backend, dtype: DType) -> DType:
    """float32 for half precision, else `dtype` itself."""
    return backend.xp.float32 if 0 < float_bits(backend.xp, dtype) < 32 else dtype


def widen(backend: Backend, array: Array) -> Array:
    """`array` in the dtype to compute in; itself where it has that already."""
    dtype = wide(backend, array.dtype)
    return array if array.dtype == dtype else backend.xp.astype(array, dtype)


def narrow(backend: Backend, array: Array, dtype: DType) -> Array:
    """A result in the dtype of the arguments; itself where it has that already."""
    return array if array.dtype == dtype else backend.xp.astype(array, dtype)


def operand_dtype(backend: Backend, dtype: DType) -> DType:
    """To multiply in: half precision is widened once on the host, and left as it is on a device."""
    return wide(backend, dtype) if backend.on_host else dtype


def operand(backend: Backend, array: Array) -> Array:
    """`array` as products take it; itself where it has that dtype already."""
    return widen(backend, array) if backend.on_host else array
