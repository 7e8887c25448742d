"""The kernel for few queries and many keys: how its keys are split, and with what it is launched."""

from __future__ import annotations

from typing import NamedTuple

from .attention import FEWEST_ROWS, FURTHER, SIZES, VISIBILITY, Addresses, Forward, further_numbers, numbers
from .call import CudaCall
from .compiled import Kernels

HALF = {"float16": ("cuda_fp16.h", "__half"), "bfloat16": ("cuda_bf16.h", "__nv_bfloat16")}
"""Header and type of what has no type of its own in C++."""

THREADS = 128
"""Threads of a block, as in ``kernels/attention_decode.cu``."""

MOST_SHARES = 512
"""Shares that the second kernel has room for."""

FEWEST_KEYS = 64
"""Keys that are worth a share: twice what a block meets before the first load has come."""

FEWEST_KEYS_IN_HALF = 256
"""Keys from which on half precision comes here: where there are fewer, queries are often trained, and cuDNN has a
backward."""

WIDEST_SUMS = 32
"""Numbers of the output that a thread adds up, of 4 bytes, for all rows: with as many of the queries, and the keys and
values on their way, they fill the registers of four blocks in a multiprocessor."""


class Shape(NamedTuple):
    """What the kernel is compiled for.

    Attributes
    ----------
    sums : str
        The letter of the dtype that is summed in, float32 or float64.
    stored : str
        The name of the dtype of the arrays.
    lanes : int
        Threads that share a key.
    pieces : int
        Chunks of a row of each thread.
    rows : int
        Rows of queries of a block.
    options : int
        `CudaCall.options`.
    """

    sums: str
    stored: str
    lanes: int
    pieces: int
    rows: int
    options: int

    @classmethod
    def of(cls, stored: str, width: int, R: int, options: int) -> Shape | None:
        """The shape for rows of a dtype and a width, R of them in an entry; None where they are too wide."""
        sums, chunk = "d" if stored == "float64" else "f", 8 if stored in HALF else 4
        lanes = min(32, _power_of_two(-(-width // chunk)))
        pieces = _power_of_two(-(-width // (lanes * chunk)))
        most = WIDEST_SUMS // (2 if sums == "d" else 1) // (pieces * chunk)
        return cls(sums, stored, lanes, pieces, min(8, most, _power_of_two(R)), options) if most else None

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor has registers for."""
        return 2 if self.sums == "d" or self.options & 8 else 4

    @property
    def macros(self) -> str:
        sizes = f"#define LANES {self.lanes}\n#define PIECES {self.pieces}\n#define ROWS {self.rows}\n"
        return f"{stored_as(self.stored)}{sizes}#define OPTIONS {self.options}\n"


class DecodeKernel:
    """Few rows of queries, whose keys are split among blocks."""

    reads_out = False

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def forward(self, call: CudaCall) -> Forward | None:
        """What launches the forward pass of a call; None where the kernel cannot serve it."""
        (B, R, _), (_, T_k, D_v), stored = call.q.shape, call.v.shape, call.q.dtype.name
        known = stored in ("float32", "float64") or (stored in HALF and T_k >= FEWEST_KEYS_IN_HALF)
        served = known and R < FEWEST_ROWS and call.is_near
        shape = Shape.of(stored, max(call.q.shape[2], D_v), R, call.options) if served else None
        if shape is None:
            return None
        kernels, alloc = self._kernels, self._kernels.xp.cuda.alloc
        blocks = B * -(-R // shape.rows)
        at_once = shape.blocks * kernels.multiprocessors()
        shares = max(1, min(MOST_SHARES, -(-T_k // FEWEST_KEYS), at_once // blocks))
        fixed, options = numbers(call), further_numbers(call)
        kinds, macros = f"PPPPPPP{VISIBILITY}{SIZES}{FURTHER if call.options else ''}", shape.macros
        launch = kernels.ready("attention_decode", shape.sums, kinds, ((blocks, shares), THREADS), 0, macros)
        if shares == 1:

            def run_whole(
                operands: Addresses, sight: Addresses, further: Addresses, out: int, kept: int, stats: int
            ) -> None:
                launch(*operands, out, kept, stats, 0, *sight, *fixed, *further, *options)

            return run_whole
        join = kernels.ready("attention_decode_join", shape.sums, "PPPPii", (B * R, THREADS), 0, macros)
        room = B * R * shares * (D_v + 2) * (8 if shape.sums == "d" else 4)

        def run(operands: Addresses, sight: Addresses, further: Addresses, out: int, kept: int, stats: int) -> None:
            parts = alloc(room)
            launch(*operands, out, kept, stats, parts.ptr, *sight, *fixed, *further, *options)
            join(out, kept, stats, parts.ptr, shares, D_v)

        return run

    def backward(self, call: CudaCall) -> None:
        """There is none: what has so few queries is rarely trained, and other ways serve it."""


def stored_as(dtype: str) -> str:
    """The lines that compile a kernel for arrays of a dtype: VALUE, which is REAL itself but in half precision."""
    header, value = HALF.get(dtype, (None, "REAL"))
    include = f"#include <{header}>\n" if header else ""
    return f"{include}#define VALUE {value}\n"


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
