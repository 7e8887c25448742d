"""Activations of feed-forward networks, element by element."""

from math import pi, sqrt
from typing import Any, NamedTuple

from attnbackends import Array, Backend

from .arrays import elementwise, sigmoid
from .checks import check, check_gradient

# Chebyshev coefficients of log(erfc(z) exp(z**2) / t) in t = 2 / (2 + z), which runs from 1 to 0 as z goes from 0 to
# infinity; made with 40 digits. 12 of them serve float32, all of them float64.
_ERFC = (
    -0.651326859890854717, 0.64196979235649026, 0.0194764732041858363, -0.00956151478680863164,
    -0.000946595344482036866, 0.000366839497852761452, 0.0000425233248069077716, -0.0000202785781125342432,
    -1.62429000464702551e-6, 1.3036558355805232e-6, 1.56264417220661432e-8, -8.52380959149265425e-8,
    6.5290544390988515e-9, 5.05934349555146894e-9, -9.91364156493033087e-10, -2.27365122293183586e-10,
    9.6467911020155268e-11, 2.39403808303911474e-12, -6.8860275264975534e-12, 8.94487927309072572e-13,
    3.13092139934295808e-13, -1.12708223613672524e-13, 3.81090525518923206e-16, 7.10609761360923699e-15,
    -1.5230282014571043e-15, -9.457494571291234e-17, 1.21023718922427899e-16, -2.81666308774717697e-17,
)  # fmt: skip
_TERMS_32 = 12
_TANH = sqrt(2 / pi), 0.044715


class SavedActivation(NamedTuple):
    """What the backward of an activation needs."""

    backend: Backend
    x: Array
    approximate: bool = False


class SavedSwiglu(NamedTuple):
    """What `swiglu_backward` needs."""

    backend: Backend
    gate: Array
    x: Array


def relu(x: Array) -> tuple[Array, SavedActivation]:
    """``max(x, 0)``.

    Parameters
    ----------
    x : array (...)

    Returns
    -------
    out : array (...)
    saved : SavedActivation

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-2.0, 3.0]))[0]
    array([0., 3.])
    """
    backend = check(x=(x, "*"))
    zero = backend.xp.zeros_like
    (out,) = elementwise(backend, lambda x: (backend.xp.maximum(x, zero(x)),), x)
    return out, SavedActivation(backend, x)


def relu_backward(saved: SavedActivation, dout: Array) -> Array:
    """Gradient of `relu`: dout (...) -> dx (...); 0 at 0."""
    xp = saved.backend.xp
    check_gradient("dout", dout, like=saved.x)
    (dx,) = elementwise(saved.backend, lambda x, d: (xp.where(x > 0, d, xp.zeros_like(d)),), saved.x, dout)
    return dx


def gelu(x: Array, *, approximate: bool = False) -> tuple[Array, SavedActivation]:
    """``x * P(X <= x)`` for a standard normal X.

    Parameters
    ----------
    x : array (...)
    approximate : bool
        Use ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2`` for the probability, as GPT-2 does.

    Returns
    -------
    out : array (...)
    saved : SavedActivation

    References
    ----------
    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0]))[0].round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    backend = check(x=(x, "*"))
    probability = _tanh_probability if approximate else _probability

    def function(x: Array) -> tuple[Array]:
        out = probability(backend.xp, x)
        out *= x
        return (out,)

    (out,) = elementwise(backend, function, x)
    return out, SavedActivation(backend, x, approximate)


def gelu_backward(saved: SavedActivation, dout: Array) -> Array:
    """Gradient of `gelu`: dout (...) -> dx (...)."""
    xp = saved.backend.xp
    check_gradient("dout", dout, like=saved.x)

    def gradient(x: Array, d: Array) -> tuple[Array]:
        if saved.approximate:
            P, (a, b) = _tanh_probability(xp, x), _TANH
            density = 2 * a * (1 + 3 * b * x * x) * P * (1 - P)
        else:
            P = _probability(xp, x)
            density = xp.exp(-0.5 * x * x) / sqrt(2 * pi)
        return (d * (P + x * density),)

    (dx,) = elementwise(saved.backend, gradient, saved.x, dout)
    return dx


def swiglu(gate: Array, x: Array) -> tuple[Array, SavedSwiglu]:
    """``gate * sigmoid(gate) * x``: values, let through by a gate.

    Parameters
    ----------
    gate, x : array (...)

    Returns
    -------
    out : array (...)
    saved : SavedSwiglu

    References
    ----------
    Shazeer, "GLU Variants Improve Transformer", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> swiglu(np.array([0.0, 50.0]), np.array([3.0, 2.0]))[0]
    array([  0., 100.])
    """
    backend = check(gate=(gate, "..."), x=(x, "..."))

    def function(gate: Array, x: Array) -> tuple[Array]:
        out = sigmoid(backend.xp, gate)
        out *= gate
        out *= x
        return (out,)

    (out,) = elementwise(backend, function, gate, x)
    return out, SavedSwiglu(backend, gate, x)


def swiglu_backward(saved: SavedSwiglu, dout: Array) -> tuple[Array, Array]:
    """Gradients of `swiglu`: dout (...) -> dgate, dx (...)."""
    check_gradient("dout", dout, like=saved.x)

    def gradients(gate: Array, x: Array, d: Array) -> tuple[Array, Array]:
        s = sigmoid(saved.backend.xp, gate)
        return d * x * s * (1 + gate * (1 - s)), d * gate * s

    dgate, dx = elementwise(saved.backend, gradients, saved.gate, saved.x, dout, count=2)
    return dgate, dx


def _tanh_probability(xp: Any, x: Array) -> Array:
    a, b = _TANH
    P = x * x  # in place from here on: memory for one more array takes a CPU as long as an operation on it
    P *= a * b
    P += a
    P *= x
    P = xp.tanh(P)
    P *= 0.5
    P += 0.5
    return P


def _probability(xp: Any, x: Array) -> Array:
    """P(X <= x) for a standard normal X; the standard has no erf, and NumPy neither."""
    z = xp.abs(x) * sqrt(0.5)
    t = 2 / (2 + z)
    y = 2 * t - 1
    twice = 2 * y
    terms = _ERFC if xp.finfo(x.dtype).bits == 64 else _ERFC[:_TERMS_32]
    b1, b2 = xp.full_like(y, terms[-1]), xp.zeros_like(y)
    for c in terms[-2:0:-1]:  # Clenshaw's recurrence
        b = twice * b1
        b -= b2
        b += c
        b1, b2 = b, b1
    tail = 0.5 * t * xp.exp(terms[0] + y * b1 - b2 - z * z)
    return xp.where(x > 0, 1 - tail, tail)
