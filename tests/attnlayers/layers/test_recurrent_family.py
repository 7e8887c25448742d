"""The plain recurrent network, the gated recurrent unit and the LSTM that reads both ways."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from cases import lstm_weights
from support import Draw, Library

import attnlayers
from attnbackends import available_backends, backend, get_backend
from attnlayers import gradcheck

N, T, D, H = 3, 5, 7, 11

Weights = tuple[np.ndarray, np.ndarray, np.ndarray]


def weights(count: int, dtype: str = "float64", seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    shapes = ((D, count * H), (H, count * H), (count * H,))
    Wx, Wh, b = ((rng.standard_normal(shape) / 2).astype(dtype) for shape in shapes)
    return Wx, Wh, b


def draw(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def rnn_step(x: np.ndarray, h: np.ndarray, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.tanh(x @ Wx + h @ Wh + b)


def gru_step(x: np.ndarray, h: np.ndarray, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> np.ndarray:
    z = sigmoid(x @ Wx[:, :H] + h @ Wh[:, :H] + b[:H])
    r = sigmoid(x @ Wx[:, H : 2 * H] + h @ Wh[:, H : 2 * H] + b[H : 2 * H])
    new = np.tanh(x @ Wx[:, 2 * H :] + (r * h) @ Wh[:, 2 * H :] + b[2 * H :])
    return (1 - z) * h + z * new


FAMILY = {
    "RNN": (attnlayers.RNN, attnlayers.TimeRNN, 1, rnn_step),
    "GRU": (attnlayers.GRU, attnlayers.TimeGRU, 3, gru_step),
}

family = pytest.mark.parametrize(("one", "all_steps", "count", "step"), FAMILY.values(), ids=FAMILY)
Step = Callable[..., np.ndarray]


def test_by_hand() -> None:
    """One unit that adds 1 to its input: tanh(0.5 + 1) and, in the GRU, the half way to it."""
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    x = np.array([[0.5]])
    assert attnlayers.RNN(one, one, np.ones(1)).forward(x, zero) == pytest.approx(np.tanh(1.5))
    Wx, b = np.array([[0.0, 0.0, 1.0]]), np.array([0.0, 0.0, 1.0])
    assert attnlayers.GRU(Wx, np.zeros((1, 3)), b).forward(x, zero) == pytest.approx(np.tanh(1.5) / 2)


@family
def test_all_steps_are_the_steps_one_by_one(one: Any, all_steps: Any, count: int, step: Step) -> None:
    own, xs = weights(count), draw(N, T, D)
    expected, h = [], np.zeros((N, H))
    for t in range(T):
        h = step(xs[:, t], h, *own)
        expected.append(h)
    layer = all_steps(*own)
    np.testing.assert_allclose(layer.forward(xs), np.stack(expected, axis=1), rtol=1e-12)
    np.testing.assert_allclose(layer.h, h, rtol=1e-12)
    np.testing.assert_allclose(one(*own).forward(xs[:, 0], np.zeros((N, H))), expected[0], rtol=1e-12)


@family
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(one: Any, all_steps: Any, count: int, step: Step, masked: bool) -> None:
    mask = np.arange(N * T).reshape(N, T) % 3 != 1 if masked else None
    gradcheck(all_steps(*weights(count)), draw(N, T, D), mask=mask)
    if not masked:
        gradcheck(one(*weights(count)), draw(N, D), draw(N, H))


@family
def test_the_gradient_of_the_first_state(one: Any, all_steps: Any, count: int, step: Step) -> None:
    own, x, h, dh = weights(count), draw(N, D), draw(N, H), draw(N, H)
    layer, single = all_steps(*own, stateful=True), one(*own)
    layer.set_state(h)
    np.testing.assert_allclose(layer.forward(x[:, None])[:, 0], single.forward(x, h), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dh[:, None])[:, 0], single.backward(dh)[0], rtol=1e-12)
    np.testing.assert_allclose(layer.dh, single.backward(dh)[1], rtol=1e-12)


@family
def test_a_skipped_step_leaves_the_state_whatever_it_holds(one: Any, all_steps: Any, count: int, step: Step) -> None:
    xs, mask = draw(N, T, D), np.ones((N, T), dtype=bool)
    mask[1, 2:] = False
    xs[1, 2:] = np.nan
    layer = all_steps(*weights(count))
    hs = layer.forward(xs, mask)
    assert np.array_equal(hs[1, 1], hs[1, 4])
    dxs = layer.backward(np.ones((N, T, H)))
    assert np.all(dxs[1, 2:] == 0)
    assert all(np.all(np.isfinite(grad)) for grad in layer.grads)


@family
def test_state_goes_on_only_where_it_is_asked_to(one: Any, all_steps: Any, count: int, step: Step) -> None:
    own, xs = weights(count), draw(N, T, D)
    whole = all_steps(*own).forward(xs)
    layer = all_steps(*own, stateful=True)
    halves = layer.forward(xs[:, :2]), layer.forward(xs[:, 2:])
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, rtol=1e-12)
    layer.reset_state()
    np.testing.assert_allclose(layer.forward(xs), whole, rtol=1e-12)


def test_the_bidirectional_lstm_is_two_lstms() -> None:
    there, back, xs = weights(4), weights(4, seed=1), draw(N, T, D)
    first, second = attnlayers.TimeLSTM(*there), attnlayers.TimeLSTM(*back)
    out = attnlayers.TimeBiLSTM(*there, *back).forward(xs)
    np.testing.assert_allclose(out[..., :H], first.forward(xs), rtol=1e-12)
    np.testing.assert_allclose(out[..., H:], second.forward(xs[:, ::-1])[:, ::-1], rtol=1e-12)
    gradcheck(attnlayers.TimeBiLSTM(*there, *back), xs)


def test_the_bidirectional_lstm_reads_each_sequence_alone(library: Library) -> None:
    d = Draw(library)
    own = *lstm_weights(d, D, H), *lstm_weights(d, D, H)
    lengths, T = [3, 5, 0, 1], 5
    live = np.arange(T) < np.array(lengths)[:, None]
    xs, dhs = draw(4, T, D), draw(4, T, 2 * H) * live[..., None]
    layer = attnlayers.TimeBiLSTM(*own)
    hs = library.numpy(layer.forward(library.array(np.where(live[..., None], xs, np.nan)), library.array(live)))
    dxs = library.numpy(layer.backward(library.array(dhs)))
    total = [np.zeros(tuple(grad.shape)) for grad in layer.grads]
    for n, length in enumerate(lengths):
        # By loops over the steps, in NumPy: forwards, and over the reversed sequence without its padding.
        for reader, order in enumerate((slice(None), slice(None, None, -1))):
            Wx, Wh, b = (library.numpy(param) for param in own[3 * reader : 3 * reader + 3])
            x, d_hs = (a[n : n + 1, :length][:, order] for a in (xs, dhs[..., reader * H : (reader + 1) * H]))
            zeros = np.zeros((1, H))
            if not length:
                continue
            out, _, _, steps = reference.lstm(x, Wx, Wh, b, zeros, zeros)
            np.testing.assert_allclose(hs[n, :length, reader * H : (reader + 1) * H], out[0, order], rtol=1e-10)
            dx, *grads, _, _ = reference.lstm_backward(steps, Wx, Wh, d_hs, zeros, zeros)
            dxs[n, :length] -= dx[0, order]
            for place, grad in zip(total[3 * reader :], grads, strict=False):
                place += grad
    np.testing.assert_allclose(dxs, 0, atol=1e-12)
    for grad, expected in zip(layer.grads, total, strict=True):
        np.testing.assert_allclose(library.numpy(grad), expected, rtol=1e-9, atol=1e-12)


def test_the_bidirectional_lstm_begins_where_it_is_told() -> None:
    layer = attnlayers.TimeBiLSTM(*weights(4), *weights(4, seed=1), stateful=True)
    xs = draw(N, T, D)
    fresh = layer.forward(xs)
    layer.set_state(np.ones((N, H)))
    assert not np.allclose(layer.forward(xs), fresh)
    layer.reset_state()
    np.testing.assert_array_equal(layer.forward(xs), fresh)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["TimeRNN", "TimeGRU", "TimeBiLSTM"])
def test_dtype_in_is_dtype_out(name: str, dtype: str) -> None:
    count = {"TimeRNN": 1, "TimeGRU": 3, "TimeBiLSTM": 4}[name]
    own = weights(count, dtype) * (2 if name == "TimeBiLSTM" else 1)
    layer, xs = getattr(attnlayers, name)(*own), draw(N, T, D, dtype=dtype)
    out = layer.forward(xs)
    found = [out, layer.backward(np.ones_like(out)), *layer.grads]
    assert {str(array.dtype) for array in found} == {dtype}


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch", "cupy"])
@pytest.mark.parametrize("name", ["TimeRNN", "TimeGRU", "TimeLSTM", "TimeBiLSTM"])
def test_every_library_agrees_and_nothing_is_mutated(name: str, library: str) -> None:
    found = available_backends().get(library)
    if found is None or not found.usable:
        pytest.skip(f"{library}: {'not installed' if found is None else found.detail}")
    count = {"TimeRNN": 1, "TimeGRU": 3, "TimeLSTM": 4, "TimeBiLSTM": 4}[name]
    own = weights(count) * (2 if name == "TimeBiLSTM" else 1)
    xs, mask = draw(N, T, D), np.arange(N * T).reshape(N, T) % 4 != 0
    options = {"mask": mask}
    results = []
    for each in (backend if backend.name == "numpy" else get_backend("numpy"), get_backend(library)):
        frozen = [np.array(array) for array in (*own, xs, np.ones((N, T, H * (1 + (name == "TimeBiLSTM")))))]
        for array in frozen:
            array.flags.writeable = each.name != "numpy"
        *params, given, dout = map(each.asarray, frozen)
        layer = getattr(attnlayers, name)(*params)
        out = layer.forward(given, **{key: each.asarray(value) for key, value in options.items()})
        arrays = (out, layer.backward(dout), *layer.grads)
        results.append([each.to_numpy(array) for array in arrays])
        for before, after in zip((*own, xs), (*params, given), strict=True):
            np.testing.assert_array_equal(each.to_numpy(after), before)
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_torch_has_the_same_rnn() -> None:
    """Its GRU multiplies the reset gate after the product, so only its RNN is the book's."""
    torch = pytest.importorskip("torch")
    Wx, Wh, b = weights(1)
    peer = torch.nn.RNN(D, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        peer.weight_ih_l0[:], peer.weight_hh_l0[:] = torch.tensor(Wx.T), torch.tensor(Wh.T)
        peer.bias_ih_l0[:], peer.bias_hh_l0[:] = torch.tensor(b), 0
    xs, dhs = draw(N, T, D), draw(N, T, H)
    peer_xs = torch.tensor(xs, requires_grad=True)
    out, _ = peer(peer_xs)
    out.backward(torch.tensor(dhs))
    layer = attnlayers.TimeRNN(Wx, Wh, b)
    np.testing.assert_allclose(layer.forward(xs), out.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(layer.backward(dhs), peer_xs.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.grads[1], peer.weight_hh_l0.grad.numpy().T, rtol=1e-9, atol=1e-12)


def test_a_wrong_number_of_gates_is_named() -> None:
    Wx, _, b = weights(3)
    with pytest.raises(ValueError, match=r"`Wh` must have shape \(H, 3H\), three gates side by side, got \(5, 33\)"):
        attnlayers.TimeGRU(Wx, np.zeros((5, 33)), b).forward(draw(N, T, D))
    layer = attnlayers.TimeRNN(*weights(1))
    layer.forward(draw(N, T, D))
    with pytest.raises(ValueError, match=r"`dhs` must have the shape of the output, \(3, 5, 11\), got \(3, 4, 11\)"):
        layer.backward(draw(N, 4, H))
