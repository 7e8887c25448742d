"""Cross-entropy as a whole: what a library is given, and what it gives back where it has a way of its own.

It is the third operation of this kind, beside attention and the LSTM: written out, it is thirty small kernels on CUDA,
whose launches take the host as long as a tenth of a training step (benchmarks/NOTES.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any


class CrossEntropyCall(NamedTuple):
    """One call of cross-entropy, after all checks of shapes and dtypes.

    Attributes
    ----------
    logits : array (M, V)
        Of any floating point dtype; M and V are 1 or more where a library is asked.
    labels : int64 array (M,)
        To be checked as `Backend.take_rows` checks its ids, but for those that do not count.
    ignore_label : int
        The label that does not count.
    smoothing : float
        Share of the wanted probability that is spread over all classes.
    advice : str
        What the error of a label that is none says to do.
    """

    logits: Array
    labels: Array
    ignore_label: int
    smoothing: float
    advice: str


class OwnCrossEntropy(NamedTuple):
    """What a library's own cross-entropy returns.

    Attributes
    ----------
    loss : array ()
        The mean over the labels that count, 0 where none does; in float32 or better, as dlogits are.
    vjp : callable
        From dloss, a number or an array (), to dlogits (M, V), 0 in the rows that do not count. It may be called again.
    """

    loss: Array
    vjp: Callable[[float | Array], Array]
