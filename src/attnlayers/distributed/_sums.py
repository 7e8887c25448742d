"""Many arrays in one buffer, so that one reduction serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import prod

from attnbackends import Array, backend_of, float_bits

from ..functional.dtypes import wide


class FlatSum:
    """Weighted means over ranks, through one buffer.

    Parameters
    ----------
    grads : list of array
        Of the shapes and dtypes that will come. Half precision is added up in float32, and all in float64 where one of
        them is.
    numbers : int
        How many further numbers will come.
    """

    def __init__(self, grads: Sequence[Array], numbers: int) -> None:
        self._backend = backend = backend_of(*grads)
        self._kinds = _kinds(grads)
        sizes = [prod(grad.shape) for grad in grads]
        self._places = [slice(a, b) for a, b in pairwise(accumulate(sizes, initial=0))]
        self._numbers = numbers
        dtype = max((wide(backend, grad.dtype) for grad in grads), key=partial(float_bits, backend.xp))
        self._buffer = backend.empty((sum(sizes) + numbers + 1,), like=grads[0], dtype=dtype)

    def fits(self, grads: Sequence[Array], numbers: int) -> bool:
        """Whether arrays like these were expected."""
        return numbers == self._numbers and _kinds(grads) == self._kinds

    def average(
        self,
        grads: Sequence[Array],
        weight: float,
        numbers: Sequence[Array | float],
        add: Callable[[Array], Array],
    ) -> tuple[Array, ...]:
        """Means of gradients, in place, and of numbers; `add` returns the sum of a buffer over all ranks."""
        xp, buffer = self._backend.xp, self._buffer
        for grad, place in zip(grads, self._places, strict=True):
            buffer[place] = xp.reshape(xp.astype(grad, buffer.dtype, copy=False), (-1,)) * weight
        last = buffer.shape[0] - 1
        first = last - self._numbers
        for i, number in enumerate(numbers, first):
            buffer[i] = number * weight
        buffer[last] = weight
        summed = add(buffer)
        total = summed[last]
        for grad, place in zip(grads, self._places, strict=True):
            grad[...] = xp.astype(xp.reshape(summed[place], tuple(grad.shape)) / total, grad.dtype, copy=False)
        return tuple(summed[i] / total for i in range(first, last))


def _kinds(arrays: Sequence[Array]) -> list[tuple[tuple[int, ...], object]]:
    return [(tuple(array.shape), array.dtype) for array in arrays]
