"""Memory for step-by-step decoding."""

from attnbackends import Array, backend_of

from ..functional.checks import check
from ..functional.integers import integer, sizes


class KVCache:
    """Keys and values of the steps so far, in memory that is allocated once.

    Parameters
    ----------
    batch_size, key_heads, capacity, head_size : int
        N, the number of key heads, the largest number of steps, and D.
    value_size : int, optional
        Default: `head_size`.
    like : array
        Library, device and dtype are those of this array.

    Attributes
    ----------
    length : int
        Steps that are held.

    Examples
    --------
    >>> import numpy as np
    >>> two_steps = np.ones((1, 2, 2, 4))
    >>> cache = KVCache(batch_size=1, key_heads=2, capacity=3, head_size=4, like=two_steps)
    >>> keys, values = cache.append(two_steps, two_steps)
    >>> keys.shape, cache
    ((1, 2, 2, 4), KVCache(2 of 3 steps, keys (1, 2, 3, 4), values (1, 2, 3, 4)))
    """

    def __init__(
        self,
        batch_size: int,
        key_heads: int,
        capacity: int,
        head_size: int,
        *,
        like: Array,
        value_size: int | None = None,
    ) -> None:
        value_size = head_size if value_size is None else value_size
        heads, capacity, *widths = sizes(
            key_heads=key_heads, capacity=capacity, head_size=head_size, value_size=value_size
        )
        batch_size = integer("batch_size", batch_size, least=0)
        self._backend = backend_of(like=like)
        self._all = tuple(self._backend.empty((batch_size, heads, capacity, size), like=like) for size in widths)
        self.length = 0

    @property
    def capacity(self) -> int:
        """The largest number of steps."""
        return int(self._all[0].shape[2])

    @property
    def keys(self) -> Array:
        """(N, heads, length, D), a view."""
        return self._all[0][:, :, : self.length, :]

    @property
    def values(self) -> Array:
        """(N, heads, length, D_v), a view."""
        return self._all[1][:, :, : self.length, :]

    def append(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Add steps: keys (N, heads, T, D), values (N, heads, T, D_v) -> all that are held, views.

        Raises
        ------
        ValueError
            For another shape than the cache was made for, or more steps than fit in; it stays as it was.
        TypeError
            For another dtype.
        """
        held = {"the cache of keys": (self._all[0], "N heads capacity D")}
        further = {"the cache of values": (self._all[1], "N heads capacity D_v")}
        check(keys=(keys, "N heads T D"), **held, values=(values, "N heads T D_v"), **further)
        end = self.length + int(keys.shape[2])
        if end > self.capacity:
            raise ValueError(
                f"the cache is full: it holds {self.length} of {self.capacity} steps, got {keys.shape[2]} more: "
                "make it with a larger capacity"
            )
        for new, buffer in zip((keys, values), self._all, strict=True):
            buffer[:, :, self.length : end, :] = new
        self.length = end
        return self.keys, self.values

    def reorder(self, rows: Array) -> None:
        """Go on with these entries of the batch: rows (N,) of integers, some of them twice, as beams do."""
        check(rows=(rows, "N: int"))
        if rows.shape[0] != self._all[0].shape[0]:
            raise ValueError(f"`rows` must have shape (N,) = ({self._all[0].shape[0]},), got {tuple(rows.shape)}")
        xp = self._backend.xp
        rows = xp.astype(rows, xp.int64, copy=False)
        for buffer in self._all:
            held = buffer[:, :, : self.length, :]
            held[...] = self._backend.take_rows(held, rows, "rows", "name an entry of the batch for each")

    def truncate(self, length: int = 0) -> None:
        """Forget all steps after the first `length`."""
        length = integer("length", length)
        if not 0 <= length <= self.length:
            raise ValueError(f"`length` must lie in 0 .. {self.length}, the steps that are held, got {length}")
        self.length = length

    def __repr__(self) -> str:
        shapes = [tuple(buffer.shape) for buffer in self._all]
        return f"KVCache({self.length} of {self.capacity} steps, keys {shapes[0]}, values {shapes[1]})"
