"""Long short-term memory over whole sequences."""

from typing import NamedTuple

from attnbackends import Array

from ._steps import Steps, begin


class SavedLSTM(NamedTuple):
    """What `lstm_backward` needs; the gates are after their activations."""

    steps: Steps
    c: Array  # (T + 1, N, H)
    tanh_c: Array  # (T, N, H), of the new cells


def lstm(
    x: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    *,
    h: Array | None = None,
    c: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array, Array, SavedLSTM]:
    """Long short-term memory over T steps.

    Parameters
    ----------
    x : array (N, T, D)
    Wx : array (D, 4H)
        The columns of the gates in the book's order: forget, new memory, input, output.
    Wh : array (H, 4H)
    b : array (4H,)
    h, c : array (N, H), optional
        State before the first step; zeros if left out.
    mask : boolean array (N, T), optional
        Where False, the step is skipped, whatever it holds: both states go through unchanged.

    Returns
    -------
    hs : array (N, T, H)
        State after each step.
    h, c : array (N, H)
        After the last step.
    saved : SavedLSTM

    References
    ----------
    Deep Learning from Scratch 2, sections 6.2 and 6.3.
    """
    steps = begin(4, x, Wx, Wh, b, mask, h=h, c=c)
    T, N, width = steps.gates.shape
    H = width // 4
    cs, tanh_c = steps.room(T + 1, N, H), steps.room(T, N, H)
    hs = steps.backend.empty((N, T, H), like=x)
    first_h, first_c = steps.first(h), steps.first(c)

    W, b_apart, written_h = (steps.Wh, steps.b, steps.h) if steps.rows is None else (steps.W, None, steps.rows)

    def piece(n: slice) -> None:
        part = None if steps.mask is None else steps.mask[:, n, ...]
        first = [None if state is None else state[n, ...] for state in (first_h, first_c)]
        written = written_h[:, n, ...], cs[:, n, ...], tanh_c[:, n, ...]
        steps.backend.lstm_steps(steps.gates[:, n, ...], W, b_apart, (first[0], first[1]), *written, part)
        hs[n, ...] = steps.backend.xp.permute_dims(steps.h[1:, n, ...], (1, 0, 2))

    steps.forward(piece)
    # Backward does not look at the last states: views of them do no harm.
    last_h, last_c = steps.narrow(steps.h[-1, ...], cs[-1, ...])
    return hs, last_h, last_c, SavedLSTM(steps, cs, tanh_c)


def lstm_backward(
    saved: SavedLSTM, dhs: Array, *, dh: Array | None = None, dc: Array | None = None
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Gradients of `lstm`.

    Parameters
    ----------
    saved : SavedLSTM
    dhs : array (N, T, H)
    dh, dc : array (N, H), optional
        Gradients of the states after the last step, beside what comes through `dhs`.

    Returns
    -------
    dx, dWx, dWh, db : arrays of the shapes of x, Wx, Wh and b
    dh, dc : array (N, H)
        Gradients of the states before the first step.
    """
    steps = saved.steps
    steps.check_gradients(dhs, dh=dh, dc=dc)
    T, N, width = steps.gates.shape
    da = steps.backend.empty_rows((T, N, width), like=steps.gates)
    carried_h, carried_c = steps.carried(dh), steps.carried(dc)
    W_T = steps.transposed(steps.Wh if steps.rows is None else steps.W[:-1, :])
    dx = None if steps.rows is None else steps.room(*steps.x.shape)

    def piece(n: slice) -> None:
        mask = None if steps.mask is None else steps.mask[:, n, ...]
        kept = steps.gates[:, n, ...], saved.c[:, n, ...], saved.tanh_c[:, n, ...]
        written = carried_h[n, ...], carried_c[n, ...], da[:, n, ...]
        d_x = None if dx is None else dx[:, n, ...]
        steps.backend.lstm_steps_backward(*kept, dhs[n, ...], *written, W_T, mask, d_x)

    steps.run(piece)
    dx = steps.through_inputs(da) if dx is None else steps.backend.xp.permute_dims(dx, (1, 0, 2))
    dWx, dWh, db = steps.through_weights(da, steps.h[:T, ...])
    dx, dWx, dWh, db, carried_h, carried_c = steps.narrow(dx, dWx, dWh, db, carried_h, carried_c)
    return dx, dWx, dWh, db, carried_h, carried_c
