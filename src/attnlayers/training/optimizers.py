"""Optimizers: parameters and gradients in, parameters changed in place, nothing read back from a device."""

from collections.abc import Mapping, Sequence
from math import prod, sqrt

import numpy as np

import attnbackends
from attnbackends import Array, Backend, backend_of, float_bits, quiet

from .._saved_state import check_state
from ..functional.dtypes import narrow, wide, widen

SMALL_BYTES = 128 * 1024
"""Bytes that an update must touch in all to be worth waking other threads."""

CHUNK_BYTES = 1024 * 1024
"""Bytes that a chunk of a parameter touches at least: other parameters are there to be shared out."""


@quiet
def clip_grads(grads: Sequence[Array], max_norm: float) -> Array:
    """Scale all gradients down so that their common norm is at most `max_norm`.

    Parameters
    ----------
    grads : list of array
        Changed in place.
    max_norm : float

    Returns
    -------
    norm : array ()
        Before clipping, on the device; in float32 for half precision, whose squares would overflow, and 0 where there
        are no gradients.
    """
    if not grads:
        return attnbackends.backend.asarray(np.zeros((), np.float32))
    return backend_of(*grads).clip_norm(list(grads), max_norm)


class Optimizer:
    """The protocol of optimizers.

    Attributes
    ----------
    lr : float
        Learning rate; may be changed between updates.
    steps : int
        How many updates there were.
    slots : tuple of str
        What an optimizer remembers for each parameter, an array of its shape under each name.

    Notes
    -----
    A step on parameters in half precision is computed in float32, from gradients that are widened first, and so is
    what is remembered; the parameter is rounded once. A step that is less than half the distance to the next number
    of its dtype changes nothing: in bfloat16 that is 0.002 just below 1.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        if not lr > 0:
            raise ValueError(f"`lr` must be positive, got {lr}")
        self.lr = lr
        self.steps = 0
        self.memory: dict[str, list[Array]] = {}

    @quiet
    def update(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        """One step: change `params` in place."""
        backend = backend_of(*params) if params else attnbackends.backend
        if not self.memory and self.slots:
            zeros_like = backend.xp.zeros_like
            self.memory = {slot: [zeros_like(p, dtype=wide(backend, p.dtype)) for p in params] for slot in self.slots}
        self.steps += 1
        arrays = list(zip(params, grads, *self.memory.values(), strict=True))

        def change(some: list[tuple[Array, ...]]) -> None:
            own = [(widen(backend, param), widen(backend, grad), *memory) for param, grad, *memory in some]
            self._change_all(backend, own)
            for (param, *_), (changed, *_) in zip(some, own, strict=True):
                if changed is not param:
                    param[...] = narrow(backend, changed, param.dtype)

        pieces = _pieces(backend, arrays) if backend.on_host else [arrays]
        if len(pieces) > 1:
            backend.map(change, pieces)
        elif params:
            change(arrays)

    def _change_all(self, backend: Backend, arrays: list[tuple[Array, ...]]) -> None:
        """Change some parameters, each with its gradient and what is remembered for it, in the dtype to compute in."""
        for param, grad, *memory in arrays:
            self._change(backend, param, grad, *memory)

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        raise TypeError(f"{type(self).__name__} has no rule")

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what is remembered, on the host: ``"m.0"`` is slot m of the first parameter."""
        flat = {f"{slot}.{i}": array for slot, arrays in self.memory.items() for i, array in enumerate(arrays)}
        return {name: np.array(backend_of(array).to_numpy(array)) for name, array in flat.items()}

    @quiet
    def load_state(self, state: Mapping[str, np.ndarray], params: Sequence[Array], steps: int) -> None:
        """Go on from what `state` returned after that many steps on parameters of these shapes.

        What was remembered in half precision, as version 0.1 did, goes on in float32.

        Raises
        ------
        ValueError
            If the state is that of another optimizer or of other parameters.
        """
        slots = self.slots if steps else ()
        shapes = {f"{slot}.{i}": tuple(p.shape) for slot in slots for i, p in enumerate(params)}
        check_state(state, shapes, "state of another optimizer")
        self.steps = steps
        self.memory = {slot: [_remembered(state[f"{slot}.{i}"], p) for i, p in enumerate(params)] for slot in slots}


