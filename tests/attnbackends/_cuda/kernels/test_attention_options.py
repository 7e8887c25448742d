"""Options inside of attention's CUDA kernels, and few queries over many keys, drawn by hypothesis, against float64."""

from typing import Any

import numpy as np
import pytest
from dense_attention import dense_gradients
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import _random, share_of_batch
from attnbackends._cuda.attention import SmallKernel, TiledKernel
from attnbackends._cuda.decode import DecodeKernel, Shape
from attnbackends._cuda.plans import CudaAttention
from attnbackends._cuda.tiles import MATRIX_LIMIT
from attnlayers import functional as F

pytestmark = pytest.mark.parametrize("library", ["cupy"], indirect=True)

DECODE = ["attention_decode", "attention_decode_join"]
TILED = ["attention_tiled", "attention_tiled_backward"]
SMALL = ["attention_small", "attention_small_backward"]
TOLERANCE = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-11}

Call = dict[str, Any]


@st.composite
def calls(draw: st.DrawFn, most_rows: int, most_keys: int, widths: tuple[int, ...], fewest_rows: int = 1) -> Call:
    """Arrays and options of a call on (N, H, T, D), with query heads that share key heads."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 3))
    N, H = draw(st.sampled_from([(1, 1), (2, 3), (3, 2)]))
    T_q, T_k = draw(st.integers(-(-fewest_rows // groups), most_rows // groups)), draw(st.integers(1, most_keys))
    D, D_v = (draw(st.sampled_from(widths)) for _ in range(2))
    D_v = D if (shared := draw(st.booleans())) else D_v
    heads = H * groups
    option: Call = {"scale": draw(st.sampled_from([None, 1.0, -0.3]))}
    option["softcap"] = draw(st.sampled_from([None, 1.5, 20.0]))
    if draw(st.booleans()):
        option["causal"] = True
        option["query_start"] = draw(st.sampled_from(["start", "end"]) | st.integers(-2, T_k))
    elif draw(st.booleans()):
        option["window"] = draw(st.none() | st.integers(0, T_k)), draw(st.none() | st.integers(0, T_k))
        option["query_start"] = draw(st.lists(st.integers(-2, T_k), min_size=N, max_size=N))
    if draw(st.booleans()):
        option["key_lengths"] = draw(st.lists(st.integers(0, T_k), min_size=N, max_size=N))
    full = (N, heads, T_q, T_k)
    for name in draw(st.sampled_from([(), ("mask",), ("bias",), ("mask", "bias")])):
        values = rng.standard_normal(tuple(n if draw(st.booleans()) else 1 for n in full))
        option[name] = values > -0.4 if name == "mask" else values
    if draw(st.booleans()):
        option["sinks"] = rng.standard_normal(heads)
    return {
        "arrays": [rng.standard_normal(s) for s in ((N, heads, T_q, D), (N, H, T_k, D), (N, H, T_k, D_v))],
        "dout": rng.standard_normal((N, heads, T_q, D_v)),
        "dlse": rng.standard_normal((N, heads, T_q)) * draw(st.booleans()),
        "option": option,
        "shared": shared,
        "groups": groups,
        "dropout": draw(st.sampled_from([0.0, 0.0, 0.4])),
        "seed": draw(st.sampled_from([0, 7, -3, 2**63 + 5])),
    }


def check(library: Library, dtype: str, call: Call) -> None:
    """Hold output, log-sum-exp and gradients against float64."""
    q, k, v, dout, dlse = (x.astype(dtype) for x in (*call["arrays"], call["dout"], call["dlse"]))
    v, names = k if call["shared"] else v, ["sinks"] if "sinks" in call["option"] else []
    given = {name: x.astype(dtype) if name in ("bias", "sinks") else x for name, x in call["option"].items()}
    ours = {name: library.array(x) if isinstance(x, np.ndarray) else x for name, x in given.items()}
    drops = {"dropout": call["dropout"], "seed": call["seed"]} if call["dropout"] else {}
    operands = map(library.array, (q, k) if call["shared"] else (q, k, v))
    out, lse, saved = F.attention(*operands, **ours, **drops, grouped=True, return_lse=True)
    seen = np.where(np.isneginf(library.numpy(lse)), 0, dlse).astype(dtype)
    gradients = F.attention_backward(saved, library.array(dout), dlse=library.array(seen), grads=names)
    found = [out, lse, *gradients]
    exact = given | {"bias": given.get("bias", np.zeros(1)).astype(np.float64)}
    exact["dropped"] = dropped(call, q.shape, k.shape)
    exact |= {"grouped": True, "shared": call["shared"], "of_sinks": bool(names)}
    reference = dense_gradients(q, k, v, dout.astype(np.float64), seen, **exact)
    for one, other in zip(map(library.numpy, found), reference, strict=True):
        assert one.dtype == dtype
        size = max(3.0, float(np.max(np.abs(other[np.isfinite(other)]), initial=0)))
        np.testing.assert_allclose(one.astype(np.float64), other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


def dropped(call: Call, q: tuple[int, ...], k: tuple[int, ...]) -> np.ndarray | float:
    """What dropout multiplies the weights by, from NumPy's numbers."""
    if not call["dropout"]:
        return 1.0
    (N, heads, T_q, _), T_k, groups = q, k[2], call["groups"]
    B, R = N * heads // groups, groups * T_q
    index = slice(0, B), slice(0, R), slice(0, T_k)
    numbers = _random.uniform(2**64 + call["seed"] % 2**64, index, R, T_k)
    kept = numbers >= np.float32(call["dropout"])
    return kept.reshape(N, heads, T_q, T_k) / (1 - call["dropout"])


