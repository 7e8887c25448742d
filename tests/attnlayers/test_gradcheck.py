"""The gradient check finds what is wrong, passes what is right, and touches nothing."""

from typing import Any

import numpy as np
import pytest
from cases import CASES
from support import Draw, Library

from attnbackends import get_backend
from attnlayers import GradientError, Layer, WeightSum, gradcheck

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 3, 5))


@pytest.mark.parametrize("case", CASES)
def test_every_layer_passes(library: Library, case: str) -> None:
    layer, inputs = CASES[case](Draw(library))
    errors = gradcheck(layer, *inputs)
    floating = sum("float" in str(x.dtype) for x in inputs)
    assert list(errors) == [*(f"input {i}" for i in range(floating)), *layer.names]
    assert max(value for name, value in errors.items() if not name.endswith("key.b")) < 1e-7  # that is 0 in theory


@pytest.mark.parametrize("seed", range(8))
def test_a_gradient_that_is_zero_in_theory_is_rounding_alone(library: Library, seed: int) -> None:
    """A bias on the keys moves all scores of a row alike: what the differences show of it is no error."""
    layer, inputs = CASES["MultiHeadAttention"](Draw(library))
    assert gradcheck(layer, *inputs, seed=seed)["key.b"] < 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_what_is_not_zero_where_zero_is_right_is_found(seed: int) -> None:
    class Wrong(WeightSum):
        def backward(self, dout: np.ndarray) -> Any:
            dvalues, dweights = super().backward(dout)
            return dvalues, dweights + 1e-6

    values, weights = np.zeros((2, 5, 3)), np.ones((2, 5))  # every derivative by the weights is 0
    with pytest.raises(GradientError, match="input 1 by"):
        gradcheck(Wrong(), values, weights, seed=seed)


class Product(Layer):
    """x * y * w, right but for what a test changes."""

    names = ("w",)

    def __init__(self) -> None:
        super().__init__(RNG.standard_normal(5))

    def forward(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self._saved = x, y
        return x * y * self.params[0]

    def gradients(self, dout: np.ndarray) -> tuple[Any, Any, Any]:
        x, y = self.saved()
        w = self.params[0]
        return dout * y * w, dout * x * w, (dout * x * y).sum(axis=0)

    def backward(self, dout: np.ndarray) -> Any:
        dx, dy, dw = self.gradients(dout)
        self.write_grads(dw)
        return dx, dy


def wrong(change: str) -> type[Product]:
    """`Product` with one mistake in its gradients."""

    class Wrong(Product):
        def gradients(self, dout: np.ndarray) -> tuple[Any, Any, Any]:
            dx, dy, dw = super().gradients(dout)
            return {
                "a factor is missing": lambda: (dout * self.saved()[1], dy, dw),
                "a factor of nearly one": lambda: (dx, dy * (1 + 1e-4), dw),
                "the wrong sign": lambda: (dx, -dy, dw),
                "a term is missing": lambda: (dx, dy, dw - (dout * X * Y)[0]),
                "one number is off": lambda: (dx + 1e-3 * (np.arange(15) == 7).reshape(3, 5), dy, dw),
                "swapped": lambda: (dy, dx, dw),
                "zero": lambda: (dx, dy * 0, dw),
                "nan": lambda: (dx, dy * np.nan, dw),
                "mean for sum": lambda: (dx, dy, dw / 3),
            }[change]()

    return Wrong


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("a factor is missing", "input 0"),
        ("a factor of nearly one", "input 1"),
        ("the wrong sign", "input 1"),
        ("a term is missing", "w"),
        ("one number is off", "input 0"),
        ("swapped", "input 0 by .*, input 1"),
        ("zero", "input 1"),
        ("nan", "input 1"),
        ("mean for sum", "w"),
    ],
)
def test_a_wrong_gradient_is_found_and_named(change: str, named: str) -> None:
    assert max(gradcheck(Product(), X, Y).values()) < 1e-7
    with pytest.raises(
        GradientError, match=rf"^Wrong: gradients are off, relative to 1e-06 at most: {named} by [^,]+$"
    ):
        gradcheck(wrong(change)(), X, Y)


def test_a_gradient_that_is_not_written_is_found() -> None:
    class Forgetful(Product):
        def backward(self, dout: np.ndarray) -> Any:
            return self.gradients(dout)[:2]

    with pytest.raises(GradientError, match=r"^Forgetful: .*: w by "):
        gradcheck(Forgetful(), X, Y)


