"""Results under ``np.seterr(all="raise")``, the same as without it, from whatever the library computes."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Draw, Library

from attnbackends import get_backend, quiet
from attnlayers import Layer, TimeAdditiveAttention, TimeLocalAttention, functional
from attnlayers.models import AttentionSeq2seq, Transformer
from attnlayers.training import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop, clip_grads

OPTIMIZERS: list[Callable[[], Optimizer]] = [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam]
SOME = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Sized(Draw):
    """Normal numbers of many sizes, from 10**-size to 10**size; float16 has fewer."""

    def __init__(self, library: Library, dtype: str, seed: int, size: int) -> None:
        super().__init__(library, dtype, seed)
        self.size = min(size, 4) if dtype == "float16" else size

    def __call__(self, *shape: int) -> Any:
        values = self.rng.standard_normal(shape) * 10.0 ** self.rng.uniform(-self.size, self.size, shape)
        with np.errstate(all="ignore"):
            return self.library.array(values.astype(np.float32), self.dtype)


def as_tuple(x: Any) -> tuple[Any, ...]:
    return () if x is None else x if isinstance(x, tuple) else (x,)


def outcome(case: str, draw: Sized, state: str) -> list[np.ndarray]:
    """Outputs and gradients of a layer under a state of NumPy's reports, after a check that they leave it alone."""
    with np.errstate(all="ignore"):
        layer, inputs = CASES[case](draw)
    with np.errstate(all=state):
        before = np.geterr()
        outs = as_tuple(layer.forward(*inputs))
        assert np.geterr() == before
    with np.errstate(all="ignore"):
        douts = [draw(*out.shape) for out in outs]
    with np.errstate(all=state):
        gradients = as_tuple(layer.backward(*douts))
        assert np.geterr() == before
    return [draw.library.numpy(array) for array in (*outs, *gradients, *layer.grads)]


@pytest.mark.parametrize("case", CASES)
@SOME
@given(
    dtype=st.sampled_from(["float16", "float32", "float64"]), seed=st.integers(0, 99), size=st.sampled_from([0, 6, 36])
)
def test_every_layer(library: Library, case: str, dtype: str, seed: int, size: int) -> None:
    if not hasattr(library.xp, dtype):
        return
    found, expected = (outcome(case, Sized(library, dtype, seed, size), state) for state in ("raise", "ignore"))
    for one, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("make", OPTIMIZERS)
@SOME
@given(dtype=st.sampled_from(["float16", "float32", "float64"]), seed=st.integers(0, 99), size=st.sampled_from([6, 36]))
def test_every_optimizer(library: Library, make: Callable[[], Optimizer], dtype: str, seed: int, size: int) -> None:
    if not hasattr(library.xp, dtype):
        return
    results = []
    for state in ("raise", "ignore"):
        draw, optimizer = Sized(library, dtype, seed, size), make()
        params = [draw(3, 5) + 0, draw(7) + 0]
        for _ in range(3):
            grads = [draw(3, 5) + 0, draw(7) + 0]
            with np.errstate(all=state):
                norm = clip_grads(grads, 1.0)
                optimizer.update(params, grads)
                optimizer.load_state(optimizer.state(), params, optimizer.steps)
        results.append([library.numpy(array) for array in (norm, *grads, *params)] + [*optimizer.state().values()])
    for one, same in zip(*results, strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("kind", [AttentionSeq2seq, Transformer])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_models(kind: Any, dtype: str) -> None:
    """Made, trained, saved and asked under a caller's reports."""
    sizes = (11, 8, 2, 16) if kind is Transformer else (11, 6, 8)
    answers = []
    for state in ("raise", "ignore"):
        ids = np.random.default_rng(0).integers(0, 11, (4, 5))
        with np.errstate(all=state):
            model = kind(*sizes, dtype=dtype, backend=get_backend("numpy"))
            optimizer = Adam(0.3)
            for _ in range(5):
                model.forward(ids, ids, ids)
                model.backward()
                clip_grads(model.grads, 5.0)
                optimizer.update(model.params, model.grads)
            model.load_state({name: array * 50.0 for name, array in model.state().items()})
            answers.append([*model.generate(ids, 1, 2, 4), *model.generate(ids, 1, 2, 4, beam_size=3)])
    for one, same in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_far_key_of_local_attention_has_weight_0(library: Library) -> None:
    weights = [np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1))]
    layer = TimeLocalAttention(*(library.array(w, "float32") for w in weights), width=1)
    hs = library.array(np.arange(60.0).reshape(1, 60, 1), "float32")
    with np.errstate(all="raise"):
        out = layer.forward(hs, library.array(np.zeros((1, 1, 1)), "float32"))
    near = np.exp(-0.5) / 2  # two keys half a step away, of a deviation of 1 / 2
    assert float(library.numpy(out)[0, 0, 0]) == pytest.approx((29 + 30) * near, rel=1e-6)


def test_scores_of_796(library: Library) -> None:
    ones = [np.eye(2), np.zeros((1, 2)), np.zeros(2), np.array([796.0, 0.0])]
    layer = TimeAdditiveAttention(*(library.array(w, "float32") for w in ones))
    hs = library.array([[[100.0, 0.0], [-100.0, 0.0]]], "float32")
    with np.errstate(all="raise"):
        out = layer.forward(hs, library.array([[[0.0]]], "float32"))
        layer.backward(out)
    assert library.numpy(out).tolist() == [[[100.0, 0.0]]]


def test_cross_entropy_of_0_and_minus_100(library: Library) -> None:
    logits = library.array([[0.0, -100.0]], "float32")
    with np.errstate(all="raise"):
        loss, saved = functional.cross_entropy(logits, library.array([1]))
        dlogits = functional.cross_entropy_backward(saved)
    assert float(loss) == 100
    np.testing.assert_allclose(library.numpy(dlogits), [[1.0, -1.0]], rtol=1e-6)


def test_adam_with_gradients_of_1e_minus_20(library: Library) -> None:
    param, grad = library.array([1.0], "float32") + 0, library.array([1e-20], "float32")
    with np.errstate(all="raise"):
        Adam(1.0).update([param], [grad])
    assert float(param[0]) == 1


def test_every_function_is_quiet() -> None:
    """A drawn case above does not reach what no layer uses."""
    for name in functional.__all__:
        assert getattr(functional, name).__wrapped__.__name__ == name


def test_threads_are_quiet_too() -> None:
    backend = get_backend("numpy")
    states = []

    def work(_: int) -> None:
        states.append(np.geterr())
        np.exp(np.float32(-1e3))

    with np.errstate(all="raise"):
        backend.map(work, range(8))
    assert {*map(str, states)} == {str(dict.fromkeys(("divide", "over", "under", "invalid"), "ignore"))}


def test_a_layer_of_the_callers_own_reports_as_they_asked() -> None:
    class Own(Layer):
        def forward(self, x: Any) -> Any:
            return x / 0

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        Own().forward(np.ones(1))


def test_reports_come_back_after_an_error_and_within_other_threads() -> None:
    @quiet
    def fails() -> None:
        raise KeyError("any")

    found: list[Any] = []

    @quiet
    def asks_another() -> None:
        thread = threading.Thread(target=lambda: found.append(quiet(np.geterr)()))
        thread.start()
        thread.join()

    with np.errstate(all="raise"):
        with pytest.raises(KeyError):
            fails()
        assert {*np.geterr().values()} == {"raise"}
        asks_another()
    assert {*found[0].values()} == {"ignore"}
