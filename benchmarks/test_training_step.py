"""A training step of the book's chapter 8 model, and PyTorch's, on the chosen array library: pytest benchmarks/"""

from itertools import count
from typing import Any

import pytest

from attnbackends import backend
from attnlayers.bench.contenders import LeftOutError
from attnlayers.bench.training import FIRST_STEPS, TOLERANCE, draw_batches, our_step, torch_step


@pytest.mark.parametrize("library", ["attnlayers", "PyTorch"])
def test_training_step(benchmark: Any, library: str) -> None:
    benchmark.group = f"training step, {backend.name}"
    benchmark.extra_info.update(backend.machine.describe())
    batches = draw_batches()
    step, model = our_step(backend, batches)
    weights = model.state()
    if library == "PyTorch":
        losses = [float(step(i)) for i in range(FIRST_STEPS)]
        try:
            step = torch_step("cpu" if backend.on_host else "cuda", batches, weights)
        except LeftOutError as reason:
            pytest.skip(str(reason))
        assert [float(step(i)) for i in range(FIRST_STEPS)] == pytest.approx(losses, rel=TOLERANCE)
    number = count()
    benchmark.pedantic(lambda: step(next(number)), rounds=20, warmup_rounds=3)
