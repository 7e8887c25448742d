"""Products on CuPy, above all in half precision: cuBLAS gets the right arguments, and nothing is cast up or copied."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.counts import Counts
from support import Library

from attnlayers.functional import affine, affine_backward

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

RNG = np.random.default_rng(0)
DTYPES = ("float16", "bfloat16", "float32", "float64")
PAIRS = (
    *("plain", "turned", "part", "row", "column", "one", "stack", "broadcast", "heads", "crossed"),
    "every other",
)


def new(library: Library, dtype: str, *shape: int) -> Any:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return library.xp.asarray(RNG.standard_normal(shape).astype(kind))


def exact(x: Any) -> np.ndarray:
    return x.get().astype(np.float64)


def operands(library: Library, name: str, dtype: str) -> tuple[Any, Any]:
    def own(*shape: int) -> Any:
        return new(library, dtype, *shape)

    def turned(*shape: int) -> Any:
        return own(*shape[:-2], shape[-1], shape[-2]).mT

    def heads(N: int, H: int, T: int, D: int) -> Any:
        return own(N, T, H, D).transpose(0, 2, 1, 3)

    pairs: dict[str, Callable[[], tuple[Any, Any]]] = {
        "plain": lambda: (own(3, 5), own(5, 7)),
        "turned": lambda: (turned(3, 5), turned(5, 7)),
        "part": lambda: (own(3, 11)[:, 2:7], own(5, 7)),
        "row": lambda: (own(1, 5), turned(5, 7)),
        "column": lambda: (turned(3, 5), own(5, 1)),
        "one": lambda: (own(3, 1), turned(1, 7)),
        "stack": lambda: (own(2, 3, 5), turned(2, 5, 7)),
        "broadcast": lambda: (turned(3, 5), own(2, 5, 7)),
        "heads": lambda: (heads(2, 3, 5, 7), heads(2, 3, 11, 7).mT),
        "crossed": lambda: (own(2, 1, 3, 5), turned(1, 11, 5, 7)),
        "every other": lambda: (own(3, 10)[:, ::2], own(5, 7)),
    }
    return pairs[name]()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_products(library: Library, name: str, dtype: str) -> None:
    a, b = operands(library, name, dtype)
    backend, half = library.backend, a.dtype.itemsize == 2
    product, wanted = backend.matmul(a, b), exact(a) @ exact(b)
    assert product.dtype == ("float32" if half else dtype)
    assert np.abs(product.get() - wanted).max() < (1e-14 if dtype == "float64" else 1e-5)
    if half:
        narrow = backend.matmul(a, b, dtype=a.dtype)
        assert narrow.dtype == a.dtype
        assert (narrow.get() == product.get().astype(a.dtype)).all()
    room = library.xp.zeros((*wanted.shape, 2), dtype=product.dtype)[..., 0]
    assert backend.matmul(a, b, out=room) is room
    assert np.abs(room.get() - wanted).max() < 1e-5
    assert library.xp.cuda.cublas.getMathMode(library.xp.cuda.get_cublas_handle()) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_a_product_takes_its_operands_as_they_lie(
    library: Library, done_since: Callable[[], Counts], name: str, dtype: str
) -> None:
    """Only an operand with gaps between its numbers is copied. Two leading axes with no stride in common: two calls."""
    a, b = operands(library, name, dtype)
    done_since()
    library.backend.matmul(a, b)
    did = done_since()
    assert did.products == (2 if name in ("crossed", "heads") else 1)
    assert did.launches == ({f"cupy_copy__{of(a)}_{of(a)}": 1} if name == "every other" else {})
    assert (did.to_device, did.to_host, did.on_device) == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_affine(library: Library, dtype: str) -> None:
    arrays = [new(library, dtype, *shape) for shape in ((2, 3, 5), (5, 7), (7,), (2, 3, 7))]
    out, saved = affine(*arrays[:3])
    gradients = affine_backward(saved, arrays[3])

    def plain(x: np.ndarray, W: np.ndarray, b: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
        rows, d = x.reshape(-1, 5), dout.reshape(-1, 7)
        return [(rows @ W + b).reshape(2, 3, 7), (d @ W.T).reshape(x.shape), rows.T @ d, d.sum(axis=0)]

    wanted, rough = plain(*map(exact, arrays)), plain(*(array.get() for array in arrays))
    for ours, right, other in zip((out, *gradients), wanted, rough, strict=True):
        assert ours.dtype == arrays[0].dtype
        places = float(ml_dtypes.finfo(ours.dtype).eps) * np.abs(right).max()
        allowed = np.abs(other.astype(float) - right).max() + places
        assert np.abs(exact(ours) - right).max() <= 2 * allowed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_affine_casts_down_alone(library: Library, done_since: Callable[[], Counts], dtype: str) -> None:
    x, W, b, dout = (new(library, dtype, *shape) for shape in ((2, 3, 5), (5, 7), (7,), (2, 3, 7)))
    down = f"cupy_copy__float32_{of(x)}"
    done_since()
    _, saved = affine(x, W, b)
    did = done_since()
    assert did.products == 1
    assert did.launches == {f"cupy_add__float32_{of(x)}_float32": 1, down: 1}
    affine_backward(saved, dout)
    did = done_since()
    assert did.products == 3
    assert did.launches == {"cupy_fill": 1, down: 1}  # a row of ones, and the gradient of the bias


def of(x: Any) -> str:
    """The name of a dtype within the names of CuPy's kernels."""
    return str(x.dtype.name)