def test_a_gradient_put_elsewhere_is_found() -> None:
    class Elsewhere(Product):
        def write_grads(self, *gradients: Any) -> None:
            self.grads[0] = self.grads[0] * 1
            kept, self.grads = self.grads, [self.grads[0]]
            kept[0][...] = gradients[0]
            self.grads = [np.zeros(5)]

    with pytest.raises(GradientError, match=r"^Elsewhere: .*: w by "):
        gradcheck(Elsewhere(), X, Y)


class Scale(Layer):
    """x, whose backward writes to the gradient that it is given."""

    factor = 1.0

    def forward(self, x: Any) -> Any:
        self._saved = ()
        return x * 3

    def backward(self, dout: Any) -> Any:
        dout *= 3
        return dout * self.factor


@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_a_backward_that_overwrites_its_argument_hides_nothing(factor: float) -> None:
    layer = Scale()
    layer.factor = factor
    with pytest.raises(GradientError):
        gradcheck(layer, X)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda dx, dy: dx, "backward returned 1 gradients for 2 floating point inputs"),
        (lambda dx, dy: None, "backward returned 0 gradients for 2 floating point inputs"),
        (lambda dx, dy: (dx, dy, dx), "backward returned 3 gradients for 2 floating point inputs"),
        (lambda dx, dy: (dx, dy.sum(axis=0)), r"input 1 has shape \(3, 5\), its gradient \(5,\)"),
        (lambda dx, dy: (dx.T, dy), r"input 0 has shape \(3, 5\), its gradient \(5, 3\)"),
    ],
)
def test_gradients_that_are_missing_or_of_another_shape(returned: Any, message: str) -> None:
    class Misshapen(Product):
        def backward(self, dout: np.ndarray) -> Any:
            return returned(*super().backward(dout))

    with pytest.raises(GradientError, match=f"^{message}$"):
        gradcheck(Misshapen(), X, Y)


def test_less_than_float64_is_refused(library: Library) -> None:
    d = Draw(library, "float32")
    with pytest.raises(TypeError, match=r"^gradcheck needs float64, got .*float32 in input 0$"):
        gradcheck(WeightSum(), d(2, 5, 3), d(2, 5))
    layer = Product()
    layer.params[0] = layer.params[0].astype(np.float32)
    with pytest.raises(TypeError, match=r"^gradcheck needs float64, got float32 in w$"):
        gradcheck(layer, X, Y)


@pytest.mark.parametrize("case", CASES)
def test_the_layer_and_its_inputs_stay_as_they_are(case: str) -> None:
    layer, inputs = CASES[case](Draw(Library(get_backend("numpy"), read_only=True)))
    layer.forward(*inputs)
    arrays = [*layer.params, *layer.grads]  # gradients are there from the first time that they are asked for
    attributes = dict(vars(layer))
    before = [array.copy() for array in arrays]
    gradcheck(layer, *inputs)
    assert vars(layer).keys() == attributes.keys()
    assert all(vars(layer)[name] is value for name, value in attributes.items())
    assert all(now is array for now, array in zip([*layer.params, *layer.grads], arrays, strict=True))
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, before, strict=True))


def test_seeds_and_options() -> None:
    assert gradcheck(Product(), X, Y, seed=1) != gradcheck(Product(), X, Y, seed=2)
    assert gradcheck(wrong("a factor of nearly one")(), X, Y, rtol=1e-3)["input 1"] > 1e-6

    class Optional(Layer):
        def forward(self, x: Any, *, power: int) -> Any:
            self._saved = x, power
            return x**power

        def backward(self, dout: Any) -> Any:
            x, power = self._saved
            return dout * power * x ** (power - 1)

    assert gradcheck(Optional(), X, power=3)["input 0"] < 1e-7


def test_several_outputs_and_empty_inputs() -> None:
    class SumAndDifference(Layer):
        def forward(self, x: Any, y: Any) -> Any:
            return x + y, x - y

        def backward(self, dsum: Any, ddifference: Any) -> Any:
            return dsum + ddifference, dsum - ddifference

    assert max(gradcheck(SumAndDifference(), X, Y).values()) < 1e-7
    assert gradcheck(SumAndDifference(), X[:0], Y[:0]) == {"input 0": 0, "input 1": 0}
