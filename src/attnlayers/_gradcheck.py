"""Hold a layer's backward against its forward."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from attnbackends import Array, backend_of

from .functional.integers import integer


class GradientError(AssertionError):
    """The backward of a layer is not the gradient of its forward."""


def gradcheck(layer: Any, *inputs: Any, seed: int = 0, rtol: float = 1e-6, **options: Any) -> dict[str, float]:
    """Compare each gradient of a layer with central differences along a random direction.

    The layer is copied for every evaluation, so that state and generators start alike and nothing of the
    caller's changes.

    Parameters
    ----------
    layer : object
        With ``params``, ``grads``, ``forward(*inputs, **options)`` and ``backward(*douts)``, which returns one
        gradient for each floating point input, in their order, alone or as a tuple (None if there is none).
    *inputs : float64 array, or anything else
        What is not floating point is passed on and has no gradient.
    seed : int
        Seed of the directions, and of the gradient that backward starts from.
    rtol : float
        Largest error that passes, relative to the size of the gradient and of what is summed to get it, and beyond
        what rounding makes of the differences: one unit in the last place of each output. A gradient that is 0 in
        theory, as that of a bias on the keys of attention, is nothing but rounding.
    **options
        Passed on to ``forward``.

    Returns
    -------
    dict of str to float
        The relative error of each gradient: ``"input 0"``, ``"W"``, …

    Raises
    ------
    GradientError
        If an error is larger than `rtol`, or a gradient is missing or has another shape.
    TypeError
        If an input or parameter is in less than float64: differences would be mostly rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from attnlayers import WeightSum
    >>> errors = gradcheck(WeightSum(), np.ones((2, 5, 3)), np.ones((2, 5)))
    >>> sorted(errors)
    ['input 0', 'input 1']
    """
    arrays = {f"input {i}": x for i, x in enumerate(inputs) if _is_float(x)}
    names = tuple(getattr(layer, "names", ()))
    if len(names) != len(layer.params):
        names = tuple(f"param {i}" for i in range(len(layer.params)))
    for name, array in (arrays | dict(zip(names, layer.params, strict=True))).items():
        if str(array.dtype).rpartition(".")[2] != "float64":
            raise TypeError(f"gradcheck needs float64, got {array.dtype} in {name}")
    rng = np.random.default_rng(integer("seed", seed, least=0))

    def run(inputs: tuple[Any, ...], nudge: tuple[int, Array] | None = None) -> tuple[Any, tuple[Array, ...]]:
        own = copy.deepcopy(layer)
        if nudge is not None:
            i, step = nudge
            own.params[i] += step
        outs = own.forward(*inputs, **options)
        return own, outs if isinstance(outs, tuple) else (outs,)

    checked, outs = run(inputs)
    backend = backend_of(*outs)
    numpy_douts = [np.asarray(rng.standard_normal(tuple(out.shape))) for out in outs]
    returned = checked.backward(*(backend.asarray(dout.copy()) for dout in numpy_douts))
    gradients = () if returned is None else returned if isinstance(returned, tuple) else (returned,)
    if len(gradients) != len(arrays):
        raise GradientError(f"backward returned {len(gradients)} gradients for {len(arrays)} floating point inputs")

    def objective(outs: tuple[Array, ...]) -> tuple[float, float]:
        """What the gradients are of, and what a unit in the last place of each output may change of it."""
        terms = [backend.to_numpy(o) * d for o, d in zip(outs, numpy_douts, strict=True)]
        unit = float(np.finfo(np.float64).eps)
        return sum(float(np.sum(term)) for term in terms), unit * sum(float(np.sum(np.abs(term))) for term in terms)

    def error(name: str, array: Array, gradient: Array, at: Any) -> tuple[float, float]:
        """How far a gradient is off, relative to its size, and how much of that rounding may be."""
        if tuple(gradient.shape) != tuple(array.shape):
            raise GradientError(f"{name} has shape {tuple(array.shape)}, its gradient {tuple(gradient.shape)}")
        direction = np.asarray(rng.standard_normal(tuple(array.shape)))
        values = backend.to_numpy(array)
        step = 6e-6 * max(1.0, float(np.max(np.abs(values), initial=0.0)))  # about the cube root of float64's epsilon
        ends = [objective(run(*at(backend.asarray(s * step * direction)))[1]) for s in (1, -1)]
        (forth, back), units = zip(*ends, strict=True)
        numeric, rounding = (forth - back) / (2 * step), sum(units) / (2 * step)
        products = backend.to_numpy(gradient) * direction
        size: float = max(abs(numeric), float(np.sqrt(np.sum(products**2))), 1e-3)
        return abs(numeric - float(np.sum(products))) / size, rounding / size

    errors: dict[str, float] = {}
    by_rounding: dict[str, float] = {}
    positions = [i for i, x in enumerate(inputs) if _is_float(x)]
    for (name, array), gradient, i in zip(arrays.items(), gradients, positions, strict=True):
        errors[name], by_rounding[name] = error(
            name, array, gradient, lambda step, i=i: ((*inputs[:i], inputs[i] + step, *inputs[i + 1 :]),)
        )
    for i, (name, array, gradient) in enumerate(zip(names, checked.params, checked.grads, strict=True)):
        errors[name], by_rounding[name] = error(name, array, gradient, lambda step, i=i: (inputs, (i, step)))
    wrong = {name: value for name, value in errors.items() if not value <= rtol + by_rounding[name]}
    if wrong:
        listed = ", ".join(f"{name} by {value:.1e}" for name, value in wrong.items())
        raise GradientError(f"{type(layer).__name__}: gradients are off, relative to {rtol:.0e} at most: {listed}")
    return errors


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and "float" in str(x.dtype)
