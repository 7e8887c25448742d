"""A memory of bounded size that forgets what was not asked for in a while."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key: all of the last `most` / 2 different keys that were asked for, and at most `most`.

    To find a key takes one look into a `dict`, which is what a call on a device has time for. There are two, of young
    keys and of old ones: a key that is asked for becomes young, and where too many are young, the old ones are dropped
    and the young ones are the old. Threads may share it: at worst a value that another one put there is lost.
    """

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._young: dict[Hashable, V] = {}
        self._old: dict[Hashable, V] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: Hashable) -> V | None:
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: Hashable, value: V) -> V:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value
        return value
