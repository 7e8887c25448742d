"""LSTM for one step, and for all of them with a state."""

from typing import Any

import numpy as np
import pytest
import reference
from cases import lstm_weights
from support import Draw, Library, assert_as_exact_as

from attnlayers import LSTM, TimeLSTM

N, T, D, H = 3, 5, 7, 11


def weights(d: Draw) -> tuple[Any, ...]:
    return lstm_weights(d, D, H)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_step_against_the_reference(library: Library, dtype: str) -> None:
    d = Draw(library, dtype)
    layer, inputs, douts = LSTM(*weights(d)), (d(N, D), d(N, H), d(N, H)), (d(N, H), d(N, H))
    found = [*layer.forward(*inputs), *layer.backward(*douts), *layer.grads]

    def by_steps(kind: Any) -> list[np.ndarray]:
        Wx, Wh, b, x, h, c, dh, dc = (library.numpy(a).astype(kind) for a in (*layer.params, *inputs, *douts))
        _, next_h, next_c, steps = reference.lstm(x[:, None], Wx, Wh, b, h, c)
        zeros = np.zeros((N, 1, H), kind)
        dx, dWx, dWh, db, dh_prev, dc_prev = reference.lstm_backward(steps, Wx, Wh, zeros, dh, dc)
        return [next_h, next_c, dx[:, 0], dh_prev, dc_prev, dWx, dWh, db]

    for one, plain, exact in zip(found, by_steps(getattr(np, dtype)), by_steps(np.longdouble), strict=True):
        assert_as_exact_as(plain, library.numpy(one), exact, factor=8)


def test_all_steps_are_one_step_after_the_other(library: Library) -> None:
    d = Draw(library)
    Wx, Wh, b = weights(d)
    xs, dhs = d(N, T, D), d(N, T, H)
    layer = TimeLSTM(Wx, Wh, b)
    hs = library.numpy(layer.forward(xs))
    dxs = library.numpy(layer.backward(dhs))

    steps = [LSTM(Wx, Wh, b) for _ in range(T)]
    h = c = library.array(np.zeros((N, H)))
    for t, step in enumerate(steps):
        h, c = step.forward(library.array(library.numpy(xs)[:, t]), h, c)
        np.testing.assert_allclose(hs[:, t], library.numpy(h), atol=1e-14)
    np.testing.assert_allclose(library.numpy(layer.h), library.numpy(h), atol=1e-14)
    np.testing.assert_allclose(library.numpy(layer.c), library.numpy(c), atol=1e-14)
    totals = [np.zeros(tuple(g.shape)) for g in layer.grads]
    dh = dc = library.array(np.zeros((N, H)))
    for t in reversed(range(T)):
        dx, dh, dc = steps[t].backward(library.array(library.numpy(dhs)[:, t]) + dh, dc)
        np.testing.assert_allclose(dxs[:, t], library.numpy(dx), atol=1e-13)
        for total, grad in zip(totals, steps[t].grads, strict=True):
            total += library.numpy(grad)
    np.testing.assert_allclose(library.numpy(layer.dh), library.numpy(dh), atol=1e-13)
    for total, grad in zip(totals, layer.grads, strict=True):
        np.testing.assert_allclose(library.numpy(grad), total, atol=1e-12)


def test_without_a_state_each_forward_starts_from_zero(library: Library) -> None:
    d = Draw(library)
    layer, xs = TimeLSTM(*weights(d)), d(N, T, D)
    assert (layer.h, layer.c, layer.dh) == (None, None, None)
    first, again = library.numpy(layer.forward(xs)), library.numpy(layer.forward(xs))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(library.numpy(layer.h), first[:, -1])


def test_a_state_is_carried_on(library: Library) -> None:
    d = Draw(library)
    params, xs = weights(d), d(N, 2 * T, D)
    whole = library.numpy(TimeLSTM(*params).forward(xs))
    layer = TimeLSTM(*params, stateful=True)
    halves = [library.array(library.numpy(xs)[:, part]) for part in (slice(0, T), slice(T, None))]
    parts = [library.numpy(layer.forward(half)) for half in halves]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-14)
    layer.reset_state()
    assert layer.h is None
    assert layer.c is None
    np.testing.assert_array_equal(library.numpy(layer.forward(halves[0])), parts[0])


def test_a_state_may_be_set(library: Library) -> None:
    d = Draw(library)
    params, xs, h, c = weights(d), d(N, T, D), d(N, H), d(N, H)
    before = library.numpy(h).copy()
    layer = TimeLSTM(*params, stateful=True)
    layer.set_state(h, c)
    hs = library.numpy(layer.forward(xs))
    arrays = [library.numpy(a) for a in (xs, *params, h, c)]
    np.testing.assert_allclose(hs, reference.lstm(*arrays)[0], atol=1e-14)
    np.testing.assert_array_equal(library.numpy(h), before)
    assert not np.array_equal(library.numpy(layer.h), before)
    layer.set_state(h)
    arrays[-1] = np.zeros((N, H))
    np.testing.assert_allclose(library.numpy(layer.forward(xs)), reference.lstm(*arrays)[0], atol=1e-14)