@pytest.fixture
def only(library: Library, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has one kernel serve whatever it can."""

    def choose(kernel: type[SmallKernel | DecodeKernel | TiledKernel]) -> None:
        monkeypatch.setattr(CudaAttention, "KERNELS", (kernel,))
        monkeypatch.setattr(library.backend, "_attention_kernels", CudaAttention(library.backend._kernels))
        if kernel is TiledKernel:
            monkeypatch.setattr(library.backend, "_weighted", None)

    return choose


drawn = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@drawn
@given(call=calls(most_rows=9, most_keys=12, widths=(1, 4, 9)))
def test_small(library: Library, launched: list[str], only: Any, dtype: str, call: Call) -> None:
    only(SmallKernel)
    launched.clear()
    check(library, dtype, call)
    assert [name for name in launched if name != "uniform"] == SMALL


@drawn
@given(call=calls(most_rows=150, most_keys=150, widths=(3, 16, 64, 100, 128), fewest_rows=16))
def test_tiled(library: Library, launched: list[str], only: Any, call: Call) -> None:
    """A single key is left out: its gradient is 0, a sum over many rows of what three TF32 products round is not."""
    lengths = call["option"].get("key_lengths", [2])
    assume(min(max(lengths), call["arrays"][1].shape[2]) > 1)
    only(TiledKernel)
    launched.clear()
    check(library, "float32", call)
    assert [name for name in launched if name != "uniform"] == TILED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@drawn
@given(call=calls(most_rows=15, most_keys=300, widths=(3, 33, 64)))
def test_decode(library: Library, launched: list[str], only: Any, dtype: str, call: Call) -> None:
    only(DecodeKernel)
    launched.clear()
    check(library, dtype, call)
    shares = call["arrays"][1].shape[2] > 64
    assert launched[: 1 + shares] == DECODE[: 1 + shares]


ALL: Call = {"softcap": 2.0, "dropout": 0.3, "seed": 4}
"""With a bias and sinks beside them."""

EACH = ("softcap", "bias", "sinks", "dropout")


def all_options(library: Library, rng: np.random.Generator, q: tuple[int, ...], T_k: int, *names: str) -> Call:
    """Some of the four options, or all of them, for queries of a shape (N, T_q, D)."""
    arrays = {"bias": rng.standard_normal((*q[:-1], T_k)), "sinks": rng.standard_normal(q[:-2])}
    every = ALL | {name: library.array(x, "float32") for name, x in arrays.items()}
    return {name: x for name, x in every.items() if not names or (name if name != "seed" else "dropout") in names}


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("width", [16, 64, 90, 128, 192, 256])
def test_one_option_alone_in_tiles(library: Library, launched: list[str], only: Any, width: int, name: str) -> None:
    only(TiledKernel)
    if width > 128 and library.backend._kernels.shared_limit() < MATRIX_LIMIT:
        pytest.skip("rows are too wide for such a device")
    rng = np.random.default_rng(width)
    q, k, v, dout = (rng.standard_normal((2, T, width)) for T in (67, 83, 83, 67))
    option = all_options(library, rng, q.shape, 83, name)
    call = {"arrays": [x[:, None] for x in (q, k, v)], "dout": dout[:, None], "dlse": dout[:, None, :, 0]}
    call |= {"shared": False, "groups": 1, "dropout": option.pop("dropout", 0.0), "seed": option.pop("seed", 0)}
    given = {n: library.numpy(x)[:, None] if n == "bias" else x for n, x in option.items()}
    given |= {"sinks": library.numpy(given["sinks"])[:1]} if name == "sinks" else {}
    check(library, "float32", call | {"option": {**given, "causal": True, "query_start": "end"}})
    assert launched == TILED


@pytest.mark.parametrize("kernel", [SmallKernel, TiledKernel])
def test_what_nobody_sees_may_hold_anything(library: Library, launched: list[str], only: Any, kernel: Any) -> None:
    """With sinks, a row that sees nothing has a weight; and two runs have the same bits."""
    only(kernel)
    T_q, T_k = (67, 131) if kernel is TiledKernel else (5, 7)
    rng, found = np.random.default_rng(0), []
    mask = rng.random((2, T_q, T_k)) < 0.8
    mask[:, :, [1, T_k - 2]], mask[:, 3] = False, False
    q, k, v, dout = (rng.standard_normal((2, T, 16)).astype("float32") for T in (T_q, T_k, T_k, T_q))
    option = all_options(library, rng, q.shape, T_k) | {"mask": library.array(mask)}
    for bad in (0, 0, np.nan):
        k[:, [1, T_k - 2]], v[:, [1, T_k - 2]], q[:, 3] = bad, bad, bad
        out, saved = F.attention(*map(library.array, (q, k, v)), **option)
        gradients = F.attention_backward(saved, library.array(dout), grads=["sinks"])
        found.append([library.numpy(x) for x in (out, *gradients)])
    assert launched == 3 * (TILED if kernel is TiledKernel else SMALL)
    for clean, again, other in zip(*found, strict=True):
        assert clean.tobytes() == again.tobytes()
        np.testing.assert_array_equal(clean, other)
        assert np.isfinite(clean).all()
    assert (found[0][0][:, 3] == 0).all()


def test_what_entries_share_is_not_copied_for_each(library: Library, launched: list[str], only: Any) -> None:
    """Neither a mask of keys for all heads, nor a bias for all entries of the batch."""
    only(TiledKernel)
    rng = np.random.default_rng(3)
    q, k, dout = (rng.standard_normal((2, 3, T, 8)).astype("float32") for T in (20, 70, 20))
    option = {"mask": rng.random((2, 1, 1, 70)) < 0.7, "bias": rng.standard_normal((3, 20, 70)).astype("float32")}
    given = {name: library.array(x) for name, x in option.items()}
    out, saved = F.attention(library.array(q), library.array(k), **given)
    call = saved.result.call
    assert (call.mask.shape, call.bias.shape) == ((2, 1, 70), (3, 20, 70))
    found = [out, *F.attention_backward(saved, library.array(dout))]
    assert launched == TILED
    exact = dense_gradients(q, k, k, dout, np.zeros(q.shape[:-1]), shared=True, **option)
    exact.pop(1)
    for one, other in zip(map(library.numpy, found), exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(np.max(np.abs(other))))


@pytest.mark.parametrize("names", [["sinks"], ["bias"], ["sinks", "bias"]])
def test_gradients_that_kernels_have_and_have_not(
    library: Library, launched: list[str], only: Any, names: list[str]
) -> None:
    """That of the sinks comes with the others; that of the bias, of all scores, is for the way that makes them."""
    only(TiledKernel)
    rng = np.random.default_rng(2)
    q, k, v, dout = (rng.standard_normal((2, T, 16)) for T in (40, 70, 70, 40))
    option = all_options(library, rng, q.shape, 70)
    found = F.attention(*(library.array(x, "float32") for x in (q, k, v)), **option)[1]
    gradients = F.attention_backward(found, library.array(dout, "float32"), grads=names)
    assert [name for name in launched if name in TILED] == (TILED if names == ["sinks"] else TILED[:1])
    wide = {name: library.numpy(x).astype(float) if name in ("bias", "sinks") else x for name, x in option.items()}
    exact = F.attention_backward(F.attention(q, k, v, **wide)[1], dout, grads=names)
    for one, other in zip(map(library.numpy, gradients), exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(np.max(np.abs(other))))


@pytest.mark.parametrize("kernel", [SmallKernel, DecodeKernel, TiledKernel])
def test_a_share_of_a_batch_drops_what_it_drops_in_the_whole(
    library: Library, launched: list[str], only: Any, kernel: type[SmallKernel | DecodeKernel | TiledKernel]
) -> None:
    only(kernel)
    rows = 20 if kernel is TiledKernel else 5
    arrays = [np.random.default_rng(T).standard_normal((4, T, 8)) for T in (rows, 70, 71)]
    arrays[2] = arrays[2][:, :70]

    def outputs(rows: slice) -> np.ndarray:
        out, _ = F.attention(*(library.array(x[rows], "float32") for x in arrays), dropout=0.4, seed=9)
        return library.numpy(out)

    whole = outputs(slice(None))
    with share_of_batch(1, 2, 4):
        part = outputs(slice(1, 3))
    assert launched == 2 * {DecodeKernel: DECODE, SmallKernel: SMALL[:1], TiledKernel: TILED[:1]}[kernel]
    np.testing.assert_array_equal(whole[1:3], part)


@pytest.mark.parametrize("rows", [1, 3, 15])
@pytest.mark.parametrize("width", [64, 60, 128, 256, 200, 400])
def test_decode_in_half_precision(library: Library, launched: list[str], rows: int, width: int) -> None:
    rng = np.random.default_rng(width)
    q, k, v = (rng.standard_normal((2, T, width)).astype("float16") for T in (rows, 301, 301))
    out, saved = F.attention(*map(library.array, (q, k, v)), causal=True, query_start="end")
    dout = rng.standard_normal(q.shape).astype("float16")
    gradients = F.attention_backward(saved, library.array(dout))
    assert launched[:2] == DECODE
    zeros = np.zeros(q.shape[:-1])
    reference = dense_gradients(q, k, v, dout, zeros, shared=False, causal=True, query_start="end")
    reference.pop(1)
    for one, other in zip((out, *gradients), reference, strict=True):
        np.testing.assert_allclose(library.numpy(one).astype(np.float64), other, atol=4e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("offset", [0, 1])
def test_decode_where_rows_are_not_aligned(library: Library, only: Any, dtype: str, offset: int) -> None:
    only(DecodeKernel)
    rng, arrays = np.random.default_rng(offset), []
    for T in (2, 333, 333):
        flat = library.array(rng.standard_normal(3 * T * 32 + offset).astype(dtype))[offset:]
        arrays.append(flat.reshape(3, T, 32))
    out, _ = F.attention(*arrays)
    q, k, v = map(library.numpy, arrays)
    exact = dense_gradients(q, k, v, np.zeros_like(q), np.zeros(q.shape[:-1]), shared=False)[0]
    np.testing.assert_allclose(library.numpy(out).astype(np.float64), exact, atol=TOLERANCE[dtype])


def test_decode_does_not_look_at_what_nobody_sees(library: Library, launched: list[str], only: Any) -> None:
    only(DecodeKernel)
    rng, found = np.random.default_rng(0), []
    mask = rng.random((2, 3, 500)) < 0.5
    mask[:, :, [0, 70, 499]], mask[:, 1] = False, False
    q, k, v = (rng.standard_normal((2, T, 64)).astype("float32") for T in (3, 500, 500))
    for bad in (0, np.nan):
        k[:, [0, 70, 499]], v[:, [0, 70, 499]], q[:, 1] = bad, bad, bad
        found.append(library.numpy(F.attention(*map(library.array, (q, k, v)), mask=library.array(mask))[0]))
    assert launched == 2 * DECODE
    np.testing.assert_array_equal(*found)
    assert (found[0][:, 1] == 0).all()
    assert np.isfinite(found[0]).all()


def test_decode_with_large_scores(library: Library, launched: list[str], only: Any) -> None:
    only(DecodeKernel)
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, T, 8)) for T in (5, 700, 700))
    q, k = (40 * q).round(), (40 * k).round()
    out, lse, _ = F.attention(*(library.array(x, "float32") for x in (q, k, v)), scale=1.0, return_lse=True)
    assert launched == DECODE
    exact = dense_gradients(q, k, v, np.zeros_like(q), np.zeros(q.shape[:-1]), shared=False, scale=1.0)
    np.testing.assert_allclose(library.numpy(out), exact[0], atol=1e-5)
    np.testing.assert_allclose(library.numpy(lse), exact[1], rtol=1e-6)


def test_shapes_that_the_decode_kernel_is_compiled_for(library: Library) -> None:
    """Rows are covered, and no thread adds up more than it has registers for."""
    for stored, chunk, most in (("float32", 4, 32), ("float64", 4, 16), ("float16", 8, 32), ("bfloat16", 8, 32)):
        for width in (1, 3, 64, 100, 128, 256, 512, 1024, 2048):
            for rows in (1, 2, 5, 15):
                shape = Shape.of(stored, width, rows, 0)
                if shape is None:
                    assert width > 512
                else:
                    assert shape.lanes * shape.pieces * chunk >= width
                    assert shape.rows * shape.pieces * chunk <= most