def _pieces(backend: Backend, arrays: list[tuple[Array, ...]]) -> list[list[tuple[Array, ...]]]:
    """Parameters and what belongs to each, cut into pieces for threads; one piece where threads are not worth it."""
    pieces: list[list[tuple[Array, ...]]] = []
    total = 0
    for i, of_param in enumerate(arrays):
        param = of_param[0]
        if isinstance(param, np.generic):
            kind = type(param).__name__
            raise TypeError(
                f"`params[{i}]` cannot be changed in place, it is a numpy.{kind} and no array: wrap it in np.array"
            )
        rows, *row = param.shape or (1,)  # one number has no axis to be cut along
        row_bytes = prod(row) * float_bits(backend.xp, wide(backend, param.dtype)) // 8
        touched = row_bytes * (len(of_param) + 2)  # and two temporaries
        cuts = backend.chunks(rows, touched, -(-CHUNK_BYTES // max(1, touched)))
        pieces += [[tuple(array[cut, ...] for array in of_param) if param.shape else of_param] for cut in cuts]
        total += rows * touched
    return [arrays] if total < SMALL_BYTES else pieces


def _remembered(saved: np.ndarray, param: Array) -> Array:
    """A copy of what was saved for a parameter, where that is and in the dtype to compute in."""
    backend = backend_of(param)
    copied = saved.astype(np.promote_types(saved.dtype, np.float32))  # not every library takes NumPy's bfloat16
    return backend.asarray(copied, dtype=wide(backend, param.dtype), like=param)


class SGD(Optimizer):
    """``param -= lr * grad``."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        param -= self.lr * grad


class Momentum(Optimizer):
    """``v = momentum * v - lr * grad; param += v``."""

    slots = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        (v,) = memory
        v *= self.momentum
        v -= self.lr * grad
        param += v


class Nesterov(Optimizer):
    """Momentum that looks ahead: the gradient counts as if it were taken where the momentum leads.

    ``v = momentum * v - lr * grad; param += momentum**2 * v - (1 + momentum) * lr * grad``

    References
    ----------
    Bengio, Boulanger-Lewandowski and Pascanu, "Advances in Optimizing Recurrent Networks", 2012; in the book's form.
    """

    slots = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        (v,) = memory
        step = self.lr * grad
        v *= self.momentum
        v -= step
        param += self.momentum**2 * v
        step *= 1 + self.momentum
        param -= step


class AdaGrad(Optimizer):
    """``h += grad**2; param -= lr * grad / sqrt(h)``.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.
    """

    slots = ("h",)

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        (h,) = memory
        h += grad * grad
        step = backend.xp.sqrt(h)
        step += 1e-7
        param -= self.lr * grad / step


class RMSprop(Optimizer):
    """``h`` is a moving mean of ``grad**2``; ``param -= lr * grad / sqrt(h)``.

    References
    ----------
    Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012.
    """

    slots = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = decay_rate

    def _change(self, backend: Backend, param: Array, grad: Array, *memory: Array) -> None:
        (h,) = memory
        h *= self.decay_rate
        h += (1 - self.decay_rate) * grad * grad
        step = backend.xp.sqrt(h)
        step += 1e-7
        param -= self.lr * grad / step


class Adam(Optimizer):
    """Moving means of the gradient and of its square.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; with epsilon as in the book.
    """

    slots = ("m", "v")

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = beta1
        self.beta2 = beta2

    @property
    def _decay(self) -> float:
        """The share of each parameter with more than one axis that a step takes off before it changes it."""
        return 0.0

    def _change_all(self, backend: Backend, arrays: list[tuple[Array, ...]]) -> None:
        lr = self.lr * sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        params, grads, m, v = (list(row) for row in zip(*arrays, strict=True))
        decayed = [param.ndim > 1 for param in params] if self._decay else []
        backend.adam_step(params, grads, m, v, lr, self.beta1, self.beta2, self._decay, decayed)


class AdamW(Adam):
    """Adam, and a share ``lr * weight_decay`` of the weights that is taken off at every step.

    Parameters with one axis, biases and the gains of norms, keep what they have.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, *, weight_decay: float = 0.01
    ) -> None:
        if not weight_decay >= 0:
            raise ValueError(f"`weight_decay` must be 0 or more, got {weight_decay}")
        super().__init__(lr, beta1, beta2)
        self.weight_decay = weight_decay

    @property
    def _decay(self) -> float:
        return self.lr * self.weight_decay
