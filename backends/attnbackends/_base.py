"""What an array library supplies.

A library can serve as a backend if

- its namespace follows the array API standard (2023.12 or newer),
- its arrays can be written in place, and basic slices of them are views.

Everything else has a default below, in terms of the standard; a backend overrides what its library does
better. An operation stands here because libraries disagree on it, and its comment says which.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ._attention import AttentionCall, OwnAttention
from ._cross_entropy import CrossEntropyCall, OwnCrossEntropy
from ._dtypes import float_bits
from ._ids import check_ids
from ._lstm import LSTMCall, OwnLSTM
from ._machine import Machine
from ._packed_keys import PackedKeys
from ._random import Index, uniform

Array = Any
"""Within a backend: of the library's own type. What a caller sees is `_array.Array`."""

DType = Any


class Backend:
    """Arrays of one library, and the few operations that libraries disagree on.

    Attributes
    ----------
    name : str
        The import name of the library. `backend_of` finds a backend by it.
    xp : module
        The array namespace, with the names of the array API standard.
    """

    name: str
    xp: Any

    # -- arrays, in and out: the standard leaves the host to each library

    def asarray(self, data: Any, dtype: DType = None, like: Array | None = None) -> Array:
        """An array of this library from nested lists or an array of NumPy or its own.

        On the device of `like` or, without one, where new arrays live.
        """
        return self.xp.asarray(np.asarray(data), dtype=dtype, device=None if like is None else like.device)

    def empty(self, shape: tuple[int, ...], like: Array, dtype: DType = None) -> Array:
        """An array with any content, on the device of `like`, by default with its dtype."""
        return self.xp.empty(shape, dtype=dtype or like.dtype, device=like.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array with the same values."""
        return np.asarray(array)

    def _are_here(self, arrays: tuple[Array, ...]) -> bool:
        """Whether arrays of this library share a device, and it computes there; `backend_of` asks in every call.

        NumPy has no other, and CuPy's comparison is slow. CuPy computes on the current device alone: where arrays share
        another one it raises a BackendError that says so.
        """
        first, *others = arrays
        return all(array.device == first.device for array in others)

    def synchronize(self) -> None:
        """Wait until the device has done everything it was asked to do."""

    @property
    def on_host(self) -> bool:
        """Whether looking at a value costs nothing: arrays are in the host's memory, nothing is pending."""
        return True

    def uniform(self, key: int, index: Index, R: int, T: int, like: Array | None = None) -> Array:
        """Float32 numbers (b, r, K), uniform over [0, 1), for some keys of some rows of some entries.

        The same bits on every device, however work is cut: `_random.py` has the rule. No two libraries draw alike.

        Parameters
        ----------
        key : int
            Of the stream, 0 to 2**128 - 1.
        index : (slice, slice, slice)
            Entries, rows and keys.
        R, T : int
            Rows of an entry and keys of a row, of all.
        like : array, optional
            An array of the device on which they are wanted.
        """
        return self.asarray(uniform(key, index, R, T), like=like)

    # -- operations

    def scatter_add(self, target: Array, ids: Array, values: Array, anew: bool = False) -> None:
        """``target[ids] += values`` where an id may occur more than once; the same bits for the same arguments.

        The standard has no such operation; NumPy calls it ``add.at``, PyTorch ``index_add_``, and CuPy's ``add.at``
        adds in any order.

        Parameters
        ----------
        target : array (V, ...)
            Changed in place.
        ids : integer array (M,)
        values : array (M, ...)
        anew : bool
            What stood in the target does not count: rows that no id names become 0.
        """
        if anew:
            target[...] = 0
        for i in range(ids.shape[0]):
            target[int(ids[i]), ...] += values[i, ...]

    def take_rows(self, table: Array, ids: Array, name: str, advice: str) -> Array:
        """Rows (M, ...) of a table by ids, each of which must name one.

        The rule for every id that a caller gives: one outside 0 .. V - 1 is an `IndexError`. Where reading is free it
        comes at once. A device is not waited for: there the id counts as 0 until the error comes, which is with the
        next value that is read through the backend (`to_numpy`), at `synchronize`, or at a later check. NumPy takes
        negative indices, PyTorch's error ends the device's work, and CuPy takes any index as one within.

        Parameters
        ----------
        table : array (V, ...)
        ids : int64 array (M,)
        name, advice : str
            For the error: what the caller calls the ids, and what to do.
        """
        if self.on_host:
            check_ids(self.xp, ids, table.shape[0], name, advice)
        return self.xp.take(table, ids, axis=0)

    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        """Softmax over the last axis, in place.

        NumPy wants no temporaries, CuPy few kernels, and no library has a masked one.

        Parameters
        ----------
        scores : array (..., T)
            Overwritten with the weights. A row with nothing to attend to becomes 0.
        mask : boolean array, optional
            Broadcasts to `scores`; True = attend.

        Returns
        -------
        array (..., T)
            `scores` itself.
        """
        xp = self.xp
        if 0 in scores.shape:
            return scores
        if mask is not None:
            self.fill(scores, ~mask, -xp.inf)
        top = xp.max(scores, axis=-1, keepdims=True)
        self.fill(top, top == -xp.inf, 0)
        scores -= top
        self.apply(xp.exp, scores)
        total = xp.sum(scores, axis=-1, keepdims=True)
        self.fill(total, total == 0, 1)
        scores /= total
        return scores

    def clip_norm(self, arrays: list[Array], max_norm: float) -> Array:
        """Scale one or more arrays down, in place, so that their common norm is at most `max_norm`.

        A CPU leaves alone what is short enough; a device is not waited for, and CUDA takes all arrays in two kernels.

        Returns
        -------
        array ()
            The norm before, in float32 for half precision, whose squares would overflow.
        """
        xp = self.xp
        norm = xp.sqrt(sum(self._sum_of_squares(array) for array in arrays))
        rate = max_norm / (norm + 1e-6)
        rate = xp.where(rate < 1, rate, xp.ones_like(rate))
        if not self.on_host or float(rate) < 1:
            for array in arrays:
                array *= rate
        return norm

    def _sum_of_squares(self, array: Array) -> Array:
        """The sum of the squares of all values (), in float32 or better; no library has it."""
        wide = self._widened(array)
        return self.xp.sum(wide * wide)

    def adam_step(
        self,
        params: list[Array],
        grads: list[Array],
        means: list[Array],
        squares: list[Array],
        lr: float,
        beta1: float,
        beta2: float,
        decay: float = 0.0,
        decayed: Sequence[bool] = (),
    ) -> None:
        """One step of Adam, in place: moves both means, then each parameter by ``lr * mean / (sqrt(square) + 1e-7)``.

        CUDA takes all arrays in one kernel.

        Parameters
        ----------
        params, grads, means, squares : lists of array
            Parallel; the means of the gradients and of their squares.
        lr : float
        beta1, beta2 : float
            What remains of a mean.
        decay : float
            The share of a parameter that is taken off before the step.
        decayed : sequence of bool
            Of which parameters, where `decay` is not 0.
        """
        xp = self.xp
        for i, (param, grad, m, v) in enumerate(zip(params, grads, means, squares, strict=True)):
            if decay and decayed[i]:
                param *= 1 - decay
            change = grad - m
            change *= 1 - beta1
            m += change
            change = grad * grad
            change -= v
            change *= 1 - beta2
            v += change
            step = xp.sqrt(v)
            step += 1e-7
            change = m / step
            change *= lr
            param -= change

    def sum_rows(self, x: Array, out: Array | None = None) -> Array:
        """Sum over the rows, (M, H) -> (H,), in `out` where that is given.

        A product with ones takes NumPy a third of the time of its sum; CUDA has a kernel.
        """
        ones = self.empty((x.shape[0], 1), like=x)
        ones[...] = 1
        column = None if out is None else out[:, None]
        product = self.matmul(self.xp.matrix_transpose(x), ones, out=column)  # (H, M) x (M, 1) -> (H, 1)
        return product[:, 0] if out is None else out

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        """Arrays (R, K) and (K,) as one array, where they are the rows of one, in this order; else None.

        One product can then write them all. The standard does not tell where an array lies.
        """
        return None

    def apply(self, function: Callable[..., Array], array: Array) -> Array:
        """``array[...] = function(array)`` for an element-wise function; the standard has no ``out``."""
        array[...] = function(array)
        return array

    def fill(self, array: Array, where: Array, value: float) -> None:
        """``array[where] = value`` for a boolean that broadcasts; the standard needs one of the same shape."""
        array[...] = self.xp.where(where, self.xp.asarray(value, dtype=array.dtype, device=array.device), array)

    def vecdot(self, a: Array, b: Array) -> Array:
        """Dot products over the last axis, (..., T) x (..., T) -> (...), in float32 or better.

        NumPy has the standard's ``vecdot``, CuPy has none.
        """
        return self.xp.vecdot(self._widened(a), self._widened(b))

    def matmul(self, a: Array, b: Array, out: Array | None = None, dtype: DType = None) -> Array:
        """Matrix product over the last two axes, summed in float32 or better, and in that without `out` or `dtype`.

        NumPy's own runs stacks of matrices on one core, CuPy's copies what is transposed and rounds the sums of half
        precision; the standard has no ``out``.

        Parameters
        ----------
        a : array (..., M, K)
            Floating point. On the host, callers widen half precision once and not in each product.
        b : array (..., K, N)
            Of the dtype of a.
        out : array (..., M, N), optional
            Where to put the product.
        dtype : dtype, optional
            Of the product where there is no `out`, rounded to it from float32 or better.
        """
        product = self.xp.matmul(self._widened(a), self._widened(b))
        if out is None:
            return product if dtype is None else self.xp.astype(product, dtype, copy=False)
        out[...] = self.xp.astype(product, out.dtype, copy=False)
        return out

    def _widened(self, array: Array) -> Array:
        """`array` in float32 where it is in half precision, else itself."""
        return self.xp.astype(array, self.xp.float32) if 0 < float_bits(self.xp, array.dtype) < 32 else array

    def pack_keys(self, k: Array, ones: bool = False) -> PackedKeys:
        """Keys (b, T, D) in the order in which products with queries read them fastest; with `ones`, (b, T, D + 1).

        A CPU's BLAS wants rows and columns exchanged, and has a faster power of two than exp; CUDA takes keys as they
        lie.
        """
        return PackedKeys(self, k, ones)

    # -- whole operations, which a library may take or decline

    def attention(self, call: AttentionCall) -> OwnAttention | None:
        """Attention by a way of the library's own; None where it has none for this call.

        CUDA has kernels that hold no scores in memory; NumPy and the standard have none.
        """
        return None

    def lstm(self, call: LSTMCall) -> OwnLSTM | None:
        """An LSTM by a way of the library's own; None where it has none for this call."""
        return None

    def cross_entropy(self, call: CrossEntropyCall) -> OwnCrossEntropy | None:
        """Cross-entropy by a way of the library's own; None where it has none for this call."""
        return None

    # -- independent pieces: threads on a CPU, one large piece on a device that is parallel by itself

    def chunks(self, count: int, bytes_each: int, at_least: int = 1) -> list[slice]:
        """Slices that cover ``range(count)``, for work that needs `bytes_each` of fast memory an item.

        They depend on the arguments alone, so that results do not depend on the machine's load or size.

        Parameters
        ----------
        count : int
        bytes_each : int
        at_least : int
            Fewest items worth a piece of their own, where `count` allows.
        """
        return [slice(0, count)]

    def block_of_scores(self, rows: int, keys: int, itemsize: int) -> tuple[int, int]:
        """How many rows, and how many columns, of a matrix (rows, keys) of scores to hold at a time.

        On a device as much as a good part of its memory takes, on a CPU what stays in a core's cache. Where `pack_keys`
        makes blocks of keys, the number of columns is a multiple of one.
        """
        return max(1, 2**30 // max(1, keys * itemsize)), max(1, 2**30 // max(1, rows * itemsize))

    def map(self, function: Callable[[Any], object], pieces: Iterable[Any]) -> None:
        """Call `function` on each of some independent pieces of work, in any order."""
        for piece in pieces:
            function(piece)

    # -- for people, and for several processes that train one model

    @cached_property
    def machine(self) -> Machine:
        """Devices and versions."""
        return Machine(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.machine.describe().values())}>"
