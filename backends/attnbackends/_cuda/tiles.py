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
    together : int
        Blocks of a multiprocessor that the compiler leaves registers for.
    abreast : int
        Tiles of 8 columns that a warp multiplies at a time: more hide how long a product takes, for more registers.
    matrix : bool
        Whether products are made by matrix units.
    options : int
        `CudaCall.options`.
    """

    width: int
    down: int
    across: int
    teams: int = 1
    together: int = 2
    abreast: int = 4
    matrix: bool = True
    options: int = 0

    @property
    def threads(self) -> int:
        return 2 * self.down * self.teams if self.matrix else 128

    def bytes(self, backward: bool) -> int:
        """Shared memory of a block, as the kernels lay it out: numbers of 4 bytes, and what `Edges` holds."""
        held, met = (rows * (self.width + 4) for rows in (self.down, self.across))
        scratch, most = 0 if self.matrix else self.down * (self.across + 4), max(self.down, self.across)
        values = 2 * (held + met) + 3 * most if backward else held + 2 * met
        draws = self.down * self.across // 8 if self.options & 8 else 0
        return 4 * (values + scratch) + 10 * most + draws

    def blocks(self, rows: int, keys: int = 0, values: bool = False) -> int:
        """Blocks for each entry: forward without `keys`; `values` says that values are not the keys."""
        apart = 2 if values and self.width > 128 else 1
        return -(-rows // self.down) + apart * -(-keys // self.down)

    @property
    def macros(self) -> str:
        names = ("WIDTH", "DOWN", "ACROSS", "TEAMS", "BLOCKS", "ABREAST", "MATRIX_UNITS", "OPTIONS")
        return "".join(f"#define {name} {int(value)}\n" for name, value in zip(names, self, strict=True))


FORWARD = (
    *(Tile(64, 64, 64), Tile(64, 64, 32), Tile(64, 32, 32)),
    Tile(128, 64, 16),
    Tile(256, 32, 16, abreast=2),
)
BACKWARD = (
    *(Tile(64, 64, 32), Tile(64, 32, 32)),
    *(Tile(128, 64, 32, abreast=2), Tile(128, 32, 32, abreast=2)),
    Tile(256, 32, 16, abreast=1),
)
"""Tiles on matrix units for rows up to a width; of one width those first that load least for each product."""

PLAIN = tuple(Tile(128, down, across, matrix=False) for down, across in ((64, 64), (64, 32), (32, 32), (32, 16)))
"""The same without matrix units, for both directions."""


def tiles_for(width: int, backward: bool, matrix: bool, options: int = 0) -> list[Tile]:
    """The tiles for rows of a width, those first that load least for each product; none: too wide."""
    step = 32 if matrix else 64
    padded = -(-width // step) * step
    tiles = (BACKWARD if backward else FORWARD) if matrix else PLAIN
    most = min((tile.width for tile in tiles if padded <= tile.width), default=0)
    return [tile._replace(width=padded, options=options) for tile in tiles if tile.width == most]


@cache
def tile_for(width: int, backward: bool, limit: int, options: int = 0) -> Tile | None:
    """The tile for rows of a width on a device whose blocks may have `limit` bytes of shared memory; None: too large.

    A multiprocessor has room for one block of `limit` bytes and what CUDA keeps of it. It is the first tile of which
    two blocks fit, as one hides the other's waiting, or else the first that fits.
    """
    tiles = tiles_for(width, backward, limit >= MATRIX_LIMIT, options)
    for together in (2, 1):
        for tile in tiles:
            if together * (tile.bytes(backward) + RESERVED) <= limit + RESERVED:
                return tile
    return None
