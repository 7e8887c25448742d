"""The same maths by PyTorch and its autograd."""

from typing import Any

import numpy as np
import pytest
from support import assert_as_exact_as

from attnlayers import TimeBiLSTM
from attnlayers import functional as F

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

N, HEADS, T_Q, T_K, D, D_V, H, V = 2, 3, 5, 7, 11, 13, 17, 19
RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def leaf(array: np.ndarray) -> Any:
    return torch.tensor(array, requires_grad=True)


def compare(found: list[Any], leaves: list[Any], out: Any, dout: np.ndarray) -> None:
    """Outputs and gradients in float64 agree to rounding."""
    out.backward(torch.tensor(dout))
    for one, other in zip(found, [out.detach(), *(x.grad for x in leaves)], strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
@pytest.mark.parametrize("mask", [None, (T_K,), (T_Q, T_K), (N, 1, 1, T_K), (N, HEADS, T_Q, T_K)])
def test_attention(scale: float | None, mask: tuple[int, ...] | None) -> None:
    q, k, v = draw(N, HEADS, T_Q, D), draw(N, HEADS, T_K, D), draw(N, HEADS, T_K, D_V)
    dout = draw(N, HEADS, T_Q, D_V)
    attend = None
    if mask is not None:
        attend = RNG.random(mask) < 0.6
        attend[..., 0] = True  # PyTorch makes no promise for rows with nothing to attend to
    leaves = [leaf(x) for x in (q, k, v)]
    torch_mask = None if attend is None else torch.tensor(np.atleast_2d(attend))
    theirs = torch.nn.functional.scaled_dot_product_attention(*leaves, attn_mask=torch_mask, scale=scale)
    out, saved = F.attention(q, k, v, scale=scale, mask=attend)
    compare([out, *F.attention_backward(saved, dout)], leaves, theirs, dout)


def test_attention_in_float32_is_as_exact_as_torch() -> None:
    q, k, v, dout = (draw(N, 101, 61).astype(np.float32) for _ in range(4))
    out, saved = F.attention(q, k, v)
    found = [out, *F.attention_backward(saved, dout)]

    def by_torch(kind: Any) -> list[np.ndarray]:
        leaves = [leaf(x.astype(kind)) for x in (q, k, v)]
        theirs = torch.nn.functional.scaled_dot_product_attention(*leaves)
        theirs.backward(torch.tensor(dout.astype(kind)))
        return [theirs.detach().numpy(), *(x.grad.numpy() for x in leaves)]

    for one, plain, exact in zip(found, by_torch(np.float32), by_torch(np.float64), strict=True):
        assert_as_exact_as(plain, one, exact)


def torch_lstm(Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> Any:
    """``nn.LSTM`` with these weights; its gates come in the order input, forget, new memory, output."""
    lstm = torch.nn.LSTM(D, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for name, W in (("weight_ih_l0", Wx.T), ("weight_hh_l0", Wh.T), ("bias_ih_l0", b)):
            getattr(lstm, name).copy_(torch.tensor(in_torch_order(W)))
        lstm.bias_hh_l0.zero_()
    return lstm


def in_torch_order(W: np.ndarray) -> np.ndarray:
    f, g, i, o = np.split(W, 4)
    return np.concatenate([i, f, g, o])


def weight_gradients(lstm: Any) -> list[np.ndarray]:
    """dWx, dWh, db in the book's order."""
    gradients = []
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
        i, f, g, o = np.split(getattr(lstm, name).grad.numpy(), 4)
        gradients.append(np.concatenate([f, g, i, o]).T)
    return gradients


def test_lstm() -> None:
    x, h, c = draw(N, T_K, D), draw(N, H), draw(N, H)
    Wx, Wh, b = draw(D, 4 * H), draw(H, 4 * H), draw(4 * H)
    dhs, dh, dc = draw(N, T_K, H), draw(N, H), draw(N, H)
    hs, last_h, last_c, saved = F.lstm(x, Wx, Wh, b, h=h, c=c)
    found = [hs, last_h, last_c, *F.lstm_backward(saved, dhs, dh=dh, dc=dc)]

    lstm, leaves = torch_lstm(Wx, Wh, b), [leaf(a) for a in (x, h, c)]
    theirs, (torch_h, torch_c) = lstm(leaves[0], (leaves[1][None], leaves[2][None]))
    torch.autograd.backward([theirs, torch_h, torch_c], [torch.tensor(a) for a in (dhs, dh[None], dc[None])])
    dx, dh0, dc0 = (a.grad.numpy() for a in leaves)
    expected = [theirs.detach().numpy(), torch_h[0].detach().numpy(), torch_c[0].detach().numpy()]
    expected += [dx, *weight_gradients(lstm), dh0, dc0]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


def test_lstm_with_padding_is_a_packed_sequence() -> None:
    lengths = np.array([4, 7, 1, 5])
    x, dhs, dh = draw(4, 7, D), draw(4, 7, H), draw(4, H)
    live = np.arange(7) < lengths[:, None]
    dhs[~live] = 0  # a packed sequence has no outputs there
    Wx, Wh, b = draw(D, 4 * H), draw(H, 4 * H), draw(4 * H)
    hs, h, c, saved = F.lstm(x, Wx, Wh, b, mask=live)
    dx, dWx, dWh, db, _, _ = F.lstm_backward(saved, dhs, dh=dh)

    lstm, own = torch_lstm(Wx, Wh, b), leaf(x)
    packed = torch.nn.utils.rnn.pack_padded_sequence(own, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    theirs, (torch_h, torch_c) = lstm(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs, batch_first=True)
    torch.autograd.backward([padded, torch_h], [torch.tensor(dhs), torch.tensor(dh[None])])
    np.testing.assert_allclose(hs[live], padded.detach().numpy()[live], atol=1e-12)
    np.testing.assert_allclose(h, torch_h[0].detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(c, torch_c[0].detach().numpy(), atol=1e-12)
    for one, other in zip((dx, dWx, dWh, db), (own.grad.numpy(), *weight_gradients(lstm)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


def test_the_bidirectional_lstm_with_padding_is_a_packed_sequence() -> None:
    lengths = np.array([4, 7, 1, 5])
    x, dhs = draw(4, 7, D), draw(4, 7, 2 * H)
    live = np.arange(7) < lengths[:, None]
    dhs[~live] = 0  # a packed sequence has no outputs there
    there, back = ((draw(D, 4 * H), draw(H, 4 * H), draw(4 * H)) for _ in range(2))
    layer = TimeBiLSTM(*there, *back)
    hs = layer.forward(np.where(live[..., None], x, np.nan), live)
    dx = layer.backward(dhs)

    both, own = torch.nn.LSTM(D, H, batch_first=True, bidirectional=True, dtype=torch.float64), leaf(x)
    first, second = torch_lstm(*there), torch_lstm(*back)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(both, name)[:] = getattr(first, name)
            getattr(both, f"{name}_reverse")[:] = getattr(second, name)
    packed = torch.nn.utils.rnn.pack_padded_sequence(own, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(both(packed)[0], batch_first=True)
    padded.backward(torch.tensor(dhs))
    np.testing.assert_allclose(hs[live], padded.detach().numpy()[live], atol=1e-12)
    np.testing.assert_allclose(dx[live], own.grad.numpy()[live], rtol=1e-10, atol=1e-11)
    assert (dx[~live] == 0).all()
    for lstm, grads, ending in ((first, layer.grads[:3], ""), (second, layer.grads[3:], "_reverse")):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(lstm, name).grad = getattr(both, f"{name}{ending}").grad
        for one, other in zip(grads, weight_gradients(lstm), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("ignore", [-1, -100, 3])
def test_cross_entropy(ignore: int) -> None:
    logits, labels = draw(N, T_K, V), RNG.integers(V, size=(N, T_K))
    labels[RNG.random(labels.shape) < 0.4] = ignore
    own = leaf(logits)
    theirs = torch.nn.functional.cross_entropy(
        own.reshape(-1, V), torch.tensor(labels).reshape(-1), ignore_index=ignore
    )
    loss, saved = F.cross_entropy(logits, labels, ignore_label=ignore)
    compare([loss, F.cross_entropy_backward(saved, 2.5)], [own], theirs, np.asarray(2.5))


def test_embedding() -> None:
    W, ids, dout = draw(V, D), RNG.integers(V, size=(N, T_K)), draw(N, T_K, D)
    own = leaf(W)
    out, saved = F.embedding(W, ids)
    theirs = torch.nn.functional.embedding(torch.tensor(ids), own)
    compare([out, F.embedding_backward(saved, dout)], [own], theirs, dout)


def test_softmax() -> None:
    x, dout = draw(N, T_K, V), draw(N, T_K, V)
    own = leaf(x)
    out, saved = F.softmax(x)
    compare([out, F.softmax_backward(saved, dout)], [own], torch.softmax(own, dim=-1), dout)


def test_affine_and_weighted_sum() -> None:
    x, W, b, dout = draw(N, T_K, D), draw(D, H), draw(H), draw(N, T_K, H)
    leaves = [leaf(a) for a in (x, W, b)]
    out, saved = F.affine(x, W, b)
    compare([out, *F.affine_backward(saved, dout)], leaves, leaves[0] @ leaves[1] + leaves[2], dout)

    weights, dc = draw(N, T_K), draw(N, D)
    leaves = [leaf(a) for a in (x, weights)]
    out, saved = F.weighted_sum(x, weights)
    theirs = torch.einsum("nt,nth->nh", leaves[1], leaves[0])
    compare([out, *F.weighted_sum_backward(saved, dc)], leaves, theirs, dc)
