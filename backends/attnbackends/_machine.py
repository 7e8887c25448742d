"""What a library computes on, for people who ask and for processes that train one model together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._device_sums import DeviceSums

if TYPE_CHECKING:
    from ._base import Backend


class Machine:
    """The devices and versions behind a backend.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    # -- for `attnlayers info` and the benchmarks

    def describe(self) -> dict[str, str]:
        """What is in use, one short text for each heading; `library` and `device` are always there."""
        from importlib.metadata import version  # takes a third of the time of `import numpy`

        name = self.backend.name
        return {"library": f"{name} {version(name)}", "device": "CPU"}

    def trial(self) -> dict[str, str]:
        """What only a call tells, under headings as in `describe`: whether an optional way works here."""
        return {}

    def refusals(self) -> dict[str, str]:
        """What ways of the library's own have refused in this process so that another one took it, and why, by way."""
        return {}

    # -- several processes that train one model

    def use_device(self, place: int) -> str:
        """Compute on the device of that place on this host from now on, counted anew after the last one.

        CUDA has a current device. Returns what tells the device from every other one, or "" on a CPU.
        """
        return ""

    def device_sums(self) -> DeviceSums | str:
        """What adds up arrays of several processes from device to device, or why nothing does."""
        return f"{self.backend.name} has none"

    def rounding(self) -> dict[str, str]:
        """What the last bit of a result depends on, under headings as in `describe`."""
        return {"library": self.describe()["library"]}
