"""Attention of Luong and Bahdanau against plain loops and PyTorch."""

from typing import Any

import numpy as np
import pytest
from further_cases import T_DEC, A, D, H, N, T, additive, local
from support import Draw, Library

from attnlayers import (
    AdditiveAttention,
    GeneralAttention,
    LocalAttention,
    TimeAdditiveAttention,
    TimeGeneralAttention,
    TimeLocalAttention,
)

KINDS = {
    "general": (TimeGeneralAttention, GeneralAttention, lambda d: (d(D, H),), {}),
    "additive": (TimeAdditiveAttention, AdditiveAttention, additive, {}),
    "local": (TimeLocalAttention, LocalAttention, local, {"width": 2}),
}


def by_loops(kind: str, params: list[np.ndarray], hs: np.ndarray, h: np.ndarray, length: int) -> tuple[Any, Any]:
    """Context and weights of one decoder state over one sequence."""
    scores, near = np.full(len(hs), -np.inf), np.ones(len(hs))
    for j in range(length):
        if kind == "additive":
            W_enc, W_dec, b, w = params
            scores[j] = sum(w[a] * np.tanh(hs[j] @ W_enc[:, a] + h @ W_dec[:, a] + b[a]) for a in range(len(w)))
        else:
            scores[j] = h @ params[0] @ hs[j]
    if kind == "local":
        _, W_p, v_p = params
        centre = (length - 1) / (1 + np.exp(-(np.tanh(h @ W_p) @ v_p)[0]))
        for j in range(len(hs)):
            scores[j] = scores[j] if abs(j - centre) <= 2 else -np.inf
            near[j] = np.exp(-((j - centre) ** 2) / 2)  # a standard deviation of 2 / 2
    weights = np.exp(scores - scores.max())
    weights = weights / weights.sum() * near
    return sum(weights[j] * hs[j] for j in range(length)), weights


@pytest.mark.parametrize("kind", KINDS)
def test_against_loops(library: Library, kind: str) -> None:
    draw = Draw(library)
    time_class, one_class, weights_of, options = KINDS[kind]
    params, hs_enc, hs_dec = weights_of(draw), draw(N, T, H), draw(N, T_DEC, D)
    lengths = [T - 2, T]
    spoilt = library.numpy(hs_enc).copy()
    spoilt[0, T - 2 :] = np.nan
    mask = library.array(np.arange(T) < np.array(lengths)[:, None])
    layer, one = time_class(*params, **options), one_class(*params, **options)
    out = library.numpy(layer.forward(library.array(spoilt), hs_dec, mask))
    one_out = library.numpy(one.forward(library.array(spoilt), hs_dec[:, 1, :], mask))
    assert layer.attention_weights is not None
    weights = np.stack([library.numpy(w) for w in layer.attention_weights])
    plain = [library.numpy(p) for p in params]
    for n, length in enumerate(lengths):
        for t in range(T_DEC):
            expected, expected_weights = by_loops(
                kind, plain, np.nan_to_num(spoilt[n]), library.numpy(hs_dec)[n, t], length
            )
            np.testing.assert_allclose(out[n, t], expected, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(weights[t, n], expected_weights, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(one_out, out[:, 1], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(library.numpy(one.attention_weight), weights[1], rtol=1e-11, atol=1e-13)
    for gradient in layer.backward(library.array(np.ones_like(out))):
        assert np.isfinite(library.numpy(gradient)).all()
    assert all(np.isfinite(library.numpy(grad)).all() for grad in layer.grads)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_nothing_to_attend_to(library: Library, kind: str) -> None:
    draw = Draw(library)
    time_class, _, weights_of, options = KINDS[kind]
    layer = time_class(*weights_of(draw), **options)
    mask = library.array(np.array([[False] * T, [True] * T]))
    out = library.numpy(layer.forward(draw(N, T, H), draw(N, T_DEC, D), mask))
    assert (out[0] == 0).all()
    assert (out[1] != 0).any()
    dhs_enc, dhs_dec = (library.numpy(d) for d in layer.backward(draw(N, T_DEC, H)))
    assert (dhs_enc[0] == 0).all()
    assert (dhs_dec[0] == 0).all()


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_additive_scores_in_blocks(library: Library, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    draw = Draw(library)
    layer, inputs, dout = TimeAdditiveAttention(*additive(draw)), (draw(N, T, H), draw(N, T_DEC, D)), draw(N, T_DEC, H)
    whole = [layer.forward(*inputs), *layer.backward(dout), *layer.grads]
    whole = [library.numpy(x).copy() for x in whole]
    monkeypatch.setattr(library.backend, "block_of_scores", lambda *_: (rows, T))
    monkeypatch.setattr(library.backend, "chunks", lambda count, *_: [slice(n, n + 1) for n in range(count)])
    for one, other in zip([layer.forward(*inputs), *layer.backward(dout), *layer.grads], whole, strict=True):
        np.testing.assert_allclose(library.numpy(one), other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["general", "additive"])
def test_torch(library: Library, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    draw = Draw(library)
    time_class, _, weights_of, _ = KINDS[kind]
    arrays = [*weights_of(draw), draw(N, T, H), draw(N, T_DEC, D)]
    layer = time_class(*arrays[:-2])
    leaves = [torch.tensor(library.numpy(x).copy(), requires_grad=True) for x in arrays]
    *params, hs_enc, hs_dec = leaves
    if kind == "general":
        scores = hs_dec @ params[0] @ hs_enc.mT
    else:
        W_enc, W_dec, b, w = params
        scores = torch.tanh((hs_enc @ W_enc)[:, None] + (hs_dec @ W_dec + b)[:, :, None]) @ w
    theirs = torch.softmax(scores, dim=-1) @ hs_enc
    dout = draw(N, T_DEC, H)
    theirs.backward(torch.tensor(library.numpy(dout).copy()))
    out = layer.forward(*arrays[-2:])
    dhs_enc, dhs_dec = layer.backward(dout)
    expected = [theirs.detach(), *(leaf.grad for leaf in leaves)]
    for one, other in zip([out, *layer.grads, dhs_enc, dhs_dec], expected, strict=True):
        np.testing.assert_allclose(library.numpy(one), other.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_created_layers_run(kind: str) -> None:
    layer = KINDS[kind][0].create(H, D)
    assert layer.forward(np.ones((N, T, H), np.float32), np.ones((N, T_DEC, D), np.float32)).shape == (N, T_DEC, H)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`W_dec` must have shape \(H_dec, A\) = \(12, 11\) .* got \(12, 3\)"):
        TimeAdditiveAttention(np.ones((H, A)), np.ones((D, 3)), np.ones(A), np.ones(A))
    with pytest.raises(ValueError, match="`width` must be 1 or more, got 0"):
        TimeLocalAttention(np.ones((D, H)), np.ones((D, A)), np.ones((A, 1)), width=0)
    with pytest.raises(ValueError, match=r"`mask` must have shape \(N, T_enc\) = \(2, 5\)"):
        TimeGeneralAttention(np.ones((D, H))).forward(np.ones((N, T, H)), np.ones((N, T_DEC, D)), np.ones((N, 3)) > 0)
