"""The processes that train one model together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from attnbackends import Array, backend_of

from ._channel import Alone, Channel
from ._errors import RanksError, Told
from ._sums import FlatSum

T = TypeVar("T")


class Ranks:
    """Processes that train one model together; `join` makes it.

    Every method but `share` is called by all ranks, in the same order.

    Attributes
    ----------
    rank, size : int
        Which process this is, from 0 on, and how many there are.
    host : str
        The name of its machine; empty where it is alone.
    sums : str
        What adds up gradients, in words.
    """

    def __init__(self, channel: Channel | None = None, end: Callable[[BaseException], object] | None = None) -> None:
        self._channel: Channel = channel or Alone()
        self._end = end or _raise
        self.rank, self.size, self.host = self._channel.rank, self._channel.size, self._channel.host
        self.sums = self._channel.library
        self._device_sums: Any = None
        self._flat: FlatSum | None = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints: rank 0."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of `count` rows that is this rank's: whole rows side by side, as many for each as can be.

        Where there are fewer rows than ranks, some have none: layers and models take a batch of no rows.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def average(self, grads: Sequence[Array], weight: float, *numbers: Array | float) -> tuple[Array, ...]:
        """Mean over all ranks of gradients, in place, and of some numbers, in one reduction over one buffer.

        Parameters
        ----------
        grads : list of array
            Means over what this rank has; changed into means over what all ranks have, the same bits on each.
        weight : float
            What the means are over: rows or tokens of this rank. The sum over all ranks must not be 0.
        *numbers : array () or float
            Means as well, as the loss is.

        Returns
        -------
        numbers : tuple of array ()
            Means over what all ranks have; on the device, nothing is waited for.
        """
        if not grads:
            raise ValueError("`grads` must have at least one gradient, got none")
        if self.size == 1:
            return tuple(_as_array(number, grads[0]) for number in numbers)
        if self._flat is None or not self._flat.fits(grads, len(numbers)):
            self._flat = FlatSum(grads, len(numbers))
        return self._flat.average(grads, weight, numbers, self._add)

    def _add(self, buffer: Array) -> Array:
        """The sum of a buffer over all ranks."""
        backend = backend_of(buffer)
        if self._device_sums is not None:
            self._device_sums.add(buffer)
            return buffer
        on_host = backend.to_numpy(buffer)
        self._channel.add(on_host)
        return backend.asarray(on_host, like=buffer)

    def use_devices(self, backend: Any) -> None:
        """Give each rank a device of its own where the backend has devices, and join those.

        Raises
        ------
        RanksError
            If two ranks have the same device.
        """
        if backend.on_host or self.size == 1:
            return
        hosts = self._channel.gather(self.host)
        own = backend.machine.use_device(hosts[: self.rank].count(self.host))
        seen: dict[tuple[str, str], int] = {}
        for rank, place in enumerate(zip(hosts, self._channel.gather(own), strict=True)):
            if place in seen:
                count = len({device for host, device in seen if host == place[0]})
                raise RanksError(
                    f"ranks {seen[place]} and {rank} on {place[0]} would share a device: start at most {count} there"
                )
            seen[place] = rank
        found = backend.machine.device_sums()
        reasons = self._channel.gather(found if isinstance(found, str) else "")
        missing = [(rank, reason) for rank, reason in enumerate(reasons) if reason]
        if missing:
            rank, reason = missing[0]
            self.sums = f"{self._channel.library} through the host, since on rank {rank} {reason}"
            return
        found.join(self._channel.broadcast(found.new_id() if self.first else None), self.size, self.rank)
        self._device_sums, self.sums = found, found.name

    def check_equal(self, params: Sequence[Array], what: str = "weights") -> None:
        """Refuse to go on where ranks have other parameters than rank 0, by the bit.

        Raises
        ------
        RanksError
        """
        if self.size == 1:
            return
        digest = hashlib.blake2b(digest_size=16)
        for param in params:
            digest.update(backend_of(param).to_numpy(param).tobytes())
        self.agree({what: digest.hexdigest()}, "go on from the last checkpoint, on hosts of one kind")

    # -- what a program needs around its loop

    def any(self, own: bool) -> bool:
        """Whether it is true of any rank; all wait here for each other."""
        return self._channel.any(own)

    def end(self, error: BaseException) -> None:
        """End all ranks, as an error does that leaves the block of `join`; any thread may call it."""
        self._end(error)

    def gather(self, own: T) -> list[T]:
        """One object of each rank, on every rank."""
        return self._channel.gather(own)

    def broadcast(self, own: T) -> T:
        """The object of rank 0."""
        return self._channel.broadcast(own)

    def agree(self, values: Mapping[str, Any], advice: str = "start all ranks alike") -> None:
        """Refuse to go on where ranks differ from rank 0, and name what is different.

        Raises
        ------
        RanksError
            On every rank alike.
        """
        everywhere = self._channel.gather((self.host, dict(values)))
        host, expected = everywhere[0]
        for rank, (other, found) in enumerate(everywhere):
            for name in sorted(expected.keys() | found.keys()):
                own, of_first = (some.get(name, "not given") for some in (found, expected))
                if own != of_first:
                    raise RanksError(
                        f"ranks differ in {name}: {own} on rank {rank} ({other}), {of_first} on rank 0 ({host}): "
                        f"{advice}"
                    )

    def together(self, work: Callable[[], T]) -> T:
        """Do some work that may fail on each rank; where it fails on one, all end, and the first that failed tells."""
        error: Exception | None = None
        result: Any = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        failed = [rank for rank, whether in enumerate(self._channel.gather(error is not None)) if whether]
        if not failed:
            return result
        if error is None or failed[0] != self.rank:
            raise Told(1)
        raise error


def _raise(error: BaseException) -> None:
    raise error


def _as_array(number: Array | float, like: Array) -> Array:
    """A number as an array () on the device of another one; itself where it is one."""
    if isinstance(number, (int, float)):
        return backend_of(like).asarray(number, dtype=like.dtype, like=like)
    return number
