"""What all recurrent networks share: one product for the inputs of all steps before them, one after them.

Entries of a batch do not meet until the gradients of the weights are summed: pieces of the batch run through
all steps side by side. Inside, arrays are time first, so that a step is one block of memory.
"""

from collections.abc import Callable
from typing import NamedTuple

from attnbackends import Array, Backend

from ._check import check
from ._dtypes import narrow, wide, widen
from ._pieces import or_zero

FEW_ROWS = 8
"""Fewer rows read the weights more than they compute: what the inputs add is worth a product of its own."""

PIECE_ROWS = 64
"""Fewer rows would waste the packing of the weights in each product."""


class Steps(NamedTuple):
    """The arrays of one pass; T is first, all in the dtype to compute in."""

    backend: Backend
    dtype: object  # of the arguments
    x: Array  # (T, N, D)
    Wx: Array  # (D, KH), K gates side by side
    Wh: Array  # (H, KH)
    b: Array  # (KH,)
    mask: Array | None  # (T, N, 1)
    gates: Array  # (T, N, KH): what the inputs add, then whatever the network makes of it
    h: Array  # (T + 1, N, H), the initial state first; its place is the network's to fill
    rows: Array | None = None  # (T + 1, N, H + D + 1): h, x and 1 side by side, where one product a step takes all

    @property
    def W(self) -> Array:
        """All weights as `rows` meets them, (H + D + 1, KH)."""
        return self.backend.xp.concat((self.Wh, self.Wx, self.b[None, :]), axis=0)

    def room(self, *shape: int) -> Array:
        """An array for further results, in the dtype to compute in."""
        return self.backend.empty(shape, like=self.gates)

    def forward(self, piece: Callable[[slice], None]) -> None:
        """Multiply the inputs of all steps, unless `rows` has them, and call `piece` with slices of the batch."""
        T, N, width = self.gates.shape
        xp = self.backend.xp

        def multiply() -> None:
            if N == 1:
                flat, out = self.x[:, 0, :], self.gates[:, 0, :]
            else:
                flat, out = xp.reshape(self.x, (T * N, self.x.shape[2])), xp.reshape(self.gates, (T * N, width))
            self.backend.matmul(flat, self.Wx, out=out)  # (T N, D) x (D, KH) -> (T N, KH)

        def both(n: slice) -> None:
            multiply()
            piece(n)

        if self.rows is not None:
            self.run(piece)
        elif N < FEW_ROWS and not self._products_are_shared:
            self.backend.map(both, [slice(0, N)])  # a piece of work costs as much as a step
        else:
            multiply()
            self.run(piece)

    @property
    def _products_are_shared(self) -> bool:
        """Whether there are too few rows to share out, and each product is worth it."""
        _, N, width = self.gates.shape
        return bool(N < 2 * PIECE_ROWS and N * width * self.h.shape[2] > 2**22)

    def run(self, piece: Callable[[slice], None]) -> None:
        """Call `piece` with slices of the batch."""
        N, width = self.gates.shape[1:]
        bits = self.backend.bits(self.gates.dtype)
        if self._products_are_shared:
            piece(slice(0, N))
        else:
            self.backend.map(piece, self.backend.chunks(N, 2 * width * bits // 8, at_least=PIECE_ROWS))

    def transposed(self, W: Array) -> Array:
        """W (H, K) -> (K, H), in an order that a product of few rows needs not rearrange at every step."""
        transposed = self.backend.xp.matrix_transpose(W)
        if self.gates.shape[1] < FEW_ROWS:
            return transposed
        apart = self.backend.empty_rows(tuple(W.shape), like=W)  # on a CPU a fifth of the time of W itself
        apart[...] = W
        own = self.room(W.shape[1], W.shape[0])
        own[...] = self.backend.xp.matrix_transpose(apart)
        return own

    def outputs(self) -> Array:
        """hs (N, T, H) of the caller's dtype, an array of its own."""
        xp = self.backend.xp
        return xp.astype(xp.permute_dims(self.h[1:, ...], (1, 0, 2)), self.dtype, copy=True)

    def first(self, state: Array | None) -> Array | None:
        """An initial state in the dtype to compute in."""
        return None if state is None else widen(self.backend, state)

    def last(self, states: Array) -> Array:
        """The state after the last step (N, H), an array of its own."""
        return self.backend.xp.astype(states[-1, ...], self.dtype, copy=True)

    def keep(self, t: int, n: slice, new: Array, old: Array) -> Array:
        """`new` where step t counts, else `old`."""
        return new if self.mask is None else self.backend.xp.where(self.mask[t, n, ...], new, old)

    def check_gradients(self, dhs: Array, **last: Array | None) -> None:
        """Hold the gradients of the output and of the last states against the shape of the output."""
        check(dhs=(dhs, "N T H"), **{name: (array, "N H") for name, array in last.items()})
        T, N, _ = self.gates.shape
        if tuple(dhs.shape) != (N, T, self.h.shape[2]):
            wanted = (N, T, self.h.shape[2])
            raise ValueError(f"`dhs` must have the shape of the output, {wanted}, got {tuple(dhs.shape)}")

    def carried(self, last: Array | None) -> Array:
        """Room for the gradient (N, H) that goes from step to step, with that of the last state to begin with."""
        carried = self.room(*self.h.shape[1:])
        carried[...] = 0 if last is None else widen(self.backend, last)
        return carried

    def through_inputs(self, da: Array) -> Array:
        """From da (T, N, KH), the gradient of all sums that the gates were given, to dx (N, T, D)."""
        T, N, width = da.shape
        Wx_T = self.backend.xp.matrix_transpose(self.Wx)
        dx = self.backend.matmul(self.backend.xp.reshape(da, (T * N, width)), Wx_T)  # (T N, KH) x (KH, D) -> (T N, D)
        return self.backend.xp.permute_dims(self.backend.xp.reshape(dx, (T, N, Wx_T.shape[1])), (1, 0, 2))

    def through_weights(self, da: Array, h: Array) -> tuple[Array, Array, Array]:
        """From da (T, N, KH) and the states h (T, N, H) that were multiplied to dWx, dWh and db.

        In one product: alone, that of a few inputs with all of `da` takes as long as a third of the states'.
        """
        xp = self.backend.xp
        (T, N, D), H = self.x.shape, h.shape[2]
        rows = _side_by_side(self.backend, self.x, T, H) if self.rows is None else self.rows[:T, ...]
        if self.rows is None:
            rows[:, :, :H] = h
        rows, flat = xp.reshape(rows, (T * N, H + D + 1)), xp.reshape(da, (T * N, da.shape[2]))
        dW = self.backend.matmul(xp.matrix_transpose(rows), flat)  # (H + D + 1, T N) x (T N, KH)
        return dW[H : H + D, :], dW[:H, :], dW[H + D, :]

    def narrow(self, *gradients: Array) -> tuple[Array, ...]:
        """In the dtype of the arguments."""
        return tuple([narrow(self.backend, gradient, self.dtype) for gradient in gradients])


# The axes of b, Wx and Wh, by the number of gates side by side.
_AXES = {1: ("H", "D H", "H H")} | {gates: (f"{gates}H", f"D {gates}H", f"H {gates}H") for gates in (3, 4)}


def begin(count: int, x: Array, Wx: Array, Wh: Array, b: Array, mask: Array | None, **states: Array | None) -> Steps:
    """Check the arguments of a network of `count` gates, and make room for its steps.

    The first of `states` is `h`; all are (N, H) or None.
    """
    width, of_Wx, of_Wh = _AXES[count]
    backend = check(
        x=(x, "N T D"), Wx=(Wx, of_Wx), Wh=(Wh, of_Wh), b=(b, width), mask=(mask, "N T: bool"),
        **{name: (state, "N H") for name, state in states.items()},
    )  # fmt: skip
    xp = backend.xp
    N, T, D = x.shape
    H = Wh.shape[0]
    if Wh.shape[1] != count * H:
        side_by_side = {1: "", 3: ", three gates side by side", 4: ", four gates side by side"}[count]
        raise ValueError(f"`Wh` must have shape (H, {width}){side_by_side}, got {tuple(Wh.shape)}")
    time_mask = None if mask is None else xp.astype(xp.permute_dims(mask, (1, 0)), mask.dtype, copy=True)[..., None]
    time_x = xp.permute_dims(x, (1, 0, 2))
    if wide(backend, x.dtype) != x.dtype:
        time_x, Wx, Wh, b = (widen(backend, array) for array in (time_x, Wx, Wh, b))
    if time_mask is not None:
        time_x = or_zero(backend, time_mask, time_x)
    if count == 4 and backend.joins_inputs and N >= FEW_ROWS and 4 * D <= H:
        rows = _side_by_side(backend, time_x, T + 1, H)
        gates = backend.empty((T, N, 4 * H), like=rows)
        return Steps(backend, x.dtype, rows[:T, :, H : H + D], Wx, Wh, b, time_mask, gates, rows[:, :, :H], rows)
    gates, h = (backend.empty(shape, like=time_x) for shape in ((T, N, count * H), (T + 1, N, H)))
    return Steps(backend, x.dtype, time_x, Wx, Wh, b, time_mask, gates, h)


def _side_by_side(backend: Backend, x: Array, steps: int, H: int) -> Array:
    """Room for states of width H, x (T, N, D) and 1 in each row: (steps, N, H + D + 1)."""
    T, N, D = x.shape
    rows = backend.empty((steps, N, H + D + 1), like=x)
    rows[:T, :, H : H + D] = x
    rows[:, :, H + D] = 1
    return rows
