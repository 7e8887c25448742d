"""How the LSTM's kernels of all steps are cut into blocks that a device holds at once."""

from typing import NamedTuple

BLOCK_THREADS = 256
"""Threads of a block, in the kernels of all steps and in those that have one for each number of a state."""

UNITS = 8
"""Hidden units of a block of the kernels of all steps: 32 columns of Wh in shared memory."""

ROWS = (32, 24, 16, 8)
"""Entries of the batch that such a block may take at a time."""

SYNC_ROWS = 8
"""What the barriers around a tile of rows take, in rows of a product: counted, not measured (512 cycles at H = 256)."""

MOST_HANDED = 2**25
"""Bytes that blocks hand over to each other in backward, two steps' worth: they should stay in the cache of the device,
which has 50 MB on an H100. Above that a step takes a product."""


class Grid(NamedTuple):
    """How the kernels of all steps are launched."""

    slices: int  # blocks along the hidden units
    groups: int  # of entries
    entries: int  # of a group
    rows: int  # entries at a time
    shared: int  # bytes for a block

    @property
    def blocks(self) -> int:
        return self.slices * self.groups

    @property
    def tiles(self) -> int:
        """Tiles of `rows` entries that a group has."""
        return -(-self.entries // self.rows)

    @property
    def handed(self) -> int:
        """Numbers that backward's blocks hand over to each other, two steps' worth."""
        return 2 * self.groups * self.tiles * self.slices**2 * self.rows * UNITS

    @property
    def macros(self) -> str:
        return f"#define ROWS {self.rows}\n"


def grid_for(
    N: int, H: int, itemsize: int, backward: bool, multiprocessors: int, shared_limit: int, waits: bool
) -> Grid | None:
    """The grid of a kernel of all steps in which a step takes least: at most one block on each multiprocessor.

    Parameters
    ----------
    N, H : int
        Entries and hidden units.
    itemsize : int
        Bytes of a number.
    backward : bool
    multiprocessors, shared_limit : int
        Of the device; bytes for a block.
    waits : bool
        Whether blocks wait for each other, and must all be on the device at once.
    """
    slices = -(-H // UNITS)
    most = multiprocessors // slices if waits else max(1, multiprocessors // slices)
    found = []
    for rows in ROWS:
        shared = itemsize * (_backward_numbers(H, rows) if backward else _forward_numbers(H, rows))
        if most == 0 or shared > shared_limit:
            continue
        entries = -(-N // min(most, -(-N // rows)))
        grid = Grid(slices, -(-N // entries), entries, rows, shared)
        if not backward or grid.handed * itemsize <= MOST_HANDED:
            found.append(grid)
    return min(found, key=lambda grid: grid.tiles * (grid.rows + SYNC_ROWS), default=None)


def _forward_numbers(H: int, rows: int) -> int:
    """Numbers in shared memory: weights, states, and sums in parts."""
    depth = -(-H // 16) * 16
    return depth * 4 * UNITS + rows * (depth + 4) + BLOCK_THREADS // (8 * UNITS) * rows * UNITS * 4


def _backward_numbers(H: int, rows: int) -> int:
    """Numbers in shared memory: weights and gradients of the gates."""
    return -(-H // UNITS) * UNITS * 4 * UNITS + rows * (4 * UNITS + 4)
