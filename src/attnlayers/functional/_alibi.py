"""ALiBi: scores lowered in proportion to the distance of query and key."""

from typing import NamedTuple

from attnbackends import Array, Backend

from .checks import check, check_gradient
from .dtypes import narrow, wide, widen
from .integers import integer


class SavedAlibi(NamedTuple):
    """What `alibi_backward` needs."""

    backend: Backend
    slopes: Array
    distances: Array  # (T_q, T_k), negative, in the dtype to compute in
    out: Array


def alibi(slopes: Array, query_positions: Array, key_positions: Array) -> tuple[Array, SavedAlibi]:
    """The bias ``-slope * |query position - key position|`` of each head.

    Parameters
    ----------
    slopes : array (heads,)
        As `alibi_slopes` gives them, or learned.
    query_positions : integer array (T_q,)
    key_positions : integer array (T_k,)
        Any integer dtype; they are subtracted in float64, exact up to 2**53.

    Returns
    -------
    bias : array (heads, T_q, T_k)
        The ``bias`` of `attention`.
    saved : SavedAlibi

    References
    ----------
    Press, Smith and Lewis, "Train Short, Test Long", 2022.

    Examples
    --------
    >>> import numpy as np
    >>> alibi(np.array([0.5]), np.array([2]), np.arange(3))[0]
    array([[[-1. , -0.5, -0. ]]])
    """
    backend = check(
        slopes=(slopes, "heads"),
        query_positions=(query_positions, "T_q: int"),
        key_positions=(key_positions, "T_k: int"),
    )
    xp = backend.xp
    # Integers would wrap: unsigned ones below 0, narrow ones beyond their range.
    queries, keys = (xp.astype(positions, xp.float64) for positions in (query_positions, key_positions))
    distances = -xp.astype(xp.abs(queries[:, None] - keys[None, :]), wide(backend, slopes.dtype))
    bias = narrow(backend, widen(backend, slopes)[:, None, None] * distances, slopes.dtype)
    return bias, SavedAlibi(backend, slopes, distances, bias)


def alibi_backward(saved: SavedAlibi, dbias: Array) -> Array:
    """Gradient of `alibi`: dbias (heads, T_q, T_k) -> dslopes (heads,)."""
    check_gradient("dbias", dbias, like=saved.out)
    xp = saved.backend.xp
    dslopes = xp.sum(widen(saved.backend, dbias) * saved.distances, axis=(1, 2))
    return narrow(saved.backend, dslopes, dbias.dtype)


def alibi_slopes(heads: int) -> list[float]:
    """The slopes of the paper: powers of ``2**(-8 / heads)``, and for other numbers than powers of 2 its mixture.

    Parameters
    ----------
    heads : int

    Returns
    -------
    list of float

    Examples
    --------
    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    heads = integer("heads", heads, least=1)
    whole = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    between: list[float] = alibi_slopes(2 * whole)[::2] if heads > whole else []
    return slopes + between[: heads - whole]
