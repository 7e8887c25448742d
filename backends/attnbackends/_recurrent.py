"""The steps of recurrent networks.

Here because libraries disagree on what a step costs: a CPU wants few passes over few bytes, CUDA few kernels.
"""

from typing import Any

Array = Any


class RecurrentSteps:
    """Defaults in terms of the standard, for any library whose arrays can be written in place."""

    xp: Any

    joins_inputs = False
    """Whether `lstm_steps` may be given rows of states, inputs and 1 to multiply by all weights at once."""

    def lstm_steps(
        self,
        gates: Array,
        Wh: Array,
        b: Array | None,
        first: tuple[Array | None, Array | None],
        h: Array,
        c: Array,
        tanh_c: Array,
        mask: Array | None = None,
    ) -> None:
        """All steps of an LSTM.

        Parameters
        ----------
        gates : array (T, N, 4H)
            What the inputs add to the four gates; overwritten with f, g, i, o after their activations, in an order
            that `lstm_steps_backward` of the same backend knows.
        Wh : array (H, 4H)
        b : array (4H,)
        first : pair of array (N, H) or None
            The states h and c to begin with, None for zeros.
        h, c : array (T + 1, N, H)
            Written: the states, the first ones before the first step. If `joins_inputs`, `b` may be None: then `h` is
            (T + 1, N, H + D + 1) with x and 1 behind each state, `Wh` (H + D + 1, 4H), and `gates` holds nothing.
        tanh_c : array (T, N, H)
            Written: the tanh of each new cell.
        mask : boolean array (T, N, 1), optional
            False leaves both states as they were.
        """
        xp: Any = self.xp
        for states, state in zip((h, c), first, strict=True):
            states[0, ...] = 0 if state is None else state
        for t in range(gates.shape[0]):
            from_h = self.matmul(h[t, ...], Wh)  # (N, H) x (H, 4H) -> (N, 4H)
            self.lstm_cell(gates[t, ...], from_h, b, c[t, ...], c[t + 1, ...], tanh_c[t, ...], h[t + 1, ...])
            if mask is not None:
                for state in (c, h):
                    state[t + 1, ...] = xp.where(mask[t, ...], state[t + 1, ...], state[t, ...])

    def lstm_steps_backward(
        self,
        gates: Array,
        c: Array,
        tanh_c: Array,
        dhs: Array,
        dh: Array,
        dc: Array,
        da: Array,
        Wh_T: Array,
        mask: Array | None = None,
        dx: Array | None = None,
    ) -> None:
        """Gradient of `lstm_steps`, of the same part of the batch.

        Parameters
        ----------
        gates, c, tanh_c : array
            What `lstm_steps` wrote.
        dhs : array (N, T, H)
            Gradients of the states after each step, from outside.
        dh, dc : array (N, H)
            Gradients of the states after the last step; become those before the first.
        da : array (T, N, 4H)
            Written: the gradient of what the activations were given.
        Wh_T : array (4H, H)
        mask : boolean array (T, N, 1), optional
        dx : array (T, N, D), optional
            Written: the gradient of the inputs, if `joins_inputs`; then `Wh_T` is (4H, H + D).
        """
        xp: Any = self.xp
        d_h, d_c = dh, dc
        for t in reversed(range(gates.shape[0])):
            d_a, kept_c = da[t, ...], d_c
            if mask is not None:
                d_c = xp.astype(d_c, d_c.dtype, copy=True)
            d_hs = xp.astype(dhs[:, t, :], d_h.dtype, copy=False)
            self.lstm_cell_backward(gates[t, ...], c[t, ...], tanh_c[t, ...], d_hs, d_h, d_c, d_a)
            if mask is None:
                d_h = self.matmul(d_a, Wh_T)  # (N, 4H) x (4H, H) -> (N, H)
                continue
            d_a *= xp.astype(mask[t, ...], d_a.dtype)
            d_c = xp.where(mask[t, ...], d_c, kept_c)
            d_h = xp.where(mask[t, ...], self.matmul(d_a, Wh_T), d_h)
        dh[...] = d_h
        dc[...] = d_c

    def lstm_cell(
        self, gates: Array, from_h: Array, b: Array, c: Array, new_c: Array, tanh_c: Array, new_h: Array
    ) -> None:
        """One step: gates, from_h (N, 4H), b (4H,), c (N, H); writes gates and, all (N, H), new_c, tanh_c, new_h."""
        xp: Any = self.xp
        gates += from_h
        gates += b
        f, g, i, o, sigmoids = lstm_parts(gates)
        for part in sigmoids:  # sigmoid(a) = tanh(a / 2) / 2 + 1/2: one tanh serves all four gates
            part *= 0.5
        self.apply(xp.tanh, gates)
        for part in sigmoids:
            part *= 0.5
            part += 0.5
        new_c[...] = f * c
        new_c += g * i
        tanh_c[...] = xp.tanh(new_c)
        new_h[...] = o * tanh_c

    def lstm_cell_backward(
        self, gates: Array, c: Array, tanh_c: Array, dhs: Array, dh: Array, dc: Array, da: Array
    ) -> None:
        """Gradient of `lstm_cell`.

        Parameters
        ----------
        gates : array (N, 4H)
        c, tanh_c : array (N, H)
            The cell before the step, and the tanh of the one after it.
        dhs : array (N, H)
            Gradient of the state after the step, from outside.
        dh : array (N, H)
            The same from the step that followed; becomes the sum of both.
        dc : array (N, H)
            Gradient of the cell after the step; becomes that of the one before it.
        da : array (N, 4H)
            Written: the gradient of what the activations were given.
        """
        f, g, i, o, sigmoids = lstm_parts(gates)
        d_f, d_g, d_i, d_o, d_sigmoids = lstm_parts(da)
        dh += dhs
        d_o[...] = dh * tanh_c
        slope = d_o * tanh_c  # dh tanh_c^2, so that dh o (1 - tanh_c^2) = o (dh - slope)
        dc += o * (dh - slope)
        d_f[...] = dc * c
        d_i[...] = dc * g
        d_g[...] = dc * i
        d_g -= d_i * i * g  # dc i (1 - g^2)
        for part, d_part in zip(sigmoids, d_sigmoids, strict=True):
            d_part *= part - part * part
        dc *= f

    def apply(self, function: Any, array: Array) -> Array:
        """Of `Backend`."""
        raise NotImplementedError

    def matmul(self, a: Array, b: Array, out: Array | None = None, dtype: Any = None) -> Array:
        """Of `Backend`."""
        raise NotImplementedError


def lstm_parts(a: Array) -> tuple[Array, Array, Array, Array, tuple[Array, Array]]:
    """Views of (N, 4H): f, g, i, o, and what goes through a sigmoid."""
    H = a.shape[-1] // 4
    f, g, i, o = (a[:, gate * H : (gate + 1) * H] for gate in range(4))
    return f, g, i, o, (f, a[:, 2 * H :])
