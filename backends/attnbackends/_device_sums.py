"""Sums over the devices of several processes."""

from typing import Any, Protocol

Array = Any


class DeviceSums(Protocol):
    """A library that adds up arrays of several processes, from device to device."""

    name: str

    def new_id(self) -> Any:
        """What names a group that is about to form; one process asks for it and hands it to the others."""

    def join(self, group: Any, size: int, rank: int) -> None:
        """Become rank `rank` of a group of `size` processes; returns when all of them are there."""

    def add(self, array: Array) -> None:
        """Put the sum over all processes into `array` of each, without waiting for the device."""
