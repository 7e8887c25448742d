"""MultiHeadAttention against plain loops, and step by step with a KVCache."""

import re
from typing import Any

import numpy as np
import pytest
from dense_attention import dense_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Draw, Library, largest_error

from attnbackends import get_backend
from attnlayers import Initializer, KVCache, MultiHeadAttention, gradcheck
from attnlayers import functional as F

N, T, T_K, D, D_CONTEXT = 2, 5, 7, 12, 11
NUMPY = Library(get_backend("numpy"))


def make(library: Library, dtype: str = "float64", context_size: int = D, **options: Any) -> MultiHeadAttention:
    """3 query heads of 4 features, biases that are not 0."""
    layer = MultiHeadAttention.create(
        D, **({"heads": 3} | options), context_size=context_size, initializer=Initializer(3, dtype, library.backend)
    )
    rng = np.random.default_rng(0)
    for name, param in zip(layer.names, layer.params, strict=True):
        if name.endswith(".b"):
            param[...] = library.array(rng.standard_normal(tuple(param.shape)), dtype)
    return layer


def dense(
    layer: MultiHeadAttention, x: np.ndarray, context: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Output and weights, head by head."""
    params = {n: np.asarray(layer.backend.to_numpy(p)) for n, p in zip(layer.names, layer.params, strict=True)}

    def heads_of(name: str, rows: np.ndarray, count: int) -> np.ndarray:
        projected = rows @ params[f"{name}.W"] + params.get(f"{name}.b", 0)
        return np.stack(np.split(projected, count, axis=-1), axis=1)

    q, k, v = (
        heads_of(name, rows, count)
        for name, rows, count in (
            ("query", x, layer.heads), ("key", context, layer.key_heads), ("value", context, layer.key_heads)
        )
    )  # fmt: skip
    out, weights, _ = dense_attention(q, k, v, grouped=True, **options)
    return np.concatenate(list(np.moveaxis(out, 1, 0)), axis=-1) @ params["output.W"] + params["output.b"], weights


@pytest.mark.parametrize("key_heads", [3, 1])
def test_self_attention(library: Library, key_heads: int) -> None:
    layer, x = make(library, key_heads=key_heads), Draw(library)(N, T, D)
    out, weights = dense(layer, library.numpy(x), library.numpy(x), causal=True)
    np.testing.assert_allclose(library.numpy(layer.forward(x, causal=True)), out, rtol=1e-11)
    np.testing.assert_allclose(library.numpy(layer.attention_weights), weights, rtol=1e-11)


def test_cross_attention_and_padding(library: Library) -> None:
    draw = Draw(library)
    layer, x, context, mask = (
        make(library, context_size=D_CONTEXT),
        draw(N, T, D),
        draw(N, T_K, D_CONTEXT),
        draw.mask(N, T_K),
    )
    real = library.numpy(mask)
    spoilt = np.where(real[..., None], library.numpy(context), np.nan)
    out, _ = dense(layer, library.numpy(x), np.nan_to_num(spoilt), mask=real[:, None, None, :])
    found = layer.forward(x, library.array(spoilt), mask)
    np.testing.assert_allclose(library.numpy(found), out, rtol=1e-11)
    dx, dcontext = layer.backward(found)
    assert all(np.isfinite(library.numpy(d)).all() for d in (dx, *layer.grads))
    assert (library.numpy(dcontext)[~real] == 0).all()


@pytest.mark.parametrize("shape", [(), (1,), (T,), (T, T), (3, T, T), (N, 1, 1, T), (N, 3, T, T)])
@pytest.mark.parametrize("masked", [True, False])
def test_bias_and_its_gradient(library: Library, shape: tuple[int, ...], masked: bool) -> None:
    draw = Draw(library)
    layer, x, bias = make(library), draw(N, T, D), draw(*shape)
    mask = library.array(np.array([[True] * T, [True, False] * 2 + [True]])) if masked else None

    class WithBias:
        params, grads = (), ()

        def forward(self, bias: Any) -> Any:
            return layer.forward(x, None, mask, bias=bias)

        def backward(self, dout: Any) -> Any:
            layer.backward(dout, grads=("bias",))
            return layer.dbias

    seen = None if mask is None else library.numpy(mask)[:, None, None, :]
    out, _ = dense(layer, library.numpy(x), library.numpy(x), mask=seen, bias=library.numpy(bias))
    np.testing.assert_allclose(library.numpy(layer.forward(x, None, mask, bias=bias)), out, rtol=1e-11)
    gradcheck(WithBias(), bias)


@pytest.mark.parametrize("shape", [(1, 1, T, T), (N, 1, T, T), (1, 3, 1, T), (N, 3, T, 1)])
def test_a_mask_of_four_axes(library: Library, shape: tuple[int, ...]) -> None:
    draw = Draw(library)
    layer, x, mask = make(library), draw(N, T, D), draw.mask(*shape)
    out, weights = dense(layer, library.numpy(x), library.numpy(x), mask=library.numpy(mask))
    np.testing.assert_allclose(library.numpy(layer.forward(x, None, mask)), out, rtol=1e-11)
    np.testing.assert_allclose(library.numpy(layer.attention_weights), weights, rtol=1e-11)


@pytest.mark.parametrize("shape", [(), (T,), (T, N), (1, T, T), (N, 2, T, T), (2 * N, 1, T, T), (1, N, 1, T, T)])
def test_a_mask_of_another_shape(shape: tuple[int, ...]) -> None:
    layer, x = make(NUMPY), Draw(NUMPY)(N, T, D)
    with pytest.raises(ValueError, match=rf"`mask` must .*\(N, T_k\).*, got {re.escape(str(shape))}"):
        layer.forward(x, None, np.ones(shape, bool))


@pytest.mark.parametrize("rotary", ["half", "interleaved"])
def test_rotary_turns_queries_and_keys(rotary: str) -> None:
    layer, x = make(NUMPY, rotary=rotary, heads=1), Draw(NUMPY)(N, T, D)
    out = layer.forward(x)
    Wq, bq, Wk, bk, Wv, bv, Wo, bo = layer.params
    q, k = (F.rotary(x @ W + b, np.arange(T), interleaved=rotary != "half")[0] for W, b in ((Wq, bq), (Wk, bk)))
    expected, _, _ = dense_attention(q, k, x @ Wv + bv)
    np.testing.assert_allclose(out, expected @ Wo + bo, rtol=1e-11)


def test_dropout_is_for_training_and_anew_in_each_pass() -> None:
    layer, plain, x = make(NUMPY, dropout=0.5), make(NUMPY), Draw(NUMPY)(N, T, D)
    first, second = layer.forward(x), layer.forward(x)
    assert not np.allclose(first, second)
    layer.train(False)
    np.testing.assert_array_equal(layer.forward(x), plain.forward(x))


# -- step by step


@st.composite
def decodings(draw: st.DrawFn) -> tuple[dict[str, Any], list[int]]:
    options = {
        "heads": 3,
        "key_heads": draw(st.sampled_from([1, 3])),
        "rotary": draw(st.sampled_from([None, "half", "interleaved"])),
        "window": draw(st.sampled_from([None, (2, None), (0, 0)])),
        "softcap": draw(st.sampled_from([None, 1.5])),
        "use_bias": draw(st.booleans()),
    }
    return options, draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=40, deadline=None)
@given(decodings())
def test_step_by_step_is_the_full_pass(dtype: str, drawn: tuple[dict[str, Any], list[int]]) -> None:
    options, lengths = drawn
    same_as_full(NUMPY, dtype, options, lengths)


@pytest.mark.parametrize("options", [{}, {"key_heads": 1, "rotary": "half"}, {"window": (2, None)}])
def test_step_by_step_on_every_library(library: Library, options: dict[str, Any]) -> None:
    same_as_full(library, "float32", options, [2, 1, 1, 3, 1])


def same_as_full(library: Library, dtype: str, options: dict[str, Any], lengths: list[int]) -> None:
    layer, total = make(library, dtype, **options), sum(lengths)
    x = Draw(library, dtype)(N, total, D)
    full = library.numpy(layer.forward(x, causal=True))
    weights = library.numpy(layer.attention_weights)
    cache, other = layer.new_cache(N, total + 2), layer.new_cache(N, total + 2)
    memory = [id(array) for array in cache._all]
    outs, end = [], 0
    for length in lengths:
        outs.append(library.numpy(layer.step(x[:, end : end + length, :], cache)))
        found = library.numpy(layer.attention_weights)
        np.testing.assert_allclose(found, weights[:, :, end : end + length, : end + length], rtol=1e-4, atol=1e-6)
        some = library.numpy(layer.step(x[:, end : end + length, :], other, last=2))
        assert largest_error(some, full[:, : end + length][:, -min(2, length) :]) < 20 * float(np.finfo(dtype).eps)
        end += length
        assert cache.length == end
    assert largest_error(np.concatenate(outs, axis=1), full) < 20 * float(np.finfo(dtype).eps)
    assert [id(array) for array in cache._all] == memory


def test_half_precision_step_by_step() -> None:
    same_as_full(NUMPY, "float16", {"rotary": "half"}, [1, 1, 2])


def test_padding_among_the_steps(library: Library) -> None:
    """Prompts of different lengths, padded on the left: what was hidden in the first step stays so."""
    layer, x = make(library), Draw(library)(N, T, D)
    mask = np.ones((N, T), dtype=bool)
    mask[1, :2] = False
    full = layer.forward(x, None, library.array(mask), causal=True)
    cache = layer.new_cache(N, T)
    first = layer.step(x[:, :3, :], cache, library.array(mask[:, :3]))
    rest = [layer.step(x[:, t : t + 1, :], cache, library.array(mask[:, : t + 1])) for t in (3, 4)]
    found = np.concatenate([library.numpy(out) for out in (first, *rest)], axis=1)
    np.testing.assert_allclose(found, library.numpy(full), rtol=1e-11, atol=1e-13)


def test_a_cached_context_is_cross_attention(library: Library) -> None:
    draw = Draw(library)
    layer, x, context, mask = (
        make(library, context_size=D_CONTEXT),
        draw(N, T, D),
        draw(N, T_K, D_CONTEXT),
        draw.mask(N, T_K),
    )
    full = library.numpy(layer.forward(x, context, mask))
    cache = layer.cache_context(context)
    steps = [library.numpy(layer.attend(x[:, t : t + 1, :], cache, mask)) for t in range(T)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), full, rtol=1e-11)


def test_beams_take_their_past_along(library: Library) -> None:
    layer, x = make(library), Draw(library)(N, T, D)
    swapped = library.array(library.numpy(x)[::-1])
    expected = library.numpy(layer.forward(swapped, causal=True))
    cache = layer.new_cache(N, T)
    layer.step(x[:, : T - 1, :], cache)
    cache.reorder(library.array([1, 0]))
    found = layer.step(swapped[:, T - 1 :, :], cache)
    np.testing.assert_allclose(library.numpy(found), expected[:, T - 1 :], rtol=1e-11)
    cache.reorder(library.array([0, 0]))
    assert np.array_equal(*library.numpy(cache.keys))


def test_a_step_leaves_nothing_for_backward() -> None:
    layer, x = make(NUMPY), Draw(NUMPY)(N, T, D)
    layer.forward(x)
    layer.step(x, layer.new_cache(N, T))
    with pytest.raises(RuntimeError, match="call forward first"):
        layer.backward(x)


# -- bad input


def test_a_cache_that_is_full_stays_as_it_was(library: Library) -> None:
    ones = library.array(np.ones((N, 3, 2, 4)))
    cache = KVCache(N, 3, 3, 4, like=ones)
    cache.append(ones, ones)
    message = "the cache is full: it holds 2 of 3 steps, got 2 more: make it with a larger capacity"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cache.append(ones, ones)
    assert cache.length == 2
    cache.truncate(1)
    assert tuple(cache.append(ones, ones)[0].shape) == (N, 3, 3, 4)


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (
            np.ones((N, 3, 1, 4), np.float32),
            np.ones((N, 3, 1, 4)),
            r"must have the dtype of keys, float32, got float64",
        ),
        (np.ones((N, 2, 1, 4)), np.ones((N, 3, 1, 4)), r"got \(2, 3, 3, 4\)"),
        (np.ones((N, 3, 1, 4)), np.ones((N, 3, 2, 4)), r"`values` must have shape .* got \(2, 3, 2, 4\)"),
        (np.ones((3, 1, 4)), np.ones((3, 1, 4)), r"`keys` must have shape \(N, heads, T, D\), got \(3, 1, 4\)"),
    ],
)
def test_what_does_not_fit_a_cache(keys: np.ndarray, values: np.ndarray, message: str) -> None:
    cache = KVCache(N, 3, 3, 4, like=np.ones(1))
    with pytest.raises((TypeError, ValueError), match=message):
        cache.append(keys, values)
    assert cache.length == 0


def test_bad_rows_and_lengths() -> None:
    cache = KVCache(N, 3, 3, 4, like=np.ones(1))
    with pytest.raises(ValueError, match=r"`rows` must have shape \(N,\) = \(2,\), got \(3,\)"):
        cache.reorder(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"`length` must lie in 0 .. 0, the steps that are held, got 1"):
        cache.truncate(1)
    with pytest.raises(ValueError, match="`key_heads` must be 1 or more, got 0"):
        KVCache(N, 0, 3, 4, like=np.ones(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "`embedding_size` must be a multiple of `heads`, got 12 and 5"),
        ({"heads": 4, "key_heads": 3}, "`heads` must be a multiple of `key_heads`, both 1 or more, got 4 and 3"),
        ({"heads": 4, "rotary": "full"}, "`rotary` must be 'half', 'interleaved' or None, got 'full'"),
        ({"heads": 4, "dropout": 1.0}, r"`dropout` must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention.create(12, **options)


def test_weights_that_do_not_fit_their_heads() -> None:
    W = np.ones((12, 12))
    with pytest.raises(ValueError, match="columns of `Wk` must be a multiple of its 4 heads, got 10"):
        MultiHeadAttention(W, W[:, :10], W, W, heads=4)
    with pytest.raises(ValueError, match="must have one size, got 3 in Wq and 2 in Wk"):
        MultiHeadAttention(W, W[:, :8], W, W, heads=4)
    with pytest.raises(ValueError, match="`Wo` must have heads \\* D_value = 8 rows, got 12"):
        MultiHeadAttention(W, W, W[:, :8], W, heads=4)


def test_what_excludes_a_context() -> None:
    layer, x = make(NUMPY, rotary="half"), np.ones((N, T, D))
    with pytest.raises(ValueError, match="`context` excludes causal, rotary and window"):
        layer.forward(x, x)
