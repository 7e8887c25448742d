"""Tiles of the attention kernels for long sequences: their sizes, what they take, and which one a device is given."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

RESERVED = 1024
"""Bytes of shared memory that CUDA keeps of each block, from compute capability 8.0 on."""

MATRIX_LIMIT = 99 * 1024
"""Bytes of shared memory that a block may ask for on every device that multiplies TF32 (compute capability 8.0 and
newer), and on no older one."""


class Tile(NamedTuple):
    """What the tiled kernels are compiled for.

    Attributes
    ----------
    width : int
        What rows are padded to: multiples of 32 on matrix units, of 64 without them.
    down : int
        Rows that a block holds.
    across : int
        Rows of the other side that it meets at a time.
    teams : int
        Warps that share the same rows, each with its part of `across`; 1 without matrix units.
    matrix : bool
        Whether products are made by matrix units.
    """

    width: int
    down: int
    across: int
    teams: int = 1
    matrix: bool = True

    @property
    def threads(self) -> int:
        return 2 * self.down * self.teams if self.matrix else 128

    def bytes(self, backward: bool) -> int:
        """Shared memory of a block, as the kernels lay it out: numbers of 4 bytes, and what `Edges` holds."""
        held, met = (rows * (self.width + 4) for rows in (self.down, self.across))
        scratch, most = 0 if self.matrix else self.down * (self.across + 4), max(self.down, self.across)
        values = 2 * (held + met) + 3 * most if backward else held + 2 * met
        return 4 * (values + scratch) + 10 * most

    def blocks(self, rows: int, keys: int = 0, values: bool = False) -> int:
        """Blocks for each entry: forward without `keys`; `values` says that values are not the keys."""
        apart = 2 if values and self.width > 128 else 1
        return -(-rows // self.down) + apart * -(-keys // self.down)

    @property
    def macros(self) -> str:
        names = ("WIDTH", "DOWN", "ACROSS", "TEAMS", "MATRIX_UNITS")
        return "".join(f"#define {name} {int(value)}\n" for name, value in zip(names, self, strict=True))


MATRIX_TILES = (64, 64, 1), (64, 32, 1), (32, 32, 1)
PLAIN_TILES = (64, 64, 1), (64, 32, 1), (32, 32, 1)
"""Rows that a block holds, those that it meets at a time, and teams, largest first: of those for which two blocks fit in a
multiprocessor, as one hides the other's waiting, the largest loads least for each product."""

LAST_TILE = 32, 16, 1
"""The tile where nothing else fits: its products wait for their loads."""

WIDEST = {True: 256, False: 128}
"""Width of rows, with matrix units and without."""


@cache
def tile_for(width: int, backward: bool, limit: int) -> Tile | None:
    """The tile for rows of a width on a device whose blocks may have `limit` bytes of shared memory; None: too large.

    A multiprocessor has room for one block of `limit` bytes and what CUDA keeps of it.
    """
    matrix = limit >= MATRIX_LIMIT
    step = 32 if matrix else 64
    padded = -(-width // step) * step
    if padded > WIDEST[matrix]:
        return None
    tiles = MATRIX_TILES if matrix else PLAIN_TILES
    for together, sizes in ((2, tiles), (1, (*tiles, LAST_TILE))):
        for size in sizes:
            tile = Tile(padded, *size, matrix)
            if together * (tile.bytes(backward) + RESERVED) <= limit + RESERVED:
                return tile
    return None
