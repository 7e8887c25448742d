"""Optimizers on half precision: what they remember is in float32, a parameter is rounded once a step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Library

import attnbackends
from attnbackends import float_dtype
from attnlayers.models import AttentionSeq2seq, Transformer
from attnlayers.training import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop, clip_grads

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
OPTIMIZERS: list[Callable[[], Optimizer]] = [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam]
SOME = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def half(library: Library, values: Any, dtype: str) -> Any:
    """An array in half precision that may be written to; skips where the library has none."""
    try:
        own = float_dtype(library.backend, dtype)
    except ValueError:
        pytest.skip(f"{library.backend.name} has no {dtype}")
    return library.backend.asarray(np.array(values, np.float32), dtype=own)


def numbers(library: Library, array: Any) -> np.ndarray:
    return np.array(library.numpy(array), np.float64)


def step_of(dtype: str, value: float) -> float:
    """The distance between two numbers of a dtype at a value."""
    return float(ml_dtypes.finfo(HALVES[dtype]).eps) * 2.0 ** np.floor(np.log2(abs(value)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [(AdaGrad, 1 - 0.01 * (1 + 2**-0.5 + 3**-0.5)), (RMSprop, 0.773), (Adam, 0.997), (SGD, 1), (Momentum, 1)],
)
def test_three_steps_with_a_gradient_of_1e_minus_4(library: Library, make: Any, expected: float) -> None:
    param, grad, optimizer = half(library, [1.0], "float16"), half(library, [1e-4], "float16"), make()
    for _ in range(3):
        optimizer.update([param], [grad])
    assert numbers(library, param).item() == pytest.approx(expected, abs=2**-11)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("make", OPTIMIZERS)
@SOME
@given(
    size=st.sampled_from([1e-7, 1e-4, 1.0, 300.0, 1e4]),
    shape=st.sampled_from([(), (3,), (2, 5), (0, 3)]),
    seed=st.integers(0, 999),
)
def test_every_rule_is_that_of_float64_rounded_at_each_step(
    library: Library, make: Callable[[], Optimizer], dtype: str, size: float, shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    param, optimizer = half(library, rng.uniform(0.5, 2.0, shape), dtype), make()
    exact, exact_optimizer = numbers(library, param), make()
    for _ in range(4):
        grad = half(library, size * rng.standard_normal(shape), dtype)
        optimizer.update([param], [grad])
        before = exact.copy()
        exact_optimizer.update([exact], [numbers(library, grad)])
        # Rounding a step that float32 has off by one part in 10**6 may fall to the other side.
        allowed = 0.5 * np.abs(np.nextafter(exact, np.inf) - exact) + 2e-6 * np.abs(exact - before)
        unit = np.array([step_of(dtype, x) if x else 0 for x in exact.ravel()]).reshape(shape)
        assert np.all(np.abs(numbers(library, param) - exact) <= 0.5001 * unit + allowed + 1e-7)
        exact[...] = numbers(library, param)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_what_is_remembered_is_float32_in_the_state_too(
    library: Library, make: Callable[[], Optimizer], dtype: str
) -> None:
    param, optimizer = half(library, [[1.0, 2.0]], dtype), make()
    optimizer.update([param], [half(library, [[300.0, -1e-5]], dtype)])
    assert param.dtype == float_dtype(library.backend, dtype)
    assert all(array.dtype == library.xp.float32 for arrays in optimizer.memory.values() for array in arrays)
    assert {array.dtype for array in optimizer.state().values()} <= {np.dtype(np.float32)}
    other, same = make(), param + 0
    other.load_state(optimizer.state(), [same], 1)
    for one, place in ((optimizer, param), (other, same)):
        one.update([place], [half(library, [[1.0, 1.0]], dtype)])
    np.testing.assert_array_equal(numbers(library, param), numbers(library, same))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_state_in_half_precision_goes_on_in_float32(library: Library, dtype: str) -> None:
    param, optimizer = half(library, [1.0], dtype), Adam()
    state = {name: np.array([value], HALVES[dtype]) for name, value in (("m.0", 0.5), ("v.0", 0.25))}
    optimizer.load_state(state, [param], 3)
    optimizer.update([param], [half(library, [300.0], dtype)])
    found = optimizer.state()
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    assert found["m.0"].item() == pytest.approx(0.9 * 0.5 + 0.1 * 300, rel=1e-6)
    assert found["v.0"].item() == pytest.approx(0.999 * 0.25 + 0.001 * 90000, rel=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("values", [[300.0], np.full((300, 300), 2.0), np.full(5, 1e-4), [3e4, -3e4]])
def test_clipping_to_1(library: Library, values: Any, dtype: str) -> None:
    grad = half(library, values, dtype)
    before = numbers(library, grad)
    norm = clip_grads([grad], 1.0)
    exact = float(np.linalg.norm(before))
    assert norm.dtype == library.xp.float32
    assert float(norm) == pytest.approx(exact, rel=1e-5)
    expected = before * min(1.0, 1 / (exact + 1e-6))
    assert grad.dtype == float_dtype(library.backend, dtype)
    np.testing.assert_allclose(numbers(library, grad), expected, rtol=float(ml_dtypes.finfo(HALVES[dtype]).eps))


@SOME
@given(
    dtype=st.sampled_from([*HALVES]), sizes=st.lists(st.sampled_from([1e-4, 1.0, 250.0, 6e4]), min_size=1, max_size=3)
)
def test_the_norm_of_drawn_gradients(library: Library, dtype: str, sizes: list[float]) -> None:
    rng = np.random.default_rng(len(sizes))
    grads = [half(library, np.clip(size * rng.standard_normal((7, 11)), -6e4, 6e4), dtype) for size in sizes]
    before = [numbers(library, grad) for grad in grads]
    exact = float(np.sqrt(sum(np.sum(x * x) for x in before)))
    assert float(clip_grads(grads, 2.0)) == pytest.approx(exact, rel=1e-5)
    for grad, old in zip(grads, before, strict=True):
        np.testing.assert_allclose(numbers(library, grad), old * min(1.0, 2 / exact), rtol=2.0**-8, atol=2.0**-25)


def test_no_gradients_have_a_norm_of_0() -> None:
    norm = clip_grads([], 1.0)
    assert tuple(norm.shape) == ()
    assert float(attnbackends.backend.to_numpy(norm)) == 0


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_no_parameters_are_none_to_change(make: Callable[[], Optimizer]) -> None:
    optimizer = make()
    optimizer.update([], [])
    assert optimizer.steps == 1
    assert optimizer.state() == {}
    optimizer.load_state({}, [], 1)
    with pytest.raises(ValueError, match="zip"):
        optimizer.update([], [np.ones(2)])


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_parameter_without_axes_is_one_number(library: Library, make: Callable[[], Optimizer]) -> None:
    alone, row = (library.backend.asarray(np.array(values)) for values in (2.0, [2.0]))
    first, second = make(), make()
    for grad in (1.0, -3.0, 0.5):
        first.update([alone], [library.array(grad, "float64")])
        second.update([row], [library.array([grad], "float64")])
        first.load_state(first.state(), [alone], first.steps)
        clip_grads([alone], 1e9)
    assert float(alone) == float(row[0]) != 2


def test_a_number_that_cannot_be_changed_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"`params\[1\]` cannot be changed in place, it is a numpy.float64 and no array"
    ):
        Adam().update([np.ones(2), np.float64(1)], [np.ones(2), np.ones(())])


def losses(kind: Any, library: Library, dtype: str, lr: float, steps: int = 60) -> list[float]:
    """Of learning to repeat a few sequences."""
    sizes = (7, 16, 2, 16, 1) if kind is Transformer else (7, 8, 16)
    model, optimizer = kind(*sizes, dtype=dtype, backend=library.backend), Adam(lr)
    ids = library.array(np.random.default_rng(0).integers(3, 7, (8, 4)), "int64")
    inputs = library.xp.concat((library.xp.ones_like(ids[:, :1]), ids[:, :-1]), axis=1)
    found = []
    for _ in range(steps):
        found.append(float(model.forward(ids, inputs, ids)))
        model.backward()
        clip_grads(model.grads, 5.0)
        optimizer.update(model.params, model.grads)
    assert {param.dtype for param in model.params} == {float_dtype(library.backend, dtype)}
    assert model.generate(ids, 1, 2, 4)[0].shape == model.generate(ids, 1, 2, 4, beam_size=2)[0].shape == (8, 4)
    return found


@pytest.mark.parametrize("kind", [Transformer, AttentionSeq2seq])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_learns_as_in_float32(library: Library, kind: Any, dtype: str) -> None:
    half(library, [1.0], dtype)
    found, exact = (losses(kind, library, name, 0.01) for name in (dtype, "float32"))
    assert exact[-1] < 0.1 * exact[0]
    assert found[-1] < 0.2 * exact[0]
    np.testing.assert_allclose(found[:20], exact[:20], atol=0.1 if dtype == "float16" else 0.3)


@pytest.mark.parametrize("kind", [Transformer, AttentionSeq2seq])
@pytest.mark.parametrize("dtype", ["int32", "sum", "nonsense"])
def test_other_dtypes_are_refused(library: Library, kind: Any, dtype: str) -> None:
    sizes = (7, 4, 2, 5) if kind is Transformer else (7, 3, 4)
    with pytest.raises(ValueError, match=f"`dtype` must be the name of a floating point dtype of .*, got '{dtype}'"):
        kind(*sizes, dtype=dtype, backend=library.backend)
