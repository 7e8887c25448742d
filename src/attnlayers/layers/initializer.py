"""Where initial weights come from."""

from __future__ import annotations

from math import inf
from typing import Literal, TypedDict

import numpy as np

import attnbackends
from attnbackends import Array, Backend, float_dtype, quiet

from ..functional.integers import integer

Scale = float | Literal["fan_in", "fan_avg"]


class Initializer:
    """A seeded source of initial weights; they are drawn on the host, so that every device starts alike.

    Every layer with parameters has ``create(sizes…, *, seed=, dtype=, backend=)``, or ``create(sizes…, initializer=)``
    where several layers draw from one source, one after the other.

    Parameters
    ----------
    seed : int
        One seed draws the same weights on every device and in every library.
    dtype : str
        What weights are: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, as far as the library has them.
        NumPy's bfloat16 is that of the package ml_dtypes.
    backend : Backend, optional
        Where they live. Default: the one that the environment chose.
    scale : {"fan_in", "fan_avg"} or float, optional
        How a matrix (D, H) is drawn: ``"fan_in"`` gives normal numbers of variance 1 / D, ``"fan_avg"`` uniform ones of
        variance 2 / (D + H), a number normal ones of that standard deviation, which embeddings have then as well.
        Default: as is usual for each layer.

    References
    ----------
    LeCun et al., "Efficient BackProp", 1998, section 4.6 ("fan_in"); Deep Learning from Scratch 2, section 5.5.1.
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010 ("fan_avg").

    Examples
    --------
    >>> from attnlayers import Affine, Initializer
    >>> source = Initializer(seed=1, dtype="float64")
    >>> first, second = Affine.create(3, 4, initializer=source), Affine.create(4, 2, initializer=source)
    >>> first, second.params[0].dtype.name
    (Affine(W (3, 4), b (4,)), 'float64')
    """

    def __init__(
        self, seed: int = 0, dtype: str = "float32", backend: Backend | None = None, *, scale: Scale | None = None
    ) -> None:
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool) and 0 < scale < inf
        if not (scale is None or number or scale in ("fan_in", "fan_avg")):
            raise ValueError(f"`scale` must be 'fan_in', 'fan_avg' or a positive number, got {scale!r}")
        self._rng = np.random.default_rng(integer("seed", seed, least=0))
        self.backend = backend or attnbackends.backend
        self.dtype = float_dtype(self.backend, dtype)
        self.scale = scale

    @classmethod
    def of(
        cls,
        *,
        seed: int | None = None,
        dtype: str | None = None,
        backend: Backend | None = None,
        initializer: Initializer | None = None,
    ) -> Initializer:
        """The source that `create` was given, or a new one of what it was given instead.

        Raises
        ------
        ValueError
            If both are given.
        TypeError
            If `initializer` is something else.
        """
        if initializer is None:
            return cls(0 if seed is None else seed, "float32" if dtype is None else dtype, backend)
        if not isinstance(initializer, Initializer):
            raise TypeError(
                f"`initializer` must be an Initializer, got {type(initializer).__name__}: pass a number as `seed`"
            )
        given = {"seed": seed, "dtype": dtype, "backend": backend}
        twice = [name for name, value in given.items() if value is not None]
        if twice:
            raise ValueError(f"`{twice[0]}` and `initializer` both say how weights are drawn: pass one of them")
        return initializer

    def draw_seed(self) -> int:
        """A seed for a generator of a layer's own."""
        return int(self._rng.integers(2**31))

    @quiet
    def array(self, values: np.ndarray) -> Array:
        """These values, as a weight."""
        return self.backend.asarray(values, dtype=self.dtype)

    def matrix(self, rows: int, columns: int, usual: Scale = "fan_avg", side_by_side: int = 1) -> Array:
        """The weights (D, H) of a map, or of some side by side, drawn as `scale` says or, without one, as is usual."""
        scale = usual if self.scale is None else self.scale
        if scale == "fan_in":
            return self.array(self._rng.standard_normal((rows, columns)) / rows**0.5)
        if scale == "fan_avg":
            bound = (6 / (rows + columns // side_by_side)) ** 0.5
            return self.array(self._rng.uniform(-bound, bound, (rows, columns)))
        return self.normal(rows, columns, usual=float(scale))

    def normal(self, *shape: int, usual: float = 1.0) -> Array:
        """Normal numbers, whose standard deviation is `scale` if that is a number, else the usual one."""
        deviation = usual if self.scale is None or isinstance(self.scale, str) else self.scale
        return self.array(deviation * self._rng.standard_normal(shape))

    def full(self, value: float, *shape: int) -> Array:
        """One value everywhere."""
        return self.array(np.full(shape, value))


class Drawing(TypedDict, total=False):
    """What every `create` takes: the parameters of an `Initializer`, or one that is there."""

    seed: int | None
    dtype: str | None
    backend: Backend | None
    initializer: Initializer | None