def test_the_gradient_of_the_first_state(library: Library) -> None:
    d = Draw(library)
    params, xs, h, dhs = weights(d), d(N, T, D), d(N, H), d(N, T, H)
    layer = TimeLSTM(*params, stateful=True)
    layer.set_state(h)
    layer.forward(xs)
    layer.backward(dhs)
    Wx, Wh, b, x, first, zeros = (library.numpy(a) for a in (*params, xs, h, library.array(np.zeros((N, H)))))
    *_, steps = reference.lstm(x, Wx, Wh, b, first, zeros)
    *_, dh, _ = reference.lstm_backward(steps, Wx, Wh, library.numpy(dhs), zeros, zeros)
    np.testing.assert_allclose(library.numpy(layer.dh), dh, atol=1e-13)


def test_what_a_state_became_may_be_written_to(library: Library) -> None:
    d = Draw(library)
    layer, xs, dhs = TimeLSTM(*weights(d)), d(N, T, D), d(N, T, H)
    layer.forward(xs)
    expected = library.numpy(layer.backward(dhs)).copy()
    hs = layer.forward(xs)
    for array in (hs, layer.h, layer.c):
        array[...] = 0
    np.testing.assert_array_equal(library.numpy(layer.backward(dhs)), expected)


def test_a_padded_batch_is_each_sequence_alone(library: Library) -> None:
    d = Draw(library)
    params, xs, dhs = weights(d), d(N, T, D), d(N, T, H)
    lengths = [5, 2, 3]
    mask = np.arange(T) < np.array(lengths)[:, None]
    layer = TimeLSTM(*params)
    hs = library.numpy(layer.forward(xs, library.array(mask)))
    # Only the states of live steps, and the last one through `h`, are looked at.
    live = np.where(mask[..., None], library.numpy(dhs), 0)
    dxs = library.numpy(layer.backward(library.array(live)))
    totals = [np.zeros(tuple(p.shape)) for p in params]
    for n, length in enumerate(lengths):
        alone = TimeLSTM(*params)
        own = library.numpy(alone.forward(library.array(library.numpy(xs)[n : n + 1, :length])))
        np.testing.assert_allclose(hs[n, :length], own[0], atol=1e-14)
        np.testing.assert_allclose(library.numpy(layer.h)[n], own[0, -1], atol=1e-14)
        np.testing.assert_allclose(library.numpy(layer.c)[n], library.numpy(alone.c)[0], atol=1e-14)
        np.testing.assert_array_equal(hs[n, length:], np.repeat(hs[n, length - 1][None], T - length, axis=0))
        own_dxs = library.numpy(alone.backward(library.array(live[n : n + 1, :length])))
        np.testing.assert_allclose(dxs[n, :length], own_dxs[0], atol=1e-13)
        assert (dxs[n, length:] == 0).all()
        for total, grad in zip(totals, alone.grads, strict=True):
            total += library.numpy(grad)
    for total, grad in zip(totals, layer.grads, strict=True):
        np.testing.assert_allclose(library.numpy(grad), total, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_may_hold_anything(library: Library, bad: float) -> None:
    d = Draw(library)
    layer, xs, dhs, mask = TimeLSTM(*weights(d)), d(N, T, D), d(N, T, H), d.mask(N, T)
    padding = library.numpy(xs).copy()
    padding[~library.numpy(mask)] = bad
    runs = []
    for states in (xs, library.array(padding)):
        hs = layer.forward(states, mask)
        runs.append(
            [library.numpy(a).copy() for a in (hs, layer.backward(dhs), *layer.grads, layer.dh, layer.h, layer.c)]
        )
    for clean, found in zip(*runs, strict=True):
        np.testing.assert_array_equal(found, clean)


def test_bad_input(library: Library) -> None:
    d = Draw(library)
    Wx, Wh, b = weights(d)
    with pytest.raises(ValueError, match=r"^`Wh` must have shape \(H, 4H\) = \(11, 44\) to go with Wx \(7, 44\), got"):
        TimeLSTM(Wx, d(H, H), b)
    layer = TimeLSTM(Wx, Wh, b, stateful=True)
    with pytest.raises(
        ValueError, match=r"^`c` must have shape \(N, H\) = \(3, 11\) to go with h \(3, 11\), got \(3, 12\)$"
    ):
        layer.set_state(d(N, H), d(N, H + 1))
    layer.forward(d(N, T, D))
    with pytest.raises(ValueError, match=r"^`h` must have shape \(N, H\) = \(4, 11\) to go with .*, got \(3, 11\)$"):
        layer.forward(d(N + 1, T, D))  # another batch against the state of the last
    with pytest.raises(
        ValueError, match=r"^`h_prev` must have shape \(N, H\) = \(3, H\) to go with x \(3, 7\), got \(4, 11\)$"
    ):
        LSTM(Wx, Wh, b).forward(d(N, D), d(N + 1, H), d(N, H))
    with pytest.raises(TypeError, match=r"^`xs` must have the dtype of Wx, .*float64, got .*float32"):
        TimeLSTM(Wx, Wh, b).forward(Draw(library, "float32")(N, T, D))
