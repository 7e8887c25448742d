"""Gradients of a call in flat form: what comes in, where what goes out is put, and how chains add to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from attnbackends import Array, Backend

from .blocks import Chain
from .problem import Problem
from .visibility import Block


class OutputGrads(NamedTuple):
    """Gradients of what forward returned; None for what was not returned or has none."""

    dout: Array | None  # (B, R, D_v)
    dweights: Array | None  # (B, R, T_k)
    dlse: Array | None  # (B, R, 1)

    @property
    def of_output(self) -> Any:
        """The gradient of the output, where there is one."""
        return self.dout


class InputGrads(NamedTuple):
    """Where backward puts gradients, in the dtype to compute in; one dk and dv for each share of chains."""

    dq: Array  # (B, R, D)
    dk: list[Array]  # (B, T_k, D) each
    dv: list[Array]  # (B, T_k, D_v) each; empty where keys are the values, and dk is the sum of both
    dbias: Array | None  # of the shape of the bias's array
    dsinks: Array | None  # (B, R, 1)

    def of_keys(self, chain: Chain) -> tuple[Array, Array]:
        """Where a chain adds the gradients of its entries' keys and values; one array where keys are the values."""
        dk = self.dk[chain.share][chain.entries, ...]
        return dk, self.dv[chain.share][chain.entries, ...] if self.dv else dk

    def add_to_bias(self, problem: Problem, block: Block, dscores: Array) -> None:
        """Add the gradient of a block's scores, summed over the axes along which the bias was broadcast."""
        if problem.bias is not None and self.dbias is not None:
            problem.bias.add_gradient(block, dscores, self.dbias)

    def write_sinks(self, block: Block, sink_weights: Array, delta: Array) -> None:
        """Write the gradient of the sinks; `delta` (b, r, 1) is the sum of a row's weights times their gradients."""
        if self.dsinks is not None:
            self.dsinks[block.entries, block.rows, :] = -sink_weights * delta


def add_product(backend: Backend, total: Array, keys: slice, first: bool, a: Array, b: Array) -> None:
    """Add ``a @ b`` to the rows `keys` of a gradient (b, T_k, ·); the first to come finds no value there."""
    if first and keys.stop - keys.start == total.shape[1]:
        backend.matmul(a, b, out=total)
        return
    if first:
        total[...] = 0
    total[:, keys, :] += backend.matmul(a, b)
