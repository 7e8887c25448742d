"""Long short-term memory over a sequence."""

import re
from math import tanh
from typing import Any

import numpy as np
import pytest
import reference
from support import Draw, Library, assert_as_exact_as

from attnlayers import functional as F

N, T, D, H = 3, 5, 7, 11
NAN, INF = np.nan, np.inf
GRADIENTS = ("dx", "dWx", "dWh", "db", "dh", "dc")


def given(
    library: Library, dtype: str = "float64", batch: int = N, inputs: int = D
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of lstm, and of lstm_backward."""
    d = Draw(library, dtype)
    shapes = {"x": (batch, T, inputs), "Wx": (inputs, 4 * H), "Wh": (H, 4 * H), "b": (4 * H,)}
    shapes |= {"h": (batch, H), "c": (batch, H)}
    forward = {name: d(*shape) for name, shape in shapes.items()}
    return forward, {"dhs": d(batch, T, H), "dh": d(batch, H), "dc": d(batch, H)}


def run(forward: dict[str, Any], backward: dict[str, Any], mask: Any = None) -> dict[str, Any]:
    weights = [forward[name] for name in ("x", "Wx", "Wh", "b")]
    hs, h, c, saved = F.lstm(*weights, h=forward.get("h"), c=forward.get("c"), mask=mask)
    gradients = F.lstm_backward(saved, backward["dhs"], dh=backward.get("dh"), dc=backward.get("dc"))
    return {"hs": hs, "h": h, "c": c} | dict(zip(GRADIENTS, gradients, strict=True))


def by_steps(library: Library, forward: dict[str, Any], backward: dict[str, Any], kind: Any) -> dict[str, np.ndarray]:
    arrays = {
        name: library.numpy(a).astype(kind) for name, a in (forward | {f"{n}_": a for n, a in backward.items()}).items()
    }
    hs, h, c, steps = reference.lstm(*(arrays[name] for name in ("x", "Wx", "Wh", "b", "h", "c")))
    gradients = reference.lstm_backward(steps, arrays["Wx"], arrays["Wh"], arrays["dhs_"], arrays["dh_"], arrays["dc_"])
    return {"hs": hs, "h": h, "c": c} | dict(zip(GRADIENTS, gradients, strict=True))


def test_by_hand(library: Library) -> None:
    """One number wide. Weights are 0, so that every gate is one half, and g = tanh(b)."""
    a = library.array
    bias = a([0.0, 2.0, 0.0, 0.0])
    hs, h, c, saved = F.lstm(a([[[9.0], [9.0]]]), a(np.zeros((1, 4))), a(np.zeros((1, 4))), bias, c=a([[8.0]]))
    g = tanh(2)
    c1 = 0.5 * 8 + 0.5 * g
    c2 = 0.5 * c1 + 0.5 * g
    assert library.numpy(hs) == pytest.approx(np.array([[[0.5 * tanh(c1)], [0.5 * tanh(c2)]]]))
    assert library.numpy(h) == pytest.approx(np.array([[0.5 * tanh(c2)]]))
    assert library.numpy(c) == pytest.approx(np.array([[c2]]))
    dx, dWx, _, db, dh, dc = (library.numpy(d) for d in F.lstm_backward(saved, a([[[0.0], [1.0]]])))
    dc2 = 0.5 * (1 - tanh(c2) ** 2)
    assert dc == pytest.approx(np.array([[dc2 / 4]]))
    assert dx.tolist() == [[[0], [0]]]
    assert dh.tolist() == [[0]]
    slopes = [(c1 * dc2 + 8 * dc2 / 2) / 4, (dc2 + dc2 / 2) / 2 * (1 - g**2), (dc2 + dc2 / 2) * g / 4, tanh(c2) / 4]
    assert db == pytest.approx(np.array(slopes))
    assert dWx == pytest.approx(9 * np.array([slopes]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [N, 211])
@pytest.mark.parametrize("inputs", [2, D])
def test_against_steps(library: Library, dtype: str, batch: int, inputs: int) -> None:
    forward, backward = given(library, dtype, batch, inputs)
    plain = by_steps(library, forward, backward, getattr(np, dtype))
    exact = by_steps(library, forward, backward, np.longdouble)
    for name, found in run(forward, backward).items():
        assert_as_exact_as(plain[name], library.numpy(found), exact[name], factor=8)


def test_what_is_left_out_is_zero(library: Library) -> None:
    forward, backward = given(library)
    zeros = library.array(np.zeros((N, H)))
    expected = run(forward | {"h": zeros, "c": zeros}, backward | {"dh": zeros, "dc": zeros})
    found = run({n: forward[n] for n in ("x", "Wx", "Wh", "b")}, {"dhs": backward["dhs"]})
    for name in expected:
        np.testing.assert_array_equal(library.numpy(found[name]), library.numpy(expected[name]))


MASKS = {
    "ends": np.arange(T) < np.array([[5], [2], [0]]),
    "begins": np.arange(T) >= np.array([[0], [3], [5]]),
    "holes": np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 1, 1, 0, 1]]) > 0,
}


@pytest.mark.parametrize("mask", MASKS)
def test_masked_steps_are_as_if_they_were_not_there(library: Library, mask: str) -> None:
    forward, backward = given(library)
    together = {name: library.numpy(a) for name, a in run(forward, backward, library.array(MASKS[mask])).items()}
    sums = {name: np.zeros(together[name].shape) for name in ("dWx", "dWh", "db")}
    for n, live in enumerate(MASKS[mask]):
        steps = np.flatnonzero(live)
        # The gradient of a state that goes through unchanged belongs to the live step that it came from.
        dhs, own = library.numpy(backward["dhs"])[n], np.zeros((len(steps), H))
        dh = library.numpy(backward["dh"])[n].copy()
        before = np.zeros(H)
        for t in range(T):
            came_from = np.searchsorted(steps, t, side="right") - 1
            if came_from < 0:
                before += dhs[t]
            else:
                own[came_from] += dhs[t]
        x = library.array(library.numpy(forward["x"])[n : n + 1, steps])
        cut = forward | {"x": x} | {s: library.array(library.numpy(forward[s])[n : n + 1]) for s in ("h", "c")}
        dc = library.array(library.numpy(backward["dc"])[n : n + 1])
        alone = run(cut, {"dhs": library.array(own[None]), "dh": library.array(dh[None]), "dc": dc})
        alone = {name: library.numpy(a) for name, a in alone.items()}
        np.testing.assert_allclose(together["hs"][n, steps], alone["hs"][0], atol=1e-14)
        for t in np.flatnonzero(~live):
            last = together["hs"][n, t - 1] if t else library.numpy(forward["h"])[n]
            np.testing.assert_array_equal(together["hs"][n, t], last)
        np.testing.assert_allclose(together["dx"][n, steps], alone["dx"][0], atol=1e-13)
        assert (together["dx"][n, ~live] == 0).all()
        for name in ("h", "c", "dc"):
            np.testing.assert_allclose(together[name][n], alone[name][0], atol=1e-13)
        np.testing.assert_allclose(together["dh"][n], alone["dh"][0] + before, atol=1e-13)
        for name in sums:
            sums[name] += alone[name]
    for name, total in sums.items():
        np.testing.assert_allclose(together[name], total, atol=1e-12)


@pytest.mark.parametrize("inputs", [2, D])
def test_many_masked_rows_are_as_few(library: Library, inputs: int) -> None:
    forward, backward = given(library, batch=17, inputs=inputs)
    mask = np.tile(MASKS["holes"], (6, 1))[:17]
    together = {name: library.numpy(a) for name, a in run(forward, backward, library.array(mask)).items()}
    parts = []
    for n in (slice(0, 5), slice(5, 10), slice(10, 17)):
        few = {name: a[n, ...] if name in ("x", "h", "c") else a for name, a in forward.items()}
        found = run(few, {name: a[n, ...] for name, a in backward.items()}, library.array(mask[n]))
        parts.append({name: library.numpy(a) for name, a in found.items()})
    for name, whole in together.items():
        of_parts = [part[name] for part in parts]
        expected = sum(of_parts) if name in ("dWx", "dWh", "db") else np.concatenate(of_parts)
        np.testing.assert_allclose(whole, expected, atol=1e-12)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_masked_step_may_hold_anything(library: Library, bad: float) -> None:
    forward, backward = given(library)
    mask = library.array(MASKS["holes"])
    expected = run(forward, backward, mask)
    x = library.numpy(forward["x"]).copy()
    x[~MASKS["holes"]] = bad
    for name, found in run(forward | {"x": library.array(x)}, backward, mask).items():
        np.testing.assert_array_equal(library.numpy(found), library.numpy(expected[name]))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_nan_and_infinity_stay_in_their_sequence(library: Library, bad: float) -> None:
    forward, backward = given(library)
    good = run(forward, backward)
    x = library.numpy(forward["x"]).copy()
    x[1, 2, 3] = bad
    found = run(forward | {"x": library.array(x)}, backward)
    for name in ("hs", "h", "c", "dx", "dh", "dc"):
        np.testing.assert_allclose(library.numpy(found[name])[[0, 2]], library.numpy(good[name])[[0, 2]], atol=1e-14)
    np.testing.assert_allclose(library.numpy(found["hs"])[1, :2], library.numpy(good["hs"])[1, :2], atol=1e-14)
    assert np.isnan(library.numpy(found["hs"])[1, 2:]).all() == bool(np.isnan(bad))


@pytest.mark.parametrize(
    ("batch", "length", "masked"), [(0, T, False), (0, T, True), (N, 0, False), (N, 0, True), (0, 0, True)]
)
def test_of_nothing(library: Library, batch: int, length: int, masked: bool) -> None:
    d = Draw(library)
    h, c = d(batch, H), d(batch, H)
    mask = library.array(np.ones((batch, length), dtype=bool)) if masked else None
    hs, last_h, last_c, saved = F.lstm(d(batch, length, D), d(D, 4 * H), d(H, 4 * H), d(4 * H), h=h, c=c, mask=mask)
    assert tuple(hs.shape) == (batch, length, H)
    np.testing.assert_array_equal(library.numpy(last_h), library.numpy(h))
    np.testing.assert_array_equal(library.numpy(last_c), library.numpy(c))
    dh, dc = d(batch, H), d(batch, H)
    gradients = [library.numpy(a) for a in F.lstm_backward(saved, hs, dh=dh, dc=dc)]
    assert [a.shape for a in gradients] == [
        (batch, length, D),
        (D, 4 * H),
        (H, 4 * H),
        (4 * H,),
        (batch, H),
        (batch, H),
    ]
    assert not any(a.any() for a in gradients[:4])
    np.testing.assert_array_equal(gradients[4], library.numpy(dh))
    np.testing.assert_array_equal(gradients[5], library.numpy(dc))


@pytest.mark.parametrize(
    ("changed", "shape", "message"),
    [
        ("Wx", (D + 1, 4 * H), "`Wx` must have shape (D, 4H) = (7, 4H) to go with x (3, 5, 7), got (8, 44)"),
        ("Wh", (H, 4 * H + 1), "`Wh` must have shape (H, 4H) = (11, 44) to go with Wx (7, 44), got (11, 45)"),
        ("Wh", (H + 1, 4 * H), "`Wh` must have shape (H, 4H), four gates side by side, got (12, 44)"),
        ("b", (4 * H, 1), "`b` must have shape (4H,) = (44,) to go with Wx (7, 44), Wh (11, 44), got (44, 1)"),
        ("h", (N + 1, H), "`h` must have shape (N, H) = (3, 11) to go with x (3, 5, 7), Wh (11, 44), got (4, 11)"),
        ("x", (N, D), "`x` must have shape (N, T, D), got (3, 7)"),
    ],
)
def test_shapes_that_do_not_fit(library: Library, changed: str, shape: tuple[int, ...], message: str) -> None:
    forward, _ = given(library)
    forward[changed] = library.array(np.zeros(shape))
    if changed == "Wh" and shape[0] != H:
        del forward["h"], forward["c"]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        F.lstm(**forward)


def test_other_bad_input(library: Library) -> None:
    forward, backward = given(library)
    with pytest.raises(ValueError, match=r"^`mask` must have shape \(N, T\) = \(3, 5\) to go with .*, got \(5, 3\)$"):
        F.lstm(**forward, mask=library.array(np.ones((T, N), dtype=bool)))
    with pytest.raises(TypeError, match=r"^`mask` must be boolean, got .*int64"):
        F.lstm(**forward, mask=library.array(np.ones((N, T)), "int64"))
    with pytest.raises(TypeError, match=r"^`c` must have the dtype of x, .*float64, got .*float32"):
        F.lstm(**forward | {"c": Draw(library, "float32")(N, H)})
    *_, saved = F.lstm(**forward)
    with pytest.raises(ValueError, match=r"^`dhs` must have the shape of the output, \(3, 5, 11\), got \(3, 11, 5\)$"):
        F.lstm_backward(saved, Draw(library)(N, H, T))
    with pytest.raises(ValueError, match=r"^`dh` must have shape \(N, H\) = \(3, 11\) to go with dhs"):
        F.lstm_backward(saved, backward["dhs"], dh=Draw(library)(H, N))
