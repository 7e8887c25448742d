"""What recurrent networks share: the checks of their arguments, and where h is the only state, all but the steps.

One product takes the inputs of all steps before them, one the gradients after them. Entries of a batch do not meet
until the gradients of the weights are summed: chunks of the batch run through all steps side by side. Inside, arrays
are time first, so that a step is one block of memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from attnbackends import Array, Backend, DType, float_bits

from .arrays import or_zero, places, put, unrounded
from .checks import check
from .dtypes import narrow, wide, widen

FEW_SEQUENCES = 8
"""Sequences below which a step's product reads the weights more than it computes: it takes them as they lie, and the
inputs are multiplied in the same unit of work, since handing one over costs as much as a step."""

CHUNK_ROWS = 64
"""Sequences of a chunk at least: fewer rows would waste the packing of the weights in each product."""

SHARED_MULTIPLICATIONS = 2**22
"""Multiplications of a step's products above which they are worth sharing out where there are less than two chunks."""

# The axes of b, Wx and Wh, by the number of gates side by side.
_AXES = {1: ("H", "D H", "H H")} | {gates: (f"{gates}H", f"D {gates}H", f"H {gates}H") for gates in (3, 4)}


def checked(
    count: int, x: Array, Wx: Array, Wh: Array, b: Array, mask: Array | None, **states: Array | None
) -> tuple[Backend, tuple[Any, ...]]:
    """Check the arguments of a network of `count` gates, and bring them into the dtype to compute in.

    `states` are (N, H) or None.

    Returns
    -------
    backend : Backend
    x, Wx, Wh, b, *states, mask : arrays
        x (N, T, D) is 0 in the steps that the mask skips; the mask (N, T), or None, is a copy.
    """
    width, of_Wx, of_Wh = _AXES[count]
    backend = check(
        x=(x, "N T D"), Wx=(Wx, of_Wx), Wh=(Wh, of_Wh), b=(b, width), mask=(mask, "N T: bool"),
        **{name: (state, "N H") for name, state in states.items()},
    )  # fmt: skip
    H = Wh.shape[0]
    if Wh.shape[1] != count * H:
        side_by_side = {1: "", 3: ", three gates side by side", 4: ", four gates side by side"}[count]
        raise ValueError(f"`Wh` must have shape (H, {width}){side_by_side}, got {tuple(Wh.shape)}")
    arrays: tuple[Any, ...] = (x, Wx, Wh, b, *states.values())
    if wide(backend, x.dtype) != x.dtype:
        arrays = tuple(None if array is None else widen(backend, array) for array in arrays)
    if mask is None:
        return backend, (*arrays, None)
    mask = backend.xp.astype(mask, mask.dtype, copy=True)  # backward looks at it again
    return backend, (or_zero(backend, mask[..., None], arrays[0]), *arrays[1:], mask)


def check_gradients(shape: tuple[int, ...], dhs: Array, **last: Array | None) -> None:
    """Hold the gradients of the output and of the last states against the shape (N, T, H) of the output."""
    check(dhs=(dhs, "N T H"), **{name: (array, "N H") for name, array in last.items()})
    if tuple(dhs.shape) != shape:
        raise ValueError(f"`dhs` must have the shape of the output, {shape}, got {tuple(dhs.shape)}")


def stack_of(backend: Backend, out: Sequence[Array] | None, D: int, H: int, width: int) -> Array | None:
    """The array (H + D + 1, width) whose rows are the places of dWh, dWx and db, if `out` has them so."""
    dWx, dWh, db = places(out, Wx=(D, width), Wh=(H, width), b=(width,))
    return None if out is None else backend.stacked((dWh, dWx, db))


def unstacked(dW: Array, H: int, out: Sequence[Array] | None, stack: Array | None) -> tuple[Array, Array, Array]:
    """dWx, dWh and db from dW (H + D + 1, width), which holds dWh, dWx and db below each other.

    In the arrays of `out` where that is given; `stack` is what `stack_of` found for them.
    """
    parts = dW[H:-1, :], dW[:H, :], dW[-1, :]
    if out is None:
        return parts
    if stack is not None:
        put(dW, stack)
    else:
        for part, place in zip(parts, out, strict=True):
            put(part, place)
    dWx, dWh, db = out
    return dWx, dWh, db


