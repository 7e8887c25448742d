"""The blocks in which the scores of a call are worked through, and the chains of blocks that threads share."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from attnbackends import Backend

from .visibility import Block, Visibility

FEWEST_CHAINS = 4
"""Chains of blocks to make where there are fewer entries: what a small machine can run side by side."""

CHAIN_WORK = 24_000_000
"""Operations of its products, plus bytes that it reads, that make a chain worth a thread: 0.2 ms of one core, which is
what the calls around them take (benchmarks/NOTES.md)."""

NARROWED_ROWS = 128
"""Rows of a block at least that is cut because earlier rows see fewer keys: causal attention over 512 steps, both ways,
takes 0.6 to 0.8 of the time in four blocks instead of one (benchmarks/NOTES.md, "One attention in Python")."""

CUTS = 32
"""Cuts of calls that are remembered: each holds first and last key of every row that it cuts, 16 bytes a row."""


class Chain(NamedTuple):
    """Blocks that go one after the other, because they add to the gradients of the same keys.

    Attributes
    ----------
    number : int
        Of all chains of a call.
    entries : slice
    share : int
        Chains of one number touch different entries; those of one entry have different numbers.
    blocks : tuple of Block
    """

    number: int
    entries: slice
    share: int
    blocks: tuple[Block, ...]


class Cut:
    """The scores of some flat entries cut into chains of blocks, which together cover every row once.

    Parameters
    ----------
    backend : Backend
        Says how much to work on at a time.
    visibility : Visibility
    count : int
        Flat entries.
    itemsize : int
        Bytes of a number in the dtype to compute in.
    width : int
        D + D_v.
    """

    def __init__(self, backend: Backend, visibility: Visibility, count: int, itemsize: int, width: int) -> None:
        self._known = backend, visibility, count, itemsize, width

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """Made when they are first asked for."""
        backend, visibility, count, itemsize, width = self._known
        R, T_k = visibility.groups * visibility.T_q, visibility.T_k
        rows_at_once, _ = backend.block_of_scores(R, T_k, itemsize)
        rows = rows_at_once
        if visibility.right is not None:
            narrowed = backend.chunks(visibility.T_q, T_k * itemsize, at_least=NARROWED_ROWS)
            rows = max(1, min(rows, -(-visibility.T_q // len(narrowed))))
        if visibility.offsets is None and visibility.T_q <= rows_at_once:
            entry_bytes, entry_flops = itemsize * (R * T_k + (R + T_k) * width), 2 * R * T_k * width
            entries = backend.chunks(count, entry_bytes, at_least=-(-CHAIN_WORK // max(1, entry_flops + entry_bytes)))
            return _chains(visibility, tuple([some.stop for some in entries]), rows)
        return _chains(visibility, tuple(range(1, count + 1)), rows)


@lru_cache(maxsize=CUTS)
def _chains(visibility: Visibility, ends: tuple[int, ...], rows_at_once: int) -> tuple[Chain, ...]:
    """Chains of entries that end at `ends`; calls of one form get the same ones."""
    pieces = [(part, rows) for part in visibility.parts() for rows in _cut(part[0], rows_at_once)]
    chains: list[Chain] = []
    blocks: list[Block] = []
    for some in map(slice, (0, *ends), ends):
        if blocks and not visibility.by_entry:  # the same keys as those of the entries before
            blocks = [block._replace(entries=some) for block in blocks]
        else:
            blocks = [visibility.block(some, part, rows) for part, rows in pieces if rows.start < rows.stop]
            # Without a query, the gradient of the keys is still 0.
            blocks = blocks or [Block(some, slice(0, 0), slice(0, 0), None, None)]
        shares = max(1, min(len(blocks), -(-FEWEST_CHAINS // len(ends))))
        edges = [len(blocks) * i // shares for i in range(shares + 1)]
        for share, (a, b) in enumerate(pairwise(edges)):
            chains.append(Chain(len(chains), some, share, tuple(blocks[a:b])))
    return tuple(chains)


def tiles(backend: Backend, block: Block, itemsize: int) -> list[Block]:
    """A block cut along its keys; at least one."""
    begin, end = block.keys.start, block.keys.stop
    rows = (block.entries.stop - block.entries.start) * (block.rows.stop - block.rows.start)
    _, keys_at_once = backend.block_of_scores(rows, end - begin, itemsize)
    # Where keys are packed in blocks, `keys_at_once` is a multiple of one: tiles end where they do.
    edges = [begin, *range((begin // keys_at_once + 1) * keys_at_once, end, keys_at_once), end]
    return [block._replace(keys=slice(a, b)) for a, b in pairwise(edges)]


def _cut(rows: slice, size: int) -> list[slice]:
    """`rows` in slices of about equal length, `size` at most."""
    length = rows.stop - rows.start
    pieces = max(1, -(-length // size))
    edges = [rows.start + length * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
