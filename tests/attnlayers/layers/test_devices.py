"""What computes follows the data: on a device that is not the default one, everything stays there.

array-api-strict has devices that differ in nothing but their names, and refuses to mix them.
"""

from typing import Any

import numpy as np
import pytest
from cases import CASES
from conftest import library_of
from support import Draw

from attnbackends import BackendError
from attnlayers import TimeAttention


class Elsewhere(Draw):
    """Random arrays on the device that is not the default one."""

    def __init__(self) -> None:
        super().__init__(library_of("array_api_strict"))
        self.there = self.library.xp.Device("device1")

    def __call__(self, *shape: int) -> Any:
        return super().__call__(*shape).to_device(self.there)

    def ids(self, size: int, *shape: int) -> Any:
        return super().ids(size, *shape).to_device(self.there)

    def mask(self, *shape: int) -> Any:
        return super().mask(*shape).to_device(self.there)


def run(draw: Draw, case: str) -> tuple[list[Any], list[np.ndarray]]:
    """Outputs and gradients, as they are and moved to the host."""
    layer, inputs = CASES[case](draw)
    outs = layer.forward(*inputs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    gradients = layer.backward(*(draw(*out.shape) for out in outs))
    gradients = () if gradients is None else gradients if isinstance(gradients, tuple) else (gradients,)
    arrays = [*outs, *gradients, *layer.grads]
    default = draw.library.xp.zeros(1).device
    return arrays, [np.from_dlpack(array.to_device(default)) for array in arrays]


@pytest.mark.parametrize("case", CASES)
def test_everything_stays_on_the_device_of_the_data(case: str) -> None:
    elsewhere = Elsewhere()
    arrays, numbers = run(elsewhere, case)
    assert {array.device for array in arrays} == {elsewhere.there}
    _, expected = run(Draw(elsewhere.library), case)
    for one, other in zip(numbers, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_devices_do_not_mix() -> None:
    elsewhere = Elsewhere()
    here = Draw(elsewhere.library)
    with pytest.raises(BackendError, match=r"`hs_enc` is a .* array on .*device1.*, `hs_dec` is a .* array on .*CPU"):
        TimeAttention().forward(elsewhere(2, 5, 7), here(2, 3, 7))
    layer = TimeAttention()
    layer.forward(elsewhere(2, 5, 7), elsewhere(2, 3, 7))
    with pytest.raises(BackendError, match=r"`dout` is a .* array on .*CPU"):
        layer.backward(here(2, 3, 7))
