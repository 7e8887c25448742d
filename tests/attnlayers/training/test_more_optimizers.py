"""Nesterov and RMSprop, each against its rule written out."""

import subprocess
import sys

import numpy as np
import pytest

from attnlayers.training.optimizers import Nesterov, Optimizer, RMSprop


def nesterov(param: float, gradients: list[float], lr: float, momentum: float) -> float:
    v = 0.0
    for grad in gradients:
        v = momentum * v - lr * grad
        param += momentum * momentum * v - (1 + momentum) * lr * grad
    return param


def rmsprop(param: float, gradients: list[float], lr: float, decay: float) -> float:
    h = 0.0
    for grad in gradients:
        h = decay * h + (1 - decay) * grad**2
        param -= lr * grad / (np.sqrt(h) + 1e-7)
    return param


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Nesterov(0.1, 0.8), nesterov(2.0, [1.0, -3.0, 0.5], 0.1, 0.8)),
        (RMSprop(0.1, 0.7), rmsprop(2.0, [1.0, -3.0, 0.5], 0.1, 0.7)),
    ],
    ids=["Nesterov", "RMSprop"],
)
def test_three_updates(optimizer: Optimizer, expected: float) -> None:
    param = np.array([[2.0]])
    for grad in (1.0, -3.0, 0.5):
        gradient = np.array([[grad]])
        gradient.flags.writeable = False
        optimizer.update([param], [gradient])
    assert param.item() == pytest.approx(expected, rel=1e-12)


def test_optimizers_need_nothing_but_numpy() -> None:
    code = (
        "import sys; import attnlayers.training.optimizers as o; o.Adam(); "
        "from attnlayers.training import RMSprop; print('safetensors' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