class Steps(NamedTuple):
    """One pass of a network whose only state is h; T is first, all in the dtype to compute in."""

    backend: Backend
    dtype: DType  # of the arguments
    x: Array  # (T, N, D)
    Wx: Array  # (D, KH), K gates side by side
    Wh: Array  # (H, KH)
    b: Array  # (KH,)
    mask: Array | None  # (T, N, 1)
    gates: Array  # (T, N, KH): what the inputs add, then whatever the network makes of it
    h: Array  # (T + 1, N, H), the initial state first

    def buffer(self, *shape: int) -> Array:
        """An array for further results, in the dtype to compute in."""
        return self.backend.empty(shape, like=self.gates)

    def forward(self, chunk: Callable[[slice], None]) -> None:
        """Multiply the inputs of all steps, and call `chunk` with slices of the batch."""
        T, N, width = self.gates.shape
        xp = self.backend.xp

        def multiply() -> None:
            flat, out = xp.reshape(self.x, (T * N, self.x.shape[2])), xp.reshape(self.gates, (T * N, width))
            self.backend.matmul(flat, self.Wx, out=out)  # (T N, D) x (D, KH) -> (T N, KH)

        def both(n: slice) -> None:
            multiply()
            chunk(n)

        if N < FEW_SEQUENCES and not self._products_are_shared:
            self.backend.map(both, [slice(0, N)])
        else:
            multiply()
            self.run(chunk)

    @property
    def _products_are_shared(self) -> bool:
        """Whether there are too few rows to share out, and each product is worth it."""
        _, N, width = self.gates.shape
        return bool(N < 2 * CHUNK_ROWS and N * width * self.h.shape[2] > SHARED_MULTIPLICATIONS)

    def run(self, chunk: Callable[[slice], None]) -> None:
        """Call `chunk` with slices of the batch."""
        N, width = self.gates.shape[1:]
        bits = float_bits(self.backend.xp, self.gates.dtype)
        if self._products_are_shared:
            chunk(slice(0, N))
        else:
            self.backend.map(chunk, self.backend.chunks(N, 2 * width * bits // 8, at_least=CHUNK_ROWS))

    def transposed(self, W: Array) -> Array:
        """W (H, K) -> (K, H), in an order that a product of few rows needs not rearrange at every step."""
        transposed = self.backend.xp.matrix_transpose(W)
        if self.gates.shape[1] < FEW_SEQUENCES:
            return transposed
        own = self.buffer(W.shape[1], W.shape[0])
        own[...] = transposed
        return own

    def outputs(self) -> Array:
        """hs (N, T, H) of the caller's dtype, an array of its own."""
        xp = self.backend.xp
        return xp.astype(xp.permute_dims(self.h[1:, ...], (1, 0, 2)), self.dtype, copy=True)

    def last(self) -> Array:
        """The state after the last step (N, H), an array of its own."""
        return self.backend.xp.astype(self.h[-1, ...], self.dtype, copy=True)

    def keep(self, t: int, n: slice, new: Array, old: Array) -> Array:
        """`new` where step t counts, else `old`."""
        return new if self.mask is None else self.backend.xp.where(self.mask[t, n, ...], new, old)

    def check_gradients(self, dhs: Array, dh: Array | None) -> None:
        """Hold the gradients of the output and of the last state against the shape of the output."""
        T, N, H = self.h.shape
        check_gradients((N, T - 1, H), dhs, dh=dh)

    def carried(self, last: Array | None) -> Array:
        """Room for the gradient (N, H) that goes from step to step, with that of the last state to begin with."""
        carried = self.buffer(*self.h.shape[1:])
        carried[...] = 0 if last is None else widen(self.backend, last)
        return carried

    def through_inputs(self, da: Array) -> Array:
        """From da (T, N, KH), the gradient of all sums that the gates were given, to dx (N, T, D)."""
        T, N, width = da.shape
        Wx_T = self.backend.xp.matrix_transpose(self.Wx)
        dx = self.backend.matmul(self.backend.xp.reshape(da, (T * N, width)), Wx_T)  # (T N, KH) x (KH, D) -> (T N, D)
        return self.backend.xp.permute_dims(self.backend.xp.reshape(dx, (T, N, Wx_T.shape[1])), (1, 0, 2))

    def through_weights(self, *pairs: tuple[Array, Array], out: Sequence[Array] | None) -> tuple[Array, Array, Array]:
        """dWx, dWh and db in the dtype of the arguments, and in `out` where that is given.

        Parameters
        ----------
        *pairs : (array (T, N, K'H), array (T, N, H))
            Of gates that lie side by side: the gradient of their sums, and the states that were multiplied for them.
        out : sequence of arrays or None
        """
        D, H, width = self.x.shape[2], self.h.shape[2], self.gates.shape[2]
        stack = stack_of(self.backend, out, D, H, width)
        direct = unrounded(stack, self.gates.dtype)
        dW, first = self.buffer(H + D + 1, width) if direct is None else direct, 0
        for da, h in pairs:
            self._multiply_rows(da, h, dW[:, first : first + da.shape[2]])
            first += da.shape[2]
        return unstacked(narrow(self.backend, dW, self.dtype), H, out, stack)

    def _multiply_rows(self, da: Array, h: Array, out: Array) -> None:
        """The gradients of Wh, Wx and b below each other, (H + D + 1, K'H).

        In one product: alone, that of a few inputs with all of `da` takes as long as a third of the states'.
        """
        xp = self.backend.xp
        (T, N, D), H = self.x.shape, h.shape[2]
        rows = self.buffer(T, N, H + D + 1)  # h, x and 1 side by side
        rows[:, :, :H] = h
        rows[:, :, H : H + D] = self.x
        rows[:, :, H + D] = 1
        rows, flat = xp.reshape(rows, (T * N, H + D + 1)), xp.reshape(da, (T * N, da.shape[2]))
        self.backend.matmul(xp.matrix_transpose(rows), flat, out=out)  # (H + D + 1, T N) x (T N, K'H)

    def narrow(self, *gradients: Array) -> tuple[Array, ...]:
        """In the dtype of the arguments."""
        return tuple([narrow(self.backend, gradient, self.dtype) for gradient in gradients])


def begin(count: int, x: Array, Wx: Array, Wh: Array, b: Array, mask: Array | None, h: Array | None) -> Steps:
    """Check the arguments of a network of `count` gates, and make room for its steps."""
    backend, (own_x, Wx, Wh, b, h, mask) = checked(count, x, Wx, Wh, b, mask, h=h)
    xp, (N, T, _), H = backend.xp, x.shape, Wh.shape[0]
    time_x = xp.permute_dims(own_x, (1, 0, 2))
    time_mask = None if mask is None else xp.permute_dims(mask, (1, 0))[..., None]
    gates, hs = (backend.empty(shape, like=own_x) for shape in ((T, N, count * H), (T + 1, N, H)))
    hs[0, ...] = 0 if h is None else h
    return Steps(backend, x.dtype, time_x, Wx, Wh, b, time_mask, gates, hs)
