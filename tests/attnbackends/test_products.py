"""Matrix products on every library, small ones and those that NumPy cuts in pieces."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library, assert_as_exact_as

from attnbackends import get_backend
from attnbackends._cpu import packed_keys
from attnbackends._cpu import products as in_parts
from attnbackends._cpu.backend import NumpyBackend
from attnbackends._cpu.threads import Workers

SHAPES = {
    "small": ((3, 5), (5, 7)),
    "tall": ((2003, 67), (67, 101)),
    "wide": ((101, 67), (67, 2003)),
    "deep": ((31, 20011), (20011, 29)),
    "long": ((73, 4001), (4001, 59)),
    "column": ((20011, 211), (211, 1)),
    "row": ((1, 211), (211, 20011)),
    "long row": ((1, 3001), (3001, 211)),
    "short row": ((1, 101), (101, 211)),
    "stack": ((13, 97, 83), (13, 83, 101)),
    "two axes of stacks": ((5, 7, 97, 61), (5, 7, 61, 67)),
    "second broadcast": ((17, 97, 83), (83, 101)),
    "first broadcast": ((97, 83), (17, 83, 101)),
    "stack of one": ((1, 97, 83), (17, 83, 101)),
    "crossed": ((7, 1, 97, 61), (1, 5, 61, 67)),
    "shorter stack": ((5, 97, 61), (7, 5, 61, 67)),
    "no rows": ((0, 5), (5, 7)),
    "nothing to sum": ((3, 0), (0, 7)),
    "no stack": ((0, 3, 5), (0, 5, 7)),
}
WHOLE = {"small", "column", "short row", "no rows", "nothing to sum", "no stack"}


@cache
def operands(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in SHAPES[name])
    return a, b


@cache
def products(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """By NumPy alone, in this dtype and in the widest one."""
    a, b = operands(name, dtype)
    wide_a, wide_b = (x.astype(np.longdouble) for x in (a, b))
    return a @ b, np.einsum("...ij,...jk->...ik", wide_a, wide_b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_product(library: Library, name: str, dtype: str) -> None:
    a, b = operands(name, dtype)
    plain, exact = products(name, dtype)
    product = library.backend.matmul(library.array(a), library.array(b))
    assert_as_exact_as(plain, library.numpy(product), exact, factor=16)  # each BLAS sums in its own order
    out = library.xp.full(plain.shape, np.nan, dtype=product.dtype)
    assert library.backend.matmul(library.array(a), library.array(b), out=out) is out
    assert np.array_equal(library.numpy(out), library.numpy(product))


@pytest.mark.parametrize("name", ["tall", "wide", "stack"])
def test_product_of_transposed_operands_into_a_part_of_an_array(library: Library, name: str) -> None:
    a, b = operands(name, "float64")
    whole = library.xp.zeros((*a.shape[:-1], b.shape[-1] + 2), dtype=library.xp.float64)
    turned = [library.array(np.ascontiguousarray(np.swapaxes(x, -1, -2))) for x in (a, b)]
    library.backend.matmul(*(library.xp.matrix_transpose(x) for x in turned), out=whole[..., 1:-1])
    product = library.numpy(whole)
    np.testing.assert_allclose(product[..., 1:-1], a @ b, rtol=1e-12, atol=1e-12)
    assert not product[..., [0, -1]].any()


@pytest.mark.parametrize("name", SHAPES)
def test_pieces_of_a_product_write_each_number_once(name: str) -> None:
    a, b = operands(name, "float64")
    out = np.zeros((a @ b).shape)
    pieces, sums = in_parts.pieces(a, b, out)
    for part in sums:
        assert not np.shares_memory(part, out)
        part[...] = 0
    for a_part, b_part, out_part in pieces:
        assert np.shares_memory(out_part, out) or out.size == 0 or any(out_part is part for part in sums)
        assert out_part.shape == (a_part @ b_part).shape
        out_part += 1
    assert (out == 1).all()
    assert all((part == 1).all() for part in sums)
    assert bool(sums) == (name in {"long", "deep", "long row"})
    assert (len(pieces) == 1) == (name in WHOLE)


@pytest.mark.parametrize("order", ["C", "F"])
def test_each_piece_of_a_matrix_with_one_row_is_one_place_in_memory(order: str) -> None:
    a, b = operands("long row", "float64")
    b = np.asarray(b, order=order)
    pieces, sums = in_parts.pieces(a, b, np.empty((1, 211)))
    assert len(pieces) == 2  # of 5 MB
    assert len(sums) == (1 if order == "C" else 0)
    assert all(part.flags[f"{order}_CONTIGUOUS"] for _, part, _ in pieces)


@settings(max_examples=60, deadline=None)
@given(
    inner=st.integers(64, 700),
    columns=st.integers(64, 4000),
    order=st.sampled_from("CF"),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_a_row_by_a_large_matrix_has_the_same_bits_for_any_number_of_threads(
    inner: int, columns: int, order: str, dtype: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((1, inner), (inner, columns)))
    b = np.asarray(b, order=order)
    found = [backend.matmul(a, b) for backend in with_threads()]
    assert_as_exact_as(a @ b, found[0], a.astype(np.longdouble) @ b.astype(np.longdouble), factor=16)
    assert all(np.array_equal(found[0], other) for other in found[1:])


@cache
def with_threads() -> list[NumpyBackend]:
    """Backends with another number of threads each."""
    backends = []
    for count in (1, 2, 3, 7):
        backend = NumpyBackend()
        backend.workers = Workers(count)
        backends.append(backend)
    return backends


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("columns", [64, 127, 768, 50257])
def test_shares_of_a_row_cover_it_and_threads_of_blas_get_whole_ones(columns: int, threads: int) -> None:
    shared, others = in_parts.shares_of_row(columns, threads)
    assert [n for part in (shared, *others) for n in range(columns)[part]] == [*range(columns)]
    assert shared.stop % (64 * threads) == 0
    assert all(part.start % 64 == 0 for part in others)


@pytest.mark.parametrize("turned", ["neither", "first", "second"])
@pytest.mark.parametrize("name", SHAPES)
def test_product_in_parts(name: str, turned: str) -> None:
    a, b = operands(name, "float32")
    plain, exact = products(name, "float32")
    if turned == "first":
        a = np.swapaxes(np.ascontiguousarray(np.swapaxes(a, -1, -2)), -1, -2)
    if turned == "second":
        b = np.swapaxes(np.ascontiguousarray(np.swapaxes(b, -1, -2)), -1, -2)
    whole = np.full((*plain.shape[:-1], plain.shape[-1] + 2), np.nan, dtype=np.float32)
    in_parts.multiply_in_parts(a, b, whole[..., 1:-1])
    assert_as_exact_as(plain, whole[..., 1:-1], exact, factor=16)
    assert np.isnan(whole[..., [0, -1]]).all()


def test_parts_are_for_the_cores_that_they_are_faster_on() -> None:
    fast = {"internal_api": "openblas", "architecture": "SkylakeX"}
    assert in_parts.wants_parts([fast, fast])
    for other in ({"internal_api": "openblas", "architecture": "Haswell"}, {"internal_api": "mkl"}):
        assert not in_parts.wants_parts([fast, other])
    assert not in_parts.wants_parts([])


def test_a_product_within_a_piece_of_work_is_the_same() -> None:
    backend = get_backend("numpy")
    a, b = operands("stack", "float32")
    products: list[np.ndarray] = []
    backend.map(lambda _: products.append(backend.matmul(a, b)), range(3))
    for product in products:
        np.testing.assert_allclose(product, a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shapes", [((3, 5), (4, 7)), ((2, 3, 5), (4, 5, 7))])
def test_operands_that_do_not_fit(library: Library, shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = (library.array(np.zeros(shape)) for shape in shapes)
    with pytest.raises((ValueError, RuntimeError)):
        library.backend.matmul(a, b)


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("T", [1, 61, 64, 131, 192])
def test_scores_of_packed_keys(
    library: Library, T: int, ones: bool, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all keys and of some, from anywhere: as they are, and their exp, by whatever this processor has for it."""
    backend = library.backend
    if backend.name == "numpy":
        monkeypatch.setattr(backend, "_multiply", in_parts.multiply_in_parts if in_blocks else np.matmul)
    elif in_blocks:
        pytest.skip("NumPy alone packs keys in blocks")
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((3, 7, 11 + ones)), rng.standard_normal((3, T, 11))
    packed = backend.pack_keys(library.array(k), ones)
    whole = 0.7 * q @ np.swapaxes(np.concatenate((k, np.ones((3, T, int(ones)))), axis=2), 1, 2)
    for keys in (slice(0, T), slice(0, T // 2), slice(T // 3, T), slice(T // 2, T // 2)):
        found = packed.scores(library.array(q), keys, 0.7)
        np.testing.assert_allclose(library.numpy(found), whole[:, :, keys], rtol=1e-12, atol=1e-12)
        found *= 0  # may be written to
        found = packed.exp_scores(library.array(q), keys, 0.7)
        np.testing.assert_allclose(library.numpy(found), np.exp(whole[:, :, keys]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("has_fast_exp2", [False, True])
def test_exp_of_scores_in_float32(has_fast_exp2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_keys, "has_fast_exp2", lambda dtype: has_fast_exp2)
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((2, T, 64)).astype(np.float32) for T in (50, 300))
    found = get_backend("numpy").pack_keys(k).exp_scores(q, slice(10, 300), 0.5)
    exact = np.exp(0.5 * q.astype(np.float64) @ np.swapaxes(k.astype(np.float64)[:, 10:], 1, 2))
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("inner", "width", "columns"),
    [(65, 144, 16), (273, 131, 16), (273, 190, 64), (273, 96, 32), (1024, 272, 16), (2600, 131, 32), (5000, 131, 16)],
)
def test_operands_in_blocks(inner: int, width: int, columns: int) -> None:
    b = np.random.default_rng(0).standard_normal((2, inner, width))
    blocks = in_parts.in_blocks(b)
    assert blocks.shape == (2, -(-width // columns), inner, columns)
    flat = np.moveaxis(blocks, 1, 2).reshape(2, inner, -1)
    assert np.array_equal(flat[..., :width], b)
    assert not flat[..., width:].any()
    assert blocks.ctypes.data % in_parts.VECTOR_BYTES == 0
    assert np.shares_memory(in_parts.in_blocks(b[..., :columns]), b)
    assert in_parts.in_blocks(np.ones((20000, 131))).shape == (1, 20000, 131)
